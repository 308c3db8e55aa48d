"""Demo observer: hears every event of the server and serves them to admins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request

from pixsim7_backend.infrastructure.plugins import PluginEvents, plugin_hooks
from pixsim7_backend.infrastructure.plugins.types import PluginManifest
from pixsim7_backend.plugins.auth import AdminUser

from .log import EventLog, ObservedEvent

manifest = PluginManifest(
    id="demo-observer",
    name="Demo Observer",
    version="1.0.0",
    description="Hears every event of the server and serves the last of them to admins.",
    author="PixSim7",
    tags=["demo-observer"],
    dependencies=["auth"],
)

router = APIRouter(prefix="/demo/events", tags=["demo-observer"])


def on_load(app: FastAPI) -> None:
    """Listen from the very start, so that the plugins' own life is heard too."""
    app.state.demo_events = EventLog()
    for event in PluginEvents:
        plugin_hooks.register(event, _remember(app.state.demo_events, str(event)))


@router.get("/")
def list_events(
    request: Request,
    _admin: AdminUser,
    after: Annotated[int, Query(ge=0, description="the number of the last event seen")] = 0,
) -> list[ObservedEvent]:
    """Return the events that came after the one with this number, oldest first."""
    log: EventLog = request.app.state.demo_events
    return log.after(after)


def _remember(log: EventLog, event: str) -> Callable[..., None]:
    def remember(*payload: Any) -> None:
        log.append(event, payload)

    return remember
