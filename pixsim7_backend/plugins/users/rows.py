"""A user's row of a table that has one per user, locked against parallel changes. Callers commit."""

from __future__ import annotations

from typing import Any, TypeVar

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from .models import UserPreferences, UserQuotas, UserUsage

_Row = TypeVar("_Row", UserQuotas, UserUsage, UserPreferences)


def lock_row(db: Session, model: type[_Row], user_id: int, **initial: Any) -> _Row:
    """Return the user's row, made with ``initial`` where there is none, and hold it until the commit."""
    row = _lock(db, model, user_id)
    if row is None:
        _insert(db, model(user_id=user_id, **initial))
        row = _lock(db, model, user_id)
    assert row is not None, "nobody deletes these rows"
    return row


def _lock(db: Session, model: type[_Row], user_id: int) -> _Row | None:
    return db.get(model, user_id, with_for_update=True, populate_existing=True)


def _insert(db: Session, row: object) -> None:
    try:
        with db.begin_nested():
            db.add(row)
            db.flush()
    except IntegrityError:  # a parallel request was faster: its row is the one
        return
