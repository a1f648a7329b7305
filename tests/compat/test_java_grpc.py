"""The Java example over gRPC: generated, built, and run against our server on connections that break."""

import json
import re
import urllib.request

import pytest

from tests.compat import foreign
from tests.compat.cutter import cutter

STEPS = 50_000
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(foreign.missing("java") is not None, reason=foreign.HINTS["java"]),
]


@pytest.fixture(scope="module")
def class_path(tmp_path_factory):
    return foreign.build_grpc_java(tmp_path_factory.mktemp("java"))


def test_what_java_streams_over_breaking_connections_is_there_once(server, class_path):
    # Both metrics take some 1.6 MB: the connection breaks at least twice.
    with cutter(server.grpc, after=500_000) as address:
        printed = foreign.run_grpc_java(class_path, address, STEPS)
    print(printed)
    told = re.search(r"run (\w+): (\d+) points .* equal; streams broken: (\d+)", printed)
    assert told
    run_id, points, broken = told.groups()
    assert int(points) == 2 * STEPS
    assert int(broken) >= 2
    for key in ("loss", "accuracy"):
        steps = [point["step"] for point in history(server.http, run_id, key)]
        assert sorted(steps) == list(range(STEPS))


def history(url, run_id, key):
    """Return all points of a metric, over REST."""
    points, token = [], ""
    while True:
        query = f"run_id={run_id}&metric_key={key}&page_token={token}"
        with urllib.request.urlopen(f"{url}/api/2.0/mlflow/metrics/get-history?{query}") as answer:
            page = json.load(answer)
        points += page.get("metrics", [])
        token = page.get("next_page_token", "")
        if not token:
            return points
