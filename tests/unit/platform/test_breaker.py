"""When a breaker opens, and how it closes again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixsim7_backend.infrastructure.plugins._attribution.breaker import Breaker, BreakerSettings, BreakerState, Totals

SETTINGS = BreakerSettings(window=30, min_requests=20, error_rate=0.5, endpoints=2, pause=30, max_pause=100, trial=30)
#: Seconds since the last look, requests since then, and how many of them failed (at most so many).
STEPS = st.lists(st.tuples(st.floats(0.1, 20), st.integers(0, 30), st.integers(0, 30)), max_size=40)


def at_one(faults: int) -> dict[str, int]:
    """Return so many faults of a plugin's only endpoint."""
    return {"only": faults} if faults else {}


def run(breaker: Breaker, steps: list[tuple[float, int, int]]) -> tuple[float, Totals] | None:
    """Let the breaker see the steps; return time and evidence of its opening."""
    now, totals = 0.0, Totals()
    for wait, requests, faults in steps:
        now += wait
        totals = Totals(totals.requests + requests, at_one(totals.all_faults + min(faults, requests)))
        if (recent := breaker.observe(now, totals)) is not None:
            return now, recent
    return None


@given(STEPS)
def test_it_never_opens_on_too_few_requests_or_too_few_faults(steps: list[tuple[float, int, int]]) -> None:
    """What opens it is evidence that its own thresholds call too much."""
    opened = run(Breaker(SETTINGS, 0.0), steps)
    if opened is not None:
        _, recent = opened
        assert recent.requests >= SETTINGS.min_requests
        assert recent.all_faults >= SETTINGS.error_rate * recent.requests


@given(st.lists(st.tuples(st.floats(0.1, 5), st.integers(0, 19)), max_size=40))
def test_it_never_opens_below_the_minimum_count(steps: list[tuple[float, int]]) -> None:
    """However slowly, fewer failures than the minimum in all say nothing."""
    left, all_wrong = 19, []
    for wait, count in steps:
        all_wrong.append((wait, min(count, left), min(count, left)))
        left -= min(count, left)
    assert run(Breaker(SETTINGS, 0.0), all_wrong) is None


@given(STEPS, st.integers(20, 1000))
def test_it_always_opens_when_enough_requests_fail(steps: list[tuple[float, int, int]], burst: int) -> None:
    """After any past, a window in which more than half of enough requests fail opens it."""
    quiet = [(wait, requests, 0) for wait, requests, _ in steps]
    opened = run(Breaker(SETTINGS, 0.0), [*quiet, (31, 0, 0), (31, 0, 0), (0.1, burst, burst)])
    assert opened is not None
    assert opened[1].all_faults == burst


@given(st.floats(0.1, 1.0))
def test_what_left_the_window_does_not_count(period: float) -> None:
    """Failures that come slower than the minimum per window never open it."""
    steps = [(period, 1, 1) if number % 10 == 0 else (period, 0, 0) for number in range(100)]
    per_window = (SETTINGS.window + 2) / (10 * period) + 1
    assert (run(Breaker(SETTINGS, 0.0), steps) is None) or per_window >= SETTINGS.min_requests


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_one_endpoint_never_opens_it_however_often_it_fails(hammered: int, healthy: int) -> None:
    """A client that hammers at the one thing that is broken takes the rest from nobody."""
    totals = Totals(hammered + healthy, {"broken": hammered} if hammered else {})
    assert Breaker(SETTINGS, 0.0).observe(1.0, totals, endpoints=5) is None


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 50)), st.integers(0, 400), st.integers(0, 10**6))
def test_who_is_loudest_already_adds_nothing_by_being_louder(faults: dict[str, int], healthy: int, more: int) -> None:
    """Faults of the most failing endpoint beyond those of the next change no decision."""

    def opens(counts: dict[str, int]) -> bool:
        totals = Totals(healthy + sum(counts.values()), counts)
        return Breaker(SETTINGS, 0.0).observe(1.0, totals, endpoints=6) is not None

    loudest = max(faults, key=lambda name: faults[name], default=None)
    louder = {name: count + (more if name == loudest else 0) for name, count in faults.items()}
    assert opens(faults) == opens(louder)


