"""Hunt with a fuzzer that sees what code an input reaches: `make test-fuzz`.

    python -m tests.fuzz TARGET [--seconds=N] [--runs=N] [--seed=N] [--keep=FOLDER]

Begins with tests/fuzz/corpus/TARGET. Prints executions and coverage as libFuzzer does (`cov` and `ft`). An
input that breaks something is named, kept below FOLDER (default: a temporary one), and raised again by

    python -m tests.fuzz TARGET --input=FILE
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import atheris as untyped

atheris: Any = untyped
with atheris.instrument_imports(include=["runstream", "runstream_server"]):
    from tests.fuzz.targets import CORPUS, TARGETS

MEMORY = 1024
"""MiB, above which a target grows."""
SLOWEST = 5
"""Seconds of one input."""


def main() -> None:
    """Run the command line; does not return: the fuzzer ends the process, with 0 when it found nothing."""
    parser = argparse.ArgumentParser(description="Fuzz one target.")
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=0)
    parser.add_argument("--runs", type=int, default=-1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--input", type=Path)
    options = parser.parse_args()
    if options.input:
        TARGETS[options.target](options.input.read_bytes())
        return
    keep = options.keep or Path(tempfile.mkdtemp(prefix=f"runstream-fuzz-{options.target}-"))
    keep.mkdir(parents=True, exist_ok=True)
    flags = [f"-max_total_time={options.seconds}", f"-runs={options.runs}", f"-seed={options.seed}"]
    flags += [f"-rss_limit_mb={MEMORY}", f"-timeout={SLOWEST}", "-max_len=4096", f"-artifact_prefix={keep}/"]
    flags += ["-print_final_stats=1", str(keep), str(CORPUS / options.target)]
    atheris.Setup([sys.argv[0], *flags], TARGETS[options.target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
