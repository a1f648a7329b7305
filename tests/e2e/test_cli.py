"""The command line against a server process: a story through its commands, and what goes wrong around it."""

import csv
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runstream import Client
from runstream._config import Config
from runstream._types import Metric, Param, RunTag
from tests.e2e.cli import RUNSTREAM, Cli
from tests.guarded import free_port
from tests.stack import runstream_server

EVIL = "evil\u202e\x1b[2J"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    with runstream_server(
        folder / "server", f"sqlite:///{folder}/store.db", f"--artifacts-destination={folder}/artifacts"
    ) as server:
        yield server


@pytest.fixture(scope="module")
def client(server, tmp_path_factory):
    state = str(tmp_path_factory.mktemp("state"))
    with Client(config=Config.load(server.http, state_dir=state)) as client:
        yield client


@pytest.fixture
def cli(server):
    env = {name: value for name, value in server.client_env.items() if not name.startswith("MLFLOW_")}
    return Cli(env)


@pytest.fixture(scope="module")
def run_id(client):
    """A run with 200 points, a param that is a formula, and a tag."""
    experiment_id = client.create_experiment("seeded")
    run = client.create_run(experiment_id, run_name="seed")
    points = [Metric("loss", 1 / (step + 1), 1_700_000_000_000 + step, step) for step in range(200)]
    odd = [Metric("odd", float("nan"), 1_700_000_000_000, 0)]
    params = [Param("formula", '=HYPERLINK("x")'), Param("lr", "-0.5"), Param("note", "@SUM(A1)")]
    client.log_batch(run.info.run_id, [*points, *odd], params, [RunTag("team", "vision")])
    return run.info.run_id


def test_an_experiment_from_creation_to_restoration(cli):
    made = cli.json("experiments", "create", "--experiment-name", "story", "--tag", "team=vision")
    experiment_id = made["experiment_id"]

    found = cli.json("experiments", "search", "--filter", "name = 'story'")["experiments"]
    assert [item["experiment_id"] for item in found] == [experiment_id]
    assert found[0]["tags"] == {"team": "vision"}
    assert found[0]["lifecycle_stage"] == "active"
    assert set(found[0]) == {
        *("experiment_id", "name", "artifact_location", "lifecycle_stage"),
        *("creation_time", "last_update_time", "tags"),
    }
    assert experiment_id in {item["experiment_id"] for item in cli.json("experiments", "list")["experiments"]}
    assert "story" in cli("experiments", "list")

    cli("experiments", "rename", "-x", experiment_id, "--new-name", "story-2")
    assert cli.json("experiments", "get", "-n", "story-2")["experiment_id"] == experiment_id
    output = cli("experiments", "get", "-x", experiment_id, "--output", "json")
    assert json.loads(output) == json.loads(cli("experiments", "describe", "-x", experiment_id))

    cli("experiments", "set-tag", "-x", experiment_id, "--key", "k", "--value", "v")
    assert cli.json("experiments", "get", "-x", experiment_id)["tags"]["k"] == "v"
    cli("experiments", "delete-tag", "-x", experiment_id, "--key", "k")

    cli("experiments", "delete", "-x", experiment_id)
    deleted = cli.json("experiments", "search", "--view", "deleted_only")["experiments"]
    assert experiment_id in {item["experiment_id"] for item in deleted}
    cli("experiments", "restore", "-x", experiment_id)
    assert cli.json("experiments", "get", "-x", experiment_id)["lifecycle_stage"] == "active"


