"""Stealth: picking the pockets of NPCs, and what it does to how they see the player."""

from __future__ import annotations

import logging
from dataclasses import replace

from fastapi import APIRouter, FastAPI

from pixsim7_backend.db import DbSession, ReadOnlyDb
from pixsim7_backend.db.models import utc_now
from pixsim7_backend.infrastructure.plugins import PluginEvents, plugin_hooks, plugin_settings
from pixsim7_backend.infrastructure.plugins.types import PluginManifest
from pixsim7_backend.plugins import game_npcs as npcs
from pixsim7_backend.plugins import game_sessions as sessions
from pixsim7_backend.plugins.auth import CurrentUser
from pixsim7_backend.storable import PathId

from . import rules
from .chance import Roll
from .schemas import PickpocketAttempt, PickpocketResult, StealthRecord
from .settings import StealthSettings

# Define manifest
manifest = PluginManifest(
    id="game-stealth",
    name="Game Stealth & Pickpocket",
    version="1.0.0",
    description="Provides stealth mechanics",
    author="PixSim7",
    prefix="/api/v1",
    tags=["game-stealth"],
    dependencies=["auth", "game-sessions", "game-npcs"],
    requires_db=True,
    enabled=True,
)

# Define settings
settings_model = StealthSettings

# Define router
router = APIRouter(prefix="/game/stealth", tags=["game-stealth"])

logger = logging.getLogger("pixsim7.game.stealth")


@router.post("/pickpocket")
def attempt_pickpocket(attempt: PickpocketAttempt, user: CurrentUser, db: DbSession, roll: Roll) -> PickpocketResult:
    """Try to take what an NPC carries in a slot.

    404 when the session is not the caller's or the NPC is unknown; 409 when the session is played in
    another world than ``world_id``.
    """
    session = sessions.get_locked(db, attempt.session_id, user)
    npcs.get_npc(db, attempt.npc_id)
    state = session.state()
    attempt.require_world(state.world_id)
    drawn = rules.Draws(success=roll(), detection=roll())
    outcome = rules.pickpocket(
        state.flags,
        state.relationships,
        attempt.in_rules(),
        drawn,
        at=utc_now().isoformat(),
        settings=plugin_settings.of(StealthSettings),
    )
    plugin_hooks.emit_after_commit(
        db, PluginEvents.INTERACTION_EXECUTED, session.id, attempt.npc_id, "pickpocket", outcome.entry
    )
    after = replace(state, flags=outcome.flags, relationships=outcome.relationships)
    sessions.store(db, session, after, kind="pickpocket", detail=outcome.entry)
    return PickpocketResult.of(outcome)


@router.get("/sessions/{session_id}")
def get_stealth_record(session_id: PathId, user: CurrentUser, db: ReadOnlyDb) -> StealthRecord:
    """Return what a session of the caller's holds about stealth."""
    return StealthRecord.of(session_id, sessions.get_owned(db, session_id, user).flags)


# Lifecycle hooks
def on_load(_app: FastAPI) -> None:
    """Called when the plugin loads."""
    logger.info("Stealth plugin loaded")


async def on_enable() -> None:
    """Called when the plugin enables."""
    logger.info("Stealth plugin enabled")


async def on_disable() -> None:
    """Called when the plugin disables."""
    logger.info("Stealth plugin disabled")
