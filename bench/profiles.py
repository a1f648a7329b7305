"""Flame graphs of the server on its two hottest paths, as pictures under docs/profiles.

    python -m bench.profiles [--py-spy PROGRAM] [--seconds 15]

    long    a stream of one run with 10 series, 100 points of each a batch
    many    500 runs of 20 series over 50 streams (many.py)

py-spy is no dependency: `pip install py-spy` into an environment of its own and name its program. Samples are
of the thread that holds the interpreter's lock: waiting for PostgreSQL is not in the pictures.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np

from bench import many
from bench._stack import ROOT, STREAM, Sender, Stack, stack
from runstream.v1 import metrics_pb2

FOLDER = ROOT / "docs" / "profiles"
RATE = 100
"""Samples a second."""


def main() -> int:
    """Write both pictures."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.profiles", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--py-spy", default=shutil.which("py-spy"), help="py-spy's program")
    parser.add_argument("--seconds", type=int, default=15, help="length of each profile")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the pictures go")
    args = parser.parse_args()
    if not args.py_spy:
        parser.error("py-spy is not installed: pip install py-spy, or name it with --py-spy")
    args.folder.mkdir(parents=True, exist_ok=True)
    for name, load in (("long", _long), ("many", _many)):
        path = args.folder / f"{name}.svg"
        with stack() as running:
            load(running, 1)  # what happens once is no part of the path
            _record(args.py_spy, running, path, args.seconds, load)
        print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB")
    return 0


def _record(
    program: str, running: Stack, path: Path, seconds: int, load: Callable[[Stack, float], None]
) -> None:
    """Profile the server under a load. Raises: CalledProcessError when py-spy may not or cannot."""
    # By name and in its folder: the command is the picture's title, which has no business with this machine.
    command = ["py-spy", "record", f"--pid={running.server.process.pid}", f"--output={path.name}"]
    command += [f"--duration={seconds}", f"--rate={RATE}", "--format=flamegraph", "--threads", "--gil"]
    with subprocess.Popen(
        command,
        executable=shutil.which(program),
        cwd=path.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as recording:
        load(running, seconds + 1)
        said, _ = recording.communicate()
    if recording.returncode:
        raise subprocess.CalledProcessError(recording.returncode, command, said)


def _long(running: Stack, seconds: float) -> None:
    """Stream batches of 1,000 points, many under way, for so long."""
    sender, values = Sender(1, 10), np.random.default_rng(0)
    end = time.monotonic() + seconds
    last = 0

    def frames() -> Iterator[bytes]:
        yield sender.open()
        while time.monotonic() < end:
            yield sender.batch(100, values)

    with grpc.insecure_channel(running.server.grpc) as channel:
        for data in channel.stream_stream(STREAM)(frames()):
            last = max(last, metrics_pb2.StreamMetricsResponse.FromString(data).ack.next_sequence)
    assert last == sender.sequence


def _many(running: Stack, seconds: float) -> None:
    """Run the shape of many.py, 8 batches under way, for about so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        # Long ones: opening 500 runs is not what is looked at.
        many.shape(running, "profile", 1, 8, 300)


if __name__ == "__main__":
    sys.exit(main())
