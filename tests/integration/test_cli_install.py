"""``pixsim7 plugins add``, ``rollback`` and ``remove``, as people and programs use them."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pixsim7_backend.cli.desired import load_desired, opened_store
from pixsim7_backend.infrastructure.plugins.testing import write_plugin
from pixsim7_backend.settings import load_settings
from tests.command_line import CommandLine, Done

ADD = ("add", "--into", "mine")
MIGRATION = """
import sqlalchemy as sa
from alembic import op
revision = "0001"
down_revision = None
def upgrade():
    op.create_table("quests", sa.Column("id", sa.Integer(), primary_key=True))
def downgrade():
    op.drop_table("quests")
"""


@pytest.fixture
def plugins(run: CommandLine) -> CommandLine:
    """``pixsim7 plugins`` in a place with an empty plugin directory ``mine``."""
    (run.path / "mine").mkdir()
    run.patch.setenv("EXTRA_PLUGINS_DIRS", "mine")
    return replace(run, before=("plugins",))


def offer(tmp_path: Path, version: str = "1.0.0", **fields: Any) -> str:
    """Write a plugin with a table; return its folder, from the working directory."""
    folder = write_plugin(tmp_path / version, "quest", version=version, **fields)
    (folder / "migrations").mkdir(exist_ok=True)
    (folder / "migrations" / "0001_initial.py").write_text(MIGRATION)
    return str(folder.relative_to(tmp_path))


def test_add_shows_what_starts_and_what_it_asks_for(plugins: CommandLine, tmp_path: Path) -> None:
    """First as a dry run, then for good; a second time it is refused with the way out."""
    source = offer(tmp_path, permissions=["db:read"], dependencies=["game-sessions"])
    place = tmp_path / "mine" / "quest"
    expected = f"add quest 1.0.0 ({place}): {{}}\n  asks for: db:read\n  starts: quest\n  migrations to run: 0001\n"
    assert plugins(*ADD, source, "--dry-run") == Done(0, expected.format("would be done"), "")
    assert not place.exists()
    assert plugins(*ADD, source) == Done(0, expected.format("done"), "")
    again = plugins(*ADD, source)
    assert again.status == 1
    assert "is already installed in version 1.0.0" in again.err
    assert "add `--upgrade`" in again.err
    assert "quest" in [row["id"] for row in plugins("list", "--json").json]


def test_what_is_held_back_is_said(plugins: CommandLine, tmp_path: Path) -> None:
    """A plugin whose requirement is missing is installed, and says what it waits for."""
    done = plugins(*ADD, offer(tmp_path, dependencies=["nobody"]))
    assert "\n  held back: quest: plugin 'quest' requires 'nobody', which is not installed\n" in done.out


def test_upgrade_and_rollback(plugins: CommandLine, tmp_path: Path) -> None:
    """The versions are shown from and to; new permissions are marked."""
    plugins(*ADD, offer(tmp_path))
    done = plugins(*ADD, offer(tmp_path, "2.0.0", permissions=["db:write"]), "--upgrade")
    assert done.out.startswith("upgrade quest 1.0.0 → 2.0.0 (")
    assert "\n  asks for: db:write (new)\n" in done.out
    assert plugins("rollback", "quest", "--dry-run", "--json").json["version"] == "1.0.0"
    assert plugins("rollback", "quest").out.startswith("roll back quest 2.0.0 → 1.0.0 (")
    assert "version='1.0.0'" in (tmp_path / "mine" / "quest" / "manifest.py").read_text()
    missing = plugins("rollback", "nobody")
    assert (missing.status, missing.err) == (
        1,
        "error: no plugin 'nobody' is installed\n",
    )


def test_json(plugins: CommandLine, tmp_path: Path) -> None:
    """What people read, programs get as one document."""
    done = plugins(*ADD, offer(tmp_path), "--json").json
    assert done == {
        "action": "add",
        "plugin": "quest",
        "name": "Quest",
        "version": "1.0.0",
        "former_version": None,
        "will_run": True,
        "is_live": False,
        "is_dry_run": False,
        "permissions": [],
        "new_permissions": [],
        "starts": ["quest"],
        "migrations": ["0001"],
        "left_out": [],
        "directory": str(tmp_path / "mine" / "quest"),
        "held": {},
        "grants": None,
        "enforcement": [],
    }
    removed = plugins("remove", "quest", "--data", "keep", "--json").json
    assert removed == {
        "plugin": "quest",
        "version": "1.0.0",
        "directory": str(tmp_path / "mine" / "quest"),
        "data": "keep",
        "stops": ["quest"],
        "exported_to": None,
        "is_live": False,
        "is_dry_run": False,
    }


def test_an_attack_is_refused_in_a_sentence(plugins: CommandLine, tmp_path: Path) -> None:
    """The archive, the member and the reason are named, without control characters."""
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("../evil\x1b[31m.py", "")
    done = plugins(*ADD, "evil.zip")
    assert (done.status, done.out) == (1, "")
    assert done.err == ("error: evil.zip: '../evil\\x1b[31m.py' has a control character in its name (U+001B)\n")


def test_limits_come_from_the_settings(plugins: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator may allow more, or less."""
    monkeypatch.setenv("INSTALL_MAX_FILES", "2")
    assert "has more than 2 members" in plugins(*ADD, offer(tmp_path)).err
    monkeypatch.setenv("INSTALL_MAX_FILES", "none")
    assert plugins(*ADD, offer(tmp_path)).status == 2


