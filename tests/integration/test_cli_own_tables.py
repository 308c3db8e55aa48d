"""``pixsim7 plugins remove`` and the own tables of a stranger's plugin: kept, exported, dropped, on both databases."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from pixsim7_backend.cli.desired import load_desired
from pixsim7_backend.community.database.executor import Executor, Mode
from pixsim7_backend.community.database.limits import DatabaseLimits
from pixsim7_backend.community.database.openness import Access
from pixsim7_backend.community.database.own_file import own_file_of
from pixsim7_backend.community.database.postgres_executor import PostgresExecutor
from pixsim7_backend.community.database.roles import login_of, own_schema, remove_role, role_of
from pixsim7_backend.community.database.sqlite_executor import SqliteExecutor
from pixsim7_backend.db import Database
from pixsim7_backend.infrastructure.plugins._jail.broker import BrokerError
from pixsim7_backend.infrastructure.plugins.preview import probe_machine
from pixsim7_backend.infrastructure.plugins.testing import write_plugin
from pixsim7_backend.plugin_store import DatabaseStateStore
from pixsim7_backend.settings import load_settings
from tests import plain_http
from tests.command_line import CommandLine
from tests.databases import fresh_database
from tests.integration.test_cli_grants import serving

PLUGINS = ("quest", "quest-log")
EMPTY = {"sqlite": "empty", "postgresql": "NOTES"}
"""A further table; SQLite does not tell cases apart."""
OWN = Access(read={}, write={}, own=True)
FILLED = (
    "CREATE TABLE notes (id integer PRIMARY KEY, text varchar(50))",
    "CREATE INDEX notes_by_text ON notes (text)",
    "INSERT INTO notes VALUES (1, 'first'), (2, NULL)",
    'CREATE TABLE "../../Notes" (id integer)',
    'INSERT INTO "../../Notes" VALUES (3)',
)


def prepare(url: str) -> None:
    """Make the tables of what operators decide."""
    database = Database(url)
    DatabaseStateStore(database, migrates=True).load()
    database.close()


@pytest.fixture
def url(run: CommandLine, database_kind: str, tmp_path: Path) -> Iterator[str]:
    """The address of the database of this place, where no machine is too weak for strangers."""
    run.patch.setenv("COMMUNITY_FLOOR", "none")
    with fresh_database(database_kind, tmp_path, prepare) as made:
        run.patch.setenv("DATABASE_URL", made)
        yield made
        for plugin in PLUGINS:
            if database_kind == "postgresql":
                remove_role(made, plugin, data_dir=load_settings().data_dir)


@pytest.fixture
def plugins(run: CommandLine, url: str, tmp_path: Path) -> CommandLine:
    """``pixsim7 plugins``, with a plugin that has filled tables of its own."""
    commands = replace(run, before=("plugins",))
    install(commands, url, "quest", tmp_path)
    return commands


def install(plugins: CommandLine, url: str, plugin: str, tmp_path: Path) -> None:
    """Add a plugin with all that it asks for, and fill its tables."""
    folder = write_plugin(tmp_path / "offered", plugin.replace("-", "_"), permissions=["db:own"])
    assert plugins("add", str(folder), "--grant", "all").status == 0
    as_plugin(url, plugin, *FILLED)


@contextmanager
def executing(url: str, plugin: str) -> Iterator[Executor]:
    """Give what the broker gives a jail."""
    data_dir, limits = load_settings().data_dir, DatabaseLimits()
    made: Executor
    if url.startswith("sqlite"):
        made = SqliteExecutor(None, own_file_of(data_dir, plugin), OWN, limits)
    else:
        made = PostgresExecutor(login_of(url, plugin, data_dir), own_schema(plugin), OWN, limits)
    try:
        yield made
    finally:
        made.close()


def as_plugin(url: str, plugin: str, *statements: str) -> list[list[Any]]:
    """Run statements as the plugin's jail would have them run; return the rows of the last."""
    with executing(url, plugin) as executor:
        transaction = executor.begin(Mode.WRITE)
        try:
            for statement in statements:
                rows = transaction.execute(statement, [[]], is_many=False).rows
        except BaseException:
            transaction.rollback()
            raise
        transaction.commit()
    return rows


def notes_of(url: str, plugin: str) -> list[list[Any]]:
    return as_plugin(url, plugin, "SELECT id, text FROM notes ORDER BY id")