def test_a_run_from_creation_to_restoration(cli):
    made = json.loads(cli("runs", "create", "-n", "runs", "--run-name", "first", "--status", "failed"))
    run_id = made["run_id"]
    assert made["status"] == "FAILED"
    child = json.loads(
        cli("runs", "create", "-n", "runs", "-t", "a=b=c", "--description", "d", "--parent-run-id", run_id)
    )
    assert child["experiment_id"] == made["experiment_id"]
    tags = json.loads(cli("runs", "describe", "--run-id", child["run_id"]))["data"]["tags"]
    assert tags["a"] == "b=c"
    assert tags["mlflow.note.content"] == "d"
    assert tags["mlflow.parentRunId"] == run_id

    listed = cli.json("runs", "list", "--experiment-id", made["experiment_id"])["runs"]
    assert {run["info"]["run_id"] for run in listed} == {run_id, child["run_id"]}
    found = cli.json("runs", "search", "-n", "runs", "-f", "status = 'FAILED'", "--max-results", "1")["runs"]
    assert found[0]["info"]["run_name"] == "first"
    everywhere = cli.json("runs", "search", "--filter", "attributes.run_name = 'first'")["runs"]
    assert [run["info"]["run_id"] for run in everywhere] == [run_id]

    cli("runs", "rename", "-r", run_id, "--new-name", "renamed")
    cli("runs", "end", "-r", run_id, "--status", "KILLED")
    cli("runs", "set-tag", "-r", run_id, "--key", "best", "--value", "yes")
    run = cli.json("runs", "get", "-r", run_id)
    assert (run["info"]["run_name"], run["info"]["status"]) == ("renamed", "KILLED")
    assert run["data"]["tags"]["best"] == "yes"
    cli("runs", "delete-tag", "-r", run_id, "--key", "best")

    cli("runs", "delete", "--run-id", run_id)
    gone = cli.json("runs", "list", "-n", "runs", "--view", "deleted_only")["runs"]
    assert [run["info"]["run_id"] for run in gone] == [run_id]
    cli("runs", "restore", "--run-id", run_id)
    assert cli.json("runs", "get", "-r", run_id)["info"]["lifecycle_stage"] == "active"


def test_runs_move_and_are_purged(cli):
    run_id = json.loads(cli("runs", "create", "-n", "moving"))["run_id"]
    json.loads(cli("runs", "create", "-n", "archive"))
    cli("runs", "move", "-r", run_id, "-n", "archive")
    assert run_id in [run["info"]["run_id"] for run in cli.json("runs", "list", "-n", "archive")["runs"]]
    refused = cli.run("runs", "purge", "-r", run_id, "--yes")
    assert (refused.returncode, "active" in refused.stderr) == (1, True)
    cli("runs", "delete", "-r", run_id)
    assert "Would remove 1 runs" in cli("runs", "purge", "-r", run_id, "--dry-run")
    assert "Removed 1 runs, kept 0" in cli("runs", "purge", "-r", run_id, "--yes")
    assert cli.run("runs", "get", "-r", run_id).returncode == 1


def test_metrics_as_json_csv_and_lines(cli, run_id):
    latest = {item["key"]: item["value"] for item in cli.json("metrics", "list", "-r", run_id)["metrics"]}
    assert latest == {"loss": 1 / 200, "odd": "NaN"}

    points = cli.json("metrics", "history", "-r", run_id, "-k", "loss")["metrics"]
    assert [point["step"] for point in points] == list(range(200))
    assert points[0] | {"key": "loss", "value": 1.0, "timestamp": 1_700_000_000_000} == points[0]
    rows = list(csv.DictReader(io.StringIO(cli("metrics", "history", "-r", run_id, "-k", "loss", "--csv"))))
    assert [float(row["value"]) for row in rows] == [point["value"] for point in points]
    assert len(cli("metrics", "history", "-r", run_id, "-k", "loss", "--max-results", "7").splitlines()) == 8

    (series,) = cli.json("metrics", "series", "-r", run_id, "-k", "loss", "--min-step", "190")["series"]
    assert series["step"] == list(range(190, 200))
    assert series["bucket_width"] == 0
    (buckets,) = cli.json("metrics", "series", "-r", run_id, "-k", "loss", "--max-points", "16")["series"]
    assert sum(buckets["count"]) == 200
    assert max(buckets["max"]) == 1.0
    table = cli("metrics", "series", "-r", run_id, "-k", "loss", "--max-points", "16", "--csv").splitlines()
    assert table[0] == "run_id,key,step,timestamp,value,count,nan_count,mean,min,max"
    assert len(table) == 1 + len(buckets["step"])
    curve = ("metrics", "series", "-r", run_id, "-k", "loss", "--max-points", "16", "--x", "wall")
    (timed,) = cli.json(*curve)["series"]
    assert timed["x"][0] == 1_700_000_000_000
    assert cli(*curve, "--csv").startswith("run_id,key,step,timestamp,value,count,nan_count,mean,min,max,x\n")


