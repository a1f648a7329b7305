"""Record what the Java and R programs send and what they are answered, for tests that need neither.

    python -m tests.compat.record

Writes tests/compat/transcripts/{java,r}.json through a proxy before our own server.
"""

import http.client
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from tests.compat import foreign
from tests.in_process import running_server

TRANSCRIPTS = Path(__file__).with_name("transcripts")
POINTS = 150
"""Length of the history in the transcript; pages of history are for the slow test."""


@contextmanager
def recorder(url: str, exchanges: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the URL of a proxy before `url` that appends each exchange, one at a time."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            content_type = self.headers.get("Content-Type")
            status, answer, type_of_answer = send(
                urlsplit(url).netloc, self.command, self.path, body, content_type
            )
            exchange: dict[str, Any] = {"verb": self.command, "path": self.path}
            if content_type is not None:
                exchange["content_type"] = content_type
            if body:
                exchange["body"] = body.decode()
            exchanges.append(exchange | {"status": status, "answer": json.loads(answer)})
            self.send_response(status)
            self.send_header("Content-Type", type_of_answer)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = _pass

        def log_message(self, format: str, *args: object) -> None:
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{proxy.server_port}"
    finally:
        proxy.shutdown()
        thread.join()
        proxy.server_close()


def send(address: str, verb: str, path: str, body: bytes, content_type: str | None) -> tuple[int, bytes, str]:
    """Send one request to HOST:PORT; return status, body and Content-Type of the answer."""
    connection = http.client.HTTPConnection(address, timeout=60)
    try:
        headers = {} if content_type is None else {"Content-Type": content_type}
        connection.request(verb, path, body or None, headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers.get("Content-Type", "")
    finally:
        connection.close()


def main() -> None:
    """Record both."""
    for language in ("java", "r"):
        if hint := foreign.missing(language):
            raise SystemExit(hint)
        exchanges: list[dict[str, Any]] = []
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            path = foreign.build_java(folder) if language == "java" else ""
            with (
                running_server(f"sqlite:///{name}/s.db", artifacts_destination=f"{name}/a") as server,
                recorder(server.http, exchanges) as url,
            ):
                print(foreign.run_java(path, url, POINTS) if language == "java" else foreign.run_r(url))
        lines = [json.dumps(each) for each in exchanges]
        (TRANSCRIPTS / f"{language}.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")
        print(f"{language}: {len(lines)} requests")


if __name__ == "__main__":
    main()
