"""What clients send and get: worlds."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from pixsim7_backend.storable import JsonObject, Text

from .rules import MAX_STEP

__all__ = ["Advance", "NewWorld", "World", "WorldChanges"]

Name = Annotated[Text, Field(min_length=1, max_length=200)]


class _Input(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


class NewWorld(_Input):
    """A world to begin, at time 0."""

    name: Name
    meta: JsonObject = Field(default_factory=dict)
    """Relationship and intimacy schemas, NPC overrides, and whatever else the game wants to know."""


class WorldChanges(_Input):
    """A merge patch (RFC 7386): what is left out stays; null inside ``meta`` removes."""

    name: Name = Field(default_factory=str)
    meta: JsonObject | None = None


class Advance(_Input):
    """How far to move a world's clock."""

    delta_seconds: Annotated[float, Field(ge=0, le=MAX_STEP, allow_inf_nan=False)]


class World(BaseModel):
    """A world and its clock, in seconds of game time."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    world_time: float
    meta: dict[str, Any]
    version: int
    created_at: datetime
    updated_at: datetime
