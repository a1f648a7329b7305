"""What a downloaded file is called and said to be."""

from __future__ import annotations

import mimetypes
import unicodedata
from urllib.parse import quote

# fmt: off
_TEXT = frozenset(
    (
        "txt", "log", "err", "cfg", "conf", "cnf", "cf", "ini", "properties", "prop", "hocon", "toml",
        "yaml", "yml", "xml", "json", "js", "py", "py3", "csv", "tsv", "md", "rst", "ipynb", "MLmodel",
        "MLproject",
    )
)
# fmt: on
"""Extensions, and names without one, that are text/plain as in MLflow."""


def media_type(name: str) -> str:
    """Return the media type of a file by its name."""
    extension = name.rpartition(".")[2] if "." in name.lstrip(".") else name
    if extension in _TEXT:
        return "text/plain"
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


def attachment(name: str) -> str:
    """Return a Content-Disposition that saves a file under its name, in ASCII (RFC 6266)."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    safe = "".join(char if char.isprintable() and char not in '"\\' else "_" for char in plain) or "download"
    shown = safe if all(char.isalnum() or char in "!#$&+-.^_`|~" for char in safe) else f'"{safe}"'
    extra = "" if safe == name else f"; filename*=UTF-8''{quote(name, safe='')}"
    return f"attachment; filename={shown}{extra}"
