"""docs/cli.md is what the commands say."""

import pytest

from scripts import docs


@pytest.mark.parametrize("name", docs.DOCUMENTS)
def test_a_document_made_from_the_code_is_up_to_date(name):
    written = (docs.DOCS / name).read_text()
    assert written == docs.DOCUMENTS[name](), f"docs/{name} is old; run: python scripts/docs.py"
