"""MLflow's Java client from Maven Central, and R's shapes through httr, against our server."""

import pytest

from tests.compat import foreign


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(foreign.missing("java") is not None, reason=foreign.HINTS["java"])
def test_java(url, tmp_path):
    print(foreign.run_java(foreign.build_java(tmp_path), url, points=25_000))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(foreign.missing("r") is not None, reason=foreign.HINTS["r"])
def test_r(url):
    print(foreign.run_r(url))
