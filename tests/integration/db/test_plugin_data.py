"""The data of plugins that are removed: exported whole, dropped, or taken back, on both databases."""

from __future__ import annotations

import json
import textwrap
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect, text

from pixsim7_backend.db import Database, migrations
from pixsim7_backend.db.errors import MigrationError
from pixsim7_backend.db.migrations import find_source
from pixsim7_backend.infrastructure.plugins import DesiredState
from pixsim7_backend.infrastructure.plugins.errors import TablesAheadError
from pixsim7_backend.plugin_data import PluginTables, tables_of

FIRST = """
import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None


def upgrade():
    op.create_table(
        "quests",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("title", sa.String(50), nullable=False),
        sa.Column("state", sa.JSON().with_variant(JSONB(), "postgresql"), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("picture", sa.LargeBinary(), nullable=True),
        sa.Column("price", sa.Numeric(10, 2), nullable=True),
        sa.Column("owner_id", sa.Integer(), {owner} nullable=True),
    )
    op.create_table("quest_steps", sa.Column("id", sa.Integer(), primary_key=True))


def downgrade():
    op.drop_table("quest_steps")
    op.drop_table("quests")
"""
SECOND = """
import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade():
    op.add_column("quests", sa.Column("level", sa.Integer(), nullable=True))


def downgrade():
    with op.batch_alter_table("quests") as batch:
        batch.drop_column("level")
"""


def write_migrations(place: Path, *revisions: str, owner: str = "") -> Path:
    """Write a plugin's folder with migrations; return the folder."""
    folder = place / "quest_log"
    (folder / "migrations").mkdir(parents=True, exist_ok=True)
    for number, revision in enumerate(revisions, start=1):
        (folder / "migrations" / f"000{number}_x.py").write_text(textwrap.dedent(revision).replace("{owner}", owner))
    return folder


def upgraded(database: Database, folder: Path) -> None:
    source = find_source("quest-log", folder)
    assert source is not None
    migrations.upgrade(database, [source])


def tables(database: Database) -> list[str]:
    return sorted(inspect(database.engine).get_table_names())


def fill(database: Database, rows: int) -> None:
    state = '\'{"a": [1, "\u00e9"]}\''
    with database.session() as session:
        for number in range(1, rows + 1):
            session.execute(
                text(
                    "INSERT INTO quests (id, title, state, made_at, picture, price)"
                    f" VALUES (:id, 'x', {state}, :at, :picture, 1.50)"
                ),
                {"id": number, "at": datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC), "picture": b"\0\xff"},
            )


def read_export(file: Path) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    with zipfile.ZipFile(file) as archive:
        contents = json.loads(archive.read("contents.json"))
        rows = {
            name.removesuffix(".jsonl"): [json.loads(line) for line in archive.read(name).splitlines()]
            for name in archive.namelist()
            if name.endswith(".jsonl")
        }
    return contents, rows


def plugin_tables(database: Database, tmp_path: Path, desired: DesiredState | None = None) -> PluginTables:
    """Return the data of plugins of which so much is switched and configured."""
    return PluginTables(database, tmp_path / "exports", lambda: desired or DesiredState())


def test_an_export_has_every_row_of_every_table(database: Database, tmp_path: Path) -> None:
    """JSON stays JSON, times are in ISO form, bytes in base64; the database is as it was."""
    folder = write_migrations(tmp_path, FIRST)
    upgraded(database, folder)
    fill(database, 1200)
    before = tables(database)
    file = plugin_tables(database, tmp_path).export("quest-log", folder)
    assert file is not None
    contents, rows = read_export(file)
    assert (contents["plugin"], contents["revision"]) == ("quest-log", "0001")
    assert contents["tables"] == {"quest_steps": 0, "quests": 1200}
    assert [row["id"] for row in rows["quests"]] == list(range(1, 1201))
    first = rows["quests"][0]
    assert first["state"] == {"a": [1, "\u00e9"]}
    assert first["made_at"].startswith("2026-01-02T03:04:05.000678")
    assert (first["picture"], first["price"], first["owner_id"]) == ({"base64": "AP8="}, "1.50", None)
    assert tables(database) == before
    assert file.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in file.parent.iterdir()] == [file.name]


def test_dropping_removes_the_tables_and_nothing_else(database: Database, tmp_path: Path) -> None:
    """The version table goes as well, so that a later installation begins anew; twice is fine."""
    folder = write_migrations(tmp_path, FIRST)
    with database.engine.begin() as connection:
        connection.execute(text("CREATE TABLE others (id INTEGER PRIMARY KEY)"))
    upgraded(database, folder)
    stored = plugin_tables(database, tmp_path)
    assert stored.revision("quest-log", "quest_log") == "0001"
    stored.drop("quest-log", folder)
    stored.drop("quest-log", folder)
    assert tables(database) == ["others"]
    assert stored.revision("quest-log", "quest_log") is None
    upgraded(database, folder)
    assert "quests" in tables(database)


