"""The rules of usage and quotas: pure functions that know no HTTP, no database and no clock."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum


class Quota(StrEnum):
    """What is limited; the names are those of :class:`Quotas`."""

    DAILY_JOBS = "daily_jobs"
    ASSETS = "assets"
    STORAGE_BYTES = "storage_bytes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """How much one user may use. ``concurrent_jobs`` is checked by whoever runs the jobs."""

    daily_jobs: int
    concurrent_jobs: int
    assets: int
    storage_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """Amounts of each thing that is counted, none of them negative."""

    jobs: int = 0
    assets: int = 0
    storage_bytes: int = 0

    def __post_init__(self) -> None:
        if min(self.jobs, self.assets, self.storage_bytes) < 0:
            raise ValueError(f"{self} has a negative amount")

    def plus(self, other: Amounts) -> Amounts:
        return Amounts(
            jobs=self.jobs + other.jobs,
            assets=self.assets + other.assets,
            storage_bytes=self.storage_bytes + other.storage_bytes,
        )

    def minus(self, other: Amounts) -> Amounts:
        """Return the difference, never below nothing."""
        return Amounts(
            jobs=max(0, self.jobs - other.jobs),
            assets=max(0, self.assets - other.assets),
            storage_bytes=max(0, self.storage_bytes - other.storage_bytes),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a user has used: what was added on ``day`` (UTC), and in all.

    ``today`` counts what was added, also when it is gone again; ``total`` is what there is now, except
    for jobs, which it counts for ever.
    """

    day: date
    today: Amounts = Amounts()
    total: Amounts = Amounts()


class QuotaExceededError(Exception):
    """The amount asked for does not fit into what is left of a quota."""

    def __init__(self, quota: Quota, *, limit: int, used: int, asked: int) -> None:
        super().__init__(f"quota {quota} is {limit}; {used} used, {asked} more asked for")
        self.quota = quota
        self.limit = limit
        self.used = used
        self.asked = asked


def utc_day(now: datetime) -> date:
    """Return the UTC day of an aware point in time."""
    return now.astimezone(UTC).date()


def next_utc_midnight(now: datetime) -> datetime:
    """Return when the daily counters start again."""
    return datetime.combine(utc_day(now) + timedelta(days=1), time(), UTC)


def rolled_over(usage: Usage, today: date) -> Usage:
    """Return the usage as of ``today``: the daily amounts of an earlier day are over.

    A clock that went back changes nothing: the counters of the later day go on.
    """
    return usage if usage.day >= today else replace(usage, day=today, today=Amounts())


def reserved(usage: Usage, quotas: Quotas, asked: Amounts, *, today: date) -> Usage:
    """Return the usage after ``asked`` is taken, all of it or nothing.

    A quota lowered below what is used refuses more, and takes nothing away.

    Raises:
        QuotaExceededError: it does not fit.
    """
    current = rolled_over(usage, today)
    checks = (
        (Quota.DAILY_JOBS, quotas.daily_jobs, current.today.jobs, asked.jobs),
        (Quota.ASSETS, quotas.assets, current.total.assets, asked.assets),
        (Quota.STORAGE_BYTES, quotas.storage_bytes, current.total.storage_bytes, asked.storage_bytes),
    )
    for quota, limit, used, wanted in checks:
        if wanted and used + wanted > limit:
            raise QuotaExceededError(quota, limit=limit, used=used, asked=wanted)
    return replace(current, today=current.today.plus(asked), total=current.total.plus(asked))


def released(usage: Usage, gone: Amounts, *, today: date) -> Usage:
    """Return the usage after things are gone. What was done today stays done: only totals fall, never below nothing.

    Jobs that have run are not given back.
    """
    current = rolled_over(usage, today)
    return replace(current, total=current.total.minus(replace(gone, jobs=0)))
