"""A TCP proxy that mistreats what passes: drops, delays, cuts in mid-message, duplicates connections.

    with Proxy("127.0.0.1:5001", "cut", random.Random(1)) as proxy:
        ... a client of proxy.address ...
        proxy.peace()

drop       after some bytes nothing arrives any more, for a while; then the connection is reset
delay      every piece waits up to 50 ms
cut        in the middle of a piece, whichever direction, both ends see a reset
duplicate  what the client sends goes to the server over two connections, one of which answers; after some
           bytes they are reset
"""

import random
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

Kind = Literal["drop", "delay", "cut", "duplicate"]
_RESET = struct.pack("ii", 1, 0)
_PIECE = 1 << 16


class Proxy:
    """Listens on a free port of 127.0.0.1 until the block ends."""

    def __init__(self, target: str, kind: Kind, chance: random.Random) -> None:
        self.faults = 0
        """How often something was mistreated so far: a connection, of `delay` a piece."""
        self._target, self._kind, self._chance = target, kind, chance
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._over = threading.Event()
        self._peace = threading.Event()
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    @property
    def address(self) -> str:
        """`127.0.0.1:PORT`."""
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def peace(self) -> None:
        """Mistreat nothing from now on."""
        self._peace.set()

    def __enter__(self) -> "Proxy":
        """Begin to listen."""
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        """End all connections and threads."""
        self._over.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            left = list(self._open)
        for end in left:
            self._reset(end)
        for thread in self._threads:
            thread.join(30)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        with self._lock:
            self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                client, _ = self._listener.accept()
                self._connect(client)
            except OSError:
                continue  # the server is away, or the listener is closed

    def _connect(self, client: socket.socket) -> None:
        host, port = self._target.rsplit(":", 1)
        ends = [client]
        try:
            for _ in range(2 if self._kind == "duplicate" and not self._peace.is_set() else 1):
                ends.append(socket.create_connection((host, int(port)), timeout=10))
        except OSError:
            for end in ends:
                end.close()
            raise
        for end in ends:
            end.settimeout(None)
        with self._lock:
            self._open.update(ends)
            if len(ends) > 2:
                self.faults += 1
        group = tuple(ends)
        budget = self._chance.randint(2_000, 200_000)
        self._start(self._pump, client, ends[1:], group, budget)
        self._start(self._pump, ends[1], [client], group, budget)
        for twin in ends[2:]:
            self._start(self._pump, twin, [], group, budget)

    def _pump(
        self, source: socket.socket, sinks: list[socket.socket], group: tuple[socket.socket, ...], budget: int
    ) -> None:
        """Pass on until an end is reached, or until `budget` bytes passed and the fault is due."""
        with suppress(OSError):
            while piece := source.recv(_PIECE):
                budget -= len(piece)
                if self._peace.is_set():
                    pass
                elif self._kind == "delay":
                    self._count()
                    self._over.wait(self._chance.uniform(0, 0.05))
                elif budget < 0:
                    self._end_badly(source, sinks, piece)
                    break
                for sink in sinks:
                    sink.sendall(piece)
        if sinks:
            for end in group:
                self._reset(end)

    def _end_badly(self, source: socket.socket, sinks: list[socket.socket], piece: bytes) -> None:
        """Pass half a piece on, or swallow for a while what comes."""
        if self._kind == "duplicate":
            return  # counted when it began; it ends, so that there are more of them
        self._count()
        if self._kind == "cut":
            for sink in sinks:
                sink.sendall(piece[: len(piece) // 2])
            return
        source.settimeout(1.0)
        with suppress(TimeoutError):  # silence
            for _ in range(100):
                if not source.recv(_PIECE):
                    return

    def _count(self) -> None:
        with self._lock:
            self.faults += 1

    def _reset(self, end: socket.socket) -> None:
        with self._lock:
            self._open.discard(end)
        with suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads it
        end.close()
