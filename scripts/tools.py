"""Install the external programs that tests and benchmarks start, cached by version outside the clone.

    python scripts/tools.py minio grpcurl     install what is missing, print one path a line
    python scripts/tools.py --help            list what there is

The folder is RUNSTREAM_CACHE, else ~/.cache/runstream. PostgreSQL comes from the system's packages.
"""

import argparse
import fcntl
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Tool:
    """One program: where it is once installed, and how to get it there."""

    version: str
    """Of the program; what follows a `+` says what else is in the folder."""
    target: str
    """The file inside the tool's folder whose presence means installed."""
    build: Callable[[Path, str], None]
    """Called with an empty folder and the version; leaves `target` in it or raises."""


def cache_root() -> Path:
    """Return the folder that keeps tools between clones: RUNSTREAM_CACHE, else ~/.cache/runstream."""
    return Path(os.environ.get("RUNSTREAM_CACHE") or Path.home() / ".cache" / "runstream")


def find(name: str) -> Path | None:
    """Return the path of an installed tool ("postgres": the folder of its programs), or None."""
    if name == "postgres":
        return _postgres()
    path = cache_root() / f"{name}-{TOOLS[name].version}" / TOOLS[name].target
    return path if path.exists() else None


def install(name: str) -> Path:
    """Install a tool unless it is there; return what `find` returns. Several processes may ask at once.

    Raises:
        SystemExit: a program needed for it is missing, or the installation failed; the message says which.
    """
    cache_root().mkdir(parents=True, exist_ok=True)
    with (cache_root() / f"{name}.lock").open("w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        found = find(name)
        if found:
            return found
        print(f"tools.py: installing {name}, which can take minutes", file=sys.stderr)
        try:
            return _install_postgres() if name == "postgres" else _build(name)
        except (OSError, subprocess.CalledProcessError) as error:
            raise SystemExit(f"tools.py: cannot install {name}: {error}") from error


def _build(name: str) -> Path:
    tool = TOOLS[name]
    folder = cache_root() / f"{name}-{tool.version}"
    shutil.rmtree(folder, ignore_errors=True)  # an interrupted installation
    folder.mkdir()
    tool.build(folder, tool.version)
    return folder / tool.target


def _go(module: str) -> Callable[[Path, str], None]:
    def build(folder: Path, version: str) -> None:
        if not shutil.which("go"):
            raise SystemExit(f"tools.py: {module} is built by go, which is not on PATH")
        # go writes the file under its own name only when it is whole. Its output must not join our paths.
        command = ["go", "install", f"{module}@{version}"]
        subprocess.run(command, check=True, env={**os.environ, "GOBIN": str(folder)}, stdout=sys.stderr)

    return build


def _python(package: str, *others: str) -> Callable[[Path, str], None]:
    def build(folder: Path, version: str) -> None:
        venv.create(folder, with_pip=True)
        pip = [
            str(folder / "bin" / "python"),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ]
        wanted = [f"{package}=={version.partition('+')[0]}", *others]
        subprocess.run([*pip, *wanted], check=True, stdout=sys.stderr)

    return build


def _postgres() -> Path | None:
    """Return the newest folder that holds both initdb and postgres."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    if on_path := shutil.which("postgres"):
        places.append(Path(on_path).resolve().parent)
    return next((path for path in reversed(places) if (path / "initdb").exists()), None)


def _install_postgres() -> Path:
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise SystemExit(f"tools.py: PostgreSQL is not installed; {HINTS['postgres']}")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", "postgresql"]):
        subprocess.run(["apt-get", *command], check=True, env=quiet, stdout=sys.stderr)
    if not (found := _postgres()):
        raise SystemExit("tools.py: the package postgresql installed no /usr/lib/postgresql/*/bin")
    return found


TOOLS = {
    "minio": Tool("v0.0.0-20260212201848-7aac2a2c5b7c", "minio", _go("github.com/minio/minio")),
    "grpcurl": Tool("v1.9.4", "grpcurl", _go("github.com/fullstorydev/grpcurl/cmd/grpcurl")),
    "mlflow": Tool("3.17.2+postgres", "bin/mlflow", _python("mlflow", "psycopg2-binary==2.9.13")),
    "schemathesis": Tool("4.32.5", "bin/schemathesis", _python("schemathesis")),
}
HINTS = {
    "postgres": "install it with `apt-get install postgresql`",
    **{name: f"install it with `python scripts/tools.py {name}`" for name in TOOLS},
}


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description="Install external programs and print their paths.")
    parser.add_argument("tools", nargs="+", choices=["postgres", *TOOLS])
    for name in parser.parse_args().tools:
        print(install(name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
