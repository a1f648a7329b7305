"""Run commands of the command line as users do, in processes of their own."""

import json
import subprocess
import sys
from typing import Any

from tests.e2e.terminal import on_terminal

RUNSTREAM = [sys.executable, "-m", "runstream"]


class Cli:
    """Runs commands against one server."""

    def __init__(self, env: dict[str, str]) -> None:
        self.env = env

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command."""
        return subprocess.run(
            [*RUNSTREAM, *arguments], capture_output=True, text=True, timeout=60, env={**self.env, **env}
        )

    def __call__(self, *arguments: str) -> str:
        """Run a command that must do; return its stdout."""
        answer = self.run(*arguments)
        assert answer.returncode == 0, answer.stderr
        assert "Traceback" not in answer.stderr
        return answer.stdout

    def json(self, *arguments: str) -> Any:
        """Run a command with --json; return the document."""
        return json.loads(self(*arguments, "--json"))

    def fails(self, *arguments: str) -> str:
        """Run a command that must end with 1; return its stderr, one line about what is wrong."""
        answer = self.run(*arguments)
        assert answer.returncode == 1, answer.stdout
        assert answer.stdout == ""
        assert "Traceback" not in answer.stderr
        return answer.stderr

    def on_terminal(self, *arguments: str, typed: str = "") -> tuple[int, str]:
        """Run a command on a terminal; return exit code and screen."""
        return on_terminal([*RUNSTREAM, *arguments], env=self.env, typed=typed)
