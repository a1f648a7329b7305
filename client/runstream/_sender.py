"""The sender: one process per user, host, server and credentials that delivers journals and relays calls.

    journals ──> Delivery ──> Carrier ──> server          main thread, driven by events
                    └──────> Uploader ──> server          a few threads
    control socket ──> relay, flush, status               a thread a connection

`python -m runstream._sender FOLDER FINGERPRINT` forks it off and ends at once.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from runstream._state import StateFolder, try_lock

if TYPE_CHECKING:
    from runstream._config import Config
    from runstream._control import Link
    from runstream._sender_core import SenderCore
    from runstream.v1.control_pb2 import ControlRequest, ControlResponse

LOG_BYTES = 1 << 20


def main() -> None:
    """Fork the sender off the process that asked for it, before anything with threads is imported."""
    folder = StateFolder(Path(sys.argv[1]), sys.argv[2])
    told, tells = os.pipe()
    if os.fork():
        os.close(tells)
        os.read(told, 1)  # until the child has its lock: from then on a free lock says that it died
        os._exit(0)
    os.close(told)
    lock = try_lock(folder.path / f"{folder.sender_name}.lock")
    os.close(tells)
    if lock is None:
        os._exit(0)  # another one was quicker
    logging.basicConfig(
        level=os.environ.get("RUNSTREAM_SENDER_LOG", "INFO").upper(),
        format="%(asctime)s %(process)d %(levelname)s %(message)s",
    )
    log = folder.path / f"{folder.sender_name}.log"
    if log.stat().st_size > LOG_BYTES:
        os.truncate(log, 0)
    try:
        from runstream._sender_process import SenderProcess

        SenderProcess(folder).run()
    except BaseException:
        logging.getLogger("runstream.sender").exception("the sender ends")
    finally:
        logging.shutdown()
        os._exit(0)  # no thread of gRPC may hold the process back


class ThreadSender:
    """A sender in a thread of the process that logs, for places that forbid other processes.

    It loads grpc here, so that a forked child can have none; this one delivers the child's journal, too.
    """

    _running: ClassVar[dict[tuple[int, str], ThreadSender]] = {}

    def __init__(self, config: Config, folder: StateFolder) -> None:
        from runstream._sender_core import SenderCore

        self._core: SenderCore = SenderCore(config, folder)
        self._core.start()

    @classmethod
    def of(cls, config: Config, folder: StateFolder) -> Link:
        """Return this process's sender for a folder and set of credentials."""
        key = (os.getpid(), f"{folder.path}/{folder.sender_name}")
        if key not in cls._running:
            cls._running[key] = cls(config, folder)
        return cls._running[key]

    def call(self, request: ControlRequest, timeout: float) -> ControlResponse:
        """Return the sender's answer."""
        return self._core.handle(request)

    def close(self) -> None:
        """Do nothing: the sender serves the whole process."""


def config_of(hello: str) -> Config:
    """Return the settings a HELLO carries."""
    from runstream._config import Config

    known = Config.__dataclass_fields__
    return Config(**{name: value for name, value in json.loads(hello).items() if name in known})


if __name__ == "__main__":
    main()
