"""Lists by opaque cursor: filtered and counted in SQL, stable where sort keys are equal.

    @router.get("/")
    def list_worlds(db: ReadOnlyDb, page: PageParams) -> Page[World]:
        return paginate(db, select(GameWorld).where(...), page, order_by=(GameWorld.name,))

A page starts after the last row of the one before (keyset paging), so rows that are added or removed
meanwhile neither repeat nor hide others.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, Query
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict
from sqlalchemy import ColumnElement, Select, UnaryExpression, and_, false, func, inspect, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.sql import operators
from sqlalchemy.types import TypeDecorator

__all__ = ["DEFAULT_LIMIT", "MAX_LIMIT", "Page", "PageParams", "PageRequest", "paginate", "paginate_async"]

DEFAULT_LIMIT = 50
MAX_LIMIT = 100
_LONGEST_CURSOR = 2048
_LARGEST_INTEGER = 2**63 - 1

Item = TypeVar("Item")
Row = TypeVar("Row")


class Page(BaseModel, Generic[Item]):
    """One page of a list. ``total`` counts the whole result, ``next_cursor`` is None on the last page."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    items: list[Item]
    total: int
    next_cursor: str | None = None


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page the client asks for; as a parameter of an endpoint use :data:`PageParams`."""

    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="rows on a page")] = DEFAULT_LIMIT
    cursor: Annotated[str | None, Query(max_length=_LONGEST_CURSOR, description="`next_cursor` of the page before")] = (
        None
    )


PageParams = Annotated[PageRequest, Depends()]
"""The query parameters ``limit`` and ``cursor`` of an endpoint."""


def paginate(
    db: Session,
    query: Select[Row],
    page: PageRequest,
    convert: Callable[[Row], Any] | None = None,
    *,
    order_by: Sequence[Any] = (),
) -> Page[Any]:
    """Return one page of ``query``, which selects one mapped class and has no order or limit of its own.

    ``order_by`` are columns, ``.desc()`` where wanted; NULL sorts last. The primary key is added
    as the last of them. ``convert`` makes the items; without it the rows themselves are taken.

    Raises:
        RequestValidationError: the cursor is malformed, or of another list.
    """
    order = _Order.of(query, order_by)
    total = db.scalar(select(func.count()).select_from(order.keys_of(query).subquery())) or 0
    wanted = query if page.cursor is None else query.where(order.after(order.decode(page.cursor)))
    selected = wanted.add_columns(*order.columns).order_by(None).order_by(*order.clauses).limit(page.limit + 1)
    rows = db.execute(selected).unique().all()
    shown = rows[: page.limit]
    next_cursor = order.encode(shown[-1][1:]) if len(rows) > len(shown) else None
    items = [row[0] if convert is None else convert(row[0]) for row in shown]
    return Page[Any](items=items, total=total, next_cursor=next_cursor)


async def paginate_async(
    db: AsyncSession,
    query: Select[Row],
    page: PageRequest,
    convert: Callable[[Row], Any] | None = None,
    *,
    order_by: Sequence[Any] = (),
) -> Page[Any]:
    """Async twin of :func:`paginate`."""
    return await db.run_sync(lambda session: paginate(session, query, page, convert, order_by=order_by))


@dataclass(frozen=True, slots=True)
class _Order:
    """The sort keys of a list, each with its direction; together they are unique."""

    columns: tuple[ColumnElement[Any], ...]
    is_descending: tuple[bool, ...]

    @classmethod
    def of(cls, query: Select[Any], order_by: Sequence[Any]) -> _Order:
        mapper = inspect(query.column_descriptions[0]["entity"])
        keys = [getattr(mapper.entity, mapper.get_property_by_column(column).key) for column in mapper.primary_key]
        given = [_split(clause) for clause in (*order_by, *keys)]
        return cls(tuple(column for column, _ in given), tuple(is_descending for _, is_descending in given))

    @property
    def clauses(self) -> list[ColumnElement[Any]]:
        return [
            (column.desc() if is_descending else column.asc()).nulls_last() if _is_nullable(column)
            else column.desc() if is_descending else column.asc()
            for column, is_descending in zip(self.columns, self.is_descending, strict=True)
        ]  # fmt: skip

    @property
    def fingerprint(self) -> str:
        """Tells this order from others, so that a cursor is not taken for one of another list."""
        return hashlib.sha256(", ".join(map(str, self.clauses)).encode()).hexdigest()[:8]

    def keys_of(self, query: Select[Any]) -> Select[Any]:
        """Return the query reduced to its last key, for counting."""
        return query.with_only_columns(self.columns[-1], maintain_column_froms=True).order_by(None)

    def after(self, values: Sequence[Any]) -> ColumnElement[bool]:
        """Return the condition for rows behind the one with these keys."""
        keys = list(zip(self.columns, values, self.is_descending, strict=True))
        return or_(
            *(
                and_(*(_equals(column, value) for column, value, _ in keys[:index]), _is_behind(*keys[index]))
                for index in range(len(keys))
            )
        )

    def encode(self, values: Sequence[Any]) -> str:
        text = json.dumps([self.fingerprint, *map(_to_json, values)], separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    def decode(self, cursor: str) -> list[Any]:
        try:
            padded = cursor + "=" * (-len(cursor) % 4)
            values = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
            return self._checked(values)
        except (ValueError, TypeError, RecursionError):
            raise _malformed(cursor) from None

    def _checked(self, values: Any) -> list[Any]:
        """Return the keys of a decoded cursor; raise ValueError when they are not of this order."""
        if not isinstance(values, list) or len(values) != len(self.columns) + 1 or values[0] != self.fingerprint:
            raise ValueError("of another list")
        return [_from_json(value, column) for value, column in zip(values[1:], self.columns, strict=True)]


def _split(clause: Any) -> tuple[ColumnElement[Any], bool]:
    if isinstance(clause, UnaryExpression) and clause.modifier in (operators.desc_op, operators.asc_op):
        return clause.element, clause.modifier is operators.desc_op
    return clause, False


def _is_nullable(column: ColumnElement[Any]) -> bool:
    return bool(getattr(column, "nullable", True))


def _equals(column: ColumnElement[Any], value: Any) -> ColumnElement[bool]:
    return column.is_(None) if value is None else column == value


def _is_behind(column: ColumnElement[Any], value: Any, is_descending: bool) -> ColumnElement[bool]:
    if value is None:
        return false()
    behind: ColumnElement[bool] = column < value if is_descending else column > value
    return or_(behind, column.is_(None)) if _is_nullable(column) else behind


def _to_json(value: Any) -> Any:
    return value.astimezone(UTC).replace(tzinfo=None).isoformat() if isinstance(value, datetime) else value


def _from_json(value: Any, column: ColumnElement[Any]) -> Any:
    """Return the key if it is one that the column could hold; raise ValueError otherwise."""
    if value is None and _is_nullable(column):
        return None
    kind = _python_type(column)
    if kind is datetime:
        return datetime.fromisoformat(value).replace(tzinfo=UTC)
    key: Any = float(value) if kind is float and type(value) is int else value
    if type(key) is not kind or not _is_storable(key):
        raise ValueError("of another type")
    return key


def _is_storable(key: Any) -> bool:
    if isinstance(key, int):
        return abs(key) <= _LARGEST_INTEGER
    return not isinstance(key, str) or "\x00" not in key.encode().decode()  # a lone surrogate is a ValueError


def _python_type(column: ColumnElement[Any]) -> type:
    kind = column.type
    return kind.impl_instance.python_type if isinstance(kind, TypeDecorator) else kind.python_type


def _malformed(cursor: str) -> RequestValidationError:
    return RequestValidationError(
        [
            {
                "type": "cursor",
                "loc": ("query", "cursor"),
                "msg": "not a cursor of this list; take `next_cursor` from its previous page",
                "input": cursor,
            }
        ]
    )
