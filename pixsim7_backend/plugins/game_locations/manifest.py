"""Game locations: the places of the world, and the hotspots in their pictures that start scenes."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response, status

from pixsim7_backend.conditional import IfMatch, etag
from pixsim7_backend.db import DbSession, ReadOnlyDb
from pixsim7_backend.infrastructure.plugins.types import PluginManifest
from pixsim7_backend.paging import Page, PageParams, paginate
from pixsim7_backend.plugins.auth import AdminUser, CurrentUser
from pixsim7_backend.storable import PathId, Text

from . import store
from .models import GameLocation
from .schemas import HotspotSet, LocationChanges, LocationDetail, LocationSummary, NewLocation

manifest = PluginManifest(
    id="game-locations",
    name="Game Locations",
    version="1.0.0",
    description="The places of the game's world and the hotspots in their pictures.",
    author="PixSim7",
    tags=["game-locations"],
    dependencies=["auth", "game-scenes"],
    after=["assets"],
    requires_db=True,
)

router = APIRouter(prefix="/game/locations", tags=["game-locations"])


@router.get("", include_in_schema=False)
@router.get("/")
def list_locations(
    _user: CurrentUser,
    db: ReadOnlyDb,
    page: PageParams,
    name: Annotated[Text | None, Query(max_length=200, description="only locations of exactly this name")] = None,
) -> Page[LocationSummary]:
    """List the locations by id, without their hotspots."""
    return paginate(db, store.locations(name), page)


@router.post("", include_in_schema=False, status_code=status.HTTP_201_CREATED)
@router.post("/", status_code=status.HTTP_201_CREATED)
def create_location(
    new: NewLocation, request: Request, response: Response, user: AdminUser, db: DbSession
) -> LocationDetail:
    """Create a location without hotspots; 422 when its picture is unknown."""
    location = store.create(db, new, user_id=user.id)
    response.headers["Location"] = request.url_for("get_location", location_id=location.id).path
    return _answer(location, response)


@router.get("/{location_id}")
def get_location(location_id: PathId, response: Response, _user: CurrentUser, db: ReadOnlyDb) -> LocationDetail:
    """Return a location with its hotspots."""
    return _answer(store.get(db, location_id), response)


@router.patch("/{location_id}")
def change_location(
    *,
    location_id: PathId,
    changes: LocationChanges,
    response: Response,
    if_match: IfMatch,
    user: AdminUser,
    db: DbSession,
) -> LocationDetail:
    """Replace the fields that are given; 412 when ``If-Match`` names an older version."""
    location = store.get_locked(db, location_id)
    if_match.require(location.version)
    store.change(db, location, changes, user_id=user.id)
    return _answer(location, response)


@router.delete("/{location_id}", status_code=status.HTTP_204_NO_CONTENT)
def delete_location(location_id: PathId, if_match: IfMatch, _admin: AdminUser, db: DbSession) -> None:
    """Delete a location and its hotspots; NPCs that live, stay or were put there let go of it."""
    location = store.get_locked(db, location_id)
    if_match.require(location.version)
    store.delete(db, location)


@router.put("/{location_id}/hotspots")
def replace_hotspots(
    *,
    location_id: PathId,
    new: HotspotSet,
    response: Response,
    if_match: IfMatch,
    _admin: AdminUser,
    db: DbSession,
) -> LocationDetail:
    """Replace all hotspots, or, when one of them is refused, none."""
    location = store.get_locked(db, location_id)
    if_match.require(location.version)
    store.replace_hotspots(db, location, new.hotspots)
    return _answer(location, response)


def _answer(location: GameLocation, response: Response) -> LocationDetail:
    response.headers["ETag"] = etag(location.version)
    return LocationDetail.model_validate(location)
