"""Picking pockets over HTTP, on both databases."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from pixsim7_backend.infrastructure.plugins import PluginEvents, plugin_hooks, ports
from pixsim7_backend.infrastructure.plugins.testing import override_by_name
from tests.plugins.conftest import Backend, make

pytestmark = pytest.mark.anyio

PICKPOCKET = "/api/v1/game/stealth/pickpocket"
SESSIONS = "/api/v1/game/sessions"
SCENE = {"title": "Market", "entry_node_id": "a", "nodes": [{"id": "a"}]}
HEARD = (PluginEvents.SESSION_UPDATED, PluginEvents.INTERACTION_EXECUTED)


class LoadedDice:
    """Draws the given numbers, then for ever the last one."""

    def __init__(self, *draws: float) -> None:
        self.draws = list(draws)

    def random(self) -> float:
        """Return the next number."""
        return self.draws.pop(0) if len(self.draws) > 1 else self.draws[0]


Load = Callable[..., LoadedDice]


@pytest.fixture
def dice() -> Iterator[Load]:
    """Decide the chance of the test: ``dice(0.1, 0.9)`` are the next draws."""
    withdrawals: list[Callable[[], None]] = []

    def load(*draws: float) -> LoadedDice:
        for withdraw in withdrawals:
            withdraw()
        loaded = LoadedDice(*draws)
        withdrawals[:] = [ports.provide("random", loaded)]
        return loaded

    yield load
    for withdraw in withdrawals:
        withdraw()


async def make_stage(admin: httpx.AsyncClient, player: httpx.AsyncClient) -> tuple[int, int]:
    """Create an NPC and a session of the player's; return their ids."""
    npc_id = await make(admin, "npcs", name="Mira")
    scene_id = await make(admin, "scenes", **SCENE)
    return npc_id, await make(player, "sessions", scene_id=scene_id)


def attempt(session_id: int, npc_id: int, success: float = 0.5, detection: float = 0.5, **more: Any) -> dict[str, Any]:
    """An attempt as a client sends it."""
    return {
        "session_id": session_id,
        "npc_id": npc_id,
        "slot_id": "purse",
        "base_success_chance": success,
        "detection_chance": detection,
    } | more


async def read(client: httpx.AsyncClient, session_id: int) -> dict[str, Any]:
    """Read a session."""
    answer = await client.get(f"{SESSIONS}/{session_id}")
    assert answer.status_code == 200, answer.text
    session: dict[str, Any] = answer.json()
    return session


async def test_the_four_endings(admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient, dice: Load) -> None:
    """Success and detection are drawn apart; each ending has its literal message, and everything is stored."""
    npc_id, session_id = await make_stage(admin_client, user_client)
    dice(0.1, 0.9, 0.9, 0.9, 0.1, 0.1, 0.9, 0.1)
    messages = [
        f"You successfully pickpocketed NPC #{npc_id}!",
        f"Pickpocket attempt on NPC #{npc_id} failed.",
        f"You successfully pickpocketed NPC #{npc_id}! You were detected!",
        f"Pickpocket attempt on NPC #{npc_id} failed. You were detected!",
    ]
    for number, message in enumerate(messages, start=1):
        answer = await user_client.post(PICKPOCKET, json=attempt(session_id, npc_id))
        assert answer.status_code == 200, answer.text
        result = answer.json()
        assert result["message"] == message
        assert result["success"] is message.startswith("You successfully")
        assert result["detected"] is message.endswith("detected!")
        stored = await read(user_client, session_id)
        assert stored["flags"] == result["updated_flags"]
        assert len(stored["flags"]["stealth"]["pickpocket_attempts"]) == number
    stealth = stored["flags"]["stealth"]
    assert stealth[f"stole_from_npc_{npc_id}"] is True
    assert stealth[f"caught_by_npc_{npc_id}"] is True
    assert stealth["suspicion"] == {f"npc:{npc_id}": 0.5}
    assert stored["relationships"][f"npc:{npc_id}"]["flags"] == {"caught_pickpocketing": True}
    last = stealth["pickpocket_attempts"][-1]
    at = datetime.fromisoformat(last.pop("at"))
    assert at.utcoffset() == timedelta(0)
    assert last == {"npc_id": npc_id, "slot_id": "purse", "success": False, "detected": True}


async def test_a_chance_of_0_never_and_of_1_always_happens(
    admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient
) -> None:
    """Without loaded dice too."""
    npc_id, session_id = await make_stage(admin_client, user_client)
    for _ in range(5):
        never = (await user_client.post(PICKPOCKET, json=attempt(session_id, npc_id, 0, 0))).json()
        assert (never["success"], never["detected"]) == (False, False)
    for _ in range(5):
        always = (await user_client.post(PICKPOCKET, json=attempt(session_id, npc_id, 1, 1))).json()
        assert (always["success"], always["detected"]) == (True, True)