def test_artifacts_up_and_down(cli, run_id, tmp_path):
    (tmp_path / "plots" / "deep").mkdir(parents=True)
    (tmp_path / "model.bin").write_bytes(os.urandom(3 << 20))
    (tmp_path / "plots" / "a.txt").write_text("a")
    (tmp_path / "plots" / "deep" / "b.txt").write_text("b")

    cli("artifacts", "log-artifact", "-r", run_id, "-l", str(tmp_path / "model.bin"), "-a", "model")
    cli("artifacts", "log-artifacts", "-r", run_id, "-l", str(tmp_path / "plots"), "-a", "plots")

    top = cli.json("artifacts", "list", "--run-id", run_id)["files"]
    assert [(file["path"], file["is_dir"]) for file in top] == [("model", True), ("plots", True)]
    (model,) = cli.json("artifacts", "ls", "-r", run_id, "-a", "model")["files"]
    assert model == {"path": "model/model.bin", "is_dir": False, "file_size": 3 << 20}
    deep = [file["path"] for file in cli.json("artifacts", "list", "-r", run_id, "-R")["files"]]
    assert "plots/deep/b.txt" in deep

    to = tmp_path / "new" / "folder"
    printed = cli("artifacts", "download", "-r", run_id, "-a", "model/model.bin", "-d", str(to)).strip()
    assert Path(printed).read_bytes() == (tmp_path / "model.bin").read_bytes()
    printed = cli("artifacts", "download", "-u", f"runs:/{run_id}/plots", "-d", str(to)).strip()
    assert (Path(printed) / "deep" / "b.txt").read_text() == "b"
    assert "no-such" in cli.fails("artifacts", "download", "-r", run_id, "-a", "no-such")
    assert "no file" in cli.fails("artifacts", "log-artifact", "-r", run_id, "-l", str(tmp_path / "none"))


def test_a_bar_shows_what_travels_on_a_terminal_only(cli, run_id, tmp_path):
    (tmp_path / "large.bin").write_bytes(bytes(20 << 20))
    upload = ["artifacts", "log-artifact", "-r", run_id, "-l", str(tmp_path / "large.bin"), "-a", "bar"]
    download = ["artifacts", "download", "-r", run_id, "-a", "bar", "-d", str(tmp_path)]
    assert cli.run(*upload).stderr == ""
    code, screen = cli.on_terminal(*upload)
    assert (code, "Uploading" in screen, "21.0 MB" in screen) == (0, True, True)
    assert cli.run(*download).stderr == ""
    code, screen = cli.on_terminal(*download)
    assert (code, "Downloading" in screen) == (0, True)


def test_a_store_without_a_server(cli, tmp_path):
    cli.env |= {
        "RUNSTREAM_TRACKING_URI": str(tmp_path / "store"),
        "RUNSTREAM_STATE_DIR": str(tmp_path / "state"),
        "RUNSTREAM_SENDER_LINGER": "5",
    }
    (tmp_path / "a.txt").write_text("a")
    run_id = json.loads(cli("runs", "create", "-n", "embedded"))["run_id"]
    cli("artifacts", "log-artifact", "-r", run_id, "-l", str(tmp_path / "a.txt"))
    assert [file["path"] for file in cli.json("artifacts", "list", "-r", run_id)["files"]] == ["a.txt"]
    printed = cli("artifacts", "download", "-r", run_id, "-a", "a.txt", "-d", str(tmp_path / "to")).strip()
    assert Path(printed).read_text() == "a"
    assert "0" * 32 in cli.fails("artifacts", "log-artifact", "-r", "0" * 32, "-l", str(tmp_path / "a.txt"))
    report = json.loads(cli("doctor", "--json"))
    assert report["ok"] is True


