"""``pixsim7 plugins add``, ``rollback`` and ``remove``, as people and programs use them."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pixsim7_backend.cli import main
from pixsim7_backend.infrastructure.plugins.testing import write_plugin
from pixsim7_backend.settings import Settings

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


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Done]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in a place with an empty plugin directory ``mine``."""
    monkeypatch.chdir(tmp_path)
    for name in (*Settings.model_fields, "disabled_plugins", "on_plugin_error"):
        monkeypatch.delenv(name.upper(), raising=False)
    (tmp_path / "mine").mkdir()
    monkeypatch.setenv("EXTRA_PLUGINS_DIRS", "mine")

    def run(*arguments: str, answers: str = "") -> Done:
        monkeypatch.setattr(sys, "argv", ["pixsim7", "plugins", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(answers))
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        text = capsys.readouterr()
        return Done(int(end.value.code or 0), text.out, text.err)

    return run


def offer(tmp_path: Path, version: str = "1.0.0", **fields: Any) -> str:
    """Write a plugin with a table; return its folder, from the working directory."""
    folder = write_plugin(tmp_path / version, "quest", version=version, **fields)
    (folder / "migrations").mkdir(exist_ok=True)
    (folder / "migrations" / "0001_initial.py").write_text(MIGRATION)
    return str(folder.relative_to(tmp_path))


def test_add_shows_what_starts_and_what_it_asks_for(run: Run, tmp_path: Path) -> None:
    """First as a dry run, then for good; a second time it is refused with the way out."""
    source = offer(tmp_path, permissions=["db:read"], dependencies=["game-sessions"])
    place = tmp_path / "mine" / "quest"
    expected = f"add quest 1.0.0 ({place}): {{}}\n  asks for: db:read\n  starts: quest\n"
    assert run("add", source, "--dry-run") == Done(0, expected.format("would be done"), "")
    assert not place.exists()
    assert run("add", source) == Done(0, expected.format("done"), "")
    again = run("add", source)
    assert again.status == 1
    assert "is already installed in version 1.0.0" in again.err
    assert "add `--upgrade`" in again.err
    assert "quest" in [row["id"] for row in run("list", "--json").json]


def test_what_is_held_back_is_said(run: Run, tmp_path: Path) -> None:
    """A plugin whose requirement is missing is installed, and says what it waits for."""
    done = run("add", offer(tmp_path, dependencies=["nobody"]))
    assert "\n  held back: quest: plugin 'quest' requires 'nobody', which is not installed\n" in done.out


def test_upgrade_and_rollback(run: Run, tmp_path: Path) -> None:
    """The versions are shown from and to; new permissions are marked."""
    run("add", offer(tmp_path))
    done = run("add", offer(tmp_path, "2.0.0", permissions=["db:write"]), "--upgrade")
    assert done.out.startswith("upgrade quest 1.0.0 → 2.0.0 (")
    assert "\n  asks for: db:write (new)\n" in done.out
    assert run("rollback", "quest", "--dry-run", "--json").json["version"] == "1.0.0"
    assert run("rollback", "quest").out.startswith("roll back quest 2.0.0 → 1.0.0 (")
    assert "version='1.0.0'" in (tmp_path / "mine" / "quest" / "manifest.py").read_text()
    missing = run("rollback", "nobody")
    assert (missing.status, missing.err) == (
        1,
        "error: no former version of plugin 'nobody' is kept; nothing was changed\n",
    )


def test_json(run: Run, tmp_path: Path) -> None:
    """What people read, programs get as one document."""
    done = run("add", offer(tmp_path), "--json").json
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
        "left_out": [],
        "directory": str(tmp_path / "mine" / "quest"),
        "held": {},
    }
    removed = run("remove", "quest", "--data", "keep", "--json").json
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


def test_an_attack_is_refused_in_a_sentence(run: Run, tmp_path: Path) -> None:
    """The archive, the member and the reason are named, without control characters."""
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("../evil\x1b[31m.py", "")
    done = run("add", "evil.zip")
    assert (done.status, done.out) == (1, "")
    assert done.err == ("error: evil.zip: '../evil\\x1b[31m.py' has a control character in its name (U+001B)\n")


