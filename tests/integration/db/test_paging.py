"""Lists by cursor on both databases."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import httpx
import pytest
from fastapi import FastAPI, Query
from fastapi.exceptions import RequestValidationError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from sqlalchemy import delete, select

from pixsim7_backend.db import Database, ReadOnlyDb
from pixsim7_backend.paging import Page, PageParams, PageRequest, paginate, paginate_async
from tests.integration.db.models import Counter

pytestmark = pytest.mark.anyio

START = datetime(2026, 1, 1, tzinfo=UTC)
COUNT = 23

ORDERS: list[tuple[Sequence[Any], Callable[[Counter], Any]]] = [
    ((), lambda row: row.id),
    ((Counter.id.desc(),), lambda row: -row.id),
    ((Counter.value,), lambda row: (row.value, row.id)),
    ((Counter.value.desc(), Counter.id.desc()), lambda row: (-row.value, -row.id)),
    ((Counter.name,), lambda row: (row.name is None, row.name, row.id)),
    ((Counter.due_at, Counter.value.desc()), lambda row: (row.due_at is None, row.due_at or START, -row.value, row.id)),
    ((Counter.due_at.desc(),), lambda row: (row.due_at is None, START - (row.due_at or START), row.id)),
]


@pytest.fixture
def many(counters: Database) -> Database:
    """A database with rows of which many have equal or missing sort keys."""
    with counters.session() as session:
        session.execute(delete(Counter))
        session.add_all(
            Counter(
                id=number,
                value=number % 3,
                name=f"n{number:02}" if number % 4 else None,
                due_at=START + timedelta(microseconds=number % 5) if number % 2 else None,
            )
            for number in range(1, COUNT + 1)
        )
    return counters


def _walk(database: Database, limit: int, order_by: Sequence[Any]) -> list[Counter]:
    """Return all rows, page by page."""
    rows: list[Counter] = []
    cursor = None
    with database.readonly_session() as session:
        while True:
            page = paginate(session, select(Counter), PageRequest(limit, cursor), order_by=order_by)
            assert page.total == COUNT
            assert len(page.items) <= limit
            rows += page.items
            cursor = page.next_cursor
            if cursor is None:
                return rows


async def test_all_pages_together_are_the_sorted_list(many: Database) -> None:
    """Whatever the order and the size of the pages, no row is missing, twice or out of place."""
    with many.readonly_session() as session:
        everything = session.scalars(select(Counter)).all()
    for order_by, key in ORDERS:
        for limit in (3, COUNT, 100):
            assert [row.id for row in _walk(many, limit, order_by)] == [row.id for row in sorted(everything, key=key)]


async def test_filters_come_before_paging(many: Database) -> None:
    """Pages are full and the total is of the filtered list."""
    query = select(Counter).where(Counter.value == 1)
    with many.readonly_session() as session:
        page = paginate(session, query, PageRequest(3), lambda row: row.id)
        assert (page.items, page.total) == ([1, 4, 7], 8)
        page = paginate(session, query, PageRequest(100, page.next_cursor), lambda row: row.id)
        assert (page.items, page.total, page.next_cursor) == ([10, 13, 16, 19, 22], 8, None)
        empty = paginate(session, query.where(Counter.id < 0), PageRequest())
        assert empty == Page[Any](items=[], total=0, next_cursor=None)


async def test_rows_that_come_and_go_do_not_shift_pages(many: Database) -> None:
    """What is removed or added before the cursor neither repeats nor hides other rows."""
    with many.session() as session:
        page = paginate(session, select(Counter), PageRequest(5), lambda row: row.id)
        session.execute(delete(Counter).where(Counter.id.in_([1, 2, 5])))
        session.add(Counter(id=-1))
        following = paginate(session, select(Counter), PageRequest(5, page.next_cursor), lambda row: row.id)
        assert following.items == [6, 7, 8, 9, 10]
        session.rollback()


async def test_the_async_twin_gives_the_same(many: Database) -> None:
    """Same page, same cursor."""
    query, order = select(Counter), (Counter.due_at,)
    with many.readonly_session() as session:
        expected = paginate(session, query, PageRequest(4), lambda row: row.id, order_by=order)
    async with many.async_readonly_session() as async_session:
        page = await paginate_async(async_session, query, PageRequest(4), lambda row: row.id, order_by=order)
    assert page == expected


class CounterView(BaseModel):
    id: int
    name: str | None
    due_at: datetime | None


def _app(database: Database) -> FastAPI:
    app = FastAPI()
    app.state.database = database

    @app.get("/")
    def list_counters(
        db: ReadOnlyDb, page: PageParams, value: Annotated[int | None, Query(ge=0)] = None
    ) -> Page[CounterView]:
        query = select(Counter) if value is None else select(Counter).where(Counter.value == value)
        return paginate(db, query, page, order_by=(Counter.due_at,))

    @app.get("/others")
    def list_others(db: ReadOnlyDb, page: PageParams) -> Page[CounterView]:
        return paginate(db, select(Counter), page, order_by=(Counter.name,))

    return app


async def test_over_http(many: Database) -> None:
    """Rows become the endpoint's model, other query parameters stay beside the paging ones."""
    transport = httpx.ASGITransport(app=_app(many))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        first = (await client.get("/", params={"limit": 2, "value": 1})).json()
        assert [item["id"] for item in first["items"]] == [1, 7]
        assert first["items"][0] == {"id": 1, "name": "n01", "due_at": "2026-01-01T00:00:00.000001Z"}
        assert first["total"] == 8
        cursor = first["next_cursor"]
        second = (await client.get("/", params={"limit": 2, "value": 1, "cursor": cursor})).json()
        assert [item["id"] for item in second["items"]] == [13, 19]
        statuses = [
            (await client.get("/", params=params)).status_code
            for params in (
                {"limit": 0},
                {"limit": 101},
                {"limit": "x"},
                {"cursor": "x"},
                {"cursor": ""},
                {"cursor": "é"},
            )
        ]
        assert set(statuses) == {422}
        assert (await client.get("/others", params={"cursor": cursor})).status_code == 422
        problem = (await client.get("/", params={"cursor": "x" * 3000})).json()["detail"][0]
        assert problem["loc"] == ["query", "cursor"]


