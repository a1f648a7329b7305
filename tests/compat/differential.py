"""Makes the same calls to MLflow and to us, and says where the answers differ.

A scenario is a function of a `Caller`. It runs once against each server; every call is recorded. Answers are
then made comparable: ids become `<run_id 1>` in order of appearance, times `<time>`, tokens `<token>`. Of an
error only status and error_code count: our messages name the way out, MLflow's some SQL.

A difference that is on purpose is said in the call: `differs="slug"` with what we answer instead. The slug is
a heading of docs/rest.md. A call that says so and does not differ is a failure as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import urllib3

API = "/api/2.0/mlflow"
_TIMES = re.compile(r".*(_time|_timestamp|_timestamp_ms)$")
_IDS = ("experiment_id", "run_id", "run_uuid", "model_id", "upload_id")
_GENERATED = ("run_name",)


@dataclass(frozen=True)
class Call:
    """One call and its answer."""

    name: str
    """HTTP method and path, for messages."""
    status: int
    content_type: str
    body: Any
    """Parsed JSON, or bytes of anything else."""
    differs: str | None
    """Slug of the reason why our answer is not MLflow's."""
    ours: Mapping[str, Any] | None
    """What must hold of our answer where it differs: status, error_code or body."""
    only_status: bool
    """Compare the status alone."""


@dataclass
class Caller:
    """Calls one server and records."""

    url: str
    calls: list[Call] = field(default_factory=list)
    _pool: urllib3.PoolManager = field(default_factory=lambda: urllib3.PoolManager(retries=False))

    def __call__(
        self,
        verb: str,
        path: str,
        json_body: Any = None,
        *,
        body: bytes | None = None,
        base: str = API,
        content_type: str | None = "application/json",
        differs: str | None = None,
        ours: Mapping[str, Any] | None = None,
        only_status: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Make a call and return the parsed body. path: with query, percent-encoded."""
        data = json.dumps(json_body).encode() if json_body is not None else body
        sent = dict(headers or {})
        if data is not None and content_type:
            sent["Content-Type"] = content_type
        answer = self._pool.request(verb, self.url + base + path, body=data, headers=sent)
        parsed: Any = answer.data
        kind = answer.headers.get("Content-Type", "").split(";")[0]
        if kind == "application/json" and answer.data:
            parsed = json.loads(answer.data)
        name = f"{verb} {base}{path}"
        self.calls.append(Call(name, answer.status, kind, parsed, differs, ours, only_status))
        return parsed


Scenario = Callable[[Caller], None]


def compare(scenario: Scenario, mlflow: str, ours: str) -> tuple[list[str], set[str]]:
    """Run a scenario against both servers; return what differs, one line each, and the slugs it used."""
    callers = (Caller(mlflow), Caller(ours))
    for caller in callers:
        scenario(caller)
    lines: list[str] = []
    slugs: set[str] = set()
    views = [_View(caller.url) for caller in callers]
    for number, (theirs, mine) in enumerate(zip(callers[0].calls, callers[1].calls, strict=True)):
        want, got = (view.of(call) for view, call in zip(views, (theirs, mine), strict=True))
        found = list(_differences("", want, got))
        where = f"{number}. {_shown(theirs.name)}"
        if theirs.differs:
            slugs.add(theirs.differs)
            if not found:
                lines.append(f"{where}: does not differ, though `{theirs.differs}` says so")
            lines += [f"{where}: {line}" for line in _unexpected(mine)]
        else:
            lines += [f"{where}: {line}" for line in found]
    return lines, slugs


def _unexpected(call: Call) -> list[str]:
    """Return where our answer is not what the scenario says it is on purpose."""
    got = {"status": call.status, "body": call.body}
    if isinstance(call.body, dict):
        got["error_code"] = call.body.get("error_code")
    wanted = call.ours or {}
    return [
        f"{name}: {_shown(got.get(name))}, not {_shown(want)}"
        for name, want in wanted.items()
        if got.get(name) != want
    ]


class _View:
    """Makes answers of one server comparable with those of the other."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._names: dict[str, str] = {}

    def of(self, call: Call) -> dict[str, Any]:
        view: dict[str, Any] = {"status": call.status}
        if call.only_status:
            return view
        if call.status >= 400:
            code = call.body.get("error_code") if isinstance(call.body, dict) else None
            return {**view, "error_code": code}
        self._learn(call.body)
        return {**view, "content_type": call.content_type, "body": self._plain("", call.body)}

    def _learn(self, value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                if key in _IDS and isinstance(item, str) and len(item) > 8:
                    self._names.setdefault(item, f"<{key.replace('run_uuid', 'run_id')} {len(self._names)}>")
                self._learn(item)
        elif isinstance(value, list):
            for item in value:
                self._learn(item)

    def _plain(self, key: str, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self._plain(name, item) for name, item in value.items()}
        if isinstance(value, list):
            plain = [self._plain(key, item) for item in value]
            # Neither side promises an order of params, tags and latest metrics; points keep theirs.
            keyed = all(isinstance(item, dict) and "key" in item for item in plain)
            return sorted(plain, key=lambda item: str(item["key"])) if keyed else plain
        if _TIMES.match(key) and isinstance(value, int) and value > 1_700_000_000_000:
            return "<time>"
        if key.endswith("page_token"):
            return "<token>"
        if isinstance(value, str):
            # Ids that count leave gaps on one store and not on another.
            if key == "experiment_id" and value != "0":
                return "<experiment_id>"
            value = re.sub(r"^mlflow-artifacts:/[1-9]\d*", "mlflow-artifacts:/<experiment_id>", value)
            for known, name in self._names.items():
                value = value.replace(known, name)
            value = re.sub(r"^[a-z]+-[a-z]+-\d+$", "<generated name>", value)
        if isinstance(value, float) and value != value:
            return "<NaN>"
        return value


def _differences(path: str, want: Any, got: Any) -> list[str]:
    if isinstance(want, dict) and isinstance(got, dict):
        lines = [f"{path}.{key}: missing, MLflow has {_shown(want[key])}" for key in want.keys() - got.keys()]
        lines += [f"{path}.{key}: {_shown(got[key])}, not in MLflow" for key in got.keys() - want.keys()]
        for key in want.keys() & got.keys():
            lines += _differences(f"{path}.{key}", want[key], got[key])
        return sorted(lines)
    if isinstance(want, list) and isinstance(got, list) and len(want) == len(got):
        return [
            line
            for i, pair in enumerate(zip(want, got, strict=True))
            for line in _differences(f"{path}[{i}]", *pair)
        ]
    if type(want) is type(got) and want == got:
        return []
    return [f"{path}: {_shown(got)}, MLflow {_shown(want)}"]


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) < 200 else text[:200] + "…"
