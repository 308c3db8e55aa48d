"""Game sessions: each player's walks through scenes, with everything they remember of it."""

from __future__ import annotations

import math
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response, status
from sqlalchemy import select
from sqlalchemy.orm import defer

from pixsim7_backend.conditional import IfMatch, etag
from pixsim7_backend.db import DbSession, ReadOnlyDb
from pixsim7_backend.db.models import utc_now
from pixsim7_backend.infrastructure.plugins.types import PluginManifest
from pixsim7_backend.paging import Page, PageParams, paginate
from pixsim7_backend.plugins.auth import CurrentUser
from pixsim7_backend.problems import Conflict
from pixsim7_backend.storable import PathId, RowId

from . import rules, storage, walking
from .models import GameSession, SessionEvent
from .schemas import EventView, NewSession, SessionPatch, SessionSummary, SessionView, Step

manifest = PluginManifest(
    id="game-sessions",
    name="Game Sessions",
    version="1.0.0",
    description="Each player's walks through scenes, with everything they remember of it.",
    author="PixSim7",
    tags=["game-sessions"],
    dependencies=["auth", "game-scenes"],
    after=["game-worlds"],
    requires_db=True,
)

router = APIRouter(prefix="/game/sessions", tags=["game-sessions"])


@router.get("", include_in_schema=False)
@router.get("/")
def list_sessions(
    user: CurrentUser,
    db: ReadOnlyDb,
    page: PageParams,
    scene_id: Annotated[RowId | None, Query(description="only sessions of this scene")] = None,
) -> Page[SessionSummary]:
    """List the caller's sessions by id, without what they remember."""
    without_memory = defer(GameSession.flags), defer(GameSession.relationships)
    sessions = select(GameSession).where(GameSession.user_id == user.id).options(*without_memory)
    if scene_id is not None:
        sessions = sessions.where(GameSession.scene_id == scene_id)
    return paginate(db, sessions, page)


@router.post("", include_in_schema=False, status_code=status.HTTP_201_CREATED)
@router.post("/", status_code=status.HTTP_201_CREATED)
def create_session(
    new: NewSession, request: Request, response: Response, user: CurrentUser, db: DbSession
) -> SessionView:
    """Begin at the scene's entry; 404 for an unknown scene or a world that is not the caller's, 409 for a draft."""
    session = walking.begin(db, new, user)
    response.headers["Location"] = str(request.url_for("game_session", session_id=session.id).path)
    return _answer(session, response)


@router.get("/{session_id}", name="game_session")
def get_session(session_id: PathId, response: Response, user: CurrentUser, db: ReadOnlyDb) -> SessionView:
    """Return one of the caller's sessions."""
    return _answer(storage.get_owned(db, session_id, user), response)


@router.patch("/{session_id}")
def patch_session(
    *, session_id: PathId, patch: SessionPatch, response: Response, if_match: IfMatch, user: CurrentUser, db: DbSession
) -> SessionView:
    """Merge the patch (RFC 7386) into the session; 412 when ``If-Match`` names an older version.

    Without ``If-Match`` patches are merged one after the other: of two that set the same member
    the later wins, everything else of both stays.
    """
    session = storage.get_locked(db, session_id, user)
    if_match.require(session.version)
    storage.store(db, session, walking.patched(session.state(), patch), kind="patched")
    return _answer(session, response)


@router.delete("/{session_id}", status_code=status.HTTP_204_NO_CONTENT)
def delete_session(session_id: PathId, if_match: IfMatch, user: CurrentUser, db: DbSession) -> None:
    """Delete a session and its history; 412 when ``If-Match`` names an older version."""
    session = storage.get_locked(db, session_id, user)
    if_match.require(session.version)
    db.delete(session)
    db.flush()


@router.post("/{session_id}/advance")
def advance_session(
    *, session_id: PathId, step: Step, response: Response, if_match: IfMatch, user: CurrentUser, db: DbSession
) -> SessionView:
    """Take an edge: its effects are applied and the session stands at its end.

    409 when it starts elsewhere, a condition does not hold (``failed`` lists which), it is cooling down
    (``Retry-After`` says for how long), or the session's place is no longer in the scene.
    """
    session = storage.get_locked(db, session_id, user)
    if_match.require(session.version)
    try:
        walking.advance(db, session, step.edge_id, now=utc_now())
    except rules.AdvanceRefusedError as refusal:
        raise _to_conflict(refusal) from None
    return _answer(session, response)


@router.get("/{session_id}/events")
def list_events(session_id: PathId, user: CurrentUser, db: ReadOnlyDb, page: PageParams) -> Page[EventView]:
    """Return the history of a session, oldest first."""
    session = storage.get_owned(db, session_id, user)
    return paginate(db, select(SessionEvent).where(SessionEvent.session_id == session.id), page)


def _answer(session: GameSession, response: Response) -> SessionView:
    response.headers["ETag"] = etag(session.version)
    return SessionView.model_validate(session)


def _to_conflict(refusal: rules.AdvanceRefusedError) -> Conflict:
    match refusal:
        case rules.ConditionsFailedError(failed=failed):
            return Conflict(str(refusal), reason=refusal.reason, failed=list(failed))
        case rules.CoolingDownError(seconds_left=left):
            headers = {"Retry-After": str(math.ceil(left))}
            return Conflict(str(refusal), headers=headers, reason=refusal.reason, failed=[str(refusal)])
        case _:
            return Conflict(str(refusal), reason=refusal.reason)
