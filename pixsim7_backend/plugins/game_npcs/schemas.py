"""What clients send and get: NPCs, their expressions, schedules, states and where they are."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from pixsim7_backend.storable import JsonObject, RowId, Text

from .rules import DAYS_PER_WEEK, SECONDS_PER_DAY, repeated_expressions

__all__ = [
    "Expression",
    "ExpressionView",
    "Expressions",
    "NewNpc",
    "NewNpcState",
    "NewStay",
    "NpcChanges",
    "NpcPresence",
    "NpcState",
    "NpcView",
    "Schedule",
    "StayView",
]

MAX_EXPRESSIONS = 200
MAX_STAYS = 500

Name = Annotated[Text, Field(min_length=1, max_length=200)]


class _Input(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


class NewNpc(_Input):
    """Somebody who is not played by a player."""

    name: Name
    personality: JsonObject = Field(default_factory=dict)
    home_location_id: RowId | None = None
    """Where the NPC is when nothing else says so."""


class NpcChanges(_Input):
    """The fields to change, each replaced as a whole; what is left out stays."""

    # Only what is set counts; the factory keeps the default, which means nothing, out of the documentation.
    name: Name = Field(default_factory=str)
    personality: JsonObject = Field(default_factory=dict)
    home_location_id: RowId | None = None

    @model_validator(mode="after")
    def _change_something(self) -> NpcChanges:
        if not self.model_fields_set:
            raise ValueError(f"name at least one field to change: {', '.join(type(self).model_fields)}")
        return self


class NpcView(BaseModel):
    """An NPC as clients see it."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    personality: dict[str, Any]
    home_location_id: int | None
    created_at: datetime
    updated_at: datetime


class Expression(_Input):
    """The picture that shows the NPC in a state like ``happy``; ``crop`` says which part of it."""

    state: Name
    asset_id: RowId
    crop: JsonObject | None = None
    meta: JsonObject = Field(default_factory=dict)


def _each_state_once(expressions: Sequence[Expression]) -> Sequence[Expression]:
    repeated = repeated_expressions(expression.state for expression in expressions)
    if repeated:
        raise ValueError(f"each state may stand here once; repeated: {', '.join(repeated[:5])}")
    return expressions


Expressions = Annotated[list[Expression], Field(max_length=MAX_EXPRESSIONS), AfterValidator(_each_state_once)]


class ExpressionView(BaseModel):
    """An expression as clients see it."""

    model_config = ConfigDict(from_attributes=True)

    state: str
    asset_id: int
    crop: dict[str, Any] | None
    meta: dict[str, Any]


class NewStay(_Input):
    """Where the NPC spends a part of each week.

    The stay holds from ``start_time`` up to but without ``end_time``; one that ends before it starts
    runs overnight into the next day. Of stays that overlap the first in the list holds.
    """

    day_of_week: int = Field(ge=0, lt=DAYS_PER_WEEK)
    """0 is Monday."""
    start_time: FiniteFloat = Field(ge=0, lt=SECONDS_PER_DAY)
    """Seconds of the day."""
    end_time: FiniteFloat = Field(ge=0, le=SECONDS_PER_DAY)
    """Seconds of the day; 86400 is its end."""
    location_id: RowId
    rule: JsonObject | None = None
    """What the NPC's state is made of while the stay holds."""

    @model_validator(mode="after")
    def _last_some_time(self) -> NewStay:
        if self.start_time == self.end_time:
            raise ValueError("start_time and end_time must differ; a whole day is 0 to 86400")
        return self


Schedule = Annotated[list[NewStay], Field(max_length=MAX_STAYS)]


class StayView(BaseModel):
    """A stay as clients see it."""

    model_config = ConfigDict(from_attributes=True)

    day_of_week: int
    start_time: float
    end_time: float
    location_id: int
    rule: dict[str, Any] | None


class NewNpcState(_Input):
    """What is set for an NPC by hand, as a whole; a location, while set, wins over the schedule."""

    current_location_id: RowId | None = None
    state: JsonObject = Field(default_factory=dict)


class NpcState(BaseModel):
    """What is set for an NPC by hand: in one world, or, with ``world_id`` null, outside any."""

    model_config = ConfigDict(from_attributes=True)

    npc_id: int
    world_id: int | None
    current_location_id: int | None
    state: dict[str, Any]


class NpcPresence(BaseModel):
    """Where an NPC is at the moment asked for, and its state there."""

    npc_id: int
    location_id: int
    state: dict[str, Any]
