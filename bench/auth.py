"""What authentication costs a log-metric over REST: the same requests to a server with it and one without.

Three servers stand side by side on one PostgreSQL, a database each: without authentication, by token, by
password. They are asked in short turns, in every order alike, and a figure is the median over rounds of what
a side took of what the side without took in the same round: what else the machine does meets all of them.
The caller is a user with a role, not an administrator. The goal is at most 10 % more time a call.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any

from bench._stack import START_TIME, cpu_seconds
from bench.figures import Figure
from bench.peer import drive
from tests.security.access import basic, first_admin
from tests.servers import PostgresCluster, postgres_cluster
from tests.stack import RunstreamServer, runstream_server

API = "/api/2.0/mlflow"
PASSWORD = "a password of a benchmark"
CONNECTIONS = 16
SIDES = ("", "token", "password")
"""Without authentication, and how the caller signs in."""


@dataclass
class _Side:
    """One server, its caller, and what was seen of it, a number a round."""

    server: RunstreamServer
    authorization: str
    run_id: str
    seconds: list[float] = field(default_factory=list)
    """Of a call when many callers keep the server busy."""
    p50: list[float] = field(default_factory=list)
    """Seconds, of one caller."""
    cpu: list[float] = field(default_factory=list)
    """Seconds of processor that the server took a call when it was busy."""

    def turn(self, seconds: float) -> None:
        """Send requests for a while, over many connections and then over one."""
        url, pid = self.server.http, self.server.process.pid
        loads = [_posts(self.run_id, self.authorization) for _ in range(CONNECTIONS)]
        before = cpu_seconds(pid)
        many = drive(url, loads, seconds)
        self.cpu.append((cpu_seconds(pid) - before) / many.calls)
        self.seconds.append(1 / many.rate)
        self.p50.append(drive(url, [_posts(self.run_id, self.authorization)], seconds / 2).p50)

    def forget(self) -> None:
        """Drop what was seen."""
        self.seconds.clear()
        self.p50.clear()
        self.cpu.clear()


def measure(smoke: bool) -> dict[str, Figure]:
    """Return calls a second, medians of a call and the server's work, by how the caller signs in."""
    rounds, seconds = (1, 0.2) if smoke else (30, 0.8)
    with postgres_cluster() as postgres, tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        sides = {kind: _side(stack, postgres, Path(name), kind) for kind in SIDES}
        for side in sides.values():  # warms up
            side.turn(seconds)
            side.forget()
        orders = list(permutations(sides.values()))
        for number in range(rounds):
            for side in orders[number % len(orders)]:
                side.turn(seconds)
    return _figures(sides)


def _side(stack: ExitStack, postgres: PostgresCluster, folder: Path, kind: str) -> _Side:
    store = postgres.create_database()
    admin = first_admin(store) if kind else ""
    options = [f"--artifacts-destination={folder}/artifacts", *(["--auth"] if kind else [])]
    server = stack.enter_context(runstream_server(folder / f"server-{kind}", store, *options))
    authorization = _user(server.http, admin, kind)
    return _Side(server, authorization, _run(server.http, authorization))


def _figures(sides: dict[str, _Side]) -> dict[str, Figure]:
    base = sides[""]
    figures: dict[str, Figure] = {}
    for kind, side in sides.items():
        what = f"log-metric, {kind or 'no authentication'}"
        note = f"{CONNECTIONS} connections"
        figures[what] = Figure(1 / statistics.median(side.seconds), "calls/s", note)
        figures[f"{what}, p50"] = Figure(1e3 * statistics.median(side.p50), "ms", "one caller")
        figures[f"{what}, server"] = Figure(1e6 * statistics.median(side.cpu), "us", "of processor a call")
    for kind, side in sides.items():
        if not kind:
            continue
        for what, mine, others in (
            (note, side.seconds, base.seconds),
            ("one caller", side.p50, base.p50),
            ("processor of the server", side.cpu, base.cpu),
        ):
            ratios = sorted(one / other for one, other in zip(mine, others, strict=True))
            low, high = ratios[len(ratios) // 4], ratios[3 * len(ratios) // 4]
            figures[f"time a call by {kind} / without, {what}"] = Figure(
                statistics.median(ratios), "x", f"half of the rounds: {low:.2f}-{high:.2f}", at_most=1.1
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