def test_tables_that_others_refer_to_are_not_dropped(database: Database, tmp_path: Path) -> None:
    """Rows of another plugin would lose what they refer to; nothing is dropped at all."""
    folder = write_migrations(tmp_path, FIRST)
    upgraded(database, folder)
    fill(database, 1)
    with database.engine.begin() as connection:
        connection.execute(text("CREATE TABLE others (id INTEGER PRIMARY KEY, quest INTEGER REFERENCES quests (id))"))
        connection.execute(text("INSERT INTO others VALUES (1, 1)"))
    before = tables(database)
    with pytest.raises(MigrationError):
        plugin_tables(database, tmp_path).drop("quest-log", folder)
    assert tables(database) == before


def test_tables_are_taken_back_to_a_revision(database: Database, tmp_path: Path) -> None:
    """What a newer version added is gone, what was there before stays."""
    folder = write_migrations(tmp_path, FIRST)
    upgraded(database, folder)
    fill(database, 3)
    write_migrations(tmp_path, FIRST, SECOND)
    upgraded(database, folder)
    stored = plugin_tables(database, tmp_path)
    assert stored.revision("quest-log", "quest_log") == "0002"
    stored.downgrade("quest-log", folder, "0001")
    assert stored.revision("quest-log", "quest_log") == "0001"
    assert "level" not in [column["name"] for column in inspect(database.engine).get_columns("quests")]
    with database.readonly_session() as session:
        assert session.execute(text("SELECT count(*) FROM quests")).scalar() == 3


def test_a_plugin_without_tables_has_nothing_to_export(database: Database, tmp_path: Path) -> None:
    """Neither export nor drop does anything for it."""
    (tmp_path / "quest_log").mkdir()
    stored = plugin_tables(database, tmp_path)
    assert stored.export("quest-log", tmp_path / "quest_log") is None
    stored.drop("quest-log", tmp_path / "quest_log")
    assert stored.revision("quest-log", "quest_log") is None
    assert not (tmp_path / "exports").exists()


def test_an_export_has_how_the_plugin_was_switched_and_configured(database: Database, tmp_path: Path) -> None:
    """Also of a plugin without tables, and of no other plugin; secrets as they are stored."""
    (tmp_path / "quest_log").mkdir()
    sealed = {"key": {"$sealed": "x"}}
    desired = DesiredState(switched={"quest-log": False, "sky": True}, settings={"quest-log": sealed, "sky": {"a": 1}})
    file = plugin_tables(database, tmp_path, desired).export("quest-log", tmp_path / "quest_log")
    assert file is not None
    contents, rows = read_export(file)
    assert (contents["switched"], contents["settings"], contents["tables"], rows) == (False, sealed, {}, {})


def test_files_that_do_not_know_where_the_tables_stand_are_refused(database: Database, tmp_path: Path) -> None:
    """Nothing of them is run to find out what they bring; where only running them would tell, nobody knows."""
    stored = plugin_tables(database, tmp_path)
    current = write_migrations(tmp_path, FIRST, SECOND)
    upgraded(database, current)
    former = write_migrations(tmp_path / "former", FIRST)
    with (former / "migrations" / "0001_x.py").open("a") as file:
        file.write("raise SystemExit('run')\n")
    with pytest.raises(TablesAheadError, match=r"version 1\.0\.0 of plugin 'quest-log' .* at revision '0002'"):
        stored.pending("quest-log", former, "quest_log", version="1.0.0")
    assert stored.pending("quest-log", current, "quest_log", version="2.0.0") == ()
    assert stored.pending("quest-log", former, "another_folder", version="1.0.0") == ("0001",)
    (former / "migrations" / "0002_computed.py").write_text("revision = str(2)\ndown_revision = '0001'\n")
    assert stored.pending("quest-log", former, "quest_log", version="1.0.0") == ()


def test_an_export_that_fails_leaves_no_file(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is there whole or not at all."""
    folder = write_migrations(tmp_path, FIRST)
    upgraded(database, folder)
    fill(database, 2)

    def fail(_value: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("pixsim7_backend.plugin_data._jsonable", fail)
    with pytest.raises(OSError, match="disk full"):
        plugin_tables(database, tmp_path).export("quest-log", folder)
    assert list((tmp_path / "exports").iterdir()) == []


def test_tables_that_refer_to_other_plugins_are_found(tmp_path: Path) -> None:
    """The migrations run on an empty database, where what they refer to is missing."""
    folder = write_migrations(tmp_path, FIRST, SECOND, owner='sa.ForeignKey("users.id"),')
    source = find_source("quest-log", folder)
    assert source is not None
    assert tables_of(source) == ("quest_steps", "quests")


@pytest.mark.parametrize(
    "plugin", ["auth", "users", "game_sessions", "game_npcs", "game_locations", "game_scenes", "game_worlds"]
)
def test_the_tables_of_every_first_party_plugin_are_found(plugin: str) -> None:
    """Each plugin's migrations run on their own."""
    root = Path(migrations.__file__).parents[1] / "plugins"
    source = find_source(plugin.replace("_", "-"), root / plugin)
    assert source is not None
    assert tables_of(source)
