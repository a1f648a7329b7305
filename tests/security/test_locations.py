"""Locations that a client names, and those that old rows hold: HOSTILE A01 to A09, A16, B01, B02."""

import pytest
import sqlalchemy as sa

from runstream.v1 import artifacts_pb2, experiments_pb2, registry_pb2
from runstream_server.store import tables

PROMPT = registry_pb2.ModelVersionTag(key="mlflow.prompt.is_prompt", value="true")
# {L}: the listener; {F}: the folder that holds canary.txt and, in `artifacts`, the store.
LOCATIONS = [
    *(
        "file:///etc",
        "file:///etc/",
        "/etc",
        "file:/etc",
        "FILE:///etc",
        "file://./etc",
        "file://localhost/etc",
    ),
    *(
        "//proc/self/root",
        "file:////etc",
        "file://remote-host/etc/passwd",
        "../..",
        "~/.ssh",
        "~",
        ".",
        "./x",
    ),
    *("{F}", "file://{F}", "{F}/artifacts/..", "file://{F}/artifacts/../", "file://{F}/artifacts/%2e%2e"),
    *(
        "file://{F}/artifacts/%252e%252e",
        "{F}/artifacts/.",
        "{F}/artifacts/x/../..",
        "file://{F}?",
        "file://{F}#",
    ),
    *(
        "mlflow-artifacts:/..",
        "mlflow-artifacts:/../",
        "mlflow-artifacts:/a/../..",
        "mlflow-artifacts:/%2e%2e",
    ),
    *("mlflow-artifacts:/..%2f", "mlflow-artifacts:/%252e%252e/", "mlflow-artifacts://h:1/../../../../"),
    *(
        "mlflow-artifacts://h/..%2f..%2f",
        "mlflow-artifacts:/x%00",
        "mlflow-artifacts:/a\\..\\..",
        "mlflow-artifacts:/;/..",
    ),
    *(
        "mlflow-artifacts:/..;/",
        "mlflow-artifacts:/a/..;x=y/..",
        "mlflow-artifacts:////etc",
        "mlflow-artifacts:..",
    ),
    *(
        "http:///?/../../../../../../etc/",
        "http:///#/../../../../../../etc/",
        "mlflow-artifacts:/?/../../etc",
    ),
    *(
        "mlflow-artifacts:/#/../../etc",
        "http://{L}/",
        "https://{L}/",
        "http://169.254.169.254/latest/meta-data/",
    ),
    *(
        "http://{L}/api/2.0/mlflow-artifacts/artifacts/../../",
        "HTTP://{L}",
        "ftp://{L}/",
        "sftp://{L}/",
        "hdfs://{L}/",
    ),
    *(
        "ftp://u:p@{L}/x",
        "s3:/b/a/../../x",
        "s3://b/../x",
        "s3://{L}/x",
        "s3://b@{L}/x",
        "gs://b/x",
        "wasbs://c@{L}/x",
    ),
    *(
        "dbfs:/x?y=..",
        "dbfs:/etc",
        "\\\\host\\share",
        "\\\\?\\C:\\x",
        "C:..\\x",
        "C:/x",
        "c:x",
        "models:/x/1/../..",
    ),
    *(
        "runs:/../x",
        "runs:/0/../../etc",
        "jar:file:///etc!/",
        "data:text/plain,x",
        "gopher://{L}/_x",
        "file:etc",
    ),
    *(
        "file://{F}/artifacts\n/..",
        "\tfile:///etc",
        " /etc",
        "/etc ",
        "mlflow-artifacts:/\u202e../x",
        "%2fetc",
    ),
    *(
        "file:%2f%2f%2fetc",
        "mlflow-artifacts:/." + "/." * 200,
        "mlflow-artifacts:/" + "a/" * 2000,
        "x" * 1_000_000,
    ),
]


def spelled(victim, location):
    listener = f"127.0.0.1:{victim.listener.port}"
    victim.said = str(victim.folder) if "{F}" in location else ""
    return location.replace("{L}", listener).replace("{F}", str(victim.folder))


