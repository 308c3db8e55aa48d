from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from pixsim7_backend.infrastructure.plugins import BreakerSettings, PluginEvents, PluginManifest, errors
from pixsim7_backend.infrastructure.plugins._code.loader import PluginCode
from pixsim7_backend.settings import Settings
from tests.reference_tables import REFERENCE, TABLES, made_anew

PAGES = sorted(REFERENCE.glob("*.md"))
_NAME = re.compile(r"^\| `([\w:-]+)", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_is_what_the_code_says(page: Path) -> None:
    """A reference is as the code has it; if not, `python -m tests.reference_tables` writes it anew."""
    text = page.read_text(encoding="utf-8")
    assert text == made_anew(text)


def test_every_table_is_in_a_page() -> None:
    """No table is made for nothing, or in two pages."""
    found = [name for page in PAGES for name in re.findall(r"<!-- table (\S+) -->", page.read_text())]
    assert sorted(found) == sorted(TABLES)


def test_tables_have_what_the_code_has() -> None:
    """The tables themselves leave nothing out: fields, settings, events, errors."""
    kinds = {name for name in errors.__all__ if name not in ("PluginError", "SettingProblem")}
    for table, expected in (
        ("manifest", set(PluginManifest.model_fields)),
        ("settings", {name.upper() for name in Settings.model_fields}),
        ("breaker", {each.name for each in fields(BreakerSettings)}),
        ("events", set(PluginEvents)),
        ("errors", kinds),
    ):
        assert set(_NAME.findall(TABLES[table]())) == expected


def test_every_export_of_a_plugin_is_documented() -> None:
    """What is taken from a plugin's package is in the table of exports, and nothing else."""
    text = (REFERENCE / "manifest.md").read_text()
    table = text[text.index("## What a plugin exports") :]
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == {each.name for each in fields(PluginCode)} | {"router"}