def test_a_registered_model_from_creation_to_deletion(cli, run_id, tmp_path):
    (tmp_path / "weights").write_text("w")
    cli("artifacts", "log-artifact", "-r", run_id, "-l", str(tmp_path / "weights"), "-a", "registered")
    assert cli.json("models", "create", "-n", "digits", "--tag", "a=b")["tags"] == {"a": "b"}
    source = f"runs:/{run_id}/registered"
    version = cli.json("models", "versions", "create", "-n", "digits", "--source", source)
    assert (version["version"], version["run_id"], version["status"]) == ("1", run_id, "READY")
    cli("models", "versions", "create", "-n", "digits", "--source", source, "--description", "second")

    listed = cli.json("models", "versions", "list", "-n", "digits")["model_versions"]
    assert sorted(item["version"] for item in listed) == ["1", "2"]
    assert "digits" in cli("models", "list")
    assert cli.json("models", "search", "-f", "name LIKE 'dig%'")["registered_models"][0]["name"] == "digits"

    cli("models", "alias", "set", "-n", "digits", "--alias", "champion", "--version", "1")
    assert cli.json("models", "alias", "get", "-n", "digits", "-a", "champion")["version"] == "1"
    cli("models", "stage", "-n", "digits", "-v", "2", "--stage", "Production")
    assert cli.json("models", "versions", "get", "-n", "digits", "-v", "2")["current_stage"] == "Production"
    cli("models", "tag", "-n", "digits", "-v", "1", "--key", "ok", "--value", "yes")
    cli("models", "tag", "-n", "digits", "--key", "ok", "--value", "yes")
    cli("models", "update", "-n", "digits", "--description", "reads digits")
    cli("models", "update", "-n", "digits", "-v", "1", "--description", "first")
    described = json.loads(cli("models", "versions", "describe", "-n", "digits", "-v", "1"))
    assert (described["tags"], described["description"]) == ({"ok": "yes"}, "first")
    cli("models", "tag", "-n", "digits", "-v", "1", "--key", "ok", "--remove")
    cli("models", "tag", "-n", "digits", "--key", "ok", "--remove")

    copied = cli.json("models", "copy", "-m", "models:/digits@champion", "--dst-name", "digits-prod")
    assert copied["name"] == "digits-prod"
    printed = cli("models", "download", "-m", "models:/digits-prod/1", "-d", str(tmp_path / "down")).strip()
    assert (Path(printed) / "weights").read_text() == "w"

    cli("models", "rename", "-n", "digits", "--new-name", "digits-2")
    model = json.loads(cli("models", "describe", "-n", "digits-2"))
    assert model["aliases"] == {"champion": "1"}
    assert cli.json("models", "get", "-n", "digits-2")["description"] == "reads digits"
    cli("models", "alias", "delete", "-n", "digits-2", "-a", "champion")
    cli("models", "versions", "delete", "-n", "digits-2", "-v", "2")
    cli("models", "delete", "-n", "digits-2")
    assert "digits-2" in cli.fails("models", "get", "-n", "digits-2")
    cli("models", "delete", "-n", "digits-prod", "--yes")


def test_csv_of_runs_is_safe_in_a_spreadsheet(cli, client, run_id, tmp_path):
    experiment_id = client.get_run(run_id).info.experiment_id
    file = tmp_path / "runs.csv"
    cli("experiments", "csv", "--experiment-id", experiment_id, "--filename", str(file))
    (row,) = csv.DictReader(io.StringIO(file.read_text()))
    assert list(row)[:6] == ["run_id", "experiment_id", "status", "artifact_uri", "start_time", "end_time"]
    assert row["run_id"] == run_id
    assert row["params.formula"] == '\'=HYPERLINK("x")'
    assert row["params.note"] == "'@SUM(A1)"
    assert row["params.lr"] == "-0.5"
    assert float(row["metrics.loss"]) == 1 / 200
    assert row["tags.team"] == "vision"
    assert cli("experiments", "csv", "-x", experiment_id) == file.read_text()
    assert "4711" in cli.fails("experiments", "csv", "-x", "4711")
    assert str(tmp_path / "none") in cli.fails(
        "experiments", "csv", "-x", "0", "-o", f"{tmp_path}/none/a.csv"
    )
    assert not (tmp_path / "none").exists()


def test_a_terminal_gets_a_table_in_which_hidden_characters_show(cli):
    cli("runs", "create", "-n", "terminal", "--tag", f"note={EVIL}")
    code, screen = cli.on_terminal("runs", "list", "-n", "terminal", "--column", "tags.note")
    assert code == 0
    assert "Run Id" in screen
    assert "evil\\u202e\\x1b[2J" in screen
    assert "\u202e" not in screen
    assert "\t" not in screen
    code, screen = cli.on_terminal("runs", "list", "-n", "terminal", "--json")
    assert "\u202e" not in screen
    assert json.loads(screen)["runs"][0]["data"]["tags"]["note"] == EVIL


