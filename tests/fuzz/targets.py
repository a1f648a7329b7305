"""What is fuzzed, by name. A target takes any bytes, and raises where something does not hold."""

from collections.abc import Callable
from pathlib import Path

from tests.fuzz import bodies, filters, journals, paths

Check = Callable[[bytes], None]
CORPUS = Path(__file__).with_name("corpus")
"""Holds a folder of inputs for each target, a file each."""
TARGETS: dict[str, Check] = {
    "filter": filters.check,
    "body": bodies.check,
    "path": paths.check,
    "journal": journals.check,
}
