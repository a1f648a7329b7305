"""The public names of the client, and what importing it costs."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import runstream

NAMES = """
ActiveRun Client MlflowClient MlflowException RunstreamError __version__ active_run artifacts client
create_experiment data delete_experiment delete_experiment_tag delete_run delete_tag
download_artifacts end_run entities exceptions flush flush_artifact_async_logging
flush_async_logging fork_run get_artifact_uri get_experiment get_experiment_by_name get_metric_series
get_parent_run get_registry_uri get_run get_tracking_uri is_tracking_uri_set last_active_run
list_artifacts load_table log_artifact log_artifacts log_batch log_dict log_figure log_image
log_input log_inputs log_metric log_metrics log_param log_params log_stream log_table log_text
register_model restore_experiment restore_run rewind_run search_experiments search_model_versions
search_registered_models search_runs set_experiment set_experiment_tag set_experiment_tags
set_model_version_tag set_registry_uri set_tag set_tags set_tracking_uri start_run testing tracking
unrewind_run
"""


def test_public_names_are_pinned():
    assert runstream.__all__ == sorted(NAMES.split())
    assert dir(runstream) == runstream.__all__


@pytest.mark.parametrize("name", NAMES.split())
def test_every_name_can_be_had(name):
    assert getattr(runstream, name) is not None


def test_type_checkers_see_the_same_names():
    stub = ast.parse(Path(runstream.__file__).with_suffix(".pyi").read_text())
    (names,) = [
        ast.literal_eval(node.value)
        for node in stub.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    assert names == runstream.__all__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'autologg'"):
        runstream.autologg  # type: ignore[attr-defined]  # noqa: B018


def test_public_functions_have_docstrings():
    silent = [
        name for name in runstream.__all__ if name != "__version__" and not getattr(runstream, name).__doc__
    ]
    assert silent == []
    methods = [name for name, _ in inspect.getmembers(runstream.Client) if not name.startswith("_")]
    assert [name for name in methods if not getattr(runstream.Client, name).__doc__] == []


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_loads_neither_grpc_nor_numpy_nor_protobuf():
    code = "import sys, runstream; print([m for m in ('grpc','numpy','google.protobuf') if m in sys.modules])"
    assert run(code) == "[]"


def test_the_fluent_api_loads_neither_grpc_nor_numpy():
    code = "import sys, runstream as rs; rs.log_metric; rs.search_runs; rs.log_table; rs.download_artifacts;"
    assert run(code + "print([m for m in ('grpc','numpy','pandas') if m in sys.modules])") == "[]"


def test_import_takes_at_most_150_ms():
    code = "import time; a = time.perf_counter(); import runstream; print(time.perf_counter() - a)"
    seconds = min(float(run(code)) for _ in range(5))
    print(f"import runstream: {seconds * 1000:.1f} ms")
    assert seconds <= 0.15
