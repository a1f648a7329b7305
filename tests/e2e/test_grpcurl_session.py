"""docs/grpcurl.md, run as it stands: one training script against PostgreSQL and MinIO, read with grpcurl."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import tools
from tests.e2e.console import pattern, program, sessions
from tests.fix_postgres import require

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "grpcurl.md"


@pytest.fixture(scope="module")
def grpcurl() -> Path:
    require("grpcurl")
    path = tools.find("grpcurl")
    assert path
    return path


@pytest.mark.timeout(300)
def test_document_prints_what_it_says(grpcurl, production_server):
    """`production_server`: a `runstream server` process on PostgreSQL and MinIO (see conftest.py)."""
    script = [sys.executable, str(ROOT / "examples" / "train_digits.py"), "--steps", "300"]
    done = subprocess.run(
        [*script, "--tracking-uri", production_server.http],
        capture_output=True,
        text=True,
        timeout=120,
        env=production_server.client_env,
    )
    assert done.returncode == 0, done.stderr
    env = {
        **os.environ,
        "G": production_server.grpc,
        "RUN": done.stdout.split()[-1],
        "PATH": f"{grpcurl.parent}{os.pathsep}{os.environ['PATH']}",
    }
    commands = [(c, lines) for c, lines in sessions(DOCUMENT) if program(c) == "grpcurl"]
    assert len(commands) >= 6
    for command, expected in commands:
        answer = subprocess.run(command, shell=True, capture_output=True, text=True, env=env, timeout=30)
        printed = answer.stdout + answer.stderr
        assert pattern(expected).fullmatch(printed), f"$ {command}\n{printed}"
