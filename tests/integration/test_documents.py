from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from pixsim7_backend.cli import app as command_line
from pixsim7_backend.infrastructure.plugins import PluginManifest, PluginState
from pixsim7_backend.settings import Settings
from tests.transcripts import blocks_of

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
_LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#]+)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    """Every relative link of a document names a file that exists."""
    targets = _LINK.findall(document.read_text(encoding="utf-8"))
    assert [target for target in targets if not (document.parent / target).exists()] == []


def test_plugin_of_the_guide_to_writing_loads(tmp_path: Path) -> None:
    """The plugin in docs/writing-plugins.md works as printed, and so does the test below it."""
    plugin, example_test = [
        block.code for block in blocks_of(ROOT / "docs" / "writing-plugins.md") if block.language == "python"
    ]
    folder = tmp_path / "plugins" / "quests"
    folder.mkdir(parents=True)
    (folder / "manifest.py").write_text(plugin)
    (tmp_path / "example.py").write_text(example_test)
    script = (
        "import asyncio, example\n"
        "from pathlib import Path\n"
        "from pixsim7_backend.infrastructure.plugins.testing import plugin_host\n"
        "async def main():\n"
        "    async with plugin_host(Path('plugins')) as host:\n"
        "        print((await host.client.post('/api/v1/quests/finished', json={'quest': 7})).json())\n"
        "asyncio.run(main())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "{'finished': 7}\n", done.stderr


def test_every_setting_is_documented() -> None:
    """docs/operating.md has each setting of the host, and no other."""
    text = (ROOT / "docs" / "operating.md").read_text()
    table = text[text.index("| setting |") : text.index("## Commands")]
    cells = re.findall(r"^\| (.*?) \|", table, re.MULTILINE)
    documented = set(re.findall(r"`([A-Z_]+)`", "\n".join(cells)))
    platform = {"DISABLED_PLUGINS", "ON_PLUGIN_ERROR"}
    assert documented == {name.upper() for name in Settings.model_fields} | platform


def test_every_command_is_documented() -> None:
    """docs/operating.md names every command of the command line."""
    text = (ROOT / "docs" / "operating.md").read_text()
    root = typer.main.get_command(command_line)
    for name, command in root.commands.items():  # type: ignore[attr-defined]  # a group; Typer's type is its base
        for full in [f"{name} {each}" for each in getattr(command, "commands", {})] or [name]:
            assert all(f"`{part}" in text or f" {part}" in text for part in full.split()), full


def test_every_field_of_a_manifest_is_documented() -> None:
    """docs/writing-plugins.md names every field that a manifest has."""
    text = (ROOT / "docs" / "writing-plugins.md").read_text()
    assert [field for field in PluginManifest.model_fields if f"`{field}" not in text] == []


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
