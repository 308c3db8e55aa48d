"""Where an NPC is at a moment of game time."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixsim7_backend.plugins.game_npcs.rules import (
    SECONDS_PER_DAY,
    Moment,
    Place,
    ScheduleEntry,
    StoredState,
    active_entry,
    moment_of,
    place_of,
    repeated_expressions,
)

HOUR = 3600
WEEK = 7 * SECONDS_PER_DAY
MONDAY, TUESDAY, SATURDAY, SUNDAY = 0, 1, 5, 6

DAY_SHIFT = ScheduleEntry(MONDAY, 9 * HOUR, 17 * HOUR, location_id=1)
NIGHT_WATCH = ScheduleEntry(MONDAY, 22 * HOUR, 6 * HOUR, location_id=2)
SUNDAY_NIGHT = ScheduleEntry(SUNDAY, 23 * HOUR, 2 * HOUR, location_id=3)

times = st.one_of(st.integers(0, SECONDS_PER_DAY - 1), st.floats(0, SECONDS_PER_DAY - 1))
entries = st.builds(
    ScheduleEntry, day_of_week=st.integers(0, 6), start_time=times, end_time=times, location_id=st.integers(1, 9)
).filter(lambda entry: entry.start_time != entry.end_time)


@pytest.mark.parametrize(
    ("world_time", "day", "second"),
    [
        (0, 0, 0),
        (86_399, 0, 86_399),
        (86_399.5, 0, 86_399.5),
        (86_400, 1, 0),
        (6 * 86_400, 6, 0),
        (7 * 86_400, 0, 0),
        (100 * WEEK + 86_400 + 5, 1, 5),
        (-1, 0, 0),
        (-1e300, 0, 0),
    ],
)
def test_a_moment_is_the_day_of_an_endless_week_and_a_second(world_time: float, day: int, second: float) -> None:
    """Day is floor(t / 86400) mod 7; negative time is time 0."""
    assert moment_of(world_time) == Moment(day, second)


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**30), 10**30))
def test_every_finite_time_has_a_moment(world_time: float) -> None:
    """However large, time lands on a day 0 to 6 and within the day."""
    moment = moment_of(world_time)
    assert 0 <= moment.day <= 6
    assert 0 <= moment.second < SECONDS_PER_DAY


@pytest.mark.parametrize(
    ("entry", "day", "second", "active"),
    [
        (DAY_SHIFT, MONDAY, 9 * HOUR - 1, False),
        (DAY_SHIFT, MONDAY, 9 * HOUR, True),
        (DAY_SHIFT, MONDAY, 17 * HOUR - 0.5, True),
        (DAY_SHIFT, MONDAY, 17 * HOUR, False),
        (DAY_SHIFT, TUESDAY, 12 * HOUR, False),
        (NIGHT_WATCH, MONDAY, 22 * HOUR - 1, False),
        (NIGHT_WATCH, MONDAY, 22 * HOUR, True),
        (NIGHT_WATCH, MONDAY, 86_399, True),
        (NIGHT_WATCH, TUESDAY, 0, True),
        (NIGHT_WATCH, TUESDAY, 6 * HOUR - 1, True),
        (NIGHT_WATCH, TUESDAY, 6 * HOUR, False),
        (NIGHT_WATCH, MONDAY, 3 * HOUR, False),
        (NIGHT_WATCH, TUESDAY, 23 * HOUR, False),
        (SUNDAY_NIGHT, SUNDAY, 23 * HOUR, True),
        (SUNDAY_NIGHT, MONDAY, 1 * HOUR, True),
        (SUNDAY_NIGHT, MONDAY, 2 * HOUR, False),
        (SUNDAY_NIGHT, SATURDAY, 1 * HOUR, False),
    ],
)
def test_an_entry_holds_from_its_start_to_before_its_end(
    entry: ScheduleEntry, day: int, second: float, active: bool
) -> None:
    """Start counts, end does not; a range that ends before it starts runs overnight, also from Sunday to Monday."""
    assert entry.is_active(Moment(day, second)) is active


@given(entries, st.integers(0, WEEK - 1))
def test_an_entry_covers_exactly_its_span_of_the_week(entry: ScheduleEntry, world_time: int) -> None:
    """Against the plain reading: the time since the entry's start, around the week, is less than its length."""
    start = Fraction(entry.start_time)  # exactly: floats lose tiny times beside a whole week
    length = (Fraction(entry.end_time) - start) % SECONDS_PER_DAY
    since_start = (world_time - entry.day_of_week * SECONDS_PER_DAY - start) % WEEK
    assert entry.is_active(moment_of(world_time)) is (since_start < length)