def test_another_directory_is_made_when_it_is_named(plugins: CommandLine, tmp_path: Path) -> None:
    """--into names any directory; one that no start would search is pointed out."""
    done = plugins("add", offer(tmp_path), "--into", "other/plugins")
    assert done.status == 0
    place = tmp_path / "other" / "plugins"
    assert done.err == f"note: {place} is not searched for plugins; add it to EXTRA_PLUGINS_DIRS\n"
    assert (tmp_path / "other" / "plugins" / "quest" / "manifest.py").is_file()


def migrated(plugins: CommandLine, tmp_path: Path) -> sqlite3.Connection:
    """Install a plugin, make its table and put rows into it."""
    plugins(*ADD, offer(tmp_path))
    replace(plugins, before=())("db", "upgrade")
    database = sqlite3.connect(tmp_path / "data" / "pixsim7.sqlite3", isolation_level=None)
    database.execute("INSERT INTO quests VALUES (1), (2)")
    return database


def table_names(database: sqlite3.Connection) -> set[str]:
    return {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_remove_keeps_exports_or_drops(plugins: CommandLine, tmp_path: Path) -> None:
    """Each mode does what it says, and only dropping is asked for again."""
    database = migrated(plugins, tmp_path)
    try:
        assert "its rows and settings stay" in plugins("remove", "quest", "--data", "keep").out
        assert "quests" in table_names(database)
        plugins(*ADD, offer(tmp_path))
        done = plugins("remove", "quest", "--data", "export", "--json").json
        with zipfile.ZipFile(done["exported_to"]) as archive:
            assert archive.read("quests.jsonl") == b'{"id": 1}\n{"id": 2}\n'
        plugins(*ADD, offer(tmp_path))
        refused = plugins("remove", "quest", "--data", "drop", answers="n\n")
        assert (refused.status, "nothing was removed" in refused.err) == (1, True)
        assert (tmp_path / "mine" / "quest").is_dir()
        assert (
            "its tables are dropped, its settings forgotten"
            in plugins("remove", "quest", "--data", "drop", "--yes").out
        )
        assert not {"quests", "alembic_version_quest"} & table_names(database)
        assert not (tmp_path / "mine" / "quest").exists()
    finally:
        database.close()


def desired() -> tuple[dict[str, bool], dict[str, Any]]:
    """Return what is switched and configured by id, as it is stored now."""
    state = load_desired(load_settings())
    return dict(state.switched), dict(state.settings)


def configure(plugin: str, values: dict[str, Any]) -> None:
    """Store settings of a plugin, as a server does."""
    with opened_store(load_settings()) as store:
        state = store.load()
        store.save(replace(state, settings={plugin: values}), expected_version=state.version)


def test_remove_treats_switch_and_settings_as_the_rows(plugins: CommandLine, tmp_path: Path) -> None:
    """Without a server: kept with keep, kept and exported with export, forgotten with drop; another's stay."""
    write_plugin(tmp_path / "mine", "other")
    for plugin in ("other", "quest"):
        if plugin == "quest":
            plugins(*ADD, offer(tmp_path))
        assert plugins("disable", plugin).status == 0
    configure("quest", {"level": 3})
    expected = ({"other": False, "quest": False}, {"quest": {"level": 3}})
    assert "its rows and settings stay" in plugins("remove", "quest", "--data", "keep").out
    assert desired() == expected
    plugins(*ADD, offer(tmp_path))
    done = plugins("remove", "quest", "--data", "export", "--json").json
    with zipfile.ZipFile(done["exported_to"]) as archive:
        contents = json.loads(archive.read("contents.json"))
    assert (contents["switched"], contents["settings"]) == (False, {"level": 3})
    assert desired() == expected
    plugins(*ADD, offer(tmp_path))
    assert plugins("remove", "quest", "--data", "drop", "--yes").status == 0
    assert desired() == ({"other": False}, {})
    assert plugins(*ADD, offer(tmp_path), "--json").json["will_run"] is True


def test_removing_makes_no_database(plugins: CommandLine, tmp_path: Path) -> None:
    """Where there is none, nothing is stored that could be dropped or exported."""
    for mode in ("drop", "export"):
        plugins(*ADD, offer(tmp_path))
        assert plugins("remove", "quest", "--data", mode, "--yes").status == 0
    assert not (tmp_path / "data" / "pixsim7.sqlite3").exists()


def test_a_rollback_past_a_migration_is_refused(plugins: CommandLine, tmp_path: Path) -> None:
    """Also without a server: the former version could not start with tables that it does not know."""
    migrated(plugins, tmp_path).close()
    source = Path(offer(tmp_path, "2.0.0"))
    later = MIGRATION.replace('"0001"', '"0002"').replace("None", '"0001"').replace("quests", "more_quests")
    (source / "migrations" / "0002_more.py").write_text(later)
    assert plugins(*ADD, str(source), "--upgrade", "--json").json["migrations"] == ["0002"]
    assert plugins("rollback", "quest", "--dry-run").status == 0
    replace(plugins, before=())("db", "upgrade")
    for more in ((), ("--dry-run",), ("--json",)):
        done = plugins("rollback", "quest", *more)
        assert (done.status, done.out) == (1, "")
        assert "its tables stand at revision '0002', which that version does not know" in done.err
    assert "version='2.0.0'" in (tmp_path / "mine" / "quest" / "manifest.py").read_text()


def test_a_database_that_does_not_answer(plugins: CommandLine, tmp_path: Path) -> None:
    """What needs it is refused in a sentence that names the setting; what does not is done."""
    plain = write_plugin(tmp_path / "plain", "quest")
    assert plugins(*ADD, str(plain)).status == 0
    plugins.patch.setenv("DATABASE_URL", "postgresql://u:hunter2@127.0.0.1:1/x")
    assert plugins(*ADD, str(plain), "--upgrade").status == 0
    for command in (
        (*ADD, offer(tmp_path, "2.0.0"), "--upgrade"),
        ("remove", "quest", "--data", "export"),
        ("remove", "quest", "--data", "drop", "--yes"),
    ):
        done = plugins(*command)
        assert (done.status, done.out) == (1, "")
        assert "DATABASE_URL" in done.err
        assert "hunter2" not in done.err
    assert plugins("remove", "quest", "--data", "keep").status == 0


def test_a_full_disk_is_told_in_a_sentence(plugins: CommandLine, tmp_path: Path) -> None:
    """The plugin that is there stays as it is."""
    packed = shutil.make_archive(str(tmp_path / "packed"), "gztar", tmp_path / offer(tmp_path))
    assert plugins(*ADD, packed).status == 0

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with plugins.patch.context() as patched:
        patched.setattr(os, "fsync", full)
        for command in ((*ADD, packed, "--upgrade"), ("remove", "quest", "--yes")):
            done = plugins(*command)
            assert (done.status, done.out) == (1, "")
            assert done.err == f"error: {tmp_path / 'mine'}: No space left on device; mend that and repeat\n"
    assert (tmp_path / "mine" / "quest" / "manifest.py").is_file()
    assert plugins("remove", "quest", "--yes").status == 0


@pytest.mark.parametrize("path", ["nowhere", "", "/dev/zero", "/dev/null"])
def test_what_is_neither_folder_nor_archive(plugins: CommandLine, path: str) -> None:
    """It is named, and nothing is read from it."""
    done = plugins(*ADD, path)
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith(f"error: {path or '.'}")


def test_remove_asks_what_about_the_rows(plugins: CommandLine, tmp_path: Path) -> None:
    """Without --data it asks; what is no answer removes nothing."""
    plugins(*ADD, offer(tmp_path))
    assert plugins("remove", "quest", answers="perhaps\n").status == 2
    assert (tmp_path / "mine" / "quest").is_dir()
    assert plugins("remove", "quest", answers="keep\n").status == 0
    assert not (tmp_path / "mine" / "quest").exists()


def test_remove_shows_what_stops_with_it(plugins: CommandLine, tmp_path: Path) -> None:
    """A dry run with cascade lists the dependants; without it they are the reason to refuse."""
    plugins(*ADD, offer(tmp_path))
    write_plugin(tmp_path / "mine", "needs", dependencies=["quest"])
    assert plugins("remove", "quest", "--yes").err.startswith("error: plugin 'quest' is needed by needs;")
    done = plugins("remove", "quest", "--cascade", "--dry-run")
    assert done.out.splitlines()[1:] == ["  stops too: needs"]
    assert (tmp_path / "mine" / "quest").is_dir()


def test_the_backends_own_plugins_are_not_removed(plugins: CommandLine) -> None:
    """They are switched off instead."""
    done = plugins("remove", "game-stealth", "--yes")
    assert done.status == 1
    assert "switch it off with `pixsim7 plugins disable game-stealth` instead" in done.err


def test_every_archive_format_by_its_content(plugins: CommandLine, tmp_path: Path) -> None:
    """The file's name does not matter."""
    packed = shutil.make_archive(str(tmp_path / "packed"), "xztar", tmp_path / offer(tmp_path))
    Path(packed).rename(tmp_path / "plugin.bin")
    assert plugins(*ADD, "plugin.bin").status == 0
