"""MLflow's own Python client, unchanged, against our server."""

import pytest


@pytest.mark.timeout(300)
def test_tracking(url, run_client):
    print(run_client("tracking.py", url))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_models_registry_and_prompts(url, run_client):
    print(run_client("models.py", url))
