"""A server, or what somebody stored on it, does not choose where a download is written: HOSTILE A22."""

from typing import Any

import pytest

from runstream._downloads import Downloads
from runstream._errors import InvalidParameter
from runstream.v1 import artifacts_pb2 as pb

NAMES = (
    *("../pwn", "a/../../pwn", "/tmp/pwn", "a//pwn", "./pwn", "a/..", "..", "..\\pwn", "a\\..\\..\\pwn"),
    *("\0pwn", "a\npwn", "x" * 1001, "MLmodel/../../pwn"),
)


class Answers(Downloads):
    """Downloads from a server that names what it likes. Not a real one: ours refuses to store such names."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.fetched: list[str] = []

    def _call(self, method: str, request: Any, response_type: Any, timeout: float | None = None) -> Any:
        return pb.ListArtifactsResponse(files=[pb.FileInfo(path=self._path, file_size=1)])

    def _fetch(self, owner, path, target):
        self.fetched.append(path)
        target.write_text("pwned")


@pytest.mark.parametrize("path", NAMES, ids=ascii)
def test_a_listed_name_that_leads_elsewhere_is_refused_before_a_byte_comes(tmp_path, path):
    below = tmp_path / "into"
    below.mkdir()
    client = Answers(path)
    with pytest.raises(InvalidParameter, match="path"):
        client.download_artifacts("0" * 32, dst_path=below)
    assert client.fetched == []
    assert list(tmp_path.rglob("*")) == [below]


def test_a_plain_name_is_written_below_the_folder(tmp_path):
    Answers("model/MLmodel").download_artifacts("0" * 32, dst_path=tmp_path)
    assert (tmp_path / "model" / "MLmodel").read_text() == "pwned"
