"""Walking a scene: where the rules, the scene's graph and the stored session come together."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from pixsim7_backend.merge_patch import merge_patch
from pixsim7_backend.plugins.auth import UserIdentity
from pixsim7_backend.plugins.game_scenes import PlayGraph, get_graph
from pixsim7_backend.problems import Conflict, NotFound

from . import rules, storage
from .models import GameSession
from .schemas import NewSession, SessionPatch
from .state import SessionState

__all__ = ["advance", "begin", "patched"]


def begin(db: Session, new: NewSession, user: UserIdentity) -> GameSession:
    """Start a session at the entry of a scene.

    Raises:
        NotFound: there is no such scene, or the world is not the user's.
        Conflict: the scene has no entry node.
    """
    return storage.begin(db, get_graph(db, new.scene_id), new.world_id, user)


def advance(db: Session, session: GameSession, edge_id: str, *, now: datetime) -> None:
    """Take an edge with a locked session.

    Raises:
        NotFound: the scene has no such edge.
        Conflict: the scene, or the session's place in it, is gone.
        AdvanceRefusedError: the edge may not be taken now.
    """
    graph = _graph_of(db, session)
    edge = graph.find_edge(edge_id)
    if edge is None:
        raise NotFound(f"edge {edge_id!r} in game scene {graph.scene_id}")
    taken_at = storage.last_taken(db, session.id, edge.id) if edge.cooldown_sec else None
    after = rules.take_edge(session.state(), edge, last_taken=taken_at, now=now)
    detail = {"from": edge.from_node, "to": edge.to_node, "choice_label": edge.choice_label}
    storage.store(db, session, after, kind="advanced", detail=detail, edge_id=edge.id, at=now)


def _graph_of(db: Session, session: GameSession) -> PlayGraph:
    if session.scene_id is None:
        raise Conflict(
            f"the scene of game session {session.id} has been deleted; begin a new session", reason="scene-gone"
        )
    graph = get_graph(db, session.scene_id)
    if session.current_node_id not in graph.node_ids:
        raise Conflict(
            f"game session {session.id} is at node {session.current_node_id!r}, which is no longer in game scene"
            f" {graph.scene_id}; begin a new session, or have the node put back",
            reason="node-gone",
        )
    return graph


def patched(state: SessionState, patch: SessionPatch) -> SessionState:
    """Return ``state`` with the merge patch applied."""
    before = {"world_time": state.world_time, "flags": state.flags, "relationships": state.relationships}
    after: dict[str, Any] = merge_patch(before, patch.model_dump(exclude_unset=True))
    return replace(
        state,
        world_time=after["world_time"],
        flags=after.get("flags", {}),
        relationships=after.get("relationships", {}),
    )
