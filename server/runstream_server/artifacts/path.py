"""The one type for names of files below an artifact root.

Text becomes an ArtifactPath in `parse` and nowhere else; stores take nothing but an ArtifactPath. A path is
literal: a store never decodes it. As others on the way may, text that reads as another path after
percent-decoding, however often, is refused too.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from runstream_server.validation import REORDERING, check_length, check_text, invalid

MAX_PATH = 1000
"""Most characters of a path."""
MAX_PART = 255
"""Most bytes of one part in UTF-8: the limit of file systems and of MinIO."""

_DRIVE = re.compile(r"[A-Za-z]:|file:", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ArtifactPath:
    """A relative path whose parts are safe to use as names; build it with `parse`."""

    parts: tuple[str, ...]
    """Names from the root down; empty for the root itself."""

    @staticmethod
    def parse(text: str, field: str = "path") -> ArtifactPath:
        """Return the path that `text` names: parts between single slashes, at least one.

        Raises: InvalidArgument naming `field` for anything that is or could be read as another path: empty,
        `.` or `..` parts, a leading slash, backslashes, control characters, drive letters, encoded forms
        of these; also above 1,000 characters or 255 bytes a part.
        """
        check_length(text, field, MAX_PATH)
        check_text(text, field, MAX_PATH)
        if fault := _fault(text) or _hidden_fault(text) or _long_part(text):
            raise invalid(field, text, fault)
        return ArtifactPath(tuple(text.split("/")))

    @staticmethod
    def parse_folder(text: str, field: str = "path") -> ArtifactPath:
        """Return the folder that `text` names, the root for empty text. Raises: as `parse`."""
        return ArtifactPath.parse(text, field) if text else ROOT

    @property
    def is_root(self) -> bool:
        """Whether this is the root itself."""
        return not self.parts

    @property
    def name(self) -> str:
        """The last part; empty for the root."""
        return self.parts[-1] if self.parts else ""

    @property
    def parent(self) -> ArtifactPath:
        """The path without its last part; the root's parent is the root."""
        return ArtifactPath(self.parts[:-1])

    def __str__(self) -> str:
        return "/".join(self.parts)

    def __truediv__(self, other: ArtifactPath) -> ArtifactPath:
        return ArtifactPath(self.parts + other.parts)

    def is_within(self, other: ArtifactPath) -> bool:
        """Whether this is `other` or lies below it."""
        return self.parts[: len(other.parts)] == other.parts

    def relative_to(self, other: ArtifactPath) -> ArtifactPath:
        """Return this path as seen from `other`. Raises: ValueError when it is not within it."""
        if not self.is_within(other):
            raise ValueError(f"{self} is not within {other}")
        return ArtifactPath(self.parts[len(other.parts) :])


ROOT = ArtifactPath(())
"""The root of a store or owner."""


def _fault(text: str) -> str | None:
    """Return the rule that `text` breaks as it stands, None when it breaks none."""
    if text.startswith("/"):
        return "a path must be relative; leave out the leading slash"
    if "\\" in text:
        return "a path must not contain backslashes; the separator is /"
    if control := next((char for char in text if _is_control(char)), None):
        return f"a path must not contain the control character U+{ord(control):04X}"
    for part in text.split("/"):
        if not part:
            return "a path must not have empty parts"
        if part.partition(";")[0].strip() in (".", ".."):  # some servers drop what follows a semicolon
            return "a path must not have the parts . and .."
    if _DRIVE.match(text):
        return "a path must not begin with a drive letter or file:"
    return None


def _is_control(char: str) -> bool:
    # U+FFFD stands for bytes that were no UTF-8: several spellings would name one file.
    return char in REORDERING or char == "\ufffd" or unicodedata.category(char) == "Cc"


def _hidden_fault(text: str) -> str | None:
    """Return the rule that some percent-decoding of `text` breaks, None when none does."""
    for decoded in _decodings(text):
        if decoded.count("/") != text.count("/"):
            return "a path must not contain an encoded separator"
        if fault := _fault(decoded):
            return f"percent-decoded, {fault}"
    return None


def _decodings(text: str) -> Iterator[str]:
    while "%" in text:
        decoded = unquote(text)
        if decoded == text:
            return
        yield (text := decoded)


def _long_part(text: str) -> str | None:
    if max(len(part.encode()) for part in text.split("/")) > MAX_PART:
        return f"a part of a path must not exceed {MAX_PART} bytes"
    return None
