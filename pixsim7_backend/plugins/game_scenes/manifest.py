"""Game scenes: playback graphs of nodes and edges, with conditions and effects for those who walk them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response, status
from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from pixsim7_backend.conditional import IfMatch, etag
from pixsim7_backend.db import DbSession, ReadOnlyDb
from pixsim7_backend.infrastructure.plugins.types import PluginManifest
from pixsim7_backend.paging import Page, PageParams, paginate
from pixsim7_backend.plugins.auth import AdminUser, CurrentUser, UserIdentity
from pixsim7_backend.storable import PathId, Text

from . import media, store
from .models import GameScene
from .schemas import Scene, SceneGraph, SceneSaved, SceneSummary
from .views import to_saved, to_scene, to_summary

manifest = PluginManifest(
    id="game-scenes",
    name="Game Scenes",
    version="1.0.0",
    description="Playback graphs of nodes and edges, with conditions and effects for those who walk them.",
    author="PixSim7",
    tags=["game-scenes"],
    dependencies=["auth"],
    after=["assets"],
    requires_db=True,
)

router = APIRouter(prefix="/game/scenes", tags=["game-scenes"])


@router.get("", include_in_schema=False)
@router.get("/")
def list_scenes(
    _user: CurrentUser,
    db: ReadOnlyDb,
    page: PageParams,
    title: Annotated[Text | None, Query(max_length=200, description="text that the title contains")] = None,
    playable: Annotated[bool | None, Query(description="only scenes with (or without) an entry node")] = None,
) -> Page[SceneSummary]:
    """List the scenes by id, without their graphs."""
    scenes = select(GameScene).options(defer(GameScene.nodes), defer(GameScene.edges), defer(GameScene.meta))
    if title is not None:
        scenes = scenes.where(GameScene.title.icontains(title, autoescape=True))
    if playable is not None:
        has_entry = GameScene.entry_node_id.is_not(None)
        scenes = scenes.where(has_entry if playable else ~has_entry)
    return paginate(db, scenes, page, to_summary)


@router.post("", include_in_schema=False, status_code=status.HTTP_201_CREATED)
@router.post("/", status_code=status.HTTP_201_CREATED)
def create_scene(graph: SceneGraph, request: Request, response: Response, user: AdminUser, db: DbSession) -> SceneSaved:
    """Store a whole graph; 422 names everything that is wrong with it, ``warnings`` what is only odd."""
    media.check_assets(db, (node.asset_id for node in graph.nodes), user.id)
    scene = store.create(db, graph)
    response.headers["Location"] = str(request.url_for("game_scene", scene_id=scene.id).path)
    return _saved(db, scene, graph, user, response)


@router.get("/{scene_id}", name="game_scene")
def get_scene(scene_id: PathId, response: Response, user: CurrentUser, db: ReadOnlyDb) -> Scene:
    """Return a scene ready to be played; 409 while it has no entry node."""
    scene = store.get(db, scene_id)
    store.require_entry(scene)
    response.headers["ETag"] = etag(scene.version)
    return to_scene(scene, media.find_media(db, (node.get("asset_id") for node in scene.nodes), user.id))


@router.put("/{scene_id}")
def replace_scene(
    *, scene_id: PathId, graph: SceneGraph, response: Response, if_match: IfMatch, user: AdminUser, db: DbSession
) -> SceneSaved:
    """Replace a whole scene, or nothing of it.

    Node and edge ids are the author's, so sessions go on where they stand; one whose node is gone
    stays there and gets 409 when it wants to advance.
    """
    media.check_assets(db, (node.asset_id for node in graph.nodes), user.id)
    scene = store.get_locked(db, scene_id)
    if_match.require(scene.version)
    return _saved(db, store.replace(db, scene, graph), graph, user, response)


@router.delete("/{scene_id}", status_code=status.HTTP_204_NO_CONTENT)
def delete_scene(scene_id: PathId, if_match: IfMatch, _user: AdminUser, db: DbSession) -> None:
    """Delete a scene; sessions in it keep what they remember, but cannot advance."""
    scene = store.get_locked(db, scene_id)
    if_match.require(scene.version)
    db.delete(scene)
    db.flush()


def _saved(db: Session, scene: GameScene, graph: SceneGraph, user: UserIdentity, response: Response) -> SceneSaved:
    response.headers["ETag"] = etag(scene.version)
    found = media.find_media(db, (node.asset_id for node in graph.nodes), user.id)
    return to_saved(scene, found, graph.warnings())
