"""schemathesis makes requests from our API document, right ones and wrong ones; none may fail inside.

The smoke sends a few for each operation; `make test-fuzz` as many as FUZZ_EXAMPLES says, over both stores.
"""

import os
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from scripts import tools
from tests.fix_postgres import require
from tests.in_process import running_server

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "40"))
SMOKE_SECONDS = 25


def generate(url: str, folder: Path, *options: str) -> str:
    """Run schemathesis against a server; return what it prints. Fails on a 5xx and on what hangs."""
    program = tools.find("schemathesis")
    assert program
    command = [str(program), "run", f"{url}/openapi.json", "--checks=not_a_server_error", "--no-color"]
    command += ["--request-timeout=10", "--suppress-health-check=all", "--generation-database=none", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=3600, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres-minio", marks=pytest.mark.slow)])
def target(request, tmp_path_factory):
    """Return the URL of a server, and options for it: presigned URLs over a folder answer 501, on purpose."""
    require("schemathesis")
    folder = tmp_path_factory.mktemp("generated")
    with ExitStack() as stack:
        uri, destination, env = f"sqlite:///{folder}/s.db", f"{folder}/a", {}
        options = ["--exclude-path-regex=presign|/mpu/"]
        if request.param == "postgres-minio":
            minio = request.getfixturevalue("minio")
            bucket = minio.create_bucket()
            stack.callback(minio.remove_bucket, bucket)
            uri, env, options = request.getfixturevalue("module_postgres_dsn"), minio.environ(), []
            destination = f"s3://{bucket}/runs"
        server = stack.enter_context(running_server(uri, env=env, artifacts_destination=destination))
        yield server.http, options


@pytest.mark.timeout(120)
def test_a_few_requests_to_each_operation(target, tmp_path, caplog):
    phases = ["--phases=examples,coverage,fuzzing", "--max-examples=2", "--seed=1"]
    print(generate(target[0], tmp_path, *target[1], *phases, f"--max-time={SMOKE_SECONDS}"))
    assert "Traceback" not in caplog.text


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_requests_to_each_operation(target, tmp_path, caplog):
    print(generate(target[0], tmp_path, *target[1], f"--max-examples={EXAMPLES}"))
    assert "Traceback" not in caplog.text
