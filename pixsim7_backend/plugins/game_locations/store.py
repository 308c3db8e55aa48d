"""Locations in the database: found, made, changed. Callers commit."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Protocol

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from pixsim7_backend.db.models import utc_now
from pixsim7_backend.infrastructure.plugins import ports
from pixsim7_backend.plugins.game_scenes import check_assets, missing_scenes
from pixsim7_backend.problems import NotFound, UnprocessableContent

from .models import GameHotspot, GameLocation
from .schemas import Hotspot, LocationChanges, NewLocation

__all__ = [
    "OCCUPANTS_PORT",
    "Occupants",
    "change",
    "create",
    "delete",
    "get",
    "get_locked",
    "locations",
    "missing_locations",
    "replace_hotspots",
    "require_locations",
]

OCCUPANTS_PORT = "location-occupants"


class Occupants(Protocol):
    """What a plugin provides at the port ``location-occupants`` whose things are put into locations."""

    def leave(self, db: Session, location_id: int) -> None:
        """Take everything out of the location, which is deleted next in the same transaction, and announce it."""


def locations(name: str | None = None) -> Select[GameLocation]:
    """All locations, or those of exactly this name."""
    wanted = select(GameLocation)
    return wanted if name is None else wanted.where(GameLocation.name == name)


def get(db: Session, location_id: int) -> GameLocation:
    """Return the location.

    Raises:
        NotFound: there is none.
    """
    return _found(db.get(GameLocation, location_id), location_id)


def get_locked(db: Session, location_id: int) -> GameLocation:
    """Return the location, which nobody else can change until this transaction ends; NotFound when there is none."""
    return _found(db.get(GameLocation, location_id, with_for_update=True), location_id)


def _found(location: GameLocation | None, location_id: int) -> GameLocation:
    if location is None:
        raise NotFound("location", location_id)
    return location


def create(db: Session, new: NewLocation, *, user_id: int) -> GameLocation:
    """Store a new location without hotspots; ``user_id`` must be able to read its picture.

    Raises:
        UnprocessableContent: there is no such picture.
    """
    check_assets(db, [new.asset_id], user_id)
    location = GameLocation(**new.model_dump(), hotspots=[])
    db.add(location)
    db.flush()
    return location


def change(db: Session, location: GameLocation, changes: LocationChanges, *, user_id: int) -> None:
    """Replace the fields that were given; UnprocessableContent when there is no such picture."""
    check_assets(db, [changes.asset_id], user_id)
    for name, value in changes.model_dump(exclude_unset=True).items():
        setattr(location, name, value)
    db.flush()


def delete(db: Session, location: GameLocation) -> None:
    """Delete the location, after its occupants have left."""
    occupants: Occupants | None = ports.find(OCCUPANTS_PORT)
    if occupants is not None:
        occupants.leave(db, location.id)
    db.delete(location)
    db.flush()


def replace_hotspots(db: Session, location: GameLocation, hotspots: Sequence[Hotspot]) -> None:
    """Make these the location's hotspots, in this order.

    Raises:
        UnprocessableContent: one links to a scene that does not exist.
    """
    linked = {spot.linked_scene_id for spot in hotspots if spot.linked_scene_id is not None}
    _refuse_missing("game scene", missing_scenes(db, linked))
    location.hotspots = []
    db.flush()  # the old ones go first: a new one may have the key of an old one
    location.hotspots = [GameHotspot(position=at, **spot.model_dump()) for at, spot in enumerate(hotspots)]
    location.updated_at = utc_now()  # raises the location's version, which covers its hotspots
    db.flush()


def missing_locations(db: Session, location_ids: Collection[int]) -> frozenset[int]:
    """Return those of ``location_ids`` that name no location."""
    found = db.scalars(select(GameLocation.id).where(GameLocation.id.in_(set(location_ids))))
    return frozenset(location_ids) - set(found)


def require_locations(db: Session, location_ids: Iterable[int | None]) -> None:
    """Refuse ids that name no location; None is fine.

    Raises:
        UnprocessableContent: names the unknown ones.
    """
    wanted = {location_id for location_id in location_ids if location_id is not None}
    if wanted:
        _refuse_missing("location", missing_locations(db, wanted))


def _refuse_missing(what: str, missing: Collection[int]) -> None:
    if missing:
        unknown = sorted(missing)
        raise UnprocessableContent(f"there is no {what} {', '.join(map(str, unknown[:20]))}", missing=unknown)
