"""Worlds in the database, and what other plugins may ask of them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from pixsim7_backend.db.models import utc_now
from pixsim7_backend.merge_patch import merge_patch
from pixsim7_backend.plugins.auth import UserIdentity
from pixsim7_backend.problems import Conflict, NotFound, UnprocessableContent
from pixsim7_backend.storable import find_json_problem

from .models import GameWorld
from .rules import MAX_WORLD_TIME
from .schemas import NewWorld, WorldChanges

__all__ = ["WorldsPort", "advance", "change", "create", "get_locked", "get_owned"]


def _is_own(world_id: int, user_id: int) -> ColumnElement[bool]:
    return (GameWorld.id == world_id) & (GameWorld.owner_id == user_id)


def get_owned(db: Session, world_id: int, user: UserIdentity) -> GameWorld:
    """Return the user's world; raise NotFound when it does not exist or is somebody else's."""
    world = db.scalars(select(GameWorld).where(_is_own(world_id, user.id))).one_or_none()
    if world is None:
        raise NotFound("game world", world_id)
    return world


def get_locked(db: Session, world_id: int, user: UserIdentity) -> GameWorld:
    """Return the user's world as it is now, kept from other writers until the transaction ends; else as get_owned."""
    statement = select(GameWorld).where(_is_own(world_id, user.id)).with_for_update()
    world = db.scalars(statement.execution_options(populate_existing=True)).one_or_none()
    if world is None:
        raise NotFound("game world", world_id)
    return world


def create(db: Session, new: NewWorld, user: UserIdentity) -> GameWorld:
    """Begin a world of the user's."""
    world = GameWorld(owner_id=user.id, name=new.name, world_time=0.0, meta=new.meta)
    db.add(world)
    db.flush()
    return world


def change(db: Session, world: GameWorld, changes: WorldChanges) -> GameWorld:
    """Merge ``changes`` into a locked world.

    Raises:
        UnprocessableContent: ``meta`` would become too large or too deep.
    """
    patched = merge_patch({"name": world.name, "meta": world.meta}, changes.model_dump(exclude_unset=True))
    meta: dict[str, Any] = patched.get("meta") or {}
    problem = find_json_problem(meta, max_bytes=65_536, max_depth=16)
    if problem:
        raise UnprocessableContent(f"meta: {problem}")
    world.name, world.meta = patched["name"], meta
    db.flush()
    return world


def advance(db: Session, world_id: int, delta_seconds: float, user: UserIdentity) -> GameWorld:
    """Move the clock of the user's world in one statement, so that concurrent calls add up.

    Raises:
        NotFound: the world does not exist or is somebody else's.
        Conflict: its clock is at its end.
    """
    moved = db.scalars(
        update(GameWorld)
        .where(_is_own(world_id, user.id), GameWorld.world_time <= MAX_WORLD_TIME - delta_seconds)
        .values(world_time=GameWorld.world_time + delta_seconds, version=GameWorld.version + 1, updated_at=utc_now())
        .returning(GameWorld)
        .execution_options(synchronize_session=False, populate_existing=True)
    ).one_or_none()
    if moved is None:
        world = get_owned(db, world_id, user)
        raise Conflict(f"game world {world_id} is at {world.world_time:.0f} s and ends at {MAX_WORLD_TIME:.0f} s")
    return moved


class WorldsPort:
    """What is provided as the port ``worlds``, for plugins that only welcome worlds."""

    def find_world_time(self, db: Session, world_id: int, user_id: int) -> float | None:
        """Return the time of the user's own world, or None when it does not exist or is somebody else's."""
        return db.scalars(select(GameWorld.world_time).where(_is_own(world_id, user_id))).one_or_none()
