"""Fuzz target: the text of an ArtifactPath. What is accepted stays below its root, however it is read."""

import posixpath
from urllib.parse import unquote

from runstream_server.artifacts.path import MAX_PART, MAX_PATH, ROOT, ArtifactPath
from runstream_server.errors import InvalidArgument

_MOST_DECODINGS = 20


def check(data: bytes) -> None:
    """Parse UTF-8, with any other byte as a lone surrogate."""
    text = data.decode(errors="surrogateescape")
    try:
        path = ArtifactPath.parse(text)
    except InvalidArgument as error:
        assert len(error.message) < 2000
        return
    assert str(path) == text
    assert ArtifactPath.parse(str(path)) == path
    assert path.is_within(ROOT)
    assert path.parent / ArtifactPath((path.name,)) == path
    assert len(text) <= MAX_PATH
    text.encode()  # a name that is no text is no name of a file
    assert all(len(part.encode()) <= MAX_PART for part in path.parts)
    _check_readings(text, len(path.parts))


def _check_readings(text: str, parts: int) -> None:
    for _ in range(_MOST_DECODINGS):
        bare = "/".join(
            part.partition(";")[0] for part in text.split("/")
        )  # some drop what follows a semicolon
        for read in (text, text.replace("\\", "/"), "./" + bare):
            joined = posixpath.normpath(posixpath.join("/root", read))
            assert f"{joined}/".startswith("/root/"), text
        assert len(posixpath.normpath(posixpath.join("/root", text)).split("/")) == parts + 2, text
        assert not any(ord(char) < 32 or char == "\x7f" for char in text), text
        decoded = unquote(text)
        if decoded == text:
            return
        text = decoded
