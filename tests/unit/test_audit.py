"""The scan for secrets finds what it is for, and says where without saying what."""

import importlib.util
from pathlib import Path

import pytest

SPEC = importlib.util.spec_from_file_location("audit", Path(__file__).parents[2] / "scripts" / "audit.py")
assert SPEC
assert SPEC.loader
audit = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(audit)

SECRETS = [
    "-----BEGIN EC " + "PRIVATE KEY-----\n" + "A" * 40,
    "token = 'rs_" + "x" * 43 + "'",
    "AKIA" + "A" * 16,
    "ghp_" + "a" * 36,
]


@pytest.mark.parametrize("secret", SECRETS, ids=["key", "token", "aws", "github"])
def test_a_secret_is_found_and_not_repeated(secret) -> None:
    (line,) = audit.secrets(iter([("a.py", f"first line\n{secret}\n")]))
    assert line.startswith("a.py:2: looks like a")
    assert secret not in line


def test_nothing_of_ours_looks_like_a_secret() -> None:
    assert list(audit.secrets(audit.files())) == []
