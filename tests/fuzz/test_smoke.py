"""A minute of `make test-fuzz`: the corpus and what is next to it, with seeds that are always the same."""

import importlib.util
import subprocess
import sys

import pytest

from tests.fuzz.messages import GROWTH, hunt
from tests.fuzz.targets import CORPUS, TARGETS

RUNS = {"filter": 8_000, "body": 8_000, "path": 20_000, "journal": 3_000}
"""Executions of a target; some seconds each."""
ROUNDS = 8


@pytest.mark.skipif(not importlib.util.find_spec("atheris"), reason="atheris has no wheel for this machine")
@pytest.mark.parametrize("target", TARGETS)
def test_the_fuzzer_finds_nothing(target, tmp_path):
    command = [sys.executable, "-m", "tests.fuzz", target, f"--runs={RUNS[target]}", "--seed=1"]
    done = subprocess.run(
        [*command, f"--keep={tmp_path}"], capture_output=True, text=True, timeout=100, errors="replace"
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"Done {RUNS[target]} runs" in done.stderr


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_holds(target):
    inputs = sorted((CORPUS / target).iterdir())
    assert inputs
    for each in inputs:
        TARGETS[target](each.read_bytes())


def test_random_messages_are_answered_or_refused(tmp_path):
    sent, grown = hunt(tmp_path, seed=1, rounds=ROUNDS)
    assert {"grpc OK", "grpc INVALID_ARGUMENT", "http 200", "http 400", "stream OK"} <= set(sent)
    assert grown < GROWTH
