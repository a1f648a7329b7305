"""From an empty folder to two users: the commands of docs/access.md, as they are typed."""

import json
import subprocess
import sys

import pytest

from tests.stack import runstream_server

pytestmark = pytest.mark.timeout(180)


def run(*arguments: str, env: dict[str, str] | None = None, stdin: str = "", code: int = 0) -> str:
    """Run a command; return what it printed to stdout, or to stderr where it failed."""
    done = subprocess.run(
        [sys.executable, "-m", "runstream._cli", *arguments],
        env=env,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return (done.stderr if code else done.stdout).strip()


def test_an_administrator_makes_users_and_grants(tmp_path) -> None:
    store = str(tmp_path / "store")
    secret = run("db", "create-admin", "ada", "--url", store)
    assert secret.startswith("rs_")
    assert "exists" in run("db", "create-admin", "ada", "--url", store, code=1)
    with runstream_server(tmp_path / "server", store, "--auth") as server:
        ada = {**server.client_env, "RUNSTREAM_TOKEN": secret}
        nobody = {name: value for name, value in server.client_env.items() if "TOKEN" not in name}
        assert "asks for credentials" in run("users", "list", env=nobody, code=1)
        assert run("users", "whoami", env=ada) == "ada"
        run("users", "create", "bob", "--password-stdin", env=ada, stdin="a long enough password\n")
        bob = {
            **ada,
            "RUNSTREAM_TOKEN": run("tokens", "create", "--user", "bob", "--expires-in", "1d", env=ada),
        }
        run("experiments", "create", "-n", "shared", env=ada)
        assert "No Experiment" in run("experiments", "get", "-x", "1", env=bob, code=1)
        run("groups", "create", "vision", env=ada)
        run("groups", "add", "vision", "bob", env=ada)
        run("grants", "set", "--group", "vision", "--role", "reader", "-x", "1", env=ada)
        run("experiments", "get", "-x", "1", env=bob)
        assert "needs the role writer" in run(
            "experiments", "rename", "-x", "1", "--new-name", "mine", env=bob, code=1
        )
        entries = json.loads(run("audit", "--json", env=ada))["entries"]
        assert [(each["user"], each["outcome"]) for each in entries[:2]] == [
            ("bob", "PERMISSION_DENIED"),
            ("ada", "OK"),
        ]
        assert "for administrators" in run("audit", env=bob, code=1)
        (token,) = json.loads(run("tokens", "list", "--json", env=bob))["tokens"]
        run("tokens", "revoke", token["token_id"], env=ada)
        assert "revoked" in run("users", "whoami", env=bob, code=1)
