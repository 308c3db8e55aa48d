"""Read-modify-write under concurrency: lock the row, or try again when somebody else was faster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from sqlalchemy import inspect, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError

from .errors import ConflictError
from .sqlite import is_busy

__all__ = ["is_lost_race", "lock_row", "lock_row_async", "retry_on_conflict", "retry_on_conflict_async"]

DEFAULT_ATTEMPTS = 5

_LOST_RACES = frozenset({"40001", "40P01", "55P03"})
"""PostgreSQL: serialization failure, deadlock, lock not available."""

Model = TypeVar("Model")
Result = TypeVar("Result")


def lock_row(db: Session, model: type[Model], key: Any) -> Model | None:
    """Return the row as it is now, kept from other writers until the transaction ends; None when there is none.

    PostgreSQL locks the row. On SQLite the transaction is the only writer from its start, so there is
    nothing left to lock.
    """
    db.flush()  # what is not stored yet would be lost when the row is read again
    columns = inspect(model, raiseerr=True).primary_key
    values = key if isinstance(key, tuple) else (key,)
    matches = (column == value for column, value in zip(columns, values, strict=True))
    statement = select(model).where(*matches).with_for_update()
    return db.scalars(statement.execution_options(populate_existing=True)).one_or_none()


async def lock_row_async(db: AsyncSession, model: type[Model], key: Any) -> Model | None:
    """Async twin of :func:`lock_row`."""
    return await db.run_sync(lock_row, model, key)


def retry_on_conflict(db: Session, work: Callable[[], Result], *, attempts: int = DEFAULT_ATTEMPTS) -> Result:
    """Return what ``work`` returns, run again in a new savepoint each time somebody else was faster.

    ``work`` reads what it needs through ``db`` and changes it; it is flushed here. What was done in
    the transaction before stays. A row with a version that was changed meanwhile, a deadlock and a
    lock that did not come count as conflicts.

    Raises:
        ConflictError: each of ``attempts`` attempts met a conflict; nothing of them was written.
    """
    for _ in range(attempts):
        try:
            with db.begin_nested():
                return _flushed(db, work)
        except (StaleDataError, DBAPIError) as error:
            if not is_lost_race(error):
                raise
            last = error
            db.expire_all()
    raise ConflictError(attempts) from last


async def retry_on_conflict_async(
    db: AsyncSession, work: Callable[[], Awaitable[Result]], *, attempts: int = DEFAULT_ATTEMPTS
) -> Result:
    """Async twin of :func:`retry_on_conflict`."""
    for _ in range(attempts):
        try:
            async with db.begin_nested():
                return await _flushed_async(db, work)
        except (StaleDataError, DBAPIError) as error:
            if not is_lost_race(error):
                raise
            last = error
            db.expire_all()
    raise ConflictError(attempts) from last


def _flushed(db: Session, work: Callable[[], Result]) -> Result:
    result = work()
    db.flush()
    return result


async def _flushed_async(db: AsyncSession, work: Callable[[], Awaitable[Result]]) -> Result:
    result = await work()
    await db.flush()
    return result


def is_lost_race(error: BaseException) -> bool:
    """Tell whether trying again can help: somebody else changed or held the same rows."""
    if isinstance(error, StaleDataError):
        return True
    cause = getattr(error, "orig", None)
    return getattr(cause, "sqlstate", None) in _LOST_RACES or is_busy(cause)
