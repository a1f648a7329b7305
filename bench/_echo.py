"""Servers that do nothing but answer: the floors of both doors.

    python -m bench._echo grpc|http      prints its port

gRPC answers the first bytes of each message, to a stream (/Echo/Stream) or a unary call (/Echo/Call); HTTP
reads the body and answers `{}`.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import uvicorn
import uvloop

ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def echo(door: str) -> Iterator[int]:
    """Run one as a process of its own and yield its port."""
    command = [sys.executable, "-m", "bench._echo", door]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


async def _stream(requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request[:8]


async def _call(request: bytes, _context: Any) -> bytes:
    return request[:8]


async def _serve_grpc() -> None:
    server = grpc.aio.server()
    handlers = {
        "Stream": grpc.stream_stream_rpc_method_handler(_stream),  # type: ignore[arg-type]
        "Call": grpc.unary_unary_rpc_method_handler(_call),  # type: ignore[arg-type]
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Echo", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


async def _application(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


async def _serve_http() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        config = uvicorn.Config(_application, lifespan="off", log_level="warning", access_log=False)
        await uvicorn.Server(config).serve([listener])


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve_grpc() if sys.argv[1] == "grpc" else _serve_http())
