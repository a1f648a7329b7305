"""Versions that meet on one host: journals of older formats, and a newer client beside an older sender."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from runstream._config import Config
from runstream._sync import journals, sync
from tests.integration.client.conftest import ROOT, until

FIXTURES = Path(__file__).parent / "journals"
LOSSES = [(step, step / 7) for step in range(1500)]


@pytest.mark.parametrize("version", [1, 2])
def test_journals_of_an_older_format_are_delivered_whole(tmp_path, config, stored, version):
    """Written by the version of that time: one by a process that vanished, one to its end."""
    with tarfile.open(FIXTURES / f"format{version}.tar.gz") as packed:
        packed.extractall(tmp_path / "old/server/journals", filter="data")
    for meta in (tmp_path / "old").rglob("journal.json"):
        meta.write_text(json.dumps(json.loads(meta.read_text()) | {"tracking_uri": config.tracking_uri}))
    vanished, ended = (f"f{version}" * 15 + end for end in ("01", "02"))
    report = sync(config, tmp_path / "old", force=True)
    assert (len(report.delivered), report.refused, report.failed) == (2, 0, [])
    assert [stored.status(run) for run in (vanished, ended)] == ["FAILED", "FINISHED"]
    for run_id in (vanished, ended):
        assert stored.points(run_id) == LOSSES
        run = stored.run(run_id)
        assert {(item.key, item.value) for item in run.data.params} == {("text", "a longer text, " * 9)}
        assert {("note", "old"), ("kind", "tag")} <= {(item.key, item.value) for item in run.data.tags}


def test_a_journal_of_a_newer_format_is_left_alone(tmp_path, config):
    folder = tmp_path / "new/server/journals/session"
    folder.mkdir(parents=True)
    (folder / "journal.json").write_text(json.dumps({"format": 99, "tracking_uri": config.tracking_uri}))
    (info,) = journals(config, tmp_path / "new")
    assert info.state == "damaged"
    (skipped, reason) = sync(config, tmp_path / "new").skipped[0]
    assert skipped.folder == folder
    assert "format" in reason


@pytest.fixture
def older(tmp_path) -> Path:
    """Return a folder with this client under an older version's number."""
    shutil.copytree(ROOT / "client/runstream", tmp_path / "older/runstream")
    about = tmp_path / "older/runstream-0.0.9.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: runstream\nVersion: 0.0.9\n")
    return Path(about.parent)


def sender_versions(config: Config) -> list[str]:
    """Return the versions of the senders that ran, in order."""
    logs = Path(str(config.state_dir)).rglob("sender-*.log")
    lines = [line for log in logs for line in log.read_text().splitlines() if "sender " in line]
    return [line.split("sender ")[1].split()[0] for line in sorted(lines) if " for " in line]


def test_a_newer_client_takes_an_older_senders_place_and_no_point_is_lost(script, stored, config, older):
    """The older client's process goes on logging; the newer sender delivers its journal."""
    path = os.pathsep.join([str(older), str(ROOT / "client"), str(ROOT / "server")])
    old = script.start(
        """
        for i in range(1000):
            session.log_metric(run_id, "loss", float(i), i)
        print(run_id, session.flush(30), flush=True)
        input()
        for i in range(1000, 2000):
            session.log_metric(run_id, "loss", float(i), i)
        session.set_status(run_id, 3, 5)
        session.close()
        """,
        env={**os.environ, "PYTHONPATH": path},
        stdin=-1,
    )
    old_run, flushed = (old.stdout.readline() or old.stderr.read()).split()
    assert flushed == "True"
    assert sender_versions(config) == ["0.0.9"]
    new = script.start(
        """
        for i in range(500):
            session.log_metric(run_id, "loss", float(i), i)
        session.set_status(run_id, 3, 5)
        print(run_id)
        session.close()
        """
    )
    until(lambda: len(sender_versions(config)) > 1, "a newer sender takes over")
    old.stdin.write("\n")
    old.stdin.flush()
    (_, complaint), (new_run, other) = old.communicate(timeout=60), new.communicate(timeout=60)
    assert (old.returncode, new.returncode) == (0, 0), complaint + other
    new_run = new_run.strip()
    until(lambda: stored.status(old_run) == stored.status(new_run) == "FINISHED", "both arrive")
    assert stored.points(old_run) == [(i, float(i)) for i in range(2000)]
    assert stored.points(new_run) == [(i, float(i)) for i in range(500)]
    assert sender_versions(config)[0] == "0.0.9"
    assert "0.0.9" not in sender_versions(config)[1:]
