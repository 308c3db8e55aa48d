"""Plugins' tables, brought up to date."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from sqlalchemy import Column, Index, String, inspect, text
from sqlalchemy.orm import Mapped, mapped_column

from pixsim7_backend.db import Database, DatabaseBusyError
from pixsim7_backend.db.locks import exclusive
from pixsim7_backend.db.migrations import (
    MigrationFailedError,
    MigrationScriptsError,
    MigrationSource,
    UnknownRevisionError,
    UpgradeReport,
    current,
    downgrade,
    find_source,
    pending,
    schema_differences,
    upgrade,
)
from pixsim7_backend.db.models import JsonDict, Timestamps, plugin_base
from tests.databases import KINDS, fresh_database

PROCESSES = multiprocessing.get_context("forkserver")
"""Worker processes that do not inherit this one's threads and connections."""
PROCESSES.set_forkserver_preload([__name__])

FIRST = """
import sqlalchemy as sa
from alembic import op
from pixsim7_backend.db.models import JsonDict, UtcDateTime

revision = "0001"
down_revision = None

def upgrade():
    op.create_table(
        "{table}",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(40), nullable=False, unique=True),
        sa.Column("meta", JsonDict, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
    )

def downgrade():
    op.drop_table("{table}")
"""

SECOND = """
import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

def upgrade():
    with op.batch_alter_table("{table}", recreate="{recreate}") as batch:
        batch.add_column(sa.Column("colour", sa.String(20)))

def downgrade():
    with op.batch_alter_table("{table}") as batch:
        batch.drop_column("colour")
"""

BROKEN = """
import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

def upgrade():
    op.create_table("half", sa.Column("id", sa.Integer, primary_key=True))
    op.execute("INSERT INTO half (id) VALUES (1)")
    op.drop_table("things")
    op.execute("SELECT * FROM no_such_table")
"""


def _source(directory: Path, plugin: str, *texts: str) -> MigrationSource:
    folder = directory / plugin.replace("-", "_")
    scripts = folder / "migrations"
    scripts.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(texts, 1):
        (scripts / f"{number:04}_step.py").write_text(
            content.replace("{table}", plugin.replace("-", "_")).replace("{recreate}", "auto"), encoding="utf-8"
        )
    found = find_source(plugin, folder)
    assert found is not None
    return found


def _tables(database: Database) -> set[str]:
    return set(inspect(database.engine).get_table_names())


def _applied(report: UpgradeReport) -> list[tuple[str, str]]:
    return [(each.plugin_id, each.revision) for each in report.applied]


def test_an_upgrade_runs_what_is_pending_in_the_given_order(database: Database, tmp_path: Path) -> None:
    """Each plugin gets its own version table, and a second upgrade finds nothing to do."""
    things, others = _source(tmp_path, "things", FIRST, SECOND), _source(tmp_path, "other-things", FIRST)
    assert pending(database, things) == ("0001", "0002")
    report = upgrade(database, [others, things])
    assert _applied(report) == [("other-things", "0001"), ("things", "0001"), ("things", "0002")]
    assert report.to_json() == {
        "applied": [
            {"plugin": "other-things", "revision": "0001"},
            {"plugin": "things", "revision": "0001"},
            {"plugin": "things", "revision": "0002"},
        ]
    }
    assert _tables(database) == {
        "things",
        "other_things",
        "alembic_version_things",
        "alembic_version_other_things",
    }
    assert (current(database, things), pending(database, things)) == ("0002", ())
    assert upgrade(database, [others, things]) == UpgradeReport()


def test_a_new_revision_is_applied_to_what_is_there(database: Database, tmp_path: Path) -> None:
    """Rows stay, and a table that SQLite must rebuild keeps those that refer to it."""
    source = _source(tmp_path, "things", FIRST)
    upgrade(database, [source])
    with database.session() as session:
        session.execute(text("INSERT INTO things VALUES (1, 'a', '{}', '2026-01-01', '2026-01-01')"))
        session.execute(
            text("CREATE TABLE children (id INTEGER, parent INTEGER REFERENCES things (id) ON DELETE CASCADE)")
        )
        session.execute(text("INSERT INTO children VALUES (1, 1)"))
    _source(tmp_path, "things", FIRST, SECOND.replace("{recreate}", "always" if database.is_sqlite else "auto"))
    assert _applied(upgrade(database, [source])) == [("things", "0002")]
    with database.session() as session:
        assert session.execute(text("SELECT name, colour FROM things")).all() == [("a", None)]
        assert session.execute(text("SELECT parent FROM children")).all() == [(1,)]


