"""What doctor says about a real PostgreSQL and a real MinIO, well and not."""

import json
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from runstream import _cli
from runstream_server.store import schema
from runstream_server.store.engine import Database
from tests.guarded import free_port

runner = CliRunner()


def doctor(*arguments: str):
    """Return exit code and findings by name."""
    answer = runner.invoke(_cli.app, ["doctor", "--json", *arguments])
    return answer.exit_code, {check["name"]: check for check in json.loads(answer.stdout)["checks"]}


def test_an_empty_database_then_one_with_the_schema(postgres_dsn):
    code, found = doctor("--backend-store-uri", postgres_dsn)
    assert (code, found["schema"]["state"]) == (0, "warning")
    assert "runstream db upgrade" in found["schema"]["way_out"]
    db = Database(postgres_dsn)
    schema.upgrade(db)
    db.close()
    code, found = doctor("--backend-store-uri", postgres_dsn)
    assert (code, found["schema"]["state"]) == (0, "ok")
    assert found["database clock"]["state"] == "ok"


def test_an_old_schema_is_a_problem_with_the_line_to_run(postgres_dsn):
    db = Database(postgres_dsn)
    schema.upgrade(db)
    db.write(lambda c: c.exec_driver_sql(f"UPDATE {schema.VERSION_TABLE} SET version_num = '0000'"))
    db.close()
    code, found = doctor("--backend-store-uri", postgres_dsn)
    assert (code, found["schema"]["state"]) == (1, "problem")
    assert "runstream db upgrade" in found["schema"]["way_out"]


def test_a_database_that_does_not_exist(postgres_dsn):
    missing = urlsplit(postgres_dsn)._replace(path="/no_such_db").geturl()
    code, found = doctor("--backend-store-uri", missing)
    assert code == 1
    assert "createdb no_such_db" in found["database"]["way_out"]


def test_a_database_server_that_is_away_and_no_password_is_shown():
    uri = f"postgresql://me:hush@127.0.0.1:{free_port()}/db"
    answer = runner.invoke(_cli.app, ["doctor", "--json", "--backend-store-uri", uri])
    assert answer.exit_code == 1
    assert "hush" not in answer.output
    (found,) = [check for check in json.loads(answer.stdout)["checks"] if check["name"] == "database"]
    assert "refused" in found["message"].lower()
    assert found["way_out"]


@pytest.fixture
def s3(minio, monkeypatch):
    """Credentials and endpoint of MinIO in this process's environment."""
    for name, value in minio.environ().items():
        monkeypatch.setenv(name, value)
    return minio


def test_a_bucket_that_is_there(s3):
    code, found = doctor("--artifacts-destination", f"s3://{s3.create_bucket()}/runs")
    assert (code, found["artifacts"]["state"]) == (0, "ok")


def test_a_bucket_that_is_missing(s3):
    code, found = doctor("--artifacts-destination", "s3://no-such-bucket/runs")
    assert code == 1
    assert "no-such-bucket" in found["artifacts"]["message"]
    assert "make it" in found["artifacts"]["way_out"]


def test_wrong_credentials(s3, monkeypatch):
    bucket = s3.create_bucket()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-wrong-wrong")
    code, found = doctor("--artifacts-destination", f"s3://{bucket}")
    assert code == 1
    assert "AWS_SECRET_ACCESS_KEY" in found["artifacts"]["way_out"]


def test_an_object_store_that_is_away(s3, monkeypatch):
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("RUNSTREAM_S3_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    code, found = doctor("--artifacts-destination", "s3://bucket")
    assert code == 1
    assert "ENDPOINT_URL" in found["artifacts"]["way_out"]
