from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixsim7_backend.plugins.users import rules
from pixsim7_backend.plugins.users.rules import Amounts, Quota, QuotaExceededError, Quotas, Usage

TODAY = date(2030, 1, 1)
QUOTAS = Quotas(daily_jobs=3, concurrent_jobs=1, assets=5, storage_bytes=1000)

amounts = st.builds(Amounts, jobs=st.integers(0, 4), assets=st.integers(0, 4), storage_bytes=st.integers(0, 600))


def test_the_day_is_that_of_utc() -> None:
    """Midnight in UTC ends the day, wherever the clock stands."""
    east = timezone(timedelta(hours=10))
    assert rules.utc_day(datetime(2030, 1, 2, 5, tzinfo=east)) == TODAY
    assert rules.utc_day(datetime(2030, 1, 1, 23, 59, 59, 999_999, tzinfo=UTC)) == TODAY
    assert rules.next_utc_midnight(datetime(2029, 12, 31, 0, tzinfo=UTC)) == datetime(2030, 1, 1, tzinfo=UTC)
    assert rules.next_utc_midnight(datetime(2030, 1, 1, 5, tzinfo=east)) == datetime(2030, 1, 1, tzinfo=UTC)


def test_a_new_day_starts_at_nothing_and_keeps_the_totals() -> None:
    """What was used yesterday counts in the totals only."""
    used = Usage(day=TODAY, today=Amounts(jobs=3, assets=1), total=Amounts(jobs=9, assets=4, storage_bytes=10))
    assert rules.rolled_over(used, TODAY + timedelta(days=1)) == Usage(
        day=TODAY + timedelta(days=1), total=Amounts(jobs=9, assets=4, storage_bytes=10)
    )
    assert rules.rolled_over(used, TODAY) is used


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    """The counters of the later day go on."""
    used = Usage(day=TODAY, today=Amounts(jobs=3))
    assert rules.rolled_over(used, TODAY - timedelta(days=1)) is used
    with pytest.raises(QuotaExceededError):
        rules.reserved(used, QUOTAS, Amounts(jobs=1), today=TODAY - timedelta(days=1))


@pytest.mark.parametrize(
    ("asked", "quota", "limit", "used"),
    [
        (Amounts(jobs=2), Quota.DAILY_JOBS, 3, 2),
        (Amounts(assets=2), Quota.ASSETS, 5, 4),
        (Amounts(storage_bytes=101), Quota.STORAGE_BYTES, 1000, 900),
    ],
)
def test_what_does_not_fit_is_refused(asked: Amounts, quota: Quota, limit: int, used: int) -> None:
    """The error says which quota, its limit, what is used and what was asked; one less would have fitted."""
    usage = Usage(day=TODAY, today=Amounts(jobs=2, assets=1), total=Amounts(jobs=50, assets=4, storage_bytes=900))
    with pytest.raises(QuotaExceededError) as caught:
        rules.reserved(usage, QUOTAS, asked, today=TODAY)
    assert (caught.value.quota, caught.value.limit, caught.value.used) == (quota, limit, used)
    less = asked.minus(Amounts(jobs=1, assets=1, storage_bytes=1))
    assert rules.reserved(usage, QUOTAS, less, today=TODAY).total == usage.total.plus(less)


def test_a_lowered_quota_takes_nothing_away() -> None:
    """More is refused, other things go on, and giving back helps."""
    usage = Usage(day=TODAY, total=Amounts(assets=50, storage_bytes=10))
    with pytest.raises(QuotaExceededError):
        rules.reserved(usage, QUOTAS, Amounts(assets=1), today=TODAY)
    assert rules.reserved(usage, QUOTAS, Amounts(jobs=1), today=TODAY).today.jobs == 1


def test_negative_amounts_do_not_exist() -> None:
    """Nobody gets quota by using less than nothing."""
    with pytest.raises(ValueError, match="negative"):
        Amounts(jobs=-1)


@given(st.lists(st.tuples(st.booleans(), amounts, st.integers(0, 2)), max_size=30))
def test_usage_never_exceeds_quotas_nor_falls_below_nothing(steps: list[tuple[bool, Amounts, int]]) -> None:
    """After any sequence of taking and giving back over days: within the quotas, and a refusal changes nothing."""
    usage, today = Usage(day=TODAY), TODAY
    for is_taking, asked, days in steps:
        today += timedelta(days=days)
        before = usage
        try:
            usage = (
                rules.reserved(usage, QUOTAS, asked, today=today)
                if is_taking
                else rules.released(usage, asked, today=today)
            )
        except QuotaExceededError:
            assert usage is before
        assert 0 <= usage.today.jobs <= QUOTAS.daily_jobs
        assert 0 <= usage.total.assets <= QUOTAS.assets
        assert 0 <= usage.total.storage_bytes <= QUOTAS.storage_bytes
        assert usage.today.jobs <= usage.total.jobs
        assert usage.total.jobs >= before.total.jobs
