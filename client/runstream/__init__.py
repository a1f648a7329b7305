"""Track experiments: the client of runstream, with the names of MLflow's `mlflow` module.

    import runstream as rs

    with rs.start_run():
        rs.log_param("lr", 0.001)
        rs.log_metric("val_loss", 0.12, step=1)

Importing it has no side effects and loads nothing: each name comes from its module when it is first used.
Type checkers read `__init__.pyi`, which must name the same.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_NAMES = {
    "_client": ("Client",),
    "_errors": ("RunstreamError",),
    "_fluent": ("get_tracking_uri", "is_tracking_uri_set", "set_tracking_uri"),
    "_fluent_experiments": (
        "create_experiment",
        "delete_experiment",
        "delete_experiment_tag",
        "get_experiment",
        "get_experiment_by_name",
        "restore_experiment",
        "search_experiments",
        "set_experiment",
        "set_experiment_tag",
        "set_experiment_tags",
    ),
    "_fluent_files": (
        "download_artifacts",
        "get_artifact_uri",
        "list_artifacts",
        "load_table",
        "log_artifact",
        "log_artifacts",
        "log_dict",
        "log_figure",
        "log_image",
        "log_stream",
        "log_table",
        "log_text",
    ),
    "_fluent_logs": (
        "delete_tag",
        "flush",
        "flush_artifact_async_logging",
        "flush_async_logging",
        "log_batch",
        "log_input",
        "log_inputs",
        "log_metric",
        "log_metrics",
        "log_param",
        "log_params",
        "set_tag",
        "set_tags",
    ),
    "_fluent_history": ("fork_run", "rewind_run", "unrewind_run"),
    "_fluent_registry": (
        "get_registry_uri",
        "register_model",
        "search_model_versions",
        "search_registered_models",
        "set_model_version_tag",
        "set_registry_uri",
    ),
    "_fluent_resume": ("ActiveRun",),
    "_fluent_runs": ("active_run", "end_run", "last_active_run", "start_run"),
    "_fluent_search": (
        "delete_run",
        "get_metric_series",
        "get_parent_run",
        "get_run",
        "restore_run",
        "search_runs",
    ),
}
_MODULES = ("artifacts", "client", "data", "entities", "exceptions", "testing", "tracking")
_ALIASES = {"MlflowClient": ("_client", "Client"), "MlflowException": ("_errors", "RunstreamError")}

_WHERE = {name: (module, name) for module, names in _NAMES.items() for name in names} | _ALIASES


__all__ = sorted([*_WHERE, *_MODULES, "__version__"])  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used (PEP 562)."""
    if name in _WHERE:
        module, attribute = _WHERE[name]
        value = getattr(importlib.import_module(f"runstream.{module}"), attribute)
    elif name in _MODULES:
        value = importlib.import_module(f"runstream.{name}")
    else:
        raise AttributeError(f"module 'runstream' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