def test_a_failing_migration_leaves_nothing_half_done(database: Database, tmp_path: Path) -> None:
    """Tables it had made or dropped are as before; plugins before it stay upgraded; the text names the culprit."""
    fine, broken = _source(tmp_path, "fine", FIRST), _source(tmp_path, "things", FIRST)
    upgrade(database, [broken])
    broken = _source(tmp_path, "things", FIRST, BROKEN)
    with pytest.raises(MigrationFailedError) as caught:
        upgrade(database, [fine, broken])
    assert str(caught.value).startswith("migration '0002' of plugin 'things' failed and was rolled back: ")
    assert (caught.value.plugin, caught.value.revision) == ("things", "0002")
    assert _tables(database) == {"things", "alembic_version_things", "fine", "alembic_version_fine"}
    assert (current(database, broken), current(database, fine)) == ("0001", "0001")


def test_a_migration_that_orphans_rows_is_refused(database: Database, tmp_path: Path) -> None:
    """On SQLite, where keys are off during a migration, they are checked at its end."""
    if not database.is_sqlite:
        pytest.skip("PostgreSQL checks each statement")
    source = _source(tmp_path, "things", FIRST)
    upgrade(database, [source])
    with database.session() as session:
        session.execute(text("INSERT INTO things VALUES (1, 'a', '{}', '2026-01-01', '2026-01-01')"))
        session.execute(text("CREATE TABLE children (id INTEGER, parent INTEGER REFERENCES things (id))"))
        session.execute(text("INSERT INTO children VALUES (1, 1)"))
    head = 'revision = "0002"\ndown_revision = "0001"\nfrom alembic import op\n'
    _source(tmp_path, "things", FIRST, head + 'def upgrade(): op.execute("DELETE FROM things")')
    with pytest.raises(MigrationScriptsError, match="they leave rows without parents in children"):
        upgrade(database, [source])
    with database.session() as session:
        assert session.scalar(text("SELECT count(*) FROM things")) == 1


def test_a_plugin_that_is_gone_disturbs_nobody(database: Database, tmp_path: Path) -> None:
    """Its tables and their version stay, and the others are upgraded as if it had never been."""
    things, gone = _source(tmp_path, "things", FIRST), _source(tmp_path, "gone", FIRST)
    upgrade(database, [gone, things])
    _source(tmp_path, "things", FIRST, SECOND)
    assert _applied(upgrade(database, [things])) == [("things", "0002")]
    assert {"gone", "alembic_version_gone"} <= _tables(database)
    assert upgrade(database, [gone, things]) == UpgradeReport()


def test_an_older_plugin_than_its_tables_is_told_so(database: Database, tmp_path: Path) -> None:
    """A revision that the files do not have names the plugin and the way out, and changes nothing."""
    source = _source(tmp_path, "things", FIRST, SECOND)
    upgrade(database, [source])
    (source.directory / "0002_step.py").unlink()
    expected = (
        "the tables of plugin 'things' are at revision '0002', which the installed plugin does not have;"
        " install the version that was here before, or a newer one"
    )
    for ask in (lambda: upgrade(database, [source]), lambda: pending(database, source)):
        with pytest.raises(UnknownRevisionError) as caught:
            ask()
        assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("raise RuntimeError('no')", "RuntimeError: no"),
        ("def upgrade(:", "SyntaxError"),
        (FIRST.replace('"0001"', '"other"'), r"they have several heads \(0001, other\)"),
        (FIRST.replace("down_revision = None", 'down_revision = "missing"').replace('"0001"', '"0002"'), "missing"),
    ],
)
@pytest.mark.filterwarnings("ignore:Revision .* referenced")
def test_unusable_scripts_name_the_plugin(tmp_path: Path, content: str, reason: str) -> None:
    """Whatever is wrong with the files is one error of our own."""
    database = Database(f"sqlite:///{tmp_path / 'db.sqlite3'}")
    with pytest.raises(MigrationScriptsError, match=f"the migrations of plugin 'things' cannot be used: .*{reason}"):
        upgrade(database, [_source(tmp_path, "things", FIRST, content)])


def test_a_downgrade_takes_the_tables_back(database: Database, tmp_path: Path) -> None:
    """One step, and then all of them."""
    source = _source(tmp_path, "things", FIRST, SECOND)
    upgrade(database, [source])
    assert _applied(downgrade(database, source, "0001")) == [("things", "0002")]
    assert current(database, source) == "0001"
    assert _applied(downgrade(database, source)) == [("things", "0001")]
    assert "things" not in _tables(database)
    assert _applied(upgrade(database, [source])) == [("things", "0001"), ("things", "0002")]


def test_a_plugin_without_migrations_has_no_source(tmp_path: Path) -> None:
    """Nothing is looked for where there is nothing."""
    assert find_source("things", tmp_path) is None
    source = _source(tmp_path, "empty")
    database = Database(f"sqlite:///{tmp_path / 'db.sqlite3'}")
    assert upgrade(database, [source]) == UpgradeReport()
    assert source.version_table == "alembic_version_empty"


