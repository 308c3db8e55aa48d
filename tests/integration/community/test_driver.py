"""SQLAlchemy in a jail, over the driver, frames and the broker, on both databases."""

from __future__ import annotations

import asyncio
import enum
import json
import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from httpx import ASGITransport, AsyncClient
from sqlalchemy import (
    ARRAY,
    JSON,
    Enum,
    Integer,
    Interval,
    LargeBinary,
    Numeric,
    String,
    Uuid,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, Session, mapped_column

import pixsim7_backend.db as db_module
from pixsim7_backend.community.database import driver
from pixsim7_backend.community.database.inside import PermissionMissingError
from pixsim7_backend.community.tables import ClosedTableError, open_table
from pixsim7_backend.db import ReadOnlySessionError, UnstorableValueError
from pixsim7_backend.db.conflicts import is_lost_race
from pixsim7_backend.db.models import JsonDict, JsonList, UtcDateTime, plugin_base
from pixsim7_backend.infrastructure.plugins._jail.inside.services import BrokerCallError
from tests.integration.community.conftest import Enter, Jail
from tests.integration.community.game import Hero

pytestmark = pytest.mark.anyio

Own = plugin_base("quest-stats")


class Mood(enum.Enum):
    CALM = "calm"
    WILD = "wild"


class Everything(Own):
    """A row with all types that there are."""

    __tablename__ = "everything"

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[uuid.UUID] = mapped_column(Uuid)
    text: Mapped[str | None] = mapped_column(String(50), unique=True)
    big: Mapped[int]
    real: Mapped[float]
    price: Mapped[Decimal] = mapped_column(Numeric(12, 2, asdecimal=True))
    is_true: Mapped[bool]
    content: Mapped[bytes] = mapped_column(LargeBinary)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    day: Mapped[date]
    hour: Mapped[time]
    lasts: Mapped[timedelta] = mapped_column(Interval)
    mood: Mapped[Mood] = mapped_column(Enum(Mood))
    meta: Mapped[dict[str, Any]] = mapped_column(JsonDict)
    marks: Mapped[list[Any]] = mapped_column(JsonList)
    raw: Mapped[Any] = mapped_column(JSON)
    numbers: Mapped[list[int]] = mapped_column(ARRAY(Integer).with_variant(JSON(), "sqlite"))


class Note(Own):
    """A row of the plugin's own."""

    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(String(1000), unique=True)


def create_notes(jail: Jail) -> None:
    """Let the plugin make its table."""
    Own.metadata.create_all(jail.database.engine)


VALUES: dict[str, Any] = {
    "key": uuid.UUID("12345678-1234-5678-1234-567812345678"),
    "text": "Grüße 🎲 'quoted' %s ? $1 :x",
    "big": 2**31 - 1,
    "real": 1.5e300,
    "price": Decimal("1234567.89"),
    "is_true": True,
    "content": bytes(range(256)),
    "at": datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    "day": date(1999, 12, 31),
    "hour": time(23, 59, 58, 7),
    "lasts": timedelta(days=3, seconds=2, microseconds=1),
    "mood": Mood.WILD,
    "meta": {"deep": [{"a": None, "b": 1.0, "ü": "%"}]},
    "marks": [1, "two", [3]],
    "raw": [None, {"x": 1}],
    "numbers": [3, 1, 2],
}


@pytest.mark.filterwarnings("ignore:Dialect sqlite.*Decimal")
def test_every_type_comes_back(jail: Jail) -> None:
    """What a plugin stores in a table of its own, it reads back equal, by both kinds of session."""
    Own.metadata.create_all(jail.database.engine)
    with jail.database.session() as session:
        row = Everything(**VALUES)
        session.add(row)
        session.flush()
        assert row.id == 1
    for open_session in (jail.database.session, jail.database.readonly_session):
        with open_session() as session:
            found = session.scalars(select(Everything)).one()
            assert {name: getattr(found, name) for name in VALUES} == VALUES


def test_a_plugin_reads_what_is_open(jail: Jail) -> None:
    """The table that the SDK hands out has the open columns only, with the types of the owner's model."""
    heroes = open_table("heroes")
    assert {column.name for column in heroes.columns} == {"id", "name", "state", "created_at"}
    with jail.database.readonly_session() as session:
        rows = session.execute(select(heroes).order_by(heroes.c.id)).all()
    assert [(row.id, row.name, row.state) for row in rows] == [(1, "Ada", {"hp": 3}), (2, "Bob", {"hp": 5})]
    assert rows[0].created_at.tzinfo is UTC


def test_a_plugin_changes_what_is_open_for_writing(jail: Jail) -> None:
    """An UPDATE of an open column is committed in the game's database, and tells how many rows it met."""
    heroes = open_table("heroes")
    with jail.database.session() as session:
        changed = session.execute(update(heroes).where(heroes.c.id == 2).values(state={"hp": 4}).returning(heroes.c.id))
        assert changed.scalars().all() == [2]
        assert session.execute(update(heroes).values(state={"hp": 9})).rowcount == 2  # type: ignore[attr-defined]
    with jail.game.readonly_session() as session:
        assert [hero.state for hero in session.scalars(select(Hero))] == [{"hp": 9}, {"hp": 9}]


def test_an_error_rolls_back(jail: Jail) -> None:
    """A session that is left by an exception stores nothing."""
    heroes = open_table("heroes")
    statements = [update(heroes).values(state={}), update(heroes).values(state=None)]
    with pytest.raises(IntegrityError), jail.database.session() as session:
        [session.execute(statement) for statement in statements]
    with jail.game.readonly_session() as session:
        assert session.scalars(select(Hero.state)).first() == {"hp": 3}


def test_savepoints_are_calls_and_roll_back(jail: Jail) -> None:
    """A savepoint is undone without the rest; no SQL for it leaves the jail."""
    create_notes(jail)
    with jail.database.session() as session:
        session.add(Note(text="kept"))
        with pytest.raises(IntegrityError), session.begin_nested():
            session.execute(insert(Note), [{"text": "undone"}, {"text": "undone"}])
        with session.begin_nested():
            session.add(Note(text="also kept"))
    with jail.database.readonly_session() as session:
        assert session.scalars(select(Note.text).order_by(Note.id)).all() == ["kept", "also kept"]
    assert jail.channel.methods.count("db.savepoint") == 4


def test_many_rows_go_in_and_stream_out(jail: Jail) -> None:
    """Two thousand rows are stored in batches, and read piece by piece without all of them in memory."""
    create_notes(jail)
    with jail.database.session() as session:
        session.add_all(Note(text=f"{number:04}" + "x" * 500) for number in range(2000))
    with jail.database.readonly_session() as session:
        jail.channel.methods.clear()
        result = session.execute(select(Note.text).order_by(Note.id).execution_options(yield_per=100))
        first = next(iter(result.scalars()))
        assert jail.channel.methods.count("db.fetch") <= 1
        assert first.startswith("0000")
        result.close()
        assert len(session.scalars(select(Note.text)).all()) == 2000
        assert jail.channel.methods.count("db.fetch") >= 3


def test_rows_without_ids_wanted_go_in_batches(jail: Jail) -> None:
    """An INSERT of many rows through the driver's executemany stores them all."""
    create_notes(jail)
    with jail.database.session() as session:
        session.connection().exec_driver_sql(
            "INSERT INTO notes (text) VALUES (?)" if jail.game.is_sqlite else "INSERT INTO notes (text) VALUES ($1)",
            [(str(number),) for number in range(250)],
        )
    with jail.database.readonly_session() as session:
        assert len(session.scalars(select(Note)).all()) == 250
    assert jail.channel.methods.count("db.many") == 3


def test_errors_have_the_classes_of_the_driver(jail: Jail) -> None:
    """Violated constraints, wrong SQL and impossible values are told apart as in the host's process."""
    create_notes(jail)
    with jail.database.session() as session:
        session.add(Note(text="one"))
    with pytest.raises(IntegrityError), jail.database.session() as session:
        session.add(Note(text="one"))
    with (
        pytest.raises((ProgrammingError, OperationalError), match=r"nonsense"),
        jail.database.session() as session,
    ):
        session.execute(text("SELECT nonsense FROM notes"))
    with pytest.raises(UnstorableValueError), jail.database.session() as session:
        session.add(Note(text="nul \x00 inside" if not jail.game.is_sqlite else "lone \ud800 surrogate"))
    with pytest.raises(ReadOnlySessionError), jail.database.readonly_session() as session:
        session.execute(text("DELETE FROM notes"))


def test_a_lost_race_is_recognised(jail: Jail) -> None:
    """What the host says of a lock that did not come lets ``retry_on_conflict`` try again."""
    code = "SQLITE_BUSY" if jail.game.is_sqlite else "40001"
    error = driver._error(BrokerCallError(f"OperationalError:{code}", "locked"))
    assert is_lost_race(DBAPIError("SELECT 1", None, error))


async def test_async_sessions_work(jail: Jail) -> None:
    """The async twins read, write and stream."""
    create_notes(jail)
    async with jail.database.async_session() as session:
        session.add(Note(text="async"))
        async with session.begin_nested():
            session.add(Note(text="nested"))
    async with jail.database.async_readonly_session() as session:
        stream = await session.stream_scalars(select(Note.text).order_by(Note.id))
        assert [each async for each in stream] == ["async", "nested"]
    await jail.database.aclose()


def _plugin_app(jail: Jail) -> FastAPI:
    app = FastAPI()
    heroes = open_table("heroes")

    @app.get("/names")
    def names(db: Annotated[Session, Depends(db_module.get_db_readonly)]) -> list[str]:
        return list(db.scalars(select(heroes.c.name).order_by(heroes.c.id)))

    @app.put("/states")
    async def states(db: Annotated[Session, Depends(db_module.get_db)]) -> int:
        db.execute(update(heroes).values(state={"hp": 1}))
        return len(db.execute(select(heroes.c.id)).all())

    @app.get("/async-names")
    async def async_names(db: Annotated[AsyncSession, Depends(db_module.get_async_db_readonly)]) -> list[str]:
        return list(await db.scalars(select(heroes.c.name).order_by(heroes.c.id)))

    return app


async def test_endpoints_use_the_dependencies_unchanged(jail: Jail) -> None:
    """Sync and async endpoints get their sessions; an async one that uses the sync session does not hang."""
    transport = ASGITransport(app=_plugin_app(jail))
    async with AsyncClient(transport=transport, base_url="http://jail") as client:
        answers = await asyncio.gather(*(client.put("/states") for _ in range(10)))
        assert [answer.json() for answer in answers] == [2] * 10
        names = await asyncio.gather(*(client.get(path) for path in ["/names", "/async-names"] * 10))
        assert all(answer.json() == ["Ada", "Bob"] for answer in names)
    with jail.game.readonly_session() as session:
        assert session.scalars(select(Hero.state)).first() == {"hp": 1}
    await jail.database.aclose()


def test_own_tables_are_nobody_elses(jail: Jail) -> None:
    """Tables that a plugin makes are in a file or schema of its own: the game's database has no such table."""
    create_notes(jail)
    assert not inspect(jail.game.engine).has_table("notes")
    assert (jail.directory / "data/community/quest_stats.sqlite3").exists() is jail.game.is_sqlite


def test_own_tables_change_and_join_the_game(jail: Jail) -> None:
    """Own tables can be altered, indexed, dropped, and joined with what is open of the game."""
    create_notes(jail)
    with jail.database.session() as session:
        session.add(Note(text="Ada"))
        session.execute(text("ALTER TABLE notes ADD COLUMN extra TEXT"))
        session.execute(text("ALTER TABLE notes RENAME COLUMN extra TO more"))
        session.execute(text("CREATE INDEX ix_notes_more ON notes (more)"))
    heroes = open_table("heroes")
    with jail.database.readonly_session() as session:
        joined = select(heroes.c.id).join(Note, Note.text == heroes.c.name)
        assert session.scalars(joined).all() == [1]
    Own.metadata.drop_all(jail.database.engine)


@pytest.mark.parametrize(
    ("granted", "name", "line"),
    [
        ("db:read", "get_db", 'permissions=["db:write"]'),
        ("db:read", "AsyncDbSession", 'permissions=["db:write"]'),
        ("redis:read", "get_db_readonly", 'permissions=["db:read"]'),
    ],
)
def test_a_session_without_permission_fails_at_load(enter: Enter, granted: str, name: str, line: str) -> None:
    """The import of a session that the plugin may not have fails with the line to add to its manifest."""
    jail = enter(granted)
    with pytest.raises(PermissionMissingError) as failure:
        getattr(db_module, name)
    assert line in str(failure.value)
    with pytest.raises(PermissionMissingError), jail.database.session():
        pytest.fail("a session was given")


def test_what_is_granted_can_be_narrowed(enter: Enter) -> None:
    """A permission for another table opens nothing else."""
    enter("db:read:secrets")
    with pytest.raises(ClosedTableError, match=r'permissions=\["db:read:heroes"\]'):
        open_table("heroes")


def test_the_app_is_told_nothing_of_the_host(jail: Jail) -> None:
    """What goes into the jail at its start holds no path, no address and no password."""
    described = json.dumps(jail.app.state.services)
    assert str(jail.directory) not in described
    assert jail.game.url.render_as_string(hide_password=False) not in described
    assert set(jail.app.state.services["db"]) == {"kind", "plugin", "transactions", "read", "write", "tables"}
