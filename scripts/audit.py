"""Look for what should not be there: known holes in dependencies, unsafe calls, secrets in the files of git.

    python scripts/audit.py              exit 1 and a line for each finding

bandit reads [tool.bandit] of pyproject.toml. pip-audit asks the network for known holes; where there is none
it is left out, and a line says so.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECRETS = {
    "a private key": r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----\s+[A-Za-z0-9+/=]{20}",
    "a token of runstream": r"\brs_[A-Za-z0-9_-]{43}\b",
    "a key of AWS": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a token of GitHub": r"\bgh[pousr]_[A-Za-z0-9]{36}\b",
    "a token of Slack": r"\bxox[abprs]-[A-Za-z0-9-]{20}",
    "a key of an AI service": r"\bsk-(?:ant-|proj-)?[A-Za-z0-9_-]{32}",
}
"""What secrets look like, by what to call them."""
_OFFLINE = re.compile(r"ConnectionError|Max retries|NameResolution|timed out|ServiceError", re.IGNORECASE)
_LARGEST = 2 << 20


def secrets(texts: Iterator[tuple[str, str]]) -> Iterator[str]:
    """Yield one line for each secret in files, given as name and text; the secret itself is not in it."""
    for name, text in texts:
        for what, pattern in SECRETS.items():
            for match in re.finditer(pattern, text):
                yield f"{name}:{text.count(chr(10), 0, match.start()) + 1}: looks like {what}"


def files() -> Iterator[tuple[str, str]]:
    """Yield name and text of the files of git that are text."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in names.stdout.split("\0"):
        path = ROOT / name
        if name and path.is_file() and path.stat().st_size <= _LARGEST:
            data = path.read_bytes()
            if b"\0" not in data:
                yield name, data.decode(errors="replace")


def bandit() -> Iterator[str]:
    """Yield what bandit finds."""
    command = [sys.executable, "-m", "bandit", "--quiet", "--recursive", "--severity-level", "medium"]
    command += ["--configfile", "pyproject.toml", "server/runstream_server", "client/runstream", "scripts"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        yield done.stdout + done.stderr


def dependencies() -> Iterator[str]:
    """Yield what is known about the installed distributions."""
    command = [sys.executable, "-m", "pip_audit", "--skip-editable", "--progress-spinner", "off"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    except subprocess.TimeoutExpired:
        print("audit.py: pip-audit got no answer in time; dependencies were not looked at", file=sys.stderr)
        return
    if done.returncode and _OFFLINE.search(done.stderr):
        print("audit.py: no network; dependencies were not looked at", file=sys.stderr)
    elif done.returncode:
        yield done.stdout + done.stderr


def main() -> int:
    """Look at everything; return the exit code."""
    found = [*secrets(files()), *bandit(), *dependencies()]
    print(*found, sep="\n", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
