"""The guides are true: their Python runs, as one script a page, and prints what they say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = ["quickstart.md", "concepts.md", "../README.md"]
BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_prints_what_the_page_says(page, tmp_path):
    blocks = BLOCK.findall((DOCS / page).read_text())
    code = "\n".join(body for kind, body in blocks if kind == "python")
    wanted = "".join(body for kind, body in blocks if kind == "text")
    script = tmp_path / "page.py"
    script.write_text(code)
    env = {
        name: value for name, value in os.environ.items() if not name.startswith(("RUNSTREAM_", "MLFLOW_"))
    }
    env["RUNSTREAM_STATE_DIR"] = str(tmp_path / "state")
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == wanted


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (DOCS / page).read_text())
    assert [target for target in targets if not ((DOCS / page).parent / target).exists()] == []
