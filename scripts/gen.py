"""Generate gen/ from proto/: the only writer of that folder.

    python scripts/gen.py            write gen/
    python scripts/gen.py --check    write nothing; exit 1 and list the files that differ

The generator lives in environments of its own, cached outside the clone, because its version decides which
runtimes the result works on: code from grpcio-tools 1.71.2 runs on protobuf 5.29 to 7.x, newer code only on
newer protobuf. gen/openapi is written by the server's own route tables, with this interpreter or that of
.venv; where neither has the server's packages, as in a new clone, it is left as it is.
"""

import argparse
import fcntl
import filecmp
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
GEN = ROOT / "gen"

# Two environments: the stub writer needs a newer protobuf than the compiler allows beside it.
PINS = {
    "protoc": ["grpcio-tools==1.71.2", "grpcio==1.71.2", "protobuf==5.29.5", "setuptools==80.9.0"],
    "stubs": ["mypy-protobuf==5.1.0", "protobuf==6.33.5"],
}
INIT = '"""Generated messages, services and stubs of `runstream.v1`; written by scripts/gen.py."""\n'


def cache_root() -> Path:
    """Return the folder that keeps tools between clones: RUNSTREAM_CACHE, else ~/.cache/runstream."""
    return Path(os.environ.get("RUNSTREAM_CACHE") or Path.home() / ".cache" / "runstream")


def environments() -> dict[str, Path]:
    """Return the environment of each set of pins, made on first use; several processes may ask at once."""
    identity = repr((PINS, sys.version_info[:2], sys.base_prefix))
    base = cache_root() / f"gen-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    base.mkdir(parents=True, exist_ok=True)
    with (base / "lock").open("w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        return {name: _environment(base / name, pins) for name, pins in PINS.items()}


def _environment(folder: Path, pins: list[str]) -> Path:
    ready = folder / "ready"  # written last, so an interrupted installation is done again
    if not ready.exists():
        print(f"gen.py: installing {' '.join(pins)}", file=sys.stderr)
        venv.create(folder, clear=True, with_pip=True)
        pip = [
            str(folder / "bin" / "python"),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ]
        subprocess.run([*pip, "--no-deps", *pins], check=True)
        ready.touch()
    return folder


def generate(proto: Path, out: Path) -> None:
    """Write python/ and descriptor/ below `out` from the files in `proto`/runstream.

    Raises:
        subprocess.CalledProcessError: a file does not compile or an rpc does not declare who may call it;
            what failed has printed file, place and reason.
    """
    sources = sorted(str(path.relative_to(proto)) for path in (proto / "runstream").rglob("*.proto"))
    if not sources:
        raise SystemExit(f"gen.py: no .proto files below {proto / 'runstream'}")
    python, descriptor = out / "python", out / "descriptor"
    python.mkdir(parents=True)
    descriptor.mkdir()
    env = environments()
    plugins = env["stubs"] / "bin"
    subprocess.run(
        [
            str(env["protoc"] / "bin" / "python"),
            *("-m", "grpc_tools.protoc", f"--proto_path={proto}"),
            f"--plugin=protoc-gen-mypy={plugins / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={plugins / 'protoc-gen-mypy_grpc'}",
            f"--python_out={python}",
            f"--grpc_python_out={python}",
            f"--mypy_out=quiet:{python}",
            f"--mypy_grpc_out=quiet:{python}",
            f"--descriptor_set_out={descriptor / 'runstream.binpb'}",
            "--include_imports",
            *sources,
        ],
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "0"},  # the stub writer must not order anything by hash
    )
    checked = [str(ROOT / "scripts" / "check_access.py"), str(descriptor / "runstream.binpb")]
    subprocess.run([str(env["protoc"] / "bin" / "python"), *checked], check=True)
    _write_comments(proto, sources, env["protoc"] / "bin" / "python", python / "runstream" / "v1")
    # Only the leaf package: `runstream` itself is client/runstream in the checkout and in the wheel.
    for package in sorted({(python / source).parent for source in sources}):
        (package / "__init__.py").write_text(INIT)


