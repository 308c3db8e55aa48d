"""What other plugins use of game-sessions: reading, locking and changing what a play-through remembers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import anyio.to_thread
import pytest
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError

from pixsim7_backend.infrastructure.plugins import PluginEvents, plugin_hooks
from pixsim7_backend.plugins import game_sessions as sessions
from pixsim7_backend.plugins.auth import Role, UserIdentity
from pixsim7_backend.plugins.game_sessions import SessionState
from pixsim7_backend.problems import NotFound, UnprocessableContent
from tests.plugins.conftest import Backend, Client

pytestmark = pytest.mark.anyio

Result = TypeVar("Result")


@pytest.fixture
async def user(backend: Backend, user_client: Client, admin_client: Client) -> UserIdentity:
    """A player with one session, whose id is 1."""
    graph = {"title": "Cell", "entry_node_id": "cell", "nodes": [{"id": "cell"}]}
    scene = (await admin_client.post("/api/v1/game/scenes/", json=graph)).json()
    session = await user_client.post("/api/v1/game/sessions/", json={"scene_id": scene["id"]})
    assert session.json()["id"] == 1
    await user_client.patch("/api/v1/game/sessions/1", json={"flags": {"bag": {"coins": 1}}})
    await plugin_hooks.settle()
    account = user_client.user
    return UserIdentity(id=account["id"], email=account["email"], username=account["username"], role=Role.USER)


@pytest.fixture
def updates() -> Iterator[list[tuple[Any, ...]]]:
    """The payloads of ``session:updated``."""
    heard: list[tuple[Any, ...]] = []
    subscription = plugin_hooks.register(PluginEvents.SESSION_UPDATED, lambda *payload: heard.append(payload))
    yield heard
    subscription.cancel()


async def _in_session(backend: Backend, work: Callable[[Session], Result]) -> Result:
    """Run ``work`` in a transaction of its own, committed at its end."""

    def run() -> Result:
        with backend.database.session() as db:
            return work(db)

    return await anyio.to_thread.run_sync(run)


async def test_change_stores_records_and_announces(
    backend: Backend, user: UserIdentity, user_client: Client, updates: list[tuple[Any, ...]]
) -> None:
    """One call changes the state, enters the caller's words into the history and announces the difference."""

    def spend(state: SessionState) -> SessionState:
        state.flags["bag"]["coins"] -= 1
        return replace(state, relationships={"npc:2": {"affinity": 5}})

    def work(db: Session) -> int:
        session = sessions.change(db, 1, user, spend, kind="bribe", detail={"npc_id": 2})
        return session.version

    assert await _in_session(backend, work) == 3
    await plugin_hooks.settle()
    assert updates[-1:] == [(1, {"flags": {"bag": {"coins": 0}}, "relationships": {"npc:2": {"affinity": 5}}})]
    stored = (await user_client.get("/api/v1/game/sessions/1")).json()
    assert (stored["flags"], stored["relationships"]) == ({"bag": {"coins": 0}}, {"npc:2": {"affinity": 5}})
    event = (await user_client.get("/api/v1/game/sessions/1/events")).json()["items"][-1]
    assert (event["kind"], event["detail"], event["session_version"]) == ("bribe", {"npc_id": 2}, 3)
    assert event["paths"] == ["flags.bag.coins", "relationships.npc:2.affinity"]


async def test_only_what_is_returned_is_stored(
    backend: Backend, user: UserIdentity, user_client: Client, updates: list[tuple[Any, ...]]
) -> None:
    """A rule that changes the state it was given, but returns another, has changed nothing."""

    def waver(state: SessionState) -> SessionState:
        kept = state.copied()
        state.flags["bag"]["coins"] = 99
        return kept

    before = (await user_client.get("/api/v1/game/sessions/1")).json()
    await _in_session(backend, lambda db: sessions.change(db, 1, user, waver, kind="waver"))
    await plugin_hooks.settle()
    assert (await user_client.get("/api/v1/game/sessions/1")).json() == before
    assert updates == []


async def test_a_change_that_is_rolled_back_never_happened(
    backend: Backend, user: UserIdentity, user_client: Client, updates: list[tuple[Any, ...]]
) -> None:
    """Neither stored nor recorded nor announced."""

    def work(db: Session) -> None:
        sessions.change(db, 1, user, lambda state: replace(state, flags={}), kind="forget")
        raise ZeroDivisionError

    before = (await user_client.get("/api/v1/game/sessions/1")).json()
    with pytest.raises(ZeroDivisionError):
        await _in_session(backend, work)
    await plugin_hooks.settle()
    assert (await user_client.get("/api/v1/game/sessions/1")).json() == before
    assert (await user_client.get("/api/v1/game/sessions/1/events")).json()["total"] == 2
    assert updates == []


async def test_what_cannot_be_stored_is_refused_with_every_reason(backend: Backend, user: UserIdentity) -> None:
    """A plugin whose rule breaks the conventions learns all about it, as a problem rather than an accident."""
    broken: dict[str, Any] = {"flags": {"stealth": 1}, "relationships": {"npc:1": 2}, "world_time": -1.0}
    with pytest.raises(UnprocessableContent) as caught:
        await _in_session(
            backend, lambda db: sessions.change(db, 1, user, lambda state: replace(state, **broken), kind="break")
        )
    assert caught.value.detail == (
        "the session cannot be stored like this: world_time: must lie between 0 and 1000000000000 seconds;"
        " flags.stealth: must be an object; relationships.npc:1: must be an object"
    )


@pytest.mark.parametrize("read", [sessions.get_owned, sessions.get_locked])
async def test_somebody_elses_session_does_not_exist(
    backend: Backend, user: UserIdentity, read: Callable[[Session, int, UserIdentity], Any]
) -> None:
    """Reading, locking and changing all say the same."""
    stranger = replace(user, id=user.id + 1)
    for session_id, who in ((1, stranger), (2, user)):
        with pytest.raises(NotFound, match=f"there is no game session {session_id}"):
            await _in_session(backend, lambda db, at=session_id, by=who: read(db, at, by))  # type: ignore[misc]


async def test_a_session_changed_without_a_lock_is_never_overwritten(backend: Backend, user: UserIdentity) -> None:
    """Who read it, forgot to lock it, and stores after somebody else did is told so, and loses nothing of theirs."""

    def overwrite(db: Session) -> None:
        db.add(stale)
        sessions.store(db, stale, replace(stale.state(), flags={"second": 2}), kind="slow")

    stale = await _in_session(backend, lambda db: sessions.get_owned(db, 1, user))
    await _in_session(
        backend, lambda db: sessions.change(db, 1, user, lambda state: replace(state, flags={"first": 1}), kind="quick")
    )
    with pytest.raises(StaleDataError):
        await _in_session(backend, overwrite)
    flags = await _in_session(backend, lambda db: sessions.get_owned(db, 1, user).state().flags)
    assert flags == {"first": 1}
