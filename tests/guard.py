"""Run a server for as long as its starter lives: `guard.py OPTIONS -- COMMAND`, with standard input a pipe.

The starter keeps the other end of the pipe. It writes `stop` to end the server. If the pipe closes without
that word the starter is gone, killed perhaps, and the guard ends the server and removes its folder too. So
neither processes nor data stay behind, whatever happens to a test run.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

GRACE = 15.0  # seconds between the polite signal and SIGKILL


def main() -> int:
    """Start the command, end it when told to or when the starter dies; return its exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--signal", default="SIGTERM", help="what asks the server to end")
    parser.add_argument("--user", help="run the server as this user; needs root")
    parser.add_argument("--remove", type=Path, help="folder to remove if the starter dies")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    # PostgreSQL refuses to run as root; the guard keeps the rights to clean up.
    child = subprocess.Popen(
        args.command,
        stdin=subprocess.DEVNULL,
        user=args.user,
        group=args.user,
        extra_groups=[] if args.user else None,
    )
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    told: list[bytes] = []
    threading.Thread(target=_end, args=(child, signal.Signals[args.signal], told), daemon=True).start()
    code = child.wait()
    if args.remove and told == [b""]:
        shutil.rmtree(args.remove, ignore_errors=True)
    # Not sys.exit: the thread may hold standard input's lock, on which interpreter shutdown would wait.
    os._exit(code if code >= 0 else 128 - code)


def _end(child: subprocess.Popen[bytes], number: signal.Signals, told: list[bytes]) -> None:
    told.append(sys.stdin.buffer.read())
    child.send_signal(number)
    try:
        child.wait(GRACE)
    except subprocess.TimeoutExpired:
        child.kill()


if __name__ == "__main__":
    main()
