"""Where an NPC is, and in which state, at a moment of game time: pure, no HTTP, no database.

Game time is a number of seconds since the start of day 0, which is a Monday. A week has seven
days of 86,400 seconds and repeats for ever; time before the start counts as the start.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "DAYS_PER_WEEK",
    "SECONDS_PER_DAY",
    "Moment",
    "Place",
    "ScheduleEntry",
    "StoredState",
    "active_entry",
    "moment_of",
    "place_of",
    "repeated_expressions",
]

SECONDS_PER_DAY = 86_400
DAYS_PER_WEEK = 7

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in the game's week: day 0 to 6 (0 = Monday) and second of the day in [0, 86400)."""

    day: int
    second: float

    @property
    def day_before(self) -> int:
        """The day whose overnight entries may still run."""
        return (self.day - 1) % DAYS_PER_WEEK


@dataclass(frozen=True, slots=True)
class ScheduleEntry:
    """Where an NPC spends a part of each week.

    ``start_time < end_time`` lies within the day; ``end_time < start_time`` runs overnight into the
    next day; equal times are not an entry and never active.
    """

    day_of_week: int
    start_time: float
    end_time: float
    location_id: int
    rule: JsonObject | None = None

    def is_active(self, moment: Moment) -> bool:
        """Tell whether the entry holds at ``moment``: from its start, up to but without its end."""
        if self.start_time <= self.end_time:
            return self.day_of_week == moment.day and self.start_time <= moment.second < self.end_time
        evening = self.day_of_week == moment.day and self.start_time <= moment.second
        morning = self.day_of_week == moment.day_before and moment.second < self.end_time
        return evening or morning


@dataclass(frozen=True, slots=True)
class StoredState:
    """What was set for an NPC by hand; a location, while set, wins over the schedule."""

    current_location_id: int | None = None
    state: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an NPC is, and its state there."""

    location_id: int
    state: JsonObject


def moment_of(world_time: float) -> Moment:
    """The moment of the week at ``world_time`` seconds (finite); negative time is time 0."""
    day, second = divmod(max(world_time, 0), SECONDS_PER_DAY)
    return Moment(day=int(day) % DAYS_PER_WEEK, second=second)


def active_entry(schedule: Iterable[ScheduleEntry], moment: Moment) -> ScheduleEntry | None:
    """The first entry, in the order of the schedule, that holds at ``moment``.

    Entries may overlap: the earlier one in the list wins, so that an exception is written above
    what it excepts from.
    """
    return next((entry for entry in schedule if entry.is_active(moment)), None)


def place_of(
    moment: Moment, *, stored: StoredState, schedule: Sequence[ScheduleEntry], home_location_id: int | None
) -> Place | None:
    """Where the NPC is: its stored location, else its active entry's, else its home; None when it has none.

    The state is the stored state. While a schedule entry places the NPC, the entry's ``rule`` lies
    below it (stored keys win), and ``schedule`` names the entry's day and times.
    """
    if stored.current_location_id is not None:
        return Place(stored.current_location_id, dict(stored.state))
    entry = active_entry(schedule, moment)
    if entry is not None:
        return Place(entry.location_id, {**(entry.rule or {}), "schedule": _span(entry), **stored.state})
    return None if home_location_id is None else Place(home_location_id, dict(stored.state))


def _span(entry: ScheduleEntry) -> JsonObject:
    return {"day_of_week": entry.day_of_week, "start_time": entry.start_time, "end_time": entry.end_time}


def repeated_expressions(states: Iterable[str]) -> tuple[str, ...]:
    """The states that occur more than once, each once, in order; a state has one expression."""
    return tuple(state for state, times in Counter(states).items() if times > 1)
