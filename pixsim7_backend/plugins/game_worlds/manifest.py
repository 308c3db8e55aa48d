"""Game worlds: each player's worlds with their clocks, and what the game's rules want to know of them."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response, status
from sqlalchemy import select

from pixsim7_backend.conditional import IfMatch, etag
from pixsim7_backend.db import DbSession, ReadOnlyDb
from pixsim7_backend.infrastructure.plugins import ports
from pixsim7_backend.infrastructure.plugins.types import PluginManifest
from pixsim7_backend.paging import Page, PageParams, paginate
from pixsim7_backend.plugins.auth import CurrentUser
from pixsim7_backend.storable import PathId

from . import store
from .models import GameWorld
from .schemas import Advance, NewWorld, World, WorldChanges

manifest = PluginManifest(
    id="game-worlds",
    name="Game Worlds",
    version="1.0.0",
    description="Each player's worlds with their clocks, and what the game's rules want to know of them.",
    author="PixSim7",
    tags=["game-worlds"],
    dependencies=["auth"],
    requires_db=True,
)

router = APIRouter(prefix="/game/worlds", tags=["game-worlds"])


def on_enable() -> None:
    """Let plugins that do not depend on worlds find them."""
    ports.provide("worlds", store.WorldsPort())


@router.get("", include_in_schema=False)
@router.get("/")
def list_worlds(user: CurrentUser, db: ReadOnlyDb, page: PageParams) -> Page[World]:
    """List the caller's worlds by id."""
    return paginate(db, select(GameWorld).where(GameWorld.owner_id == user.id), page)


@router.post("", include_in_schema=False, status_code=status.HTTP_201_CREATED)
@router.post("/", status_code=status.HTTP_201_CREATED)
def create_world(new: NewWorld, request: Request, response: Response, user: CurrentUser, db: DbSession) -> World:
    """Begin a world at time 0."""
    world = store.create(db, new, user)
    response.headers["Location"] = str(request.url_for("game_world", world_id=world.id).path)
    return _answer(world, response)


@router.get("/{world_id}", name="game_world")
def get_world(world_id: PathId, response: Response, user: CurrentUser, db: ReadOnlyDb) -> World:
    """Return one of the caller's worlds."""
    return _answer(store.get_owned(db, world_id, user), response)


@router.patch("/{world_id}")
def change_world(
    *, world_id: PathId, changes: WorldChanges, response: Response, if_match: IfMatch, user: CurrentUser, db: DbSession
) -> World:
    """Merge the changes (RFC 7386) into a world; 412 when ``If-Match`` names an older version."""
    world = store.get_locked(db, world_id, user)
    if_match.require(world.version)
    return _answer(store.change(db, world, changes), response)


@router.delete("/{world_id}", status_code=status.HTTP_204_NO_CONTENT)
def delete_world(world_id: PathId, if_match: IfMatch, user: CurrentUser, db: DbSession) -> None:
    """Delete a world; 412 when ``If-Match`` names an older version."""
    world = store.get_locked(db, world_id, user)
    if_match.require(world.version)
    db.delete(world)
    db.flush()


@router.post("/{world_id}/advance")
def advance_world(world_id: PathId, step: Advance, response: Response, user: CurrentUser, db: DbSession) -> World:
    """Move the world's clock; concurrent calls add up."""
    return _answer(store.advance(db, world_id, step.delta_seconds, user), response)


def _answer(world: GameWorld, response: Response) -> World:
    response.headers["ETag"] = etag(world.version)
    return World.model_validate(world)
