"""Stored scenes as clients see them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .media import PlayableMedia
from .models import GameScene
from .schemas import Media, PlayedNode, Scene, SceneEdge, SceneNode, SceneSaved, SceneSummary, SceneWarning

__all__ = ["to_saved", "to_scene", "to_summary"]


def to_summary(scene: GameScene) -> SceneSummary:
    """Return the scene without its graph."""
    return SceneSummary(**_summary(scene))


def to_scene(scene: GameScene, media: Mapping[int, PlayableMedia]) -> Scene:
    """Return the scene with its graph, each node with those of its media that are in ``media``."""
    return Scene(**_whole(scene, media))


def to_saved(scene: GameScene, media: Mapping[int, PlayableMedia], warnings: list[SceneWarning]) -> SceneSaved:
    """Return the scene with what its author should look at."""
    return SceneSaved(**_whole(scene, media), warnings=warnings)


def _summary(scene: GameScene) -> dict[str, Any]:
    return {
        "id": str(scene.id),
        "title": scene.title,
        "description": scene.description,
        "start_node_id": scene.entry_node_id,
        "version": scene.version,
        "created_at": scene.created_at,
        "updated_at": scene.updated_at,
    }


def _whole(scene: GameScene, media: Mapping[int, PlayableMedia]) -> dict[str, Any]:
    return {
        **_summary(scene),
        "meta": scene.meta,
        "nodes": [_to_node(SceneNode.model_validate(node), media) for node in scene.nodes],
        "edges": [SceneEdge.model_validate(edge) for edge in scene.edges],
    }


def _to_node(node: SceneNode, media: Mapping[int, PlayableMedia]) -> PlayedNode:
    found = media.get(node.asset_id) if node.asset_id is not None else None
    return PlayedNode(
        **node.model_dump(exclude={"asset_id"}),
        asset_id=None if node.asset_id is None else str(node.asset_id),
        media=[] if found is None else [_to_media(found)],
    )


def _to_media(media: PlayableMedia) -> Media:
    return Media(id=str(media.id), url=media.url, duration_sec=media.duration_sec, tags=list(media.tags))
