"""Run benchmarks, print each figure beside its floors and peers, keep the results.

    python -m bench [--smoke] [--only ingest] [--out results.json] [--save]
    python -m bench --tables

A benchmark is a module of this package with `measure(smoke: bool) -> dict[str, Figure]`. `--save` adds the
run to those kept under bench/results/runs, `--tables` writes their medians into docs/benchmarks.md and
measures nothing.
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
from importlib.metadata import version
from pathlib import Path
from typing import Any

import bench
from bench import _results
from bench.figures import Figure, table
from scripts import tools

NOT_SMOKED = ("search", "memory")
"""Benchmarks that have nothing as short as a smoke test; `--only` runs them all the same."""


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    return {
        "commit": _says("git", "rev-parse", "--short", "HEAD"),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpus": os.cpu_count(),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "postgresql": _postgresql(),
        "versions": {name: version(name) for name in ("grpcio", "protobuf", "numpy", "psycopg", "uvloop")},
        "load": round(os.getloadavg()[0], 2),
    }


def _says(*command: str) -> str:
    done = subprocess.run(command, cwd=_results.ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _postgresql() -> str:
    programs = tools.find("postgres")
    words = _says(str(programs / "postgres"), "--version").split() if programs else []
    return f"PostgreSQL {words[2]}" if len(words) > 2 else "no PostgreSQL"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def modules() -> list[str]:
    """Return the names of the benchmarks."""
    names = [item.name for item in pkgutil.iter_modules(bench.__path__) if not item.name.startswith("_")]
    return [name for name in names if hasattr(importlib.import_module(f"bench.{name}"), "measure")]


def main() -> int:
    """Run the benchmarks that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="run briefly; the figures mean nothing")
    parser.add_argument("--only", choices=modules(), action="append", help="benchmarks to run (default all)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--save", action="store_true", help="keep this run for the tables of the documents")
    parser.add_argument("--tables", action="store_true", help="write the tables and measure nothing")
    args = parser.parse_args()
    if args.tables:
        _results.PAGE.write_text(_results.fill(_results.PAGE.read_text()))
        return 0
    if args.smoke and args.save:
        parser.error("--save keeps figures that mean something; leave out --smoke")
    names = args.only or [name for name in modules() if not (args.smoke and name in NOT_SMOKED)]
    about, results = machine(), dict[str, dict[str, Figure]]()
    for name in names:
        begin = time.perf_counter()
        results[name] = importlib.import_module(f"bench.{name}").measure(args.smoke)
        seconds = round(time.perf_counter() - begin)
        print(table(f"{name}, in {seconds} s", results[name]), flush=True)
        if args.save:
            _results.save(name, {**about, "seconds": seconds}, results[name])
    if args.out:
        plain = {name: {key: item.plain() for key, item in found.items()} for name, found in results.items()}
        args.out.write_text(json.dumps({"machine": about, "results": plain}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
