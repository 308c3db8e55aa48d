"""What clients send and get: locations and their hotspots."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from pixsim7_backend.storable import JsonObject, RowId, Text

from .rules import repeated_hotspots

__all__ = [
    "Hotspot",
    "HotspotSet",
    "HotspotView",
    "LocationChanges",
    "LocationDetail",
    "LocationSummary",
    "NewLocation",
]

MAX_HOTSPOTS = 500

Name = Annotated[Text, Field(min_length=1, max_length=200)]


class _Input(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


class Hotspot(_Input):
    """A spot on an object of the location's picture; found by ``object_name`` and ``hotspot_id`` together."""

    object_name: Name
    hotspot_id: Name
    linked_scene_id: RowId | None = None
    """The scene that a click starts."""
    meta: JsonObject = Field(default_factory=dict)


def _each_once(hotspots: Sequence[Hotspot]) -> Sequence[Hotspot]:
    repeated = repeated_hotspots((spot.object_name, spot.hotspot_id) for spot in hotspots)
    if repeated:
        named = ", ".join(f"{object_name}/{hotspot_id}" for object_name, hotspot_id in repeated[:5])
        raise ValueError(f"each object_name and hotspot_id may stand here once; repeated: {named}")
    return hotspots


class HotspotSet(_Input):
    """All hotspots of a location, in the order in which they are shown."""

    hotspots: Annotated[list[Hotspot], Field(max_length=MAX_HOTSPOTS), AfterValidator(_each_once)]


class NewLocation(_Input):
    """A place of the game's world."""

    name: Name
    x: FiniteFloat = 0.0
    y: FiniteFloat = 0.0
    asset_id: RowId | None = None
    """The picture of the place."""
    default_spawn: Name | None = None
    """Where in the place a player appears."""
    meta: JsonObject = Field(default_factory=dict)


class LocationChanges(_Input):
    """The fields to change, each replaced as a whole; what is left out stays."""

    # Only what is set counts; factories keep the defaults, which mean nothing, out of the documentation.
    name: Name = Field(default_factory=str)
    x: FiniteFloat = Field(default_factory=float)
    y: FiniteFloat = Field(default_factory=float)
    asset_id: RowId | None = None
    default_spawn: Name | None = None
    meta: JsonObject = Field(default_factory=dict)

    @model_validator(mode="after")
    def _change_something(self) -> LocationChanges:
        if not self.model_fields_set:
            raise ValueError(f"name at least one field to change: {', '.join(type(self).model_fields)}")
        return self


class LocationSummary(BaseModel):
    """A location as it stands in a list."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    x: float
    y: float
    asset_id: int | None
    default_spawn: str | None
    meta: dict[str, Any]
    version: int
    created_at: datetime
    updated_at: datetime


class HotspotView(BaseModel):
    """A hotspot as clients see it."""

    model_config = ConfigDict(from_attributes=True)

    object_name: str
    hotspot_id: str
    linked_scene_id: int | None
    meta: dict[str, Any]


class LocationDetail(LocationSummary):
    """A location with its hotspots, in order."""

    hotspots: list[HotspotView]