@pytest.mark.parametrize("location", LOCATIONS, ids=lambda text: text[:50].encode("unicode_escape").decode())
def test_a_client_names_no_location_outside(attack, location):
    location = spelled(attack, location)
    attack.refuse(experiments_pb2.CreateExperimentRequest(name="hostile", artifact_location=location))
    source = {"name": attack.model, "source": location}
    attack.refuse(registry_pb2.CreateModelVersionRequest(**source, run_id=attack.run))
    attack.refuse(registry_pb2.CreateModelVersionRequest(**source))
    if "\0" not in location and not location.isidentifier():
        # A prompt's source is text; it must not become a place to read from.
        attack.refuse(registry_pb2.CreateModelVersionRequest(**source, tags=[PROMPT]))


def test_what_exists_and_what_does_not_are_refused_alike(attack):
    said = set()
    attack.said = str(attack.folder)
    for location in ("file:///etc", "file:///nothing-here", "/proc/self/environ", str(attack.folder)):
        body = f'{{"name": "{attack.model}", "source": "{location}"}}'.encode()
        headers = [("Content-Type", "application/json")]
        reply = attack.ask("POST", "/api/2.0/mlflow/model-versions/create", headers=headers, body=body)
        said.add(reply.json["message"].replace(location, "LOCATION"))
    assert len(said) == 1


@pytest.fixture
def old_rows(victim):
    """Yield a function that sets every stored location, as rows from elsewhere may; undone at the end."""
    db = victim.server.server.context.db
    run = sa.update(tables.runs).where(tables.runs.c.run_id == victim.run)
    logged = sa.update(tables.logged_models).where(tables.logged_models.c.model_id == victim.logged_model)
    version = sa.update(tables.model_versions)
    kept = db.read(
        lambda c: (
            c.scalar(sa.select(tables.runs.c.artifact_uri).where(tables.runs.c.run_id == victim.run)),
            c.scalar(sa.select(tables.logged_models.c.artifact_uri)),
            c.scalar(sa.select(tables.experiments.c.artifact_location).where(tables.experiments.c.id == 0)),
            *c.execute(
                sa.select(tables.model_versions.c.source, tables.model_versions.c.storage_location)
            ).one(),
        )
    )

    def put(run_uri, model_uri, experiment_uri, source, storage):
        def write(connection):
            connection.execute(run.values(artifact_uri=run_uri))
            connection.execute(logged.values(artifact_uri=model_uri))
            connection.execute(version.values(source=source, storage_location=storage))
            where = tables.experiments.c.id == 0
            connection.execute(
                sa.update(tables.experiments).where(where).values(artifact_location=experiment_uri)
            )

        db.write(write)

    yield lambda location: put(*[location] * 5)
    put(*kept)


OLD = [text for text in LOCATIONS if len(text) < 2000]


@pytest.mark.parametrize("location", OLD, ids=lambda text: text[:50].encode("unicode_escape").decode())
def test_a_stored_location_outside_is_neither_read_nor_written(attack, old_rows, location):
    old_rows(spelled(attack, location))
    run, model = attack.run, attack.logged_model
    version = artifacts_pb2.ModelVersionName(name=attack.model, version="1")
    for name in ("canary.txt", "passwd", "ok.txt"):
        attack.ask("GET", f"/get-artifact?run_id={run}&path={name}")
        attack.ask("GET", f"/model-versions/get-artifact?name={attack.model}&version=1&path={name}")
        for prefix in ("/api/2.0", "/ajax-api/2.0", "/api/3.0", "/ajax-api/3.0"):
            files = f"{prefix}/mlflow/logged-models/{model}/artifacts/files?artifact_file_path={name}"
            attack.ask("GET", files)
    by_version = artifacts_pb2.ArtifactOwner(model_version=version)
    for owner in (artifacts_pb2.ArtifactOwner(run_id=run), by_version):
        attack.refuse(artifacts_pb2.PresignDownloadRequest(owner=owner, path="canary.txt"))
    attack.refuse(artifacts_pb2.ListArtifactsRequest(owner=by_version))
    attack.refuse(artifacts_pb2.ListArtifactsRequest(run_id=run))
    attack.refuse(artifacts_pb2.DeleteArtifactRequest(run_id=run, path="canary.txt"))
    attack.ask("POST", f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid={run}&path=pwn", body=b"x")
    attack.ask("PUT", f"/runstream.v1.ArtifactService/UploadArtifact?run_id={run}&path=pwn", body=b"x")
