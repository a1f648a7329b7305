"""Run a command on a terminal of its own and return what appears there."""

import os
import pty
import subprocess
from collections.abc import Mapping, Sequence


def on_terminal(command: Sequence[str], *, env: Mapping[str, str], typed: str = "") -> tuple[int, str]:
    """Return exit code and screen text of a command whose three streams are a terminal 200 columns wide.

    `typed` is in the terminal's input from the beginning.
    """
    ours, theirs = pty.openpty()
    size = {"COLUMNS": "200", "LINES": "50", "TERM": "xterm", "NO_COLOR": "1"}
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env={**env, **size}, start_new_session=True
    )
    os.close(theirs)
    os.write(ours, typed.encode())
    shown = b""
    while part := _read(ours):
        shown += part
    os.close(ours)
    return process.wait(timeout=60), shown.decode().replace("\r\n", "\n")


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux says EIO when the last process has let go of the terminal
        return b""
