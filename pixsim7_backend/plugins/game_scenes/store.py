"""Scenes in the database, and what other plugins may ask of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from pixsim7_backend.problems import Conflict, NotFound

from .models import GameScene
from .schemas import SceneEdge, SceneGraph

__all__ = ["PlayGraph", "create", "get", "get_graph", "get_locked", "missing_scenes", "replace", "require_entry"]


@dataclass(frozen=True, slots=True)
class PlayGraph:
    """The graph of a stored scene, as players walk it."""

    scene_id: int
    node_ids: frozenset[str]
    _entry_node_id: str | None
    _edges: Mapping[str, dict[str, object]]

    def entry(self) -> str:
        """Return the node where playing begins; raise Conflict for a draft, which has none."""
        return _require_entry(self.scene_id, self._entry_node_id)

    def find_edge(self, edge_id: str) -> SceneEdge | None:
        """Return the edge with its conditions and effects, or None."""
        stored = self._edges.get(edge_id)
        return None if stored is None else SceneEdge.model_validate(stored)


def get_graph(db: Session, scene_id: int) -> PlayGraph:
    """Return the graph of a scene, a draft's too.

    Raises:
        NotFound: there is no such scene.
    """
    return _to_graph(get(db, scene_id))


def require_entry(scene: GameScene) -> str:
    """Return the entry node of ``scene``; raise Conflict when it has none."""
    return _require_entry(scene.id, scene.entry_node_id)


def _require_entry(scene_id: int, entry_node_id: str | None) -> str:
    if entry_node_id is None:
        raise Conflict(f"game scene {scene_id} has no entry node; PUT it with `entry_node_id` to make it playable")
    return entry_node_id


def missing_scenes(db: Session, scene_ids: Collection[int]) -> frozenset[int]:
    """Return those of ``scene_ids`` that name no scene."""
    found = db.scalars(select(GameScene.id).where(GameScene.id.in_(set(scene_ids))))
    return frozenset(scene_ids) - set(found)


def _to_graph(scene: GameScene) -> PlayGraph:
    return PlayGraph(
        scene_id=scene.id,
        _entry_node_id=scene.entry_node_id,
        node_ids=frozenset(node["id"] for node in scene.nodes),
        _edges={edge["id"]: edge for edge in scene.edges},
    )


def get(db: Session, scene_id: int) -> GameScene:
    """Return the scene; raise NotFound when there is none."""
    scene = db.scalars(select(GameScene).where(GameScene.id == scene_id)).one_or_none()
    if scene is None:
        raise NotFound("game scene", scene_id)
    return scene


def get_locked(db: Session, scene_id: int) -> GameScene:
    """Return the scene as it is now, kept from other writers until the transaction ends."""
    statement = select(GameScene).where(GameScene.id == scene_id).with_for_update()
    scene = db.scalars(statement.execution_options(populate_existing=True)).one_or_none()
    if scene is None:
        raise NotFound("game scene", scene_id)
    return scene


def create(db: Session, graph: SceneGraph) -> GameScene:
    """Store a new scene."""
    scene = GameScene()
    db.add(scene)
    return replace(db, scene, graph)


def replace(db: Session, scene: GameScene, graph: SceneGraph) -> GameScene:
    """Put ``graph`` in the place of everything that ``scene`` is."""
    scene.title = graph.title
    scene.description = graph.description
    scene.entry_node_id = graph.entry_node_id
    scene.meta = graph.meta
    scene.nodes = [node.model_dump(mode="json") for node in graph.nodes]
    scene.edges = [edge.model_dump(mode="json", by_alias=True) for edge in graph.edges]
    db.flush()
    return scene
