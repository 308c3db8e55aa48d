from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from pixsim7_backend.infrastructure.plugins import PluginState
from pixsim7_backend.operating import PREFIX
from tests.reader import unmarked
from tests.transcripts import blocks_of

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
_LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#]+)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    """Every relative link of a document names a file that exists."""
    targets = _LINK.findall(document.read_text(encoding="utf-8"))
    assert [target for target in targets if not (document.parent / target).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_anchors_exist(document: Path) -> None:
    """Every link to a part of a document names one of its headings."""
    links = re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", document.read_text(encoding="utf-8"))
    targets = [(document.parent / file if file else document, anchor) for file, anchor in links]
    assert [anchor for file, anchor in targets if anchor not in _anchors(file)] == []


def _anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_is_executed(document: Path) -> None:
    """What looks like code is done by a reader in some test; drawings need not be."""
    allowed = {"README.md": ("bash",), "docs/scenes.md": ("json",)}  # which have tests of their own
    assert unmarked(document, allowed=("text", *allowed.get(str(document.relative_to(ROOT)), ()))) == []


def test_every_page_is_in_the_index() -> None:
    """docs/README.md leads to every page; decisions have an index of their own."""
    index = (ROOT / "docs" / "README.md").read_text()
    pages = [page.relative_to(ROOT / "docs") for page in DOCUMENTS if page.is_relative_to(ROOT / "docs")]
    missing = [page for page in pages if f"({page}" not in index and page.parent.name != "decisions"]
    assert missing == [Path("README.md")]


def test_every_symptom_is_one() -> None:
    """What the table of symptoms quotes is said by the code somewhere."""
    code = "".join(path.read_text() for path in sorted((ROOT / "pixsim7_backend").rglob("*.py")))
    code = re.sub(r"\"\s+f?\"", "", code)  # texts that go on in the next line
    text = (ROOT / "docs" / "operating.md").read_text()
    rows = re.findall(r"^\| (`.*?) \|", text[text.index("| you see |") :], re.MULTILINE)
    quoted = [text for row in rows for text in re.findall(r"`(.+?)`", row)]
    pieces = [piece.strip(" :,") for text in quoted for piece in text.split("…")]
    assert pieces
    assert [piece for piece in pieces if piece not in code] == []


def test_scrape_example_asks_for_the_metrics() -> None:
    """The configuration of Prometheus in docs/operating.md names the route that has them."""
    [text] = [block.code for block in blocks_of(ROOT / "docs" / "operating.md") if "prometheus.yml" in block.mark]
    [job] = yaml.safe_load(text)["scrape_configs"]
    assert (job["metrics_path"], job["params"]) == (f"{PREFIX}/metrics", {"format": ["prometheus"]})


def test_every_state_is_in_the_vocabulary() -> None:
    """docs/terminology.md lists the states."""
    text = (ROOT / "docs" / "terminology.md").read_text()
    assert [state for state in PluginState if f"`{state}`" not in text] == []


def test_every_decision_is_listed() -> None:
    """The table of decisions has every page, under its own title."""
    folder = ROOT / "docs" / "decisions"
    table = (folder / "README.md").read_text()
    for page in sorted(folder.glob("0*.md")):
        number, title = page.read_text().splitlines()[0].removeprefix("# ").split(" · ")
        assert f"| [{number}]({page.name}) | {title} |" in table


def test_every_promise_names_tests_that_exist() -> None:
    """The tests by which docs/security.md would have its promises judged are there."""
    text = (ROOT / "docs" / "security.md").read_text()
    named = re.findall(r"`(tests/[^`]+)`", text)
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []
