"""A TCP proxy that breaks every connection off after so many bytes from the client."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def cutter(address: str, after: int) -> Iterator[str]:
    """Yield the HOST:PORT of a proxy before `address`. after: bytes from a client until the cut."""
    host, _, port = address.rpartition(":")
    listener = socket.create_server(("127.0.0.1", 0))
    connections: list[socket.socket] = []

    def accept() -> None:
        with suppress(OSError):
            while True:
                client = listener.accept()[0]
                server = socket.create_connection((host, int(port)))
                connections.extend((client, server))
                threading.Thread(target=_pass, args=(client, server, after), daemon=True).start()
                threading.Thread(target=_pass, args=(server, client, None), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        for each in (listener, *connections):
            each.close()


def _pass(source: socket.socket, target: socket.socket, most: int | None) -> None:
    """Copy until an end or `most` bytes, then cut both sides off."""
    passed = 0
    with suppress(OSError):
        while (data := source.recv(65536)) and (most is None or passed < most):
            target.sendall(data)
            passed += len(data)
    for each in (source, target):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