@given(entries, st.floats(0, 1e9))
def test_the_week_repeats(entry: ScheduleEntry, world_time: float) -> None:
    """A whole week later the same entries hold."""
    second = int(world_time)
    assert entry.is_active(moment_of(second)) is entry.is_active(moment_of(second + WEEK))


def test_the_first_of_overlapping_entries_wins() -> None:
    """An exception written above what it excepts from decides; below it, it does not."""
    lunch = ScheduleEntry(MONDAY, 12 * HOUR, 13 * HOUR, location_id=5)
    noon = Moment(MONDAY, 12 * HOUR)
    assert active_entry([lunch, DAY_SHIFT], noon) is lunch
    assert active_entry([DAY_SHIFT, lunch], noon) is DAY_SHIFT
    assert active_entry([DAY_SHIFT, lunch], Moment(TUESDAY, 12 * HOUR)) is None


@given(st.lists(entries, max_size=6), st.integers(0, WEEK - 1))
@settings(max_examples=60)
def test_an_active_entry_is_one_of_the_schedule(schedule: list[ScheduleEntry], world_time: int) -> None:
    """What is found holds, and nothing that holds stands above it."""
    moment = moment_of(world_time)
    found = active_entry(schedule, moment)
    holding = [entry for entry in schedule if entry.is_active(moment)]
    assert found is (holding[0] if holding else None)


NOON = Moment(MONDAY, 12 * HOUR)
MIDNIGHT = Moment(MONDAY, 0)
SPAN = {"day_of_week": 0, "start_time": 9 * HOUR, "end_time": 17 * HOUR}


@pytest.mark.parametrize(
    ("moment", "stored", "home", "expected"),
    [
        (NOON, StoredState(), 9, Place(1, {"schedule": SPAN})),
        (MIDNIGHT, StoredState(), 9, Place(9, {})),
        (MIDNIGHT, StoredState(), None, None),
        (MIDNIGHT, StoredState(state={"mood": "calm"}), 9, Place(9, {"mood": "calm"})),
        (NOON, StoredState(4), 9, Place(4, {})),
        (MIDNIGHT, StoredState(4, {"mood": "calm"}), None, Place(4, {"mood": "calm"})),
        (NOON, StoredState(state={"mood": "calm"}), 9, Place(1, {"mood": "calm", "schedule": SPAN})),
    ],
)
def test_a_stored_location_wins_over_schedule_and_home(
    moment: Moment, stored: StoredState, home: int | None, expected: Place | None
) -> None:
    """Stored location, else active entry, else home, else nowhere; the stored state is always told."""
    assert place_of(moment, stored=stored, schedule=[DAY_SHIFT], home_location_id=home) == expected


def test_the_state_merges_the_entrys_rule_with_what_is_stored() -> None:
    """The entry's rule lies below the stored state, and neither of the two is changed."""
    rule = {"activity": "work", "mood": "tired"}
    stored = StoredState(state={"mood": "happy"})
    entry = ScheduleEntry(MONDAY, 9 * HOUR, 17 * HOUR, location_id=1, rule=rule)
    place = place_of(NOON, stored=stored, schedule=[entry], home_location_id=None)
    assert place == Place(1, {"activity": "work", "mood": "happy", "schedule": SPAN})
    assert rule == {"activity": "work", "mood": "tired"}
    assert stored.state == {"mood": "happy"}


def test_a_repeated_expression_is_named_once() -> None:
    """Each state that stands there twice or more, in order of appearance."""
    assert repeated_expressions(["happy", "sad", "happy", "angry", "sad", "happy"]) == ("happy", "sad")
    assert repeated_expressions(["happy", "sad"]) == ()
