"""Game NPCs: who lives in the world, how they look, where they go in a week, and where they are now."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response, status
from pydantic import FiniteFloat
from sqlalchemy.orm import Session

from pixsim7_backend.db import DbSession, ReadOnlyDb
from pixsim7_backend.infrastructure.plugins import ports
from pixsim7_backend.infrastructure.plugins.types import PluginManifest
from pixsim7_backend.paging import Page, PageParams, paginate
from pixsim7_backend.plugins.auth import AdminUser, CurrentUser, UserIdentity
from pixsim7_backend.plugins.game_locations import OCCUPANTS_PORT
from pixsim7_backend.plugins.game_worlds import GameWorld, get_owned
from pixsim7_backend.problems import NotFound
from pixsim7_backend.storable import PathId, RowId, Text

from . import store
from .presence import presence_at
from .schemas import (
    Expressions,
    ExpressionView,
    NewNpc,
    NewNpcState,
    NpcChanges,
    NpcPresence,
    NpcState,
    NpcView,
    Schedule,
    StayView,
)

manifest = PluginManifest(
    id="game-npcs",
    name="Game NPCs",
    version="1.0.0",
    description="Who lives in the game's world, how they look, and where they are at any moment of the week.",
    author="PixSim7",
    tags=["game-npcs"],
    dependencies=["auth", "game-locations", "game-worlds"],
    after=["assets"],
    requires_db=True,
)

router = APIRouter(prefix="/game/npcs", tags=["game-npcs"])

WorldId = Annotated[RowId | None, Query(description="a world of yours; without it, what holds outside any world")]


def on_enable() -> None:
    """Hear of locations that are about to be deleted."""
    ports.provide(OCCUPANTS_PORT, store.LocationLeaver())


@router.get("", include_in_schema=False)
@router.get("/")
def list_npcs(
    _user: CurrentUser,
    db: ReadOnlyDb,
    page: PageParams,
    name: Annotated[Text | None, Query(max_length=200, description="only NPCs of exactly this name")] = None,
    home_location_id: Annotated[RowId | None, Query(description="only NPCs that live here")] = None,
) -> Page[NpcView]:
    """List the NPCs by id."""
    return paginate(db, store.npcs(name=name, home_location_id=home_location_id), page)


@router.post("", include_in_schema=False, status_code=status.HTTP_201_CREATED)
@router.post("/", status_code=status.HTTP_201_CREATED)
def create_npc(new: NewNpc, request: Request, response: Response, _admin: AdminUser, db: DbSession) -> NpcView:
    """Bring an NPC into the world; announces ``npc:spawned``."""
    npc = store.create(db, new)
    response.headers["Location"] = request.url_for("get_npc", npc_id=npc.id).path
    return NpcView.model_validate(npc)


@router.get("/presence")
def get_presence(
    user: CurrentUser,
    db: ReadOnlyDb,
    world_time: Annotated[FiniteFloat | None, Query(description="seconds of game time")] = None,
    world_id: WorldId = None,
    location_id: Annotated[RowId | None, Query(description="only who is here")] = None,
) -> list[NpcPresence]:
    """Tell where each NPC is: at ``world_time``, else at the present time of the world, else at time 0.

    A location set by hand wins over the schedule, the schedule over the home.
    """
    world = get_owned(db, world_id, user) if world_id is not None else None
    stored_time = world.world_time if world is not None else 0
    at = stored_time if world_time is None else world_time
    return presence_at(db, at, world_id=world_id, location_id=location_id)


@router.get("/{npc_id}")
def get_npc(npc_id: PathId, _user: CurrentUser, db: ReadOnlyDb) -> NpcView:
    """Return an NPC."""
    return NpcView.model_validate(store.get(db, npc_id))


@router.patch("/{npc_id}")
def change_npc(npc_id: PathId, changes: NpcChanges, _admin: AdminUser, db: DbSession) -> NpcView:
    """Replace the fields that are given."""
    npc = store.get_locked(db, npc_id)
    store.change(db, npc, changes)
    return NpcView.model_validate(npc)


@router.delete("/{npc_id}", status_code=status.HTTP_204_NO_CONTENT)
def delete_npc(npc_id: PathId, _admin: AdminUser, db: DbSession) -> None:
    """Delete an NPC with its expressions, schedule and states."""
    db.delete(store.get_locked(db, npc_id))
    db.flush()


@router.get("/{npc_id}/expressions")
def get_expressions(npc_id: PathId, _user: CurrentUser, db: ReadOnlyDb) -> list[ExpressionView]:
    """Return the NPC's expressions, in order."""
    store.get(db, npc_id)
    return [ExpressionView.model_validate(each) for each in store.expressions(db, npc_id)]


@router.put("/{npc_id}/expressions")
def put_expressions(npc_id: PathId, expressions: Expressions, user: AdminUser, db: DbSession) -> list[ExpressionView]:
    """Replace all expressions, or, when one of them is refused, none."""
    stored = store.replace_expressions(db, store.get_locked(db, npc_id), expressions, user_id=user.id)
    return [ExpressionView.model_validate(each) for each in stored]


@router.get("/{npc_id}/schedule")
def get_schedule(npc_id: PathId, _user: CurrentUser, db: ReadOnlyDb) -> list[StayView]:
    """Return the NPC's week; of stays that overlap the first in the list holds."""
    store.get(db, npc_id)
    return [StayView.model_validate(stay) for stay in store.schedule(db, npc_id)]


@router.put("/{npc_id}/schedule")
def put_schedule(npc_id: PathId, schedule: Schedule, _admin: AdminUser, db: DbSession) -> list[StayView]:
    """Replace the whole week, or, when one stay is refused, nothing of it."""
    stored = store.replace_schedule(db, store.get_locked(db, npc_id), schedule)
    return [StayView.model_validate(stay) for stay in stored]


@router.get("/{npc_id}/state")
def get_state(npc_id: PathId, user: CurrentUser, db: ReadOnlyDb, world_id: WorldId = None) -> NpcState:
    """Return what was set for the NPC by hand; empty when nothing was."""
    store.get(db, npc_id)
    _require_world(db, world_id, user)
    row = store.find_state(db, npc_id, world_id)
    if row is None:
        return NpcState(npc_id=npc_id, world_id=world_id, current_location_id=None, state={})
    return NpcState.model_validate(row)


@router.put("/{npc_id}/state")
def put_state(npc_id: PathId, new: NewNpcState, user: AdminUser, db: DbSession, world_id: WorldId = None) -> NpcState:
    """Set the NPC's state as a whole, in any player's world or outside; a move announces ``location:changed``."""
    npc = store.get_locked(db, npc_id)
    _require_world(db, world_id, user)
    return NpcState.model_validate(store.put_state(db, npc, world_id, new))


def _require_world(db: Session, world_id: int | None, user: UserIdentity) -> None:
    """Refuse a world that is not the user's; NPCs are admins' work, in everybody's world."""
    if world_id is None:
        return
    if not user.is_admin:
        get_owned(db, world_id, user)
    elif db.get(GameWorld, world_id) is None:
        raise NotFound("game world", world_id)
