"""What clients send and get: sessions and their history."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from pixsim7_backend.storable import RowId, json_object

from .state import MAX_STATE_BYTES, MAX_STATE_DEPTH, MAX_WORLD_TIME

__all__ = ["EventView", "NewSession", "SessionPatch", "SessionSummary", "SessionView", "Step"]

StateObject = Annotated[
    dict[str, Any],
    AfterValidator(json_object(max_bytes=MAX_STATE_BYTES, max_depth=MAX_STATE_DEPTH)),
    WithJsonSchema({"type": "object", "additionalProperties": True}),
]
GameSeconds = Annotated[float, Field(ge=0, le=MAX_WORLD_TIME, allow_inf_nan=False)]


class _Input(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewSession(_Input):
    """A play-through to begin, at the scene's entry and, where a world is given, at that world's time."""

    scene_id: RowId
    world_id: RowId | None = None


class Step(_Input):
    """The edge to take."""

    edge_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:~-]{1,140}$", coerce_numbers_to_str=True)]


class SessionPatch(_Input):
    """A merge patch (RFC 7386): what is left out stays, null inside an object removes, null for one empties it."""

    world_time: GameSeconds = Field(default_factory=float)
    flags: StateObject | None = None
    relationships: StateObject | None = None


class SessionSummary(BaseModel):
    """A session without what it remembers, as lists show it."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    scene_id: int | None
    """None once the scene has been deleted."""
    current_node_id: str
    world_time: float
    version: int
    created_at: datetime
    updated_at: datetime


class SessionView(SessionSummary):
    """A session with everything it remembers."""

    flags: dict[str, Any]
    relationships: dict[str, Any]


class EventView(BaseModel):
    """One entry of a session's history."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    kind: str
    at: datetime
    session_version: int
    edge_id: str | None
    detail: dict[str, Any]
    paths: list[str]
    changes: dict[str, Any] | None