async def test_suspicion_is_stored_and_raises_the_next_chance_to_be_seen(
    admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient, dice: Load
) -> None:
    """Seen once (0.25): a draw of 0.26 is now below 0.2 + 0.3 * 0.25 = 0.275, and no longer after fading to 0.2."""
    npc_id, session_id = await make_stage(admin_client, user_client)
    suspicions = []
    for draw in (0.26, 0.1, 0.28, 0.261, 0.259):
        dice(0.9, draw)
        result = (await user_client.post(PICKPOCKET, json=attempt(session_id, npc_id, 0.5, 0.2))).json()
        suspicions.append((result["detected"], result["updated_flags"]["stealth"]["suspicion"][f"npc:{npc_id}"]))
    assert suspicions == [(False, 0.0), (True, 0.25), (False, 0.2), (False, 0.15), (False, 0.1)]


async def test_standing_falls_where_it_exists_and_stays_stored(
    admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient
) -> None:
    """Each time seen costs 10 of score and affinity, never below 0; every change of the JSON is really kept."""
    npc_id, session_id = await make_stage(admin_client, user_client)
    key = f"npc:{npc_id}"
    known = {key: {"affinity": 25, "score": 12.5, "trust": 7, "flags": {"met": True}}, "npc:77": {"score": 5}}
    patched = await user_client.patch(f"{SESSIONS}/{session_id}", json={"relationships": known, "flags": {"coins": 3}})
    assert patched.status_code == 200, patched.text
    seen = []
    for _ in range(4):
        await user_client.post(PICKPOCKET, json=attempt(session_id, npc_id, 0, 1))
        relationship = (await read(user_client, session_id))["relationships"][key]
        seen.append((relationship["affinity"], relationship["score"]))
    assert seen == [(15, 2.5), (5, 0), (0, 0), (0, 0)]
    stored = await read(user_client, session_id)
    assert stored["relationships"][key]["trust"] == 7
    assert stored["relationships"][key]["flags"] == {"met": True, "caught_pickpocketing": True}
    assert stored["relationships"]["npc:77"] == {"score": 5}
    assert stored["flags"]["coins"] == 3


async def test_an_operator_tunes_it_while_people_play(
    running_app: FastAPI, admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient, dice: Load
) -> None:
    """With a changed setting the very next attempt costs as much suspicion as it says, without a restart."""
    manager = running_app.state.plugin_manager
    session_id, npc_id = await make_stage(admin_client, user_client)
    for seen, expected in ((0.5, 0.5), (None, 0.75)):
        await manager.change_settings("game-stealth", {"suspicion_when_seen": seen})
        dice(0.9, 0.0)
        answer = await user_client.post("/api/v1/game/stealth/pickpocket", json=attempt(session_id, npc_id))
        assert answer.json()["detected"]
        assert (await read(user_client, session_id))["flags"]["stealth"]["suspicion"] == {f"npc:{npc_id}": expected}


async def test_an_attempt_is_announced_and_entered_into_the_history(
    admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient, heard: list[tuple[Any, ...]]
) -> None:
    """``interaction:executed`` and ``session:updated`` once it is stored; a refused attempt announces nothing."""
    npc_id, session_id = await make_stage(admin_client, user_client)
    await user_client.post(PICKPOCKET, json=attempt(session_id, npc_id, 1, 0))
    assert (await user_client.post(PICKPOCKET, json=attempt(session_id, 999))).status_code == 404
    await plugin_hooks.settle()
    assert [event[0] for event in heard] == ["interaction:executed", "session:updated"]
    _, session, npc, interaction, result = heard[0]
    assert (session, npc, interaction) == (session_id, npc_id, "pickpocket")
    assert (result["success"], result["detected"], result["slot_id"]) == (True, False, "purse")
    assert heard[1][1] == session_id
    assert heard[1][2]["flags"]["stealth"][f"stole_from_npc_{npc_id}"] is True
    history = (await user_client.get(f"{SESSIONS}/{session_id}/events")).json()["items"]
    assert "pickpocket" in [event["kind"] for event in history]


