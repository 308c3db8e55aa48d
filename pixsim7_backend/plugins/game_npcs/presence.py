"""Who is where: the database offers who could be, and the rules decide.

The queries may over-select (an NPC whose home is here but who is out), never under-select, so that the
rule stands in one place, ``rules.place_of``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, or_, select
from sqlalchemy.orm import Session

from .models import GameNpc, NpcStateRow, NpcStay
from .rules import Moment, ScheduleEntry, StoredState, moment_of, place_of
from .schemas import NpcPresence

__all__ = ["in_world", "presence_at"]


def presence_at(
    db: Session, world_time: float, *, world_id: int | None = None, location_id: int | None = None
) -> list[NpcPresence]:
    """Where each NPC is at ``world_time``, by NPC id; NPCs that are nowhere are left out.

    Stored states are those of the world, or, without one, those outside any. ``location_id`` leaves
    only who is there.
    """
    question = _Question(moment_of(world_time), world_id, location_id)
    schedules, states = question.schedules(db), question.states(db)
    places = (
        (npc_id, place_of(question.moment, stored=states[npc_id], schedule=schedules[npc_id], home_location_id=home))
        for npc_id, home in question.homes(db).items()
    )
    return [
        NpcPresence(npc_id=npc_id, location_id=place.location_id, state=place.state)
        for npc_id, place in places
        if place is not None and location_id in (None, place.location_id)
    ]


def in_world(world_id: int | None) -> ColumnElement[bool]:
    """The condition on states: those of the world, or, for None, those outside any."""
    return NpcStateRow.world_id.is_(None) if world_id is None else NpcStateRow.world_id == world_id


@dataclass(frozen=True, slots=True)
class _Question:
    """Who is where at a moment, in a world or outside any, perhaps at one location only."""

    moment: Moment
    world_id: int | None
    location_id: int | None

    def homes(self, db: Session) -> Mapping[int, int | None]:
        """The candidates in order, with their homes."""
        rows = db.execute(select(GameNpc.id, GameNpc.home_location_id).where(self._is_candidate()).order_by(GameNpc.id))
        return {npc_id: home for npc_id, home in rows}  # noqa: C416  # rows are no pairs to dict()

    def schedules(self, db: Session) -> Mapping[int, Sequence[ScheduleEntry]]:
        """What may be active of the candidates' weeks: what has begun today, and yesterday's nights."""
        rows = db.execute(
            select(
                NpcStay.npc_id,
                NpcStay.day_of_week,
                NpcStay.start_time,
                NpcStay.end_time,
                NpcStay.location_id,
                NpcStay.rule,
            )
            .where(NpcStay.npc_id.in_(self._candidates()), self._may_hold())
            .order_by(NpcStay.npc_id, NpcStay.position)
        )
        schedules: defaultdict[int, list[ScheduleEntry]] = defaultdict(list)
        for npc_id, *entry in rows:
            schedules[npc_id].append(ScheduleEntry(*entry))
        return schedules

    def states(self, db: Session) -> Mapping[int, StoredState]:
        """What was set for the candidates by hand."""
        rows = db.execute(
            select(NpcStateRow.npc_id, NpcStateRow.current_location_id, NpcStateRow.state).where(
                NpcStateRow.npc_id.in_(self._candidates()), in_world(self.world_id)
            )
        )
        return defaultdict(StoredState, {npc_id: StoredState(*stored) for npc_id, *stored in rows})

    def _candidates(self) -> Select[int]:
        return select(GameNpc.id).where(self._is_candidate())

    def _is_candidate(self) -> ColumnElement[bool]:
        if self.location_id is None:
            return GameNpc.id.is_not(None)
        staying = select(NpcStay.npc_id).where(NpcStay.location_id == self.location_id, self._may_hold())
        put_there = select(NpcStateRow.npc_id).where(
            NpcStateRow.current_location_id == self.location_id, in_world(self.world_id)
        )
        return or_(GameNpc.home_location_id == self.location_id, GameNpc.id.in_(staying), GameNpc.id.in_(put_there))

    def _may_hold(self) -> ColumnElement[bool]:
        begun = (NpcStay.day_of_week == self.moment.day) & (NpcStay.start_time <= self.moment.second)
        overnight = (NpcStay.day_of_week == self.moment.day_before) & (NpcStay.end_time < NpcStay.start_time)
        return begun | overnight