@pytest.mark.parametrize(
    ("faults", "endpoints", "is_too_much"),
    [
        ({"a": 90}, 1, True),
        ({"a": 90}, 2, False),
        ({"a": 80, "b": 10}, 9, True),
        ({"a": 80, "b": 9}, 9, False),
        ({"a": 45, "b": 45}, 9, True),
    ],
)
def test_enough_endpoints_must_fail_by_themselves(faults: dict[str, int], endpoints: int, *, is_too_much: bool) -> None:
    """All of them where a plugin has only one; the failures of each count as often as the others bear out."""
    totals = Totals(sum(faults.values()) + 20 if len(faults) > 1 else 90, faults)
    assert (Breaker(SETTINGS, 0.0).observe(1.0, totals, endpoints) is not None) is is_too_much


@pytest.mark.parametrize(
    "totals",
    [
        Totals(requests=20, faults=at_one(10)),
        Totals(timeouts=3),
        Totals(stalled=5.0),
    ],
)
def test_each_threshold_is_enough_by_itself(totals: Totals) -> None:
    """Error rate, overruns, and a blocked loop."""
    breaker = Breaker(SETTINGS, 0.0)
    assert breaker.observe(1.0, totals) == totals
    assert (breaker.state, breaker.pause, breaker.trips) == (BreakerState.OPEN, 30, 1)


@pytest.mark.parametrize(
    "totals",
    [
        Totals(requests=19, faults=at_one(19)),
        Totals(requests=21, faults=at_one(10)),
        Totals(requests=40),
        Totals(timeouts=2),
        Totals(stalled=4.9),
    ],
)
def test_just_below_a_threshold_nothing_happens(totals: Totals) -> None:
    """Thresholds are limits that must be reached."""
    assert Breaker(SETTINGS, 0.0).observe(1.0, totals) is None


def test_a_trial_is_watched_more_closely_and_a_relapse_doubles_the_pause() -> None:
    """30, 60, 100 (the limit) seconds; a quarter of the thresholds is enough on trial."""
    breaker, now, totals = Breaker(SETTINGS, 0.0), 1.0, Totals(requests=20, faults=at_one(20))
    pauses = []
    for _ in range(4):
        assert breaker.observe(now, totals) is not None
        assert str(breaker.state) == "open"
        pauses.append(breaker.pause)
        assert breaker.observe(now + 1, Totals(10**6, at_one(10**6))) is None, "an open breaker takes no notice"
        assert breaker.remaining(now + 1) == breaker.pause - 1
        now += breaker.pause
        assert breaker.remaining(now) == 0
        breaker.begin_trial(now, totals)
        assert str(breaker.state) == "half-open"
        now += 1
        totals = Totals(totals.requests + 4, at_one(totals.all_faults + 4))
        assert breaker.observe(now, totals) is None
        totals = Totals(totals.requests + 1, at_one(totals.all_faults + 1))
        now += 1
    assert pauses == [30, 60, 100, 100]


@given(st.integers(1, 6))
def test_a_trial_that_goes_well_forgets_the_past(relapses: int) -> None:
    """After it the first pause is the short one again."""
    breaker = Breaker(SETTINGS, 0.0)
    for _ in range(relapses):
        breaker.trip(0.0)
    breaker.begin_trial(1.0, Totals())
    assert breaker.observe(30.0, Totals(requests=100, faults=at_one(1))) is None
    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.observe(31.0, Totals(requests=101, faults=at_one(1))) is None
    assert (breaker.state, breaker.trips) == (BreakerState.CLOSED, 0)
    assert breaker.observe(32.0, Totals(requests=1001, faults=at_one(901))) is not None
    assert breaker.pause == SETTINGS.pause


@pytest.mark.parametrize(
    "values",
    [
        {"min_requests": 0},
        {"endpoints": 0},
        {"error_rate": 0},
        {"error_rate": 1.1},
        {"window": 0},
        {"pause": 10, "max_pause": 5},
    ],
)
def test_thresholds_that_make_no_sense_are_refused(values: dict[str, Any]) -> None:
    """A breaker that opens at nothing, or never, is a mistake of the operator."""
    with pytest.raises(ValueError, match="must be positive"):
        BreakerSettings(**values)


def test_evidence_reads_as_a_sentence() -> None:
    """It goes into the record's reason."""
    assert str(Totals(20, at_one(12))) == "12 of 20 requests failed"
    assert str(Totals(20, {"one": 3, "two": 9}, stalled=1.25)) == (
        "12 of 20 requests failed, at 2 endpoints, the event loop was blocked for 1.2 s"
    )
    assert str(Totals(timeouts=3)) == "3 event handlers overran"
