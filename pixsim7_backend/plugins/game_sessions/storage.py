"""Sessions in the database: the one place that reads, locks and changes them, for this plugin and for others."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol, cast

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from pixsim7_backend.db.models import utc_now
from pixsim7_backend.infrastructure.plugins import PluginEvents, plugin_hooks, ports
from pixsim7_backend.plugins.auth import UserIdentity
from pixsim7_backend.plugins.game_scenes import PlayGraph
from pixsim7_backend.problems import NotFound, UnprocessableContent

from .models import GameSession, SessionEvent
from .state import SessionState, find_problems, list_paths, merge_diff, plain

__all__ = ["WorldsPort", "begin", "change", "get_locked", "get_owned", "last_taken", "store"]

MAX_CHANGES_BYTES = 4096
MAX_PATHS = 100


class WorldsPort(Protocol):
    """What sessions want of the port ``worlds``; without it a world's id is stored unchecked."""

    def find_world_time(self, db: Session, world_id: int, user_id: int) -> float | None:
        """Return the time of the user's own world, or None when it is not theirs."""
        ...


def get_owned(db: Session, session_id: int, user: UserIdentity) -> GameSession:
    """Return the user's session, for reading.

    Raises:
        NotFound: there is none, or it is somebody else's.
    """
    return _get(db, _owned(session_id, user), session_id)


def get_locked(db: Session, session_id: int, user: UserIdentity) -> GameSession:
    """Return the user's session as it is now; until the transaction ends, nobody else can change it.

    A row lock on PostgreSQL; on SQLite the transaction of ``get_db`` is the only writer anyway.

    Raises:
        NotFound: there is none, or it is somebody else's.
    """
    statement = _owned(session_id, user).with_for_update().execution_options(populate_existing=True)
    return _get(db, statement, session_id)


def _owned(session_id: int, user: UserIdentity) -> Select[GameSession]:
    return select(GameSession).where(GameSession.id == session_id, GameSession.user_id == user.id)


def _get(db: Session, statement: Select[GameSession], session_id: int) -> GameSession:
    session = db.scalars(statement).one_or_none()
    if session is None:
        raise NotFound("game session", session_id)
    return session


def change(
    db: Session,
    session_id: int,
    user: UserIdentity,
    apply: Callable[[SessionState], SessionState],
    *,
    kind: str,
    detail: dict[str, Any] | None = None,
) -> GameSession:
    """Lock the user's session, store what ``apply`` makes of its state, and return it.

    ``apply`` runs once, and may change the state it is given as long as it returns what should be
    stored. Where the outcome belongs into ``detail``, use :func:`get_locked` and :func:`store`.

    Raises:
        NotFound: there is no such session, or it is somebody else's.
        UnprocessableContent: as :func:`store`.
    """
    session = get_locked(db, session_id, user)
    store(db, session, apply(session.state()), kind=kind, detail=detail)
    return session


def store(
    db: Session,
    session: GameSession,
    state: SessionState,
    *,
    kind: str,
    detail: dict[str, Any] | None = None,
    edge_id: str | None = None,
    at: datetime | None = None,
) -> dict[str, Any]:
    """Give ``session`` a new state, enter it into the history, and announce ``session:updated`` after the commit.

    ``at`` is when it happened, now unless given.

    Returns the changes: the merge patch from the old state to the new one, which is also the event's
    payload. When nothing changed and neither ``detail`` nor ``edge_id`` is given, nothing happens.
    A session that was read without a lock and has changed since is a ``StaleDataError`` (409).

    Raises:
        UnprocessableContent: the state is too large, or against the conventions.
        NotFound: ``flags.world.id`` now names a world that is not the user's.
    """
    before = session.state()
    problems = find_problems(state)
    if problems:
        raise UnprocessableContent(f"the session cannot be stored like this: {'; '.join(problems[:20])}")
    changes = merge_diff(before.to_json(), state.to_json())
    if not changes and detail is None and edge_id is None:
        return {}
    if state.world_id != before.world_id:
        check_world(db, state.world_id, session.user_id)
    for name in changes:
        setattr(session, name, getattr(state, name))
    db.flush()
    _record(db, session, kind=kind, detail=detail or {}, edge_id=edge_id, changes=changes, at=at)
    plugin_hooks.emit_after_commit(db, PluginEvents.SESSION_UPDATED, session.id, plain(changes))
    return changes


def begin(db: Session, graph: PlayGraph, world_id: int | None, user: UserIdentity) -> GameSession:
    """Start a session of the user's at the entry of ``graph``, and announce ``session:created`` after the commit.

    Raises:
        NotFound: the world is not the user's.
        Conflict: the scene has no entry node.
    """
    session = GameSession(
        user_id=user.id,
        scene_id=graph.scene_id,
        current_node_id=graph.entry(),
        flags={} if world_id is None else {"world": {"id": world_id}},
        relationships={},
        world_time=check_world(db, world_id, user.id),
    )
    db.add(session)
    db.flush()
    detail = {"scene_id": graph.scene_id, "node_id": session.current_node_id, "world_id": world_id}
    _record(db, session, kind="created", detail=detail, changes={})
    plugin_hooks.emit_after_commit(db, PluginEvents.SESSION_CREATED, session.id)
    return session


def check_world(db: Session, world_id: int | None, user_id: int) -> float:
    """Return the time of the user's world; 0 without a world, or where nobody keeps worlds.

    Raises:
        NotFound: the world does not exist or is somebody else's.
    """
    worlds = cast("WorldsPort | None", ports.find("worlds"))
    if world_id is None or worlds is None:
        return 0.0
    time = worlds.find_world_time(db, world_id, user_id)
    if time is None:
        raise NotFound("game world", world_id)
    return time


def last_taken(db: Session, session_id: int, edge_id: str) -> datetime | None:
    """Return when the session last took the edge, or None."""
    taken = select(func.max(SessionEvent.at)).where(
        SessionEvent.session_id == session_id, SessionEvent.edge_id == edge_id
    )
    return db.scalar(taken)


def _record(
    db: Session,
    session: GameSession,
    *,
    kind: str,
    detail: dict[str, Any],
    changes: dict[str, Any],
    edge_id: str | None = None,
    at: datetime | None = None,
) -> None:
    is_short = len(json.dumps(changes, ensure_ascii=False).encode()) <= MAX_CHANGES_BYTES
    event = SessionEvent(
        session_id=session.id,
        kind=kind,
        at=at or utc_now(),
        session_version=session.version,
        edge_id=edge_id,
        detail=detail,
        paths=list(list_paths(changes)[:MAX_PATHS]),
        changes=changes if is_short else None,
    )
    db.add(event)
    db.flush()
