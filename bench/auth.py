"""What authentication costs a log-metric over REST: the same requests to a server with it and one without.

All stand on the same PostgreSQL and take turns, so that none has the better moment. The caller is a user
with a role, not an administrator. The goal is 10 % of the calls a second without authentication.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench._stack import START_TIME
from bench.figures import Figure
from bench.peer import drive
from tests.security.access import basic, first_admin
from tests.servers import postgres_cluster
from tests.stack import runstream_server

API = "/api/2.0/mlflow"
PASSWORD = "a password of a benchmark"
CONNECTIONS = 16


def measure(smoke: bool) -> dict[str, Figure]:
    """Return calls a second and medians of a call, without authentication, by token and by password."""
    rounds, seconds = (2, 0.3) if smoke else (9, 2.0)
    with postgres_cluster() as postgres, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        option = f"--artifacts-destination={folder}/artifacts"
        # A server each: what one side logged, its server's compactor works on while others are measured.
        stores = {name: postgres.create_database() for name in ("", "token", "password")}
        admins = {name: first_admin(store) if name else "" for name, store in stores.items()}
        with ExitStack() as stack:
            sides: dict[str, tuple[str, str]] = {}
            for name, store in stores.items():
                options = [option, "--auth"] if name else [option]
                server = stack.enter_context(runstream_server(folder / f"server-{name}", store, *options))
                sides[name] = server.http, _user(server.http, admins[name], name)
            runs = {name: _run(url, authorization) for name, (url, authorization) in sides.items()}
            calls: dict[str, list[float]] = {name: [] for name in sides}
            p50: dict[str, list[float]] = {name: [] for name in sides}
            names = list(sides)
            for turn in range(rounds + 1):
                first = turn % len(names)  # whoever comes first finds a rested machine
                for name in names[first:] + names[:first]:
                    url, authorization = sides[name]
                    loads = [_posts(runs[name], authorization) for _ in range(CONNECTIONS)]
                    many = drive(url, loads, seconds)
                    one = drive(url, [_posts(runs[name], authorization)], seconds / 2)
                    if turn:  # the first warms up
                        calls[name].append(many.rate)
                        p50[name].append(1e3 * one.p50)
    return _figures(calls, p50)


def _figures(calls: dict[str, list[float]], p50: dict[str, list[float]]) -> dict[str, Figure]:
    base, quick = statistics.median(calls[""]), statistics.median(p50[""])
    figures = {
        "log-metric, no authentication": Figure(base, "calls/s", f"{CONNECTIONS} connections"),
        "log-metric, no authentication, p50": Figure(quick, "ms", "one caller"),
    }
    for name in [name for name in calls if name]:
        figures[f"log-metric, {name}"] = Figure(
            statistics.median(calls[name]),
            "calls/s",
            "goal: 10 % more time a call",
            at_least=base / 1.1,
            against={"without": base},
        )
        figures[f"log-metric, {name}, p50"] = Figure(
            statistics.median(p50[name]), "ms", at_most=1.1 * quick, against={"without": quick}
        )
    return figures


def _user(url: str, admin: str, kind: str) -> str:
    """Make a user; return its Authorization by token or password, empty without an administrator."""
    if not admin:
        return ""
    access = "/api/1.0/runstream/access"
    _call(url, f"{access}/users/create", {"user": "bench", "password": PASSWORD}, admin)
    made = _call(url, f"{access}/tokens/create", {"user": "bench"}, admin)
    return f"Bearer {made['secret']}" if kind == "token" else basic("bench", PASSWORD)


def _run(url: str, authorization: str) -> str:
    name = {"name": f"bench {authorization[:5]}"}
    experiment = _call(url, f"{API}/experiments/create", name, authorization)["experiment_id"]
    made = _call(url, f"{API}/runs/create", {"experiment_id": experiment}, authorization)
    return str(made["run"]["info"]["run_id"])


def _call(url: str, path: str, body: dict[str, Any], authorization: str) -> Any:
    headers = {"Content-Type": "application/json"}
    headers |= {"Authorization": authorization} if authorization else {}
    request = urllib.request.Request(url + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def _posts(run_id: str, authorization: str) -> Iterator[bytes]:
    """Yield log-metric requests without end."""
    head = f"POST {API}/runs/log-metric HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += f"Authorization: {authorization}\r\n" if authorization else ""
    start = f"{head}Content-Length: ".encode()
    return (b"%s%d\r\n\r\n%s" % (start, len(body), body) for body in _bodies(run_id))


def _bodies(run_id: str) -> Iterable[bytes]:
    step = 0
    while True:
        step += 1
        point = {"run_id": run_id, "key": "loss", "value": 0.5, "timestamp": START_TIME + step, "step": step}
        yield json.dumps(point).encode()
