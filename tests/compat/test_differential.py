"""The same calls to MLflow 3.17 and to us give the same answers, but for what docs/rest.md lists."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

from tests.compat.differential import Scenario, compare
from tests.compat.servers import mlflow_server
from tests.stack import runstream_server

MODULES = ("experiments", "runs", "registry", "logged_models", "artifacts")
DOC = Path(__file__).parents[2] / "docs" / "rest.md"
pytestmark = pytest.mark.slow


def scenarios() -> dict[str, Scenario]:
    """Return every public function of the scenario modules by name."""
    found: dict[str, Scenario] = {}
    for name in MODULES:
        module = importlib.import_module(f"tests.compat.scenarios.{name}")
        for function, call in inspect.getmembers(module, inspect.isfunction):
            if call.__module__ == module.__name__ and not function.startswith("_"):
                found[f"{name}.{function}"] = call
    return found


SCENARIOS = scenarios()


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def servers(request, mlflow, tmp_path_factory):
    """Return the URLs of a fresh MLflow server and of ours over each store, so that ids fall alike."""
    folder = tmp_path_factory.mktemp("servers")
    uri = f"sqlite:///{folder}/store.db"
    if request.param == "postgres":
        uri = request.getfixturevalue("module_postgres_dsn")
    option = f"--artifacts-destination={folder}/artifacts"
    with mlflow_server(folder / "mlflow") as theirs, runstream_server(folder / "server", uri, option) as ours:
        yield theirs, ours.http


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", SCENARIOS)
def test_answers_are_those_of_mlflow(name, servers):
    lines, slugs = compare(SCENARIOS[name], *servers)
    assert not lines, "\n".join(lines)
    assert slugs <= documented(), f"not in docs/rest.md: {slugs - documented()}"


def test_every_documented_difference_is_tested():
    text = "".join(path.read_text() for path in (Path(__file__).parent / "scenarios").glob("*.py"))
    untested = {slug for slug in documented() if f'"{slug}"' not in text}
    assert not untested


def documented() -> set[str]:
    """Return the slugs of the table of differences."""
    return set(re.findall(r"^\| `([a-z0-9-]+)` \|", DOC.read_text(), re.MULTILINE))