def left_of(url: str, plugin: str) -> set[str]:
    """Return what there is of a plugin: role, schema, tables, secret, or files."""
    data_dir = load_settings().data_dir
    if url.startswith("sqlite"):
        own = own_file_of(data_dir, plugin)
        return {each.name for each in own.parent.glob("*") if each.name.partition(".")[0] == own.stem}
    with psycopg.connect(url) as host:
        role, schema = role_of(host.info.dbname, plugin), own_schema(plugin)
        found = host.execute(
            "SELECT 'role' FROM pg_roles WHERE rolname = %(role)s"
            " UNION ALL SELECT 'schema' FROM pg_namespace WHERE nspname = %(schema)s"
            " UNION ALL SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            "  WHERE nspname = %(schema)s AND relkind = 'r'"
            " UNION ALL SELECT 'something' FROM pg_shdepend d JOIN pg_roles r ON r.oid = d.refobjid"
            "  WHERE rolname = %(role)s AND deptype IN ('a', 'o')",
            {"role": role, "schema": schema},
        )
        secret = {"secret"} if (data_dir / "community-roles" / role).exists() else set()
        return {name for (name,) in found} | secret


def tables_in(url: str) -> set[str]:
    """Return the names of the host's own tables."""
    if url.startswith("sqlite"):
        import sqlite3

        with sqlite3.connect(url.removeprefix("sqlite:///")) as file:
            return {name for (name,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    with psycopg.connect(url) as host:
        return {name for (name,) in host.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}


def exported(done: Any) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Return the contents of an export, and its rows by file."""
    with zipfile.ZipFile(done["exported_to"]) as archive:
        rows = {
            name: [json.loads(line) for line in archive.read(name).splitlines()]
            for name in archive.namelist()
            if name.endswith(".jsonl")
        }
        return json.loads(archive.read("contents.json")), rows


def test_an_export_has_them(plugins: CommandLine, url: str, database_kind: str) -> None:
    """Each in a file of the archive that no name can lead out of; nothing is missing in the database afterwards."""
    as_plugin(url, "quest", f'CREATE TABLE "{EMPTY[database_kind]}" (id integer)')
    before = left_of(url, "quest")
    done = plugins("remove", "quest", "--data", "export", "--json").json
    contents, rows = exported(done)
    files = {each["table"]: each["file"] for each in contents["own_tables"]}
    assert {each["table"]: each["rows"] for each in contents["own_tables"]} == {
        "notes": 2,
        EMPTY[database_kind]: 0,
        "../../Notes": 1,
    }
    assert set(rows) == set(files.values())
    assert all(Path(file).parts[0] == "own" and len(Path(file).parts) == 2 for file in rows)
    assert len({file.lower() for file in rows}) == 3
    assert rows[files["notes"]] == [{"id": 1, "text": "first"}, {"id": 2, "text": None}]
    assert rows[files["../../Notes"]] == [{"id": 3}]
    assert (contents["plugin"], contents["tables"]) == ("quest", {})
    assert Path(done["exported_to"]).stat().st_mode & 0o777 == 0o600
    assert left_of(url, "quest") >= before
    assert load_desired(load_settings()).grants == {}


def test_an_export_has_them_also_without_a_grant(plugins: CommandLine, url: str) -> None:
    """What the operator declines later is still exported, and the plugin has no more than before."""
    assert plugins("enable", "quest", "--grant", "none").status == 0
    _, rows = exported(plugins("remove", "quest", "--data", "export", "--json").json)
    assert sorted(map(len, rows.values())) == [1, 2]
    if not url.startswith("sqlite"):
        with pytest.raises(BrokerError, match=r"does not exist|permission denied"):
            notes_of(url, "quest")


def test_an_export_that_fails_takes_nothing_away(plugins: CommandLine, url: str) -> None:
    """The plugin is there with its grants, no half archive is, and the error says what is wrong and the way out."""
    if url.startswith("sqlite"):
        own_file_of(load_settings().data_dir, "quest").write_text("no database " * 100)
    else:
        with psycopg.connect(url) as host:
            role = sql.Identifier(role_of(host.info.dbname, "quest"))
            host.execute(sql.SQL("ALTER ROLE {} NOLOGIN").format(role))
    done = plugins("remove", "quest", "--data", "export")
    assert done.status == 1
    assert "the own tables of plugin 'quest' cannot be exported: " in done.err
    assert "or decide for --data keep or --data drop" in done.err
    assert load_desired(load_settings()).grants.keys() == {"quest"}
    assert "quest" in plugins("plan", "--json").json["order"]
    exports = load_settings().data_dir / "exports"
    assert not exports.exists() or list(exports.iterdir()) == []


def test_dropping_leaves_nothing_of_it(plugins: CommandLine, url: str, tmp_path: Path) -> None:
    """Tables, schema or file, role and secret are gone; the other plugin's and the host's are what they were."""
    install(plugins, url, "quest-log", tmp_path)
    others, hosts = left_of(url, "quest-log"), tables_in(url)
    assert hosts >= {"plugin_state"}
    assert left_of(url, "quest") != set()
    done = plugins("remove", "quest", "--data", "drop", "--yes")
    assert done.status == 0, done.err
    assert left_of(url, "quest") == set()
    assert (left_of(url, "quest-log"), tables_in(url)) == (others, hosts)
    assert notes_of(url, "quest-log") == [[1, "first"], [2, None]]


def test_dropping_leaves_nothing_of_it_also_without_a_grant(plugins: CommandLine, url: str) -> None:
    """The host has taken the schema to itself meanwhile; it goes all the same."""
    assert plugins("enable", "quest", "--grant", "none").status == 0
    assert plugins("remove", "quest", "--data", "drop", "--yes").status == 0
    assert left_of(url, "quest") == set()


@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_dropping_leaves_what_others_put_there(plugins: CommandLine, url: str) -> None:
    """A table of somebody else in the plugin's schema stays, and so does the schema; the role goes."""
    assert plugins("enable", "quest", "--grant", "none").status == 0
    with psycopg.connect(url) as host:
        host.execute("CREATE TABLE plugin_quest.of_somebody (id int)")
    assert plugins("remove", "quest", "--data", "drop", "--yes").status == 0
    assert left_of(url, "quest") == {"schema", "of_somebody"}
    with psycopg.connect(url) as host:
        host.execute("DROP SCHEMA plugin_quest CASCADE")


def test_keeping_keeps_them(plugins: CommandLine, url: str, tmp_path: Path) -> None:
    """Nobody reaches them then; who comes under the same name gets them with the grant, and not before."""
    before = left_of(url, "quest")
    assert plugins("remove", "quest", "--data", "keep").status == 0
    assert left_of(url, "quest") == before
    assert plugins("add", str(tmp_path / "offered" / "quest")).status == 0
    if not url.startswith("sqlite"):
        with pytest.raises(BrokerError, match=r"does not exist|permission denied"):
            notes_of(url, "quest")
    assert plugins("enable", "quest", "--grant", "all").status == 0
    assert notes_of(url, "quest") == [[1, "first"], [2, None]]


JAILED = """
from fastapi import Depends
from sqlalchemy import insert, select
from sqlalchemy.orm import Mapped, Session, mapped_column
from pixsim7_backend.db import default_database, get_db
from pixsim7_backend.db.models import plugin_base

Base = plugin_base("quest")

class Page(Base):
    __tablename__ = "pages"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]

def on_enable():
    Base.metadata.create_all(default_database().engine)

@router.get("/write")
def write(db: Session = Depends(get_db)) -> int:
    db.execute(insert(Page), [{"text": f"page {number}"} for number in range(1200)])
    return 1200
"""


@pytest.mark.skipif(not probe_machine().reaches("confined"), reason="this machine does not confine plugins")
def test_an_export_has_what_a_jail_wrote_while_the_server_runs(run: CommandLine, tmp_path: Path) -> None:
    """The plugin is stopped first; the server answers on, and the export has every row."""
    run.patch.setenv("PLUGINS_DIR", "plugins")
    plugins = replace(run, before=("plugins",))
    folder = write_plugin(tmp_path / "offered", "quest", JAILED, permissions=["db:own"])
    with serving(tmp_path) as url:
        assert plugins("add", str(folder), "--grant", "all").status == 0
        assert plain_http.get(f"{url}/quest/write").json() == 1200
        contents, rows = exported(plugins("remove", "quest", "--data", "export", "--json").json)
        assert plain_http.get(f"{url}/quest/write").status_code == 404
    assert contents["own_tables"] == [{"table": "pages", "file": "own/pages.jsonl", "rows": 1200}]
    assert rows["own/pages.jsonl"][-1] == {"id": 1200, "text": "page 1199"}
