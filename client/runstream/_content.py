"""Writes Python objects to files: dictionaries, figures, images. Packages are imported when needed."""

from __future__ import annotations

import importlib
import json
import warnings
from pathlib import Path
from typing import Any

from runstream._errors import InvalidParameter, Unsupported

THUMBNAIL = 256  # pixels of the longer side
_HTML = ".html"
_PLOTLY_IMAGES = (".png", ".jpeg", ".webp", ".svg", ".pdf")


def write_dict(path: Path, dictionary: Any) -> None:
    """Write a dictionary or list as YAML (`.yml`, `.yaml`) or else as JSON.

    Raises: Unsupported for YAML without PyYAML.
    """
    if path.suffix in (".yml", ".yaml"):
        yaml = need("yaml", f"writing {path.name}", "pyyaml")
        path.write_text(yaml.safe_dump(dictionary, sort_keys=False, allow_unicode=True))
    else:
        path.write_text(json.dumps(dictionary, indent=2, default=plain))


def plain(value: Any) -> Any:
    """Return what JSON can hold for a NumPy value, else the value's text."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def write_figure(path: Path, figure: Any, save_kwargs: dict[str, Any] | None = None) -> None:
    """Write a Matplotlib or Plotly figure in the format of the file's ending.

    Raises: InvalidParameter for another kind of object, or an ending that Plotly cannot write.
    """
    if hasattr(figure, "savefig"):
        figure.savefig(path, **(save_kwargs or {}))
    elif hasattr(figure, "write_html"):
        _write_plotly(path, figure, save_kwargs or {})
    else:
        raise InvalidParameter(f"a figure must be Matplotlib's or Plotly's, not {type(figure).__name__}")


def _write_plotly(path: Path, figure: Any, save_kwargs: dict[str, Any]) -> None:
    if path.suffix == _HTML:
        figure.write_html(path, include_plotlyjs="cdn", auto_open=False, **save_kwargs)
    elif path.suffix in _PLOTLY_IMAGES:
        figure.write_image(path, **save_kwargs)
    else:
        known = ", ".join((_HTML, *_PLOTLY_IMAGES))
        raise InvalidParameter(f"Plotly cannot write {path.name!r}; endings it can are {known}")


def to_image(image: Any) -> Any:
    """Return a PIL image from one, from a NumPy array, or from an object with `to_pil()`.

    Arrays: [h, w], [h, w, 1], [h, w, 3] RGB or [h, w, 4] RGBA; integers 0 to 255, floats 0 to 1 (others are
    rescaled with a warning), or booleans. Raises: InvalidParameter; Unsupported without Pillow.
    """
    Image = need("PIL.Image", "log_image", "pillow")
    if isinstance(image, Image.Image):
        return image
    if hasattr(image, "to_pil"):
        return image.to_pil()
    if not hasattr(image, "dtype"):
        kind = type(image).__name__
        raise InvalidParameter(f"an image must be a NumPy array or Pillow's, not {kind}")
    return Image.fromarray(_pixels(image))


def _pixels(array: Any) -> Any:
    """Return uint8[h, w] or uint8[h, w, 3 or 4]."""
    import numpy as np

    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or not array.size:
        raise InvalidParameter(f"an image has the shape [h, w] or [h, w, 1, 3 or 4], not {list(array.shape)}")
    if array.dtype.kind not in "biuf":
        raise InvalidParameter(f"pixels are integers, floats or booleans, not {array.dtype}")
    array = array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if array.dtype.kind in "iu":
        if array.min() < 0 or array.max() > 255:
            raise InvalidParameter(f"integer pixels are 0 to 255, not {array.min()} to {array.max()}")
        return array.astype(np.uint8)
    if array.dtype.kind == "f" and not (array.min() >= 0 and array.max() <= 1):
        low, high = float(np.nanmin(array)), float(np.nanmax(array))
        warnings.warn(f"float pixels from {low} to {high} are rescaled to 0 to 1", stacklevel=5)
        array = np.nan_to_num((array - low) / ((high - low) or 1.0))
    return (array * 255).astype(np.uint8)


def thumbnail(image: Any) -> Any:
    """Return a PIL image scaled so that its longer side has THUMBNAIL pixels."""
    scale = THUMBNAIL / max(image.size)
    return image.resize(tuple(max(1, int(side * scale)) for side in image.size))


def need(module: str, purpose: str, package: str) -> Any:
    """Return an optional module. Raises: Unsupported with the line that installs its package."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise Unsupported(f"{purpose} needs {package}: pip install {package}") from None