async def test_only_the_own_session_and_a_known_npc(
    admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient, other_client: httpx.AsyncClient
) -> None:
    """A foreign session is as unknown as a missing one, for reading too; nothing is stored."""
    npc_id, session_id = await make_stage(admin_client, user_client)
    before = await read(user_client, session_id)
    for client, session, npc in [
        (other_client, session_id, npc_id),
        (admin_client, session_id, npc_id),
        (user_client, 999, npc_id),
        (user_client, session_id, 999),
    ]:
        answer = await client.post(PICKPOCKET, json=attempt(session, npc))
        assert answer.status_code == 404, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
    assert (await other_client.get(f"/api/v1/game/stealth/sessions/{session_id}")).status_code == 404
    assert await read(user_client, session_id) == before


async def test_the_stealth_record_of_a_session(admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient) -> None:
    """Empty at first, then what has been stored."""
    npc_id, session_id = await make_stage(admin_client, user_client)
    address = f"/api/v1/game/stealth/sessions/{session_id}"
    empty = {"session_id": session_id, "pickpocket_attempts": [], "suspicion": {}, "stealth": {}}
    assert (await user_client.get(address)).json() == empty
    await user_client.post(PICKPOCKET, json=attempt(session_id, npc_id, 1, 1))
    record = (await user_client.get(address)).json()
    assert [each["success"] for each in record["pickpocket_attempts"]] == [True]
    assert record["suspicion"] == {f"npc:{npc_id}": 0.25}
    assert record["stealth"] == (await read(user_client, session_id))["flags"]["stealth"]


async def test_a_player_may_have_written_anything_there(
    admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient
) -> None:
    """Malformed stealth flags neither fail an attempt nor its reading."""
    npc_id, session_id = await make_stage(admin_client, user_client)
    strange = [
        {"pickpocket_attempts": "none", "suspicion": [1]},
        {"pickpocket_attempts": {"a": 1}, "suspicion": {f"npc:{npc_id}": "much"}},
        {"pickpocket_attempts": [7], "suspicion": {f"npc:{npc_id}": 1e18}},
    ]
    for stealth in strange:
        patched = await user_client.patch(f"{SESSIONS}/{session_id}", json={"flags": {"stealth": None}})
        patched = await user_client.patch(f"{SESSIONS}/{session_id}", json={"flags": {"stealth": stealth}})
        assert patched.status_code == 200, patched.text
        address = f"/api/v1/game/stealth/sessions/{session_id}"
        assert (await user_client.get(address)).status_code == 200
        answer = await user_client.post(PICKPOCKET, json=attempt(session_id, npc_id, 0, 0))
        assert answer.status_code == 200, answer.text
        assert (await user_client.get(address)).json()["pickpocket_attempts"][-1]["npc_id"] == npc_id


async def test_a_full_session_refuses_more_and_keeps_what_it_has(
    admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient
) -> None:
    """What a session may hold is bounded: beyond it an attempt is 422, announced to nobody."""
    npc_id, session_id = await make_stage(admin_client, user_client)
    padding = {"flags": {f"pad{number}": "x" * 60_000 for number in range(4)} | {"last": "x" * 22_000}}
    assert (await user_client.patch(f"{SESSIONS}/{session_id}", json=padding)).status_code == 200
    before = await read(user_client, session_id)
    answer = await user_client.post(PICKPOCKET, json=attempt(session_id, npc_id, slot_id="s" * 100))
    assert answer.status_code == 422, answer.text
    assert await read(user_client, session_id) == before


async def test_the_world_must_be_the_sessions_where_both_are_known(
    admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient
) -> None:
    """A client that thinks it plays elsewhere is told (409); a session outside any world takes any id."""
    npc_id, outside = await make_stage(admin_client, user_client)
    scene_id = await make(admin_client, "scenes", **SCENE)
    world = await make(user_client, "worlds", name="Mine")
    inside = await make(user_client, "sessions", scene_id=scene_id, world_id=world)
    expected = [(inside, world, 200), (inside, world + 1, 409), (inside, None, 200), (outside, world, 200)]
    for session_id, world_id, status in expected:
        answer = await user_client.post(PICKPOCKET, json=attempt(session_id, npc_id, world_id=world_id))
        assert answer.status_code == status, answer.text


async def test_the_guides_bare_curl_is_answered(
    admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient, backend: Backend
) -> None:
    """No token: a 401 problem with the challenge; a token and curl's default content type: it works."""
    npc_id, session_id = await make_stage(admin_client, user_client)
    curl = {"content-type": "application/x-www-form-urlencoded"}
    bare = await backend.post(PICKPOCKET, content="{...}", headers=curl)
    assert bare.status_code == 401
    assert bare.headers["www-authenticate"] == "Bearer"
    assert bare.headers["content-type"] == "application/problem+json"
    body = (
        f'{{"session_id": {session_id}, "npc_id": {npc_id}, "slot_id": "purse",'
        ' "base_success_chance": 1, "detection_chance": 0}'
    )
    for headers in (curl, {}):
        answer = await user_client.post(PICKPOCKET, content=body, headers=headers)
        assert answer.status_code == 200, answer.text
        assert answer.json()["success"] is True