def test_models_that_differ_from_the_migrations_are_found(database: Database, tmp_path: Path) -> None:
    """The check is silent when they agree, whatever else is in the database, and names each difference."""
    upgrade(database, [_source(tmp_path, "things", FIRST), _source(tmp_path, "other", FIRST)])
    base = plugin_base("things")

    class Thing(Timestamps, base):
        __tablename__ = "things"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(String(40), unique=True)
        meta: Mapped[dict[str, object]] = mapped_column(JsonDict)

    assert schema_differences(database, base.metadata) == []
    base.metadata.tables["things"].columns["name"].nullable = True
    found = schema_differences(database, base.metadata)
    assert found == ["column things.name differs in nullable: False in the database, True in the model"]
    base.metadata.tables["things"].append_column(Column("mood", String))
    base.metadata.tables["things"].columns["name"].nullable = False
    Index("moods", base.metadata.tables["things"].columns["mood"])
    assert schema_differences(database, base.metadata) == [
        "column things.mood is missing in the database",
        "index things.moods on mood is missing in the database",
    ]


def test_foreign_keys_to_other_plugins_are_in_the_migration_only(database: Database, tmp_path: Path) -> None:
    """A model need not repeat a key to a table that it does not own."""
    reference = FIRST.replace(
        'sa.Column("meta"', 'sa.Column("owner_id", sa.Integer, sa.ForeignKey("owners.id")), sa.Column("meta"'
    )
    upgrade(database, [_source(tmp_path, "owners", FIRST), _source(tmp_path, "things", reference)])
    base = plugin_base("things")

    class Thing(Timestamps, base):
        __tablename__ = "things"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(String(40), unique=True)
        owner_id: Mapped[int | None]
        meta: Mapped[dict[str, object]] = mapped_column(JsonDict)

    assert schema_differences(database, base.metadata) == []


SLOW = """
import sys, time
from pathlib import Path
from alembic import op
revision = "0002"
down_revision = "0001"

def upgrade():
    op.execute("CREATE TABLE half (id INTEGER)")
    if Path({marker!r}).exists():
        return
    Path({marker!r}).touch()
    time.sleep(60)
"""


def _upgrade_together(url: str, source: MigrationSource, barrier: Barrier, results: Queue[int]) -> None:
    """What each worker process does."""
    barrier.wait(60)
    results.put(len(upgrade(Database(url), [source]).applied))


@pytest.mark.parametrize("kind", KINDS)
def test_four_processes_that_start_at_once_upgrade_once(kind: str, tmp_path: Path) -> None:
    """All succeed, and together they have run each revision one time, on a database that did not exist."""
    source = _source(tmp_path, "things", FIRST, SECOND)
    barrier, results = PROCESSES.Barrier(4), PROCESSES.Queue()
    with fresh_database(kind, tmp_path) as url:
        arguments = (url, source, barrier, results)
        workers = [PROCESSES.Process(target=_upgrade_together, args=arguments) for _ in range(4)]
        for worker in workers:
            worker.start()
        applied = sorted(results.get(timeout=60) for _ in workers)
        for worker in workers:
            worker.join(30)
    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]
    assert applied == [0, 0, 0, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_a_process_killed_in_the_middle_leaves_no_lock_and_no_table(kind: str, tmp_path: Path) -> None:
    """The next one runs the same revision again, from the start."""
    marker = tmp_path / "in the middle"
    source = _source(tmp_path, "things", FIRST, SLOW.replace("{marker!r}", repr(str(marker))))
    with fresh_database(kind, tmp_path) as url:
        arguments = (url, source, PROCESSES.Barrier(1), PROCESSES.Queue())
        worker = PROCESSES.Process(target=_upgrade_together, args=arguments)
        worker.start()
        while not marker.exists():
            assert worker.exitcode is None
            time.sleep(0.01)
        worker.kill()
        worker.join(30)
        database = Database(url)
        assert "half" not in _tables(database)
        assert _applied(upgrade(database, [source])) == [("things", "0001"), ("things", "0002")]
        assert "half" in _tables(database)
        database.close()


def test_the_lock_is_for_one_at_a_time(database: Database) -> None:
    """Who waits too long is told so, other names do not wait, and afterwards it is free."""
    with exclusive(database, "secret key"):
        with exclusive(database, "another"):
            pass
        with (
            pytest.raises(DatabaseBusyError, match=r"the lock 'secret key' was not free within 0\.1 s"),
            exclusive(database, "secret key", timeout=0.1),
        ):
            pass
    with exclusive(database, "secret key", timeout=0.1):
        pass
