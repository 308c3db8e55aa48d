"""Counting login attempts in the database, so that the limits hold across workers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import case, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from . import rules
from .models import LoginAttempts
from .rules import LoginLimit

_PRUNED_AT_ONCE = 100


def count_attempt(db: Session, key: str, limit: LoginLimit, *, now: datetime) -> int | None:
    """Count one attempt, before it is known how it ends; return the seconds to wait when it is one too many.

    One statement: of attempts made at the same moment no more than the limit get through.
    """
    insert = postgresql.insert if db.get_bind().dialect.name == "postgresql" else sqlite.insert
    fresh = insert(LoginAttempts).values(key=key, count=1, resets_at=now + limit.window)
    is_over = LoginAttempts.resets_at <= now
    counted = fresh.on_conflict_do_update(
        index_elements=[LoginAttempts.key],
        set_={
            "count": case((is_over, 1), else_=LoginAttempts.count + 1),
            "resets_at": case((is_over, now + limit.window), else_=LoginAttempts.resets_at),
        },
    ).returning(LoginAttempts.count, LoginAttempts.resets_at)
    count, resets_at = db.execute(counted).one()
    return rules.seconds_to_wait(limit, count=count, resets_at=resets_at, now=now)


def take_back(db: Session, key: str) -> None:
    """Uncount one attempt: it succeeded. Earlier failures stay, or an own account would wash an address clean."""
    fewer = update(LoginAttempts).where(LoginAttempts.key == key, LoginAttempts.count > 0)
    db.execute(fewer.values(count=LoginAttempts.count - 1).execution_options(synchronize_session=False))


def forget(db: Session, key: str) -> None:
    """Forget all attempts under ``key``."""
    db.execute(delete(LoginAttempts).where(LoginAttempts.key == key))


def prune(db: Session, *, now: datetime) -> None:
    """Drop some of the counters whose window is over; rows that others hold are left to a later call."""
    over = select(LoginAttempts.key).where(LoginAttempts.resets_at <= now).limit(_PRUNED_AT_ONCE)
    keys: Any = over.with_for_update(skip_locked=True)
    db.execute(delete(LoginAttempts).where(LoginAttempts.key.in_(keys)).execution_options(synchronize_session=False))
