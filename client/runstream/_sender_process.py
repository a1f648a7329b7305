"""The sender as a process of its own: a socket, settings from the first HELLO, and an end when idle."""

from __future__ import annotations

import logging
import queue
import threading
from typing import TYPE_CHECKING

from runstream import _errors
from runstream._errors import Unavailable
from runstream._sender_control import ControlServer
from runstream._sender_core import SenderCore
from runstream._start import version
from runstream._state import StateFolder
from runstream.v1.control_pb2 import ControlRequest, ControlResponse, SenderCall

if TYPE_CHECKING:
    from runstream._config import Config

logger = logging.getLogger("runstream.sender")
HELLO_SECONDS = 30.0


class SenderProcess:
    """The sender as a process: its socket is there first, its settings come with the first HELLO."""

    def __init__(self, folder: StateFolder) -> None:
        self._folder = folder
        self._hello: queue.SimpleQueue[Config] = queue.SimpleQueue()
        self._core: SenderCore | None = None
        self._ready = threading.Event()

    def run(self) -> None:
        """Serve until idle for the linger time, or asked to drain."""
        control = ControlServer(self._folder.socket(), self._handle)
        try:
            config = self._hello.get(timeout=HELLO_SECONDS)
            core = self._core = SenderCore(config, self._folder, monitors=True)
            self._ready.set()
            logger.info("sender %s for %s", version(), config.shown_uri)
            core.run(config.sender_linger)
        except queue.Empty:
            return
        finally:
            # First out of reach, then done: who comes now starts another sender, which needs our lock.
            control.close()
        core.close()

    def _handle(self, request: ControlRequest) -> ControlResponse:
        if self._core is None:
            from runstream._sender import config_of

            if request.sender.action != SenderCall.ACTION_HELLO:
                return ControlResponse(id=request.id, code=_errors.UNAVAILABLE, message="say HELLO first")
            self._hello.put(config_of(request.sender.credentials["config"]))
            self._ready.wait(HELLO_SECONDS)
        if self._core is None:
            raise Unavailable("the sender did not come up")
        return self._core.handle(request)
