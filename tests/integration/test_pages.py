"""The pages that are meant to be followed, followed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reader import reader
from tests.transcripts import blocks_of

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [
    page.relative_to(DOCS)
    for page in sorted(DOCS.rglob("*.md"))
    if any(block.mark == "<!-- executed -->" for block in blocks_of(page))
]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_page_runs_as_printed(page: Path, tmp_path: Path) -> None:
    """Each command prints what stands below it, each file works as written, and the server says what it should."""
    with reader(tmp_path) as someone:
        someone.follow(DOCS / page)