def _write_comments(proto: Path, sources: list[str], interpreter: Path, out: Path) -> None:
    """Write the contract's comments as comments.json: descriptors at run time have none."""
    with tempfile.TemporaryDirectory() as folder:
        described = Path(folder) / "described.binpb"
        compiler = [str(interpreter), "-m", "grpc_tools.protoc", f"--proto_path={proto}"]
        options = [f"--descriptor_set_out={described}", "--include_source_info"]
        subprocess.run([*compiler, *options, *sources], check=True)
        script = ROOT / "scripts" / "comments.py"
        subprocess.run(
            [str(interpreter), str(script), str(described), str(out / "comments.json")], check=True
        )


def write_openapi(out: Path) -> bool:
    """Write openapi/ below `out` from its descriptors; return False when no interpreter has what it needs."""
    paths = os.pathsep.join([str(ROOT / "client"), str(ROOT / "server")])
    environment = {**os.environ, "PYTHONPATH": paths}
    module = "runstream_server.gateway.openapi"
    for python in (sys.executable, str(ROOT / ".venv" / "bin" / "python")):
        probe = [python, "-c", "import google.api.annotations_pb2"]
        if shutil.which(python) and not subprocess.run(probe, stderr=subprocess.DEVNULL).returncode:
            files = [
                str(out / "descriptor" / "runstream.binpb"),
                str(out / "python" / "runstream" / "v1" / "comments.json"),
                str(out / "openapi" / "runstream.json"),
            ]
            subprocess.run([python, "-m", module, *files], check=True, env=environment)
            return True
    return False


def differences(left: Path, right: Path) -> Iterator[str]:
    """Yield one line for each file that is missing, left over or different in `right` compared to `left`."""
    wanted, present = _files(left), _files(right)
    for name in sorted(wanted | present):
        if name not in present:
            yield f"missing    gen/{name}"
        elif name not in wanted:
            yield f"left over  gen/{name}"
        elif not filecmp.cmp(left / name, right / name, shallow=False):
            yield f"differs    gen/{name}"


def _files(folder: Path) -> set[Path]:
    found = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder) for path in found if path.relative_to(folder).parts[0] in OWNED}


OWNED = ("python", "descriptor", "openapi")


def replace(fresh: Path, gen: Path) -> None:
    """Make `gen` equal to `fresh`, touching only files that differ, so that readers rarely see a gap."""
    for name in sorted(_files(gen) - _files(fresh)):
        (gen / name).unlink()
    for name in sorted(_files(fresh)):
        target = gen / name
        if target.exists() and filecmp.cmp(fresh / name, target, shallow=False):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + ".new")
        shutil.copyfile(fresh / name, partial)
        partial.replace(target)


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description="Generate gen/ from proto/.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if gen/ is out of date")
    parser.add_argument("--proto", type=Path, default=PROTO, help="folder of .proto files (default: proto)")
    parser.add_argument("--out", type=Path, default=GEN, help="folder to write (default: gen)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "gen"
        try:
            generate(args.proto.resolve(), fresh)
            if not write_openapi(fresh):
                print("gen.py: gen/openapi is left as it is; `make gen` has what it needs", file=sys.stderr)
                if (old := args.out / "openapi").exists():
                    shutil.copytree(old, fresh / "openapi")
        except subprocess.CalledProcessError as error:
            print(f"gen.py: {Path(error.cmd[0]).name} failed with code {error.returncode}", file=sys.stderr)
            return 1
        changed = list(differences(fresh, args.out))
        if not args.check:
            replace(fresh, args.out)
            print(f"gen/: {len(changed)} files changed" if changed else "gen/ is up to date")
            return 0
    if changed:
        message = "gen/ is out of date; run `make gen` and commit the result:"
        print(message, *changed, sep="\n  ", file=sys.stderr)
        return 1
    print("gen/ is up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
