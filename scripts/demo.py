"""`make demo`: start a server, train a real model, read everything back and compare it point by point."""

from __future__ import annotations

import argparse
import json
import pickle
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import runstream as rs

ROOT = Path(__file__).resolve().parent.parent
TRAINING = ROOT / "examples" / "train_digits.py"


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Run `runstream server` on a free port over `folder`; yield its HTTP URL."""
    command = [sys.executable, "-m", "runstream._cli", "server", "--port", "0", "--grpc-port", "0"]
    process = subprocess.Popen(
        [*command, "--backend-store-uri", str(folder)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if match := re.match(r"runstream ready http=(\S+) grpc=(\S+)", line):
                print(line, end="")
                yield match[1]
                break
        else:
            raise SystemExit(f"the server ended with exit code {process.wait()} before it was ready")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def train(url: str, steps: int, expect: Path) -> str:
    """Run the training script against `url`; return its run id."""
    command = [sys.executable, str(TRAINING), "--tracking-uri", url, "--steps", str(steps)]
    done = subprocess.run([*command, "--expect", str(expect)], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.split()[-1]


def compare(client: rs.Client, run_id: str, expect: dict[str, list[tuple[int, float]]]) -> int:
    """Compare every point that was logged with what the server has; return how many there are.

    Raises: SystemExit naming the first series that differs.
    """
    total = 0
    for key, wanted in sorted(expect.items()):
        history = client.get_metric_history(run_id, key)
        found = sorted((point.step, point.value) for point in history)
        if found != sorted((step, value) for step, value in wanted):  # JSON keeps doubles exactly
            raise SystemExit(
                f"{key}: {len(wanted)} points were logged, {len(found)} came back, or they differ"
            )
        total += len(found)
    return total


def check_model(client: rs.Client, run_id: str) -> str:
    """Download the model file, load it and return what kind of model it is."""
    with tempfile.TemporaryDirectory() as folder:
        path = client.download_artifacts(run_id, "model/model.pkl", folder)
        return type(pickle.loads(Path(path).read_bytes())).__name__  # our own file, made a minute ago


def show(client: rs.Client, run_id: str) -> None:
    """Print the run as a table."""
    run = client.get_run(run_id)
    print(f"\nrun {run.info.run_name} ({run.info.run_id}) {run.info.status}")
    for title, items in (("params", run.data.params), ("metrics (latest)", run.data.metrics)):
        print(f"  {title}")
        for key, value in sorted(items.items()):
            print(f"    {key:<22} {value}")
    print("  artifacts")
    for folder in client.list_artifacts(run_id):
        for file in client.list_artifacts(run_id, folder.path):
            print(f"    {file.path:<32} {file.file_size:>9,} bytes")


def main() -> None:
    """Run the demonstration; exit 1 when anything that came back differs from what was logged."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=5000, help="training steps, 22 points each")
    parser.add_argument("--folder", type=Path, default=Path("runstream-data"), help="where the store is kept")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, server(options.folder) as url:
        expect = Path(scratch) / "expect.json"
        start = time.perf_counter()
        run_id = train(url, options.steps, expect)
        print(f"trained in {time.perf_counter() - start:.1f} s")
        client = rs.Client(url)
        total = compare(client, run_id, json.loads(expect.read_text()))
        print(f"{total:,} metric points were logged, read back and are equal, point by point")
        print(f"the model came back as a {check_model(client, run_id)}")
        show(client, run_id)
    print(f"\nLook at it again with:\n  runstream server --backend-store-uri {options.folder}")
    print(f"  runstream runs describe --run-id {run_id}   (RUNSTREAM_TRACKING_URI={options.folder})")


if __name__ == "__main__":
    main()
