"""Run every benchmark, print the figures, save them with machine and commit.

    python -m bench [--smoke] [--only ingest] [--out bench-results.json]

A benchmark is a module of this package with `measure(smoke: bool) -> dict[str, Figure]`.
"""

import argparse
import importlib
import json
import os
import pkgutil
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import bench
from bench.figures import Figure, table

ROOT = Path(__file__).resolve().parent.parent


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "commit": commit,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpus": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def modules() -> list[str]:
    """Return the names of the benchmarks."""
    names = [item.name for item in pkgutil.iter_modules(bench.__path__) if not item.name.startswith("_")]
    return [name for name in names if hasattr(importlib.import_module(f"bench.{name}"), "measure")]


def main() -> int:
    """Run the benchmarks that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="run briefly; the figures mean nothing")
    parser.add_argument("--only", choices=modules(), action="append", help="benchmarks to run (default all)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    results: dict[str, dict[str, Figure]] = {}
    for name in args.only or modules():
        results[name] = importlib.import_module(f"bench.{name}").measure(args.smoke)
        print(table(name, results[name]), flush=True)
    if args.out:
        plain = {
            name: {key: vars(figure) for key, figure in found.items()} for name, found in results.items()
        }
        args.out.write_text(json.dumps({"machine": machine(), "results": plain}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
