"""Counting what users use, against their quotas. All changes are part of the caller's transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from pixsim7_backend.db.models import utc_now
from pixsim7_backend.problems import Conflict, Problem, TooManyRequests

from . import rules
from .models import UserQuotas, UserUsage
from .rows import lock_row
from .rules import Amounts, Quota, QuotaExceededError, Quotas, Usage


@dataclass(frozen=True, slots=True)
class UsageMeter:
    """Reads and changes the counters; ``defaults`` are the quotas of users without their own.

    Amounts taken or given back are counted when the caller's transaction is committed, and not at
    all when it is rolled back.
    """

    defaults: Quotas
    clock: Callable[[], datetime] = utc_now

    def quotas(self, db: Session, user_id: int) -> Quotas:
        """Return the quotas in force for a user."""
        row = db.get(UserQuotas, user_id, populate_existing=True)
        own = {} if row is None else {name: getattr(row, name) for name in asdict(self.defaults)}
        return Quotas(**{name: default if own.get(name) is None else own[name] for name, default in self._defaults})

    def usage(self, db: Session, user_id: int) -> Usage:
        """Return what a user has used, as of now; a read-only session will do."""
        today = rules.utc_day(self.clock())
        row = db.get(UserUsage, user_id, populate_existing=True)
        return Usage(day=today) if row is None else rules.rolled_over(_stored(row), today)

    def reserve(self, db: Session, user_id: int, asked: Amounts) -> Usage:
        """Take ``asked`` from the user's quotas, all of it or nothing; return the new usage.

        Holds the user's usage row until the commit, so parallel reservations wait for each other: what
        the caller counts in its own tables meanwhile (running jobs, say) is counted under this lock.

        Raises:
            TooManyRequests: today's quota is used up; ``Retry-After`` leads to the next UTC day.
            Conflict: a quota of what there is in all is used up.
        """
        now = self.clock()
        row = lock_row(db, UserUsage, user_id, day=rules.utc_day(now))
        try:
            usage = rules.reserved(_stored(row), self.quotas(db, user_id), asked, today=rules.utc_day(now))
        except QuotaExceededError as error:
            raise _problem(error, now) from None
        return _store(db, row, usage)

    def release(self, db: Session, user_id: int, gone: Amounts) -> Usage:
        """Give back what is no longer there; return the new usage. Jobs are not given back."""
        today = rules.utc_day(self.clock())
        row = lock_row(db, UserUsage, user_id, day=today)
        return _store(db, row, rules.released(_stored(row), gone, today=today))

    def set_quotas(self, db: Session, user_id: int, changes: Mapping[str, int | None]) -> None:
        """Set quotas of one user by name; None goes back to the default."""
        if not changes:
            return
        row = lock_row(db, UserQuotas, user_id)
        for name, amount in changes.items():
            setattr(row, name, amount)
        db.flush()

    @property
    def _defaults(self) -> list[tuple[str, int]]:
        return list(asdict(self.defaults).items())


def _stored(row: UserUsage) -> Usage:
    return Usage(
        day=row.day,
        today=Amounts(jobs=row.jobs_today, assets=row.assets_today, storage_bytes=row.storage_bytes_today),
        total=Amounts(jobs=row.jobs_total, assets=row.assets_total, storage_bytes=row.storage_bytes_total),
    )


def _store(db: Session, row: UserUsage, usage: Usage) -> Usage:
    columns: dict[str, Any] = {"day": usage.day}
    columns |= {f"{name}_today": amount for name, amount in asdict(usage.today).items()}
    columns |= {f"{name}_total": amount for name, amount in asdict(usage.total).items()}
    for name, value in columns.items():
        setattr(row, name, value)
    db.flush()
    return usage


def _problem(error: QuotaExceededError, now: datetime) -> Problem:
    members: dict[str, Any] = {
        "quota": str(error.quota),
        "limit": error.limit,
        "used": error.used,
        "asked": error.asked,
    }
    if error.quota is Quota.DAILY_JOBS:
        wait = (rules.next_utc_midnight(now) - now).total_seconds()
        return TooManyRequests(f"{error}; it starts again at midnight UTC", retry_after=wait, **members)
    return Conflict(f"{error}; delete something first", **members)
