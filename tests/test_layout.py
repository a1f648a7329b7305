"""The checkout is whole: the link to the generated code, the code itself, and nothing in the wrong place."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINK = ROOT / "client" / "runstream" / "v1"
GENERATED = ROOT / "gen" / "python" / "runstream" / "v1"
PROTOS = sorted((ROOT / "proto" / "runstream" / "v1").glob("*.proto"))


def test_the_link_makes_generated_code_part_of_the_client() -> None:
    assert LINK.is_symlink(), (
        "client/runstream/v1 must be a symbolic link to ../../gen/python/runstream/v1. Git writes a plain "
        "file when core.symlinks is false; then: git config core.symlinks true && "
        "git checkout client/runstream/v1"
    )
    assert LINK.resolve() == GENERATED, f"the link leads to {LINK.resolve()}, not to {GENERATED}"


def test_every_proto_file_has_its_generated_modules() -> None:
    wanted = [
        f"{proto.stem}_pb2{end}" for proto in PROTOS for end in (".py", ".pyi", "_grpc.py", "_grpc.pyi")
    ]
    missing = [name for name in ["__init__.py", *wanted] if not (GENERATED / name).is_file()]
    assert not missing, f"gen/python/runstream/v1 lacks {', '.join(missing)}; run `make gen` and commit gen/"


def test_nothing_is_generated_for_foreign_packages() -> None:
    top = sorted(path.name for path in (ROOT / "gen" / "python").iterdir())
    assert top == ["runstream"], f"gen/python holds {top}; google.api comes from googleapis-common-protos"
    assert not (GENERATED.parent / "__init__.py").exists(), (
        "gen/python/runstream/__init__.py would replace client/runstream/__init__.py in the wheel"
    )


@pytest.mark.parametrize("name", [proto.stem for proto in PROTOS])
def test_generated_modules_import(name: str) -> None:
    module = importlib.import_module(f"runstream.v1.{name}_pb2")
    assert Path(module.__file__ or "").resolve() == GENERATED / f"{name}_pb2.py", (
        f"runstream.v1 comes from {module.__file__}, another installation; run `make venv`"
    )


def test_importing_the_client_imports_neither_grpc_nor_protobuf() -> None:
    script = (
        "import runstream, sys; print([n for n in ('grpc', 'google.protobuf', 'numpy') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", f"`import runstream` also imports {done.stdout.strip()}"
