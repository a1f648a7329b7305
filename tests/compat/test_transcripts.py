"""What MLflow's Java client and R's libraries sent, sent again: the answers are those that they understood.

Recorded by `python -m tests.compat.record`. Names that servers make up, such as run ids, are those of the
new answers in the requests that follow; times that the server takes are only compared in type.
"""

import json
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.compat.record import TRANSCRIPTS, send
from tests.in_process import running_server

MADE = {"run_id", "run_uuid", "run_name", "next_page_token"}
"""Fields with names that servers make up."""
CLOCK = {"creation_time", "last_update_time", "creation_timestamp", "last_updated_timestamp"}
"""Fields with the server's time."""


class Names:
    """New names by recorded name."""

    def __init__(self) -> None:
        self._new: dict[str, str] = {}

    def learn(self, old: Any, new: Any) -> None:
        """Find made names in the same places of two answers."""
        if isinstance(old, dict) and isinstance(new, dict):
            for key in old.keys() & new.keys():
                if key in MADE and isinstance(old[key], str) and old[key]:
                    self._new.setdefault(old[key], new[key])
                self.learn(old[key], new[key])
        elif isinstance(old, list) and isinstance(new, list):
            for one, other in zip(old, new, strict=False):
                self.learn(one, other)

    def apply(self, text: str) -> str:
        """Return text with the new names."""
        for old, new in self._new.items():
            text = text.replace(old, new)
        return text


def plain(value: Any, key: str = "") -> Any:
    """Return an answer without times of the server."""
    if isinstance(value, dict):
        return {name: plain(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return type(value).__name__ if key in CLOCK else value


@pytest.mark.parametrize("language", ["java", "r"])
def test_a_transcript_gets_the_same_answers(language, tmp_path):
    exchanges = json.loads((TRANSCRIPTS / f"{language}.json").read_text())
    assert len(exchanges) > 30
    names = Names()
    with running_server(f"sqlite:///{tmp_path}/s.db", artifacts_destination=f"{tmp_path}/a") as server:
        address = urlsplit(server.http).netloc
        for number, old in enumerate(exchanges):
            path, body = names.apply(old["path"]), names.apply(old.get("body", ""))
            status, data, content_type = send(
                address, old["verb"], path, body.encode(), old.get("content_type")
            )
            where = f"request {number}: {old['verb']} {path} {body[:500]}"
            answer = json.loads(data)
            assert (status, content_type) == (old["status"], "application/json"), f"{where}\n{answer}"
            names.learn(old["answer"], answer)
            wanted = json.loads(names.apply(json.dumps(old["answer"])))
            if status == 200:
                assert plain(answer) == plain(wanted), where
            else:
                assert answer["error_code"] == wanted["error_code"], where


def test_the_transcripts_hold_what_only_these_clients_send():
    java, r = ((TRANSCRIPTS / f"{name}.json").read_text() for name in ("java", "r"))
    for shape in ('\\"run_uuid\\"', '\\"NaN\\"', '\\"Infinity\\"', '\\"1717000000000\\"'):
        assert shape in java, shape
    for shape in ('\\"run_uuid\\"', '\\"NaN\\"', '\\"Inf\\"', '\\"1.717e+12\\"', '\\"1e+05\\"', '\\"TRUE\\"'):
        assert shape in r, shape
    assert '"verb": "DELETE"' in r
    assert '"verb": "PATCH"' in r
    assert "stages=" in java
