"""The last events of a server, numbered. Pure but for the memory it takes."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

__all__ = ["EventLog", "ObservedEvent"]

KEPT = 10_000


@dataclass(frozen=True, slots=True)
class ObservedEvent:
    """One event; ``number`` rises by one with each, from 1."""

    number: int
    event: str
    payload: list[Any]


class EventLog:
    """Remembers the last ten thousand events."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._events: deque[ObservedEvent] = deque(maxlen=KEPT)

    def append(self, event: str, payload: Sequence[Any]) -> None:
        """Remember an event; what is not JSON in its payload becomes text."""
        plain = json.loads(json.dumps(list(payload), default=str))
        self._events.append(ObservedEvent(next(self._numbers), event, plain))

    def after(self, number: int) -> list[ObservedEvent]:
        """Return the events that came after this one, oldest first."""
        return [event for event in tuple(self._events) if event.number > number]