def test_neither_a_reader_that_goes_away_nor_missing_letters_give_a_traceback(cli):
    made = json.loads(cli("runs", "create", "-n", "größer 中文", "--tag", "note=größer 中文"))
    for command in (["experiments", "list"], ["experiments", "csv", "-x", made["experiment_id"]]):
        answer = cli.run(*command, PYTHONIOENCODING="ascii")
        assert (answer.returncode, answer.stderr) == (0, "")
    pipe = " ".join([*RUNSTREAM, "experiments", "list", "--json", "| head -c 1"])
    piped = subprocess.run(pipe, shell=True, env=cli.env, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in piped.stderr


def test_deleting_asks_on_a_terminal(cli):
    run_id = json.loads(cli("runs", "create", "-n", "asks"))["run_id"]
    code, screen = cli.on_terminal("runs", "delete", "-r", run_id, typed="n\n")
    assert (code, "[y/N]" in screen) == (1, True)
    assert cli.json("runs", "get", "-r", run_id)["info"]["lifecycle_stage"] == "active"
    code, screen = cli.on_terminal("runs", "delete", "-r", run_id, "--yes")
    assert (code, "[y/N]" in screen) == (0, False)
    cli("runs", "restore", "-r", run_id)
    code, _ = cli.on_terminal("runs", "delete", "-r", run_id, typed="y\n")
    assert code == 0
    assert cli.json("runs", "get", "-r", run_id)["info"]["lifecycle_stage"] == "deleted"


def test_mlflows_variable_names_the_server_and_ours_wins(cli, server):
    dead = f"http://127.0.0.1:{free_port()}"
    del cli.env["RUNSTREAM_TRACKING_URI"]
    for uri in (server.http, f"grpc://{server.grpc}"):
        answer = cli.run("experiments", "list", "--json", MLFLOW_TRACKING_URI=uri)
        assert json.loads(answer.stdout)["experiments"]
    both = {"MLFLOW_TRACKING_URI": dead, "RUNSTREAM_TRACKING_URI": server.http}
    assert cli.run("experiments", "list", **both).returncode == 0
    assert (
        cli.run("experiments", "list", "--tracking-uri", server.http, MLFLOW_TRACKING_URI=dead).returncode
        == 0
    )


@pytest.mark.parametrize("scheme", ["http", "grpc"])
@pytest.mark.parametrize(
    "command", [["experiments", "list"], ["runs", "get", "-r", "0" * 32], ["models", "list"]]
)
def test_a_dead_server_is_told_within_seconds(cli, scheme, command):
    uri = f"{scheme}://127.0.0.1:{free_port()}"
    started = time.monotonic()
    message = cli.fails(*command, "--tracking-uri", uri)
    assert time.monotonic() - started < 15
    assert uri in message


def test_unknown_things_are_named_in_the_error(cli):
    assert "0" * 31 + "1" in cli.fails("runs", "get", "-r", "0" * 31 + "1")
    assert "nobody" in cli.fails("experiments", "get", "-n", "nobody")
    assert "nothing" in cli.fails("models", "versions", "list", "-n", "nothing")
    assert "4711" in cli.fails("experiments", "delete", "-x", "4711")
    assert "ftp" in cli.fails("runs", "list", "-x", "0", "--tracking-uri", "ftp://host")


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_ctrl_c_ends_with_130_and_no_traceback(cli, scheme):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen(
            [*RUNSTREAM, "experiments", "list", "--tracking-uri", uri],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=cli.env,
        )
        silent.settimeout(30)
        connection, _ = silent.accept()  # it waits for an answer now
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=30)
        connection.close()
    assert process.returncode == 130
    assert "Traceback" not in out + error


def test_doctor_finds_nothing_wrong_with_a_server_that_is_well(cli, run_id):
    report = json.loads(cli("doctor", "--json"))
    assert report["ok"] is True
    found = {check["name"]: check["state"] for check in report["checks"]}
    assert {found[name] for name in ("server", "clock", "grpc", "database", "artifacts")} == {"ok"}
    assert "nothing is wrong" in cli("doctor")


def test_doctor_says_that_journals_wait(cli, tmp_path):
    script = "import runstream as rs\nwith rs.start_run(): rs.log_metric('loss', 1.0)"
    env = {**cli.env, "RUNSTREAM_OFFLINE": "1", "RUNSTREAM_STATE_DIR": str(tmp_path / "state")}
    subprocess.run([sys.executable, "-c", script], env=env, check=True, capture_output=True, timeout=60)
    answer = cli.run("doctor", "--json", RUNSTREAM_STATE_DIR=str(tmp_path / "state"))
    (found,) = [check for check in json.loads(answer.stdout)["checks"] if check["name"] == "journals"]
    assert found["state"] == "warning"
    assert "1 journal" in found["message"]
    assert found["way_out"] == "runstream sync"


def test_doctor_says_that_a_server_is_dead_and_what_to_do(cli):
    uri = f"http://127.0.0.1:{free_port()}"
    answer = cli.run("doctor", "--tracking-uri", uri, "--json")
    assert answer.returncode == 1
    (server,) = [check for check in json.loads(answer.stdout)["checks"] if check["name"] == "server"]
    assert server["state"] == "problem"
    assert uri in server["message"]
    assert "runstream server" in server["way_out"]
