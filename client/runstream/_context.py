"""Tags that say who started a run and from what: user, file, git commit."""

from __future__ import annotations

import getpass
import os
import sys
from functools import lru_cache
from pathlib import Path

USER = "mlflow.user"
SOURCE_NAME = "mlflow.source.name"
SOURCE_TYPE = "mlflow.source.type"
GIT_COMMIT = "mlflow.source.git.commit"


def context_tags() -> dict[str, str]:
    """Return the tags of a run that starts in this process now."""
    name = source_name()
    tags = {USER: user(), SOURCE_NAME: name, SOURCE_TYPE: "LOCAL"}
    folder = Path(name).parent if os.path.isfile(name) else Path()
    if commit := git_commit(str(folder.absolute())):
        tags[GIT_COMMIT] = commit
    return tags


def user() -> str:
    """Return the name of this process's user."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in containers
        return str(os.getuid())


def source_name() -> str:
    """Return the file that this process runs."""
    return (sys.argv[0] if sys.argv else "") or "<console>"


@lru_cache(maxsize=16)
def git_commit(folder: str) -> str | None:
    """Return the commit that is checked out in the repository around `folder`; None outside of one.

    Reads the repository's files: starting git would cost more than everything else in start_run.
    """
    try:
        return next(
            (_head(at / ".git") for at in (Path(folder), *Path(folder).parents) if (at / ".git").exists()),
            None,
        )
    except (OSError, UnicodeDecodeError):
        return None


def _head(git: Path) -> str | None:
    if git.is_file():  # a worktree or submodule: `gitdir: PATH`
        git = (git.parent / git.read_text().partition(":")[2].strip()).resolve()
    head = (git / "HEAD").read_text().strip()
    if not head.startswith("ref:"):
        return head
    name = head.partition(":")[2].strip()
    shared = git / "commondir"
    common = (git / shared.read_text().strip()).resolve() if shared.is_file() else git
    for folder in (git, common):
        if (folder / name).is_file():
            return (folder / name).read_text().strip()
    return _packed(common / "packed-refs", name)


def _packed(path: Path, name: str) -> str | None:
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((line.split()[0] for line in lines if line.endswith(f" {name}")), None)