def _forge(*values: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


async def test_forged_cursors_are_refused(many: Database) -> None:
    """A cursor with the right mark but wrong keys is bad input, never a database error."""
    order = (Counter.name, Counter.due_at)
    with many.readonly_session() as session:
        page = paginate(session, select(Counter), PageRequest(1), order_by=order)
        assert page.next_cursor is not None
        mark, *_ = json.loads(base64.urlsafe_b64decode(page.next_cursor + "=="))
        good = ["n01", START.replace(tzinfo=None).isoformat(), 1]
        paginate(session, select(Counter), PageRequest(1, _forge(mark, *good)), order_by=order)
        for position, bad in [
            (0, 5),
            (0, "a\x00"),
            (0, "\ud800"),
            (0, {"a": 1}),
            (1, "tomorrow"),
            (1, ""),
            (1, 5),
            (2, None),
            (2, "1"),
            (2, 1.0),
            (2, True),
            (2, 2**63),
            (2, -(2**70)),
        ]:
            values: list[object] = list(good)
            values[position] = bad
            with pytest.raises(RequestValidationError):
                paginate(session, select(Counter), PageRequest(1, _forge(mark, *values)), order_by=order)
        for values in ([], good[:2], [*good, 1]):
            with pytest.raises(RequestValidationError):
                paginate(session, select(Counter), PageRequest(1, _forge(mark, *values)), order_by=order)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None)
@given(cursor=st.text(max_size=30) | st.binary(max_size=30).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_any_text_as_a_cursor_is_bad_input(sqlite_session: Any, cursor: str) -> None:
    """Nothing else can come of it."""
    with pytest.raises(RequestValidationError):
        paginate(sqlite_session, select(Counter), PageRequest(1, cursor))


@pytest.fixture
def sqlite_session(tmp_path: Any) -> Any:
    """A session on an empty table."""
    from tests.integration.db.models import Base

    database = Database(f"sqlite:///{tmp_path / 'x.sqlite3'}")
    Base.metadata.create_all(database.engine)
    with database.readonly_session() as session:
        yield session
    database.close()
