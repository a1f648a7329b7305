"""Without the server extra a run on a store is journaled; a full installation delivers it later."""

import os
import subprocess
import sys

from tests.faults.harness import kill_all, senders, sync, until

SCRIPT = """
import runstream as rs
with rs.start_run(run_name="light"):
    rs.log_metric("val_loss", 0.5)
"""


def test_sync_of_a_full_installation_delivers_what_a_light_one_journaled(tmp_path):
    # A module that is not there, as in an environment without the extra; a second environment costs a minute.
    missing = tmp_path / "missing" / "sqlalchemy"
    missing.mkdir(parents=True)
    (missing / "__init__.py").write_text(
        "raise ModuleNotFoundError('No module sqlalchemy', name='sqlalchemy')"
    )
    state = tmp_path / "state"
    store = tmp_path / "store"
    full = {**os.environ, "RUNSTREAM_STATE_DIR": str(state), "RUNSTREAM_TRACKING_URI": str(store)}
    light = {**full, "PYTHONPATH": f"{missing.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], env=light, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert "pip install 'runstream[server]' && runstream sync" in done.stderr
        until(lambda: not senders(state), 20, "the sender that can deliver nothing makes way")
        assert "1 journals delivered" in sync(full)
        listed = subprocess.run(
            [sys.executable, "-m", "runstream", "runs", "list"],
            env=full,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "light" in listed.stdout, listed.stderr
    finally:
        kill_all(senders(state))
