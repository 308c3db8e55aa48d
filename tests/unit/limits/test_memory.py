"""What is let through by counts in memory."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixsim7_backend.infrastructure.plugins import Rate
from pixsim7_backend.infrastructure.plugins._limits.memory import MemoryRates
from tests.unit.limits.clock import Clock

RATES = st.builds(Rate, st.integers(1, 12), st.sampled_from([1, 60, 3600]))
#: What passes between two requests, in parts of the period: often nothing, or just about a step.
PAUSES = st.lists(st.one_of(st.just(0), st.integers(0, 10**6), st.sampled_from([10**5, 10**6])), max_size=80)


def arrivals(rate: Rate, pauses: Sequence[int]) -> list[int]:
    """Return when requests come, in nanoseconds."""
    times, now = [], 0
    for parts in pauses:
        now += rate.period * 1_000 * parts
        times.append(now)
    return times


@given(RATES, PAUSES)
def test_never_more_than_allowed_in_any_window(rate: Rate, pauses: Sequence[int]) -> None:
    """Over any stretch of w seconds at most count * (1 + w / period) requests are let through."""
    clock = Clock()
    rates = MemoryRates(rate, clock)
    passed = []
    for clock.now in arrivals(rate, pauses):
        if rates.take("one").is_allowed:
            passed.append(clock.now)
    for first, begin in enumerate(passed):
        for last in range(first, len(passed)):
            window = passed[last] - begin
            assert last - first + 1 <= rate.count + window * rate.count // (rate.period * 10**9)


@given(RATES, PAUSES)
def test_a_quiet_client_is_never_refused(rate: Rate, pauses: Sequence[int]) -> None:
    """Who sends no more than the count in every period gets through, evenly or in bursts."""
    clock = Clock()
    rates = MemoryRates(rate, clock)
    sent: list[int] = []
    for now in arrivals(rate, pauses):
        if sum(now - each < rate.period * 10**9 for each in sent) < rate.count:
            sent.append(now)
    for clock.now in sent:
        assert rates.take("one").is_allowed


@given(RATES, PAUSES)
def test_what_a_verdict_promises_is_kept(rate: Rate, pauses: Sequence[int]) -> None:
    """So many more as remain get through at once, then nothing until the time that was told has passed."""
    clock = Clock()
    rates = MemoryRates(rate, clock)
    for clock.now in arrivals(rate, pauses):
        rates.take("one")
    verdict = rates.take("one")
    for left in reversed(range(verdict.remaining)):
        verdict = rates.take("one")
        assert (verdict.is_allowed, verdict.remaining) == (True, left)
    refused = rates.take("one")
    assert not refused.is_allowed
    assert 0 < refused.seconds <= rate.period
    clock.now += ceil(refused.seconds * 1e9) - 2_000  # what is told is rounded: two microseconds at most
    assert not rates.take("one").is_allowed
    clock.now += 4_000
    assert rates.take("one").is_allowed


@given(RATES, st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2 * 10**6)), max_size=80))
def test_clients_do_not_count_for_one_another(rate: Rate, requests: Sequence[tuple[str, int]]) -> None:
    """Each client is treated as if it were alone, also while the tables turn."""
    clock = Clock()
    together = MemoryRates(rate, clock)
    alone = {client: MemoryRates(rate, clock) for client in "abc"}
    for client, parts in requests:
        clock.now += rate.period * 1_000 * parts
        assert together.take(client) == alone[client].take(client)


def test_the_whole_count_may_come_at_once_and_then_one_by_one() -> None:
    """60 a minute: sixty at once, then one each second; after a quiet minute sixty again."""
    clock = Clock()
    rates = MemoryRates(Rate.parse("60/minute"), clock)
    assert [rates.take("one").remaining for _ in range(60)] == list(reversed(range(60)))
    assert rates.take("one") == (False, 0, 1.0)
    clock.forward(1)
    assert rates.take("one") == (True, 0, 1.0)
    clock.forward(60)
    assert rates.take("one") == (True, 59, 1.0)


def test_a_refused_request_costs_nothing() -> None:
    """Who hammers gets through as often as who waits."""
    clock = Clock()
    rates = MemoryRates(Rate.parse("1/second"), clock)
    passed = 0
    for _ in range(1000):
        passed += rates.take("one").is_allowed
        clock.forward(0.01)
    assert passed == 10


def test_idle_clients_are_forgotten() -> None:
    """Two periods after its last request nothing is left of a client."""
    clock = Clock()
    rates = MemoryRates(Rate.parse("100/minute"), clock)
    for number in range(1000):
        rates.take(str(number))
    assert len(rates) == 1000
    for _ in range(2):
        clock.forward(60)
        rates.take("last")
    assert len(rates) == 2


def test_a_flood_of_addresses_takes_bounded_memory() -> None:
    """Many more clients than there is room for: those are forgotten who were quiet longest, the busy one is not."""
    clock = Clock()
    rates = MemoryRates(Rate.parse("10/day"), clock, capacity=100)
    passed = 0
    for number in range(10_000):
        assert rates.take(str(number)).is_allowed
        assert len(rates) <= 200
        if number % 50 == 0:
            passed += rates.take("busy").is_allowed
    assert passed == 10


@pytest.mark.parametrize("text", ["", "100", "100/min", "0/minute", "-1/second", "1.5/hour", "\uff11/day", " 1/day"])
def test_what_is_no_rate(text: str) -> None:
    """The text shows how to write one."""
    with pytest.raises(ValueError, match=r"is not a rate; write it like '100/minute'"):
        Rate.parse(text)


@pytest.mark.parametrize("text", ["1/second", "100/minute", "5000/hour", "999999999/day"])
def test_rates_are_written_as_they_are_read(text: str) -> None:
    """What was read prints as it was."""
    assert str(Rate.parse(text)) == text
