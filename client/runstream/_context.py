"""Tags that say who started a run and from what: user, host, command, file, git commit."""

from __future__ import annotations

import getpass
import os
import platform
import re
import shlex
import sys
from functools import lru_cache
from pathlib import Path

USER = "mlflow.user"
SOURCE_NAME = "mlflow.source.name"
SOURCE_TYPE = "mlflow.source.type"
GIT_COMMIT = "mlflow.source.git.commit"
GIT_BRANCH = "mlflow.source.git.branch"
GIT_REMOTE = "mlflow.source.git.repoURL"
HOST, COMMAND, PYTHON = "runstream.host", "runstream.command", "runstream.python"
_SECRET = re.compile(r"(?i)((?:pass\w*|token|secret|(?:api|access)[-_]?key)(?:=|\s+))(\S+)")
_MAX_COMMAND = 5000


def context_tags() -> dict[str, str]:
    """Return the tags of a run that starts in this process now."""
    name = source_name()
    tags = {
        USER: user(),
        SOURCE_NAME: name,
        SOURCE_TYPE: "LOCAL",
        HOST: os.uname().nodename,
        PYTHON: platform.python_version(),
        COMMAND: command(),
    }
    folder = Path(name).parent if os.path.isfile(name) else Path()
    return tags | git_tags(str(folder.absolute()))


def command() -> str:
    """Return the command line of this process; what looks like a secret is left out."""
    return _SECRET.sub(r"\1…", shlex.join(sys.orig_argv))[:_MAX_COMMAND]


def user() -> str:
    """Return the name of this process's user."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in containers
        return str(os.getuid())


def source_name() -> str:
    """Return the file that this process runs."""
    return (sys.argv[0] if sys.argv else "") or "<console>"


def git_tags(folder: str) -> dict[str, str]:
    """Return commit, branch and remote of the repository around `folder`; nothing outside of one.

    Reads the repository's files: starting git would cost more than everything else in start_run.
    """
    found = {GIT_COMMIT: git_commit(folder), GIT_BRANCH: git_branch(folder), GIT_REMOTE: git_remote(folder)}
    return {name: value for name, value in found.items() if value}


@lru_cache(maxsize=16)
def git_commit(folder: str) -> str | None:
    """Return the commit that is checked out in the repository around `folder`; None outside of one."""
    try:
        return _head(at) if (at := _repository(folder)) else None
    except (OSError, UnicodeDecodeError):
        return None


@lru_cache(maxsize=16)
def git_branch(folder: str) -> str | None:
    """Return the branch that is checked out; None outside of a repository, and where none is."""
    try:
        head = (_git_folder(at) / "HEAD").read_text().strip() if (at := _repository(folder)) else ""
    except (OSError, UnicodeDecodeError):
        return None
    return head.partition("refs/heads/")[2] or None


@lru_cache(maxsize=16)
def git_remote(folder: str) -> str | None:
    """Return the URL of the remote `origin`, without user and password; None when there is none."""
    try:
        at = _repository(folder)
        text = (_common(_git_folder(at)) / "config").read_text() if at else ""
    except (OSError, UnicodeDecodeError):
        return None
    section = text.partition('[remote "origin"]')[2].partition("\n[")[0]
    url = re.search(r"^\s*url\s*=\s*(\S+)", section, re.MULTILINE)
    return re.sub(r"^(\w+://)[^/@]*@", r"\1", url[1]) if url else None


def _repository(folder: str) -> Path | None:
    return next((at / ".git" for at in (Path(folder), *Path(folder).parents) if (at / ".git").exists()), None)


def _git_folder(git: Path) -> Path:
    if git.is_file():  # a worktree or submodule: `gitdir: PATH`
        return (git.parent / git.read_text().partition(":")[2].strip()).resolve()
    return git


def _common(git: Path) -> Path:
    shared = git / "commondir"
    return (git / shared.read_text().strip()).resolve() if shared.is_file() else git


def _head(git: Path) -> str | None:
    git = _git_folder(git)
    head = (git / "HEAD").read_text().strip()
    if not head.startswith("ref:"):
        return head
    name = head.partition(":")[2].strip()
    common = _common(git)
    for folder in (git, common):
        if (folder / name).is_file():
            return (folder / name).read_text().strip()
    return _packed(common / "packed-refs", name)


def _packed(path: Path, name: str) -> str | None:
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((line.split()[0] for line in lines if line.endswith(f" {name}")), None)
