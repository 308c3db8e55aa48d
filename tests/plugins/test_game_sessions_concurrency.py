from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import httpx
import pytest

from tests.plugins.conftest import Backend, Client

pytestmark = pytest.mark.anyio

SESSIONS = "/api/v1/game/sessions/"
FORK: dict[str, Any] = {
    "title": "Fork",
    "entry_node_id": "fork",
    "nodes": [{"id": "fork"}, {"id": "left"}, {"id": "right"}],
    "edges": [
        {"id": "left", "from": "fork", "to": "left", "effects": [{"type": "increment_flag", "path": "taken"}]},
        {"id": "right", "from": "fork", "to": "right", "effects": [{"type": "increment_flag", "path": "taken"}]},
        {"id": "stay", "from": "fork", "to": "fork", "effects": [{"type": "increment_flag", "path": "stayed"}]},
        {"id": "rarely", "from": "fork", "to": "fork", "cooldown_sec": 600},
    ],
}
Call = Callable[[], Awaitable[httpx.Response]]


@pytest.fixture(scope="module")
def live_workers() -> int:
    """Two processes: what holds only inside one is not safe."""
    return 2


@pytest.fixture
async def player(live_backend: Backend) -> Client:
    """A player of a real server with two processes."""
    return await live_backend.sign_up("player")


@pytest.fixture
async def place(live_backend: Backend, player: Client) -> str:
    """The path of a session of the player's."""
    author = await live_backend.sign_up("author", role="admin")
    scene = (await author.post("/api/v1/game/scenes/", json=FORK)).json()
    session = (await player.post(SESSIONS, json={"scene_id": scene["id"]})).json()
    return f"{SESSIONS}{session['id']}"


async def _all_at_once(calls: list[Call]) -> list[httpx.Response]:
    answers: list[httpx.Response] = []

    async def run(call: Call) -> None:
        answers.append(await call())

    async with anyio.create_task_group() as tasks:
        for call in calls:
            tasks.start_soon(run, call)
    return answers


def _patch(player: Client, place: str, flags: dict[str, Any], tag: str | None = None) -> Call:
    return lambda: player.patch(place, json={"flags": flags}, headers={"If-Match": tag} if tag else {})


def _take(player: Client, place: str, edge_id: str) -> Call:
    return lambda: player.post(f"{place}/advance", json={"edge_id": edge_id})


async def test_of_two_patches_with_one_tag_exactly_one_wins(player: Client, place: str) -> None:
    """The other gets 412, and what is stored is what the winner was told; no write is lost in silence."""
    for turn in range(5):
        before = await player.get(place)
        tag = before.headers["etag"]
        answers = await _all_at_once([_patch(player, place, {"by": {who: turn}}, tag) for who in ("ann", "bob")])
        assert sorted(answer.status_code for answer in answers) == [200, 412]
        winner = next(answer for answer in answers if answer.status_code == 200)
        assert (await player.get(place)).json() == winner.json()


async def test_clients_that_read_and_retry_all_get_their_turn(player: Client, place: str) -> None:
    """Four clients count up one flag with If-Match, four times each: 16 at the end."""

    async def count_up() -> None:
        done = 0
        while done < 4:
            read = await player.get(place)
            flags = {"count": read.json()["flags"].get("count", 0) + 1}
            done += (await _patch(player, place, flags, read.headers["etag"])()).status_code == 200

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(count_up)
    assert (await player.get(place)).json()["flags"] == {"count": 16}


async def test_patches_without_a_tag_are_merged_one_after_the_other(player: Client, place: str) -> None:
    """12 patches of different members of one object are all there, each with a version of its own."""
    calls = [_patch(player, place, {"seen": {f"n{number}": number}}) for number in range(12)]
    answers = await _all_at_once(calls)
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["version"] for answer in answers}) == 12
    session = (await player.get(place)).json()
    assert session["flags"]["seen"] == {f"n{number}": number for number in range(12)}
    assert (await player.get(f"{place}/events")).json()["total"] == 13


async def test_of_two_ways_out_of_a_node_only_one_is_taken(player: Client, place: str) -> None:
    """Whoever comes second is no longer at the fork: 409, and only one effect has happened."""
    answers = await _all_at_once([_take(player, place, "left"), _take(player, place, "right")])
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    won, lost = sorted(answers, key=lambda answer: answer.status_code)
    session = (await player.get(place)).json()
    assert session == won.json()
    assert session["flags"] == {"taken": 1}
    assert lost.json()["reason"] == "edge-elsewhere"


async def test_an_edge_that_stays_may_be_taken_by_all(player: Client, place: str) -> None:
    """12 at once count to 12, each recorded with the version it made."""
    answers = await _all_at_once([_take(player, place, "stay")] * 12)
    assert {answer.status_code for answer in answers} == {200}
    assert (await player.get(place)).json()["flags"] == {"stayed": 12}
    history = (await player.get(f"{place}/events", params={"limit": 100})).json()["items"]
    assert [event["session_version"] for event in history] == list(range(1, 14))


async def test_a_cooldown_lets_one_of_many_through(player: Client, place: str) -> None:
    """Also where all ask at the same moment."""
    answers = await _all_at_once([_take(player, place, "rarely")] * 12)
    assert Counter(answer.status_code for answer in answers) == {200: 1, 409: 11}