async def test_bad_input_is_never_a_server_error(
    admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient
) -> None:
    """Chances outside [0, 1] and values that cannot be stored are refused; nothing is recorded."""
    npc_id, session_id = await make_stage(admin_client, user_client)
    good = attempt(session_id, npc_id)
    huge = 10**400
    refused: list[dict[str, Any]] = [
        *({"base_success_chance": value} for value in (-0.01, 1.01, huge, "often", None, True + 1)),
        *({"detection_chance": value} for value in (-1e-9, 1.0000001, -huge, "", [1])),
        *({"session_id": value} for value in (0, -1, 2**31, 2**63, huge, "x", None)),
        *({"npc_id": value} for value in (0, 2**31, huge, 1.5)),
        *({"slot_id": value} for value in ("", "x" * 101, "a\x00b", "\ud800", None, ["x"])),
        *({"world_id": value} for value in (0, huge, "x")),
        {"typo": 1},
    ]
    for change in refused:
        answer = await user_client.post(PICKPOCKET, content=to_json(good | change))
        assert answer.status_code in {400, 422}, (change, answer.status_code, answer.text)
    for name in ("base_success_chance", "detection_chance"):
        for value in ("NaN", "Infinity", "-Infinity", "1e999"):
            answer = await user_client.post(PICKPOCKET, content=to_json(good | {name: "?"}).replace('"?"', value))
            assert answer.status_code in {400, 422}, (name, value)
    for body in ("", "{", "[]", "null", '{"a":' * 50_000, "\x00", "1" * 5000):
        assert (await user_client.post(PICKPOCKET, content=body)).status_code in {400, 422}, body[:20]
    assert "stealth" not in (await read(user_client, session_id))["flags"]
    assert (await user_client.post(PICKPOCKET, json=good | {"slot_id": 3})).status_code == 200


def to_json(value: object) -> str:
    """JSON as other languages write it: lone surrogates escaped, large numbers in full."""
    import json

    return json.dumps(value)


async def test_the_roll_can_be_overridden_by_name(
    admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient, backend: Backend
) -> None:
    """A test may replace the dependency that draws, and it holds for the loaded generation of the plugin."""
    npc_id, session_id = await make_stage(admin_client, user_client)
    undo = override_by_name(
        backend.app, "pixsim7_backend.plugins.game_stealth", "get_roll", lambda: LoadedDice(0.3, 0.7).random
    )
    try:
        result = (await user_client.post(PICKPOCKET, json=attempt(session_id, npc_id, 0.31, 0.7))).json()
    finally:
        undo()
    assert (result["success"], result["detected"]) == (True, False)


async def test_64_parallel_attempts_are_64_attempts(live_backend: Backend) -> None:
    """On a real server: each is stored once, each answer shows its own, and the marks agree with the list."""
    admin = await live_backend.sign_up("admin", role="admin")
    player = await live_backend.sign_up("player")
    npc_id, session_id = await make_stage(admin, player)
    bodies = [attempt(session_id, npc_id, 0.5, 0.2, slot_id=f"slot {number}") for number in range(64)]
    answers = await asyncio.gather(*(player.post(PICKPOCKET, json=body) for body in bodies))
    assert Counter(answer.status_code for answer in answers) == {200: 64}
    session = await read(player, session_id)
    attempts = session["flags"]["stealth"]["pickpocket_attempts"]
    assert Counter(each["slot_id"] for each in attempts) == Counter(body["slot_id"] for body in bodies)
    told = {body["slot_id"]: answer.json() for body, answer in zip(bodies, answers, strict=True)}
    for each in attempts:
        mine = told[each["slot_id"]]
        assert (mine["success"], mine["detected"]) == (each["success"], each["detected"])
    assert sorted(len(each["updated_flags"]["stealth"]["pickpocket_attempts"]) for each in told.values()) == [
        *range(1, 65)
    ]
    history = [event async for event in walk(player, f"{SESSIONS}/{session_id}/events")]
    assert Counter(event["kind"] for event in history)["pickpocket"] == 64


async def walk(client: httpx.AsyncClient, path: str) -> Any:
    """Yield all rows of a paged list."""
    cursor = None
    while True:
        query: dict[str, Any] = {"limit": 100} | ({"cursor": cursor} if cursor else {})
        page = (await client.get(path, params=query)).json()
        for item in page["items"]:
            yield item
        cursor = page["next_cursor"]
        if cursor is None:
            return