def test_limits_come_from_the_settings(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator may allow more, or less."""
    monkeypatch.setenv("INSTALL_MAX_FILES", "2")
    assert "has more than 2 members" in run("add", offer(tmp_path)).err
    monkeypatch.setenv("INSTALL_MAX_FILES", "none")
    assert run("add", offer(tmp_path)).status == 2


def test_another_directory_is_made_when_it_is_named(run: Run, tmp_path: Path) -> None:
    """--into names any directory; one that no start would search is pointed out."""
    done = run("add", offer(tmp_path), "--into", "other/plugins")
    assert done.status == 0
    place = tmp_path / "other" / "plugins"
    assert done.err == f"note: {place} is not searched for plugins; add it to EXTRA_PLUGINS_DIRS\n"
    assert (tmp_path / "other" / "plugins" / "quest" / "manifest.py").is_file()


def migrated(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> sqlite3.Connection:
    """Install a plugin, make its table and put rows into it."""
    run("add", offer(tmp_path))
    monkeypatch.setattr(sys, "argv", ["pixsim7", "db", "upgrade"])
    with pytest.raises(SystemExit):
        main()
    database = sqlite3.connect(tmp_path / "data" / "pixsim7.sqlite3", isolation_level=None)
    database.execute("INSERT INTO quests VALUES (1), (2)")
    return database


def table_names(database: sqlite3.Connection) -> set[str]:
    return {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_remove_keeps_exports_or_drops(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each mode does what it says, and only dropping is asked for again."""
    database = migrated(run, tmp_path, monkeypatch)
    try:
        assert "its rows stay" in run("remove", "quest", "--data", "keep").out
        assert "quests" in table_names(database)
        run("add", offer(tmp_path))
        done = run("remove", "quest", "--data", "export", "--json").json
        with zipfile.ZipFile(done["exported_to"]) as archive:
            assert archive.read("quests.jsonl") == b'{"id": 1}\n{"id": 2}\n'
        run("add", offer(tmp_path))
        refused = run("remove", "quest", "--data", "drop", answers="n\n")
        assert (refused.status, "nothing was removed" in refused.err) == (1, True)
        assert (tmp_path / "mine" / "quest").is_dir()
        assert "its tables are dropped" in run("remove", "quest", "--data", "drop", "--yes").out
        assert not {"quests", "alembic_version_quest"} & table_names(database)
        assert not (tmp_path / "mine" / "quest").exists()
    finally:
        database.close()


def test_remove_asks_what_about_the_rows(run: Run, tmp_path: Path) -> None:
    """Without --data it asks; what is no answer removes nothing."""
    run("add", offer(tmp_path))
    assert run("remove", "quest", answers="perhaps\n").status == 2
    assert (tmp_path / "mine" / "quest").is_dir()
    assert run("remove", "quest", answers="keep\n").status == 0
    assert not (tmp_path / "mine" / "quest").exists()


def test_remove_shows_what_stops_with_it(run: Run, tmp_path: Path) -> None:
    """A dry run with cascade lists the dependants; without it they are the reason to refuse."""
    run("add", offer(tmp_path))
    write_plugin(tmp_path / "mine", "needs", dependencies=["quest"])
    assert run("remove", "quest", "--yes").err.startswith("error: plugin 'quest' is needed by needs;")
    done = run("remove", "quest", "--cascade", "--dry-run")
    assert done.out.splitlines()[1:] == ["  stops too: needs"]
    assert (tmp_path / "mine" / "quest").is_dir()


def test_the_backends_own_plugins_are_not_removed(run: Run) -> None:
    """They are switched off instead."""
    done = run("remove", "game-stealth", "--yes")
    assert done.status == 1
    assert "switch it off with `pixsim7 plugins disable game-stealth` instead" in done.err


def test_every_archive_format_by_its_content(run: Run, tmp_path: Path) -> None:
    """The file's name does not matter."""
    packed = shutil.make_archive(str(tmp_path / "packed"), "xztar", tmp_path / offer(tmp_path))
    Path(packed).rename(tmp_path / "plugin.bin")
    assert run("add", "plugin.bin").status == 0
