"""NPCs, their looks, schedules, states and presence over HTTP, on both databases."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from pixsim7_backend.infrastructure.plugins import PluginEvents, plugin_hooks
from tests.plugins.conftest import Backend, make

pytestmark = pytest.mark.anyio

PATH = "/api/v1/game/npcs"
HOUR = 3600
DAY = 86_400
HEARD = (PluginEvents.NPC_SPAWNED, PluginEvents.LOCATION_CHANGED)


async def make_places(admin: httpx.AsyncClient, count: int) -> list[int]:
    """Create locations and return their ids."""
    return [await make(admin, "locations", name=f"Place {number}") for number in range(count)]


async def put_schedule(admin: httpx.AsyncClient, npc_id: int, *stays: dict[str, Any]) -> None:
    """Replace an NPC's schedule."""
    answer = await admin.put(f"{PATH}/{npc_id}/schedule", json=list(stays))
    assert answer.status_code == 200, answer.text


async def put_state(admin: httpx.AsyncClient, npc_id: int, world_id: int | None = None, **state: Any) -> httpx.Response:
    """Set an NPC's state by hand."""
    query = {} if world_id is None else {"world_id": world_id}
    answer = await admin.put(f"{PATH}/{npc_id}/state", params=query, json=state)
    assert answer.status_code == 200, answer.text
    return answer


def stay(day: int, start: float, end: float, location_id: int, **fields: Any) -> dict[str, Any]:
    """An entry of a schedule, with hours for times."""
    return {
        "day_of_week": day,
        "start_time": start * HOUR,
        "end_time": end * HOUR,
        "location_id": location_id,
        "rule": None,
    } | fields


async def presence(client: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    """Ask who is where."""
    answer = await client.get(f"{PATH}/presence", params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()
    return found


async def whereabouts(client: httpx.AsyncClient, **query: Any) -> dict[int, int]:
    """Ask who is where: NPC id → location id."""
    return {each["npc_id"]: each["location_id"] for each in await presence(client, **query)}


# --- NPCs -----------------------------------------------------------------------------------------


async def test_an_npc_is_made_read_changed_and_deleted(
    admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient
) -> None:
    """Every field comes back as stored; a JSON field that is changed again is really stored again."""
    (home,) = await make_places(admin_client, 1)
    fields = {"name": "Mira", "personality": {"traits": ["warm"]}, "home_location_id": home}
    made = await admin_client.post(f"{PATH}/", json=fields)
    address = made.headers["location"]
    assert made.status_code == 201
    assert (await user_client.get(address)).json() == made.json()
    assert {name: made.json()[name] for name in fields} == fields
    personalities: list[dict[str, Any]] = [{"traits": ["warm", "shrewd"]}, {"traits": []}, {"n": {"m": 1}}]
    for personality in personalities:
        await admin_client.patch(address, json={"personality": personality})
        assert (await user_client.get(address)).json()["personality"] == personality
    assert (await admin_client.patch(address, json={"home_location_id": None})).json()["home_location_id"] is None
    assert (await admin_client.delete(address)).status_code == 204
    assert (await user_client.get(address)).status_code == 404
    assert (await user_client.get(f"{address}/schedule")).status_code == 404


async def test_a_new_npc_is_announced_once_it_is_stored(
    admin_client: httpx.AsyncClient, heard: list[tuple[Any, ...]]
) -> None:
    """``npc:spawned`` carries the id; a refused NPC announces nothing."""
    npc_id = await make(admin_client, "npcs", name="Mira")
    refused = await admin_client.post(f"{PATH}/", json={"name": "Bram", "home_location_id": 999})
    assert refused.status_code == 422
    assert "999" in refused.json()["detail"]
    await plugin_hooks.settle()
    assert heard == [("npc:spawned", npc_id)]


async def test_lists_page_and_filter(admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient) -> None:
    """Filters are applied before paging, and totals are of the whole result."""
    (home,) = await make_places(admin_client, 1)
    ids = [await make(admin_client, "npcs", name=name, home_location_id=home) for name in ("A", "B", "A")]
    await make(admin_client, "npcs", name="A")
    page = (await user_client.get(f"{PATH}/", params={"home_location_id": home, "limit": 2})).json()
    assert ([each["id"] for each in page["items"]], page["total"]) == (ids[:2], 3)
    query = {"home_location_id": home, "limit": 2, "cursor": page["next_cursor"]}
    rest = (await user_client.get(f"{PATH}/", params=query)).json()
    assert ([each["id"] for each in rest["items"]], rest["next_cursor"]) == (ids[2:], None)
    assert (await user_client.get(f"{PATH}/", params={"name": "A"})).json()["total"] == 3


async def test_only_admins_write_and_only_users_read(
    admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient
) -> None:
    """Players read; without a token nobody does."""
    npc_id = await make(admin_client, "npcs", name="Mira")
    address = f"{PATH}/{npc_id}"
    writes: list[tuple[str, str, Any]] = [
        ("POST", f"{PATH}/", {"name": "X"}),
        ("PATCH", address, {"name": "X"}),
        ("DELETE", address, None),
        ("PUT", f"{address}/expressions", []),
        ("PUT", f"{address}/schedule", []),
        ("PUT", f"{address}/state", {"state": {}}),
    ]
    for method, path, body in writes:
        assert (await user_client.request(method, path, json=body)).status_code == 403, (method, path)
    reads = [
        f"{PATH}/",
        f"{PATH}/presence",
        *(f"{address}{part}" for part in ("", "/expressions", "/schedule", "/state")),
    ]
    for path in reads:
        assert (await user_client.get(path)).status_code == 200, path
        nobody = await user_client.get(path, headers={"Authorization": ""})
        assert (nobody.status_code, nobody.headers["www-authenticate"]) == (401, "Bearer"), path


# --- expressions and schedules --------------------------------------------------------------------


async def test_expressions_are_replaced_as_a_whole(
    admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient
) -> None:
    """The list is kept in order; a repeated state is refused and changes nothing."""
    npc_id = await make(admin_client, "npcs", name="Mira")
    address = f"{PATH}/{npc_id}/expressions"
    crop = {"x": 0, "y": 0.5, "width": 10, "height": 10}
    first = [
        {"state": "sad", "asset_id": 4, "crop": crop, "meta": {"a": [1]}},
        {"state": "happy", "asset_id": 3, "crop": None, "meta": {}},
    ]
    second = [{"state": "happy", "asset_id": 9}]
    assert (await admin_client.put(address, json=first)).json() == first
    assert (await user_client.get(address)).json() == first
    for bad in ([*second, *second], [{"state": "x", "asset_id": 0}], [{"state": "", "asset_id": 1}], {"state": "x"}):
        assert (await admin_client.put(address, json=bad)).status_code == 422
    assert (await user_client.get(address)).json() == first
    assert (await admin_client.put(address, json=second)).status_code == 200
    assert (await user_client.get(address)).json() == [second[0] | {"crop": None, "meta": {}}]


async def test_a_schedule_is_replaced_as_a_whole(
    admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient
) -> None:
    """The order is kept, since it decides where stays overlap; a refused list changes nothing."""
    (place,) = await make_places(admin_client, 1)
    npc_id = await make(admin_client, "npcs", name="Mira")
    week = [stay(4, 22, 6, place, rule={"activity": "watch"}), stay(0, 0, 24, place), stay(0, 1.5, 2, place)]
    await put_schedule(admin_client, npc_id, *week)
    address = f"{PATH}/{npc_id}/schedule"
    assert (await user_client.get(address)).json() == week
    refused = [
        stay(7, 1, 2, place),
        stay(-1, 1, 2, place),
        stay(0, 5, 5, place),
        stay(0, 24, 3, place),
        stay(0, 1, 24.1, place),
        stay(0, -1, 3, place),
        stay(0, 1, 2, 999),
        stay(0, 1, 2, place, rule=[]),
        stay(0, 1, 2, place, rule={"nul": "\x00"}),
        stay(0, 1, 2, place, typo=1),
    ]
    for entry in refused:
        answer = await admin_client.put(address, json=[stay(0, 1, 2, place), entry])
        assert answer.status_code == 422, entry
    nan = '[{"day_of_week": 0, "start_time": NaN, "end_time": 5, "location_id": 1}]'
    sent = await admin_client.put(address, content=nan, headers={"content-type": "application/json"})
    assert sent.status_code == 422
    assert (await user_client.get(address)).json() == week


async def test_parallel_schedules_never_mix(admin_client: httpx.AsyncClient) -> None:
    """What is stored at the end is one of the weeks that were sent, whole."""
    (place,) = await make_places(admin_client, 1)
    npc_id = await make(admin_client, "npcs", name="Mira")
    weeks = [[stay(day, number, number + 1, place) for day in range(3)] for number in range(6)]
    await asyncio.gather(*(put_schedule(admin_client, npc_id, *week) for week in weeks))
    assert (await admin_client.get(f"{PATH}/{npc_id}/schedule")).json() in weeks


# --- presence -------------------------------------------------------------------------------------


async def test_presence_follows_the_week_also_overnight(
    admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient
) -> None:
    """A stay holds from its start to before its end, a night into the next day, also from Sunday to Monday."""
    home, shop, gate = await make_places(admin_client, 3)
    npc_id = await make(admin_client, "npcs", name="Bram", home_location_id=home)
    await put_schedule(admin_client, npc_id, stay(0, 8, 18, shop), stay(0, 22, 6, gate), stay(6, 23, 2, gate))
    expected = [
        (-5, gate),  # negative time is time 0: Monday 00:00, which Sunday's night covers
        (2 * HOUR, home),
        (8 * HOUR - 1, home),
        (8 * HOUR, shop),
        (18 * HOUR - 0.5, shop),
        (18 * HOUR, home),
        (22 * HOUR, gate),
        (DAY + 6 * HOUR - 1, gate),
        (DAY + 6 * HOUR, home),
        (DAY + 22 * HOUR, home),
        (7 * DAY + 1 * HOUR, gate),
        (70 * DAY + 8 * HOUR, shop),
    ]
    for world_time, location_id in expected:
        assert await whereabouts(user_client, world_time=world_time) == {npc_id: location_id}, world_time
    assert len(await presence(user_client, world_time=1e300)) == 1


async def test_an_npc_without_any_place_is_nowhere(
    admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient
) -> None:
    """No stored location, no active stay and no home: it is left out."""
    (place,) = await make_places(admin_client, 1)
    npc_id = await make(admin_client, "npcs", name="Ghost")
    await put_schedule(admin_client, npc_id, stay(0, 1, 2, place))
    assert await presence(user_client) == []
    assert await whereabouts(user_client, world_time=HOUR) == {npc_id: place}


async def test_the_time_is_the_parameters_else_the_worlds_else_0(
    admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient, other_client: httpx.AsyncClient
) -> None:
    """A world's stored time counts when none is given; a world that is not one's own is 404, to admins too."""
    home, shop = await make_places(admin_client, 2)
    npc_id = await make(admin_client, "npcs", name="Mira", home_location_id=home)
    await put_schedule(admin_client, npc_id, stay(1, 8, 18, shop))
    world = await make(user_client, "worlds", name="Mine")
    await user_client.post(f"/api/v1/game/worlds/{world}/advance", json={"delta_seconds": DAY + 9 * HOUR})
    assert await whereabouts(user_client) == {npc_id: home}
    assert await whereabouts(user_client, world_id=world) == {npc_id: shop}
    assert await whereabouts(user_client, world_id=world, world_time=0) == {npc_id: home}
    for client in (other_client, admin_client):
        assert (await client.get(f"{PATH}/presence", params={"world_id": world})).status_code == 404
    assert (await user_client.get(f"{PATH}/presence", params={"world_id": 999})).status_code == 404


async def test_the_state_merges_what_is_stored_with_the_stay(
    admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient
) -> None:
    """The stay's rule lies below the stored state; a location set by hand wins over the schedule while it is set."""
    home, shop, jail = await make_places(admin_client, 3)
    npc_id = await make(admin_client, "npcs", name="Mira", home_location_id=home)
    await put_schedule(admin_client, npc_id, stay(0, 8, 18, shop, rule={"activity": "selling", "mood": "busy"}))
    await put_state(admin_client, npc_id, state={"mood": "happy"})
    at_shop = {
        "npc_id": npc_id,
        "location_id": shop,
        "state": {
            "activity": "selling",
            "mood": "happy",
            "schedule": {"day_of_week": 0, "start_time": 8 * HOUR, "end_time": 18 * HOUR},
        },
    }
    assert await presence(user_client, world_time=9 * HOUR) == [at_shop]
    assert await presence(user_client) == [{"npc_id": npc_id, "location_id": home, "state": {"mood": "happy"}}]
    await put_state(admin_client, npc_id, current_location_id=jail, state={"mood": "sad"})
    in_jail = {"npc_id": npc_id, "location_id": jail, "state": {"mood": "sad"}}
    assert await presence(user_client, world_time=9 * HOUR) == [in_jail]
    await put_state(admin_client, npc_id, current_location_id=None, state={"mood": "happy"})
    assert await presence(user_client, world_time=9 * HOUR) == [at_shop]


async def test_worlds_keep_their_states_apart(
    admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient, other_client: httpx.AsyncClient
) -> None:
    """What an admin sets in one world holds there only; without a world, what was set outside any holds."""
    home, shop, jail = await make_places(admin_client, 3)
    npc_id = await make(admin_client, "npcs", name="Mira", home_location_id=home)
    mine = await make(user_client, "worlds", name="Mine")
    theirs = await make(other_client, "worlds", name="Theirs")
    await put_state(admin_client, npc_id, world_id=mine, current_location_id=shop, state={"in": "mine"})
    await put_state(admin_client, npc_id, current_location_id=jail, state={"in": "none"})
    assert await whereabouts(user_client, world_id=mine) == {npc_id: shop}
    assert await whereabouts(other_client, world_id=theirs) == {npc_id: home}
    assert await whereabouts(user_client) == {npc_id: jail}
    address = f"{PATH}/{npc_id}/state"
    stored = {"npc_id": npc_id, "world_id": mine, "current_location_id": shop, "state": {"in": "mine"}}
    assert (await user_client.get(address, params={"world_id": mine})).json() == stored
    assert (await admin_client.get(address, params={"world_id": mine})).json() == stored
    empty: dict[str, Any] = {"npc_id": npc_id, "world_id": theirs, "current_location_id": None, "state": {}}
    assert (await other_client.get(address, params={"world_id": theirs})).json() == empty
    assert (await other_client.get(address, params={"world_id": mine})).status_code == 404
    gone = await admin_client.put(address, params={"world_id": 999}, json={"state": {}})
    assert gone.status_code == 404
    await user_client.delete(f"/api/v1/game/worlds/{mine}")
    assert (await admin_client.get(address, params={"world_id": mine})).status_code == 404


async def test_filtering_by_location_never_loses_anybody(
    admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient
) -> None:
    """Against asking for everybody: for random weeks, states and moments, each location's answer is its part."""
    dice = random.Random(11)
    places = await make_places(admin_client, 3)
    for number in range(8):
        npc_id = await make(admin_client, "npcs", name=f"N{number}", home_location_id=dice.choice([None, *places]))
        week = []
        for _ in range(dice.randrange(6)):
            start, end = dice.randrange(24), dice.randrange(25)
            if start != end:
                week.append(stay(dice.randrange(7), start, end, dice.choice(places)))
        await put_schedule(admin_client, npc_id, *week)
        if dice.random() < 0.4:
            await put_state(admin_client, npc_id, current_location_id=dice.choice([None, *places]), state={})
    for _ in range(12):
        at = dice.randrange(7 * DAY)
        everybody = await presence(user_client, world_time=at)
        for place in places:
            there = await presence(user_client, world_time=at, location_id=place)
            assert there == [each for each in everybody if each["location_id"] == place]


# --- moves ----------------------------------------------------------------------------------------


async def test_a_move_is_announced_and_staying_is_not(
    admin_client: httpx.AsyncClient, heard: list[tuple[Any, ...]]
) -> None:
    """``location:changed`` carries (npc, from, to); the same location again, or a new state only, announces nothing."""
    one, two = await make_places(admin_client, 2)
    npc_id = await make(admin_client, "npcs", name="Mira", home_location_id=one)
    for location_id in (None, one, one, two, None):
        await put_state(admin_client, npc_id, current_location_id=location_id, state={"to": location_id})
    bad = await admin_client.put(f"{PATH}/{npc_id}/state", json={"current_location_id": 999})
    assert bad.status_code == 422
    await plugin_hooks.settle()
    assert [event for event in heard if event[0] == "location:changed"] == [
        ("location:changed", npc_id, None, one),
        ("location:changed", npc_id, one, two),
        ("location:changed", npc_id, two, None),
    ]


def follows(moves: Sequence[tuple[int | None, int | None]], start: int | None, end: int | None) -> bool:
    """Tell whether the moves, in some order, are one walk from ``start`` to ``end``.

    For such a walk each place is left as often as it is reached, but for the two ends.
    """
    balance: dict[int | None, int] = {}
    for left, reached in moves:
        balance[left] = balance.get(left, 0) - 1
        balance[reached] = balance.get(reached, 0) + 1
    balance[start] = balance.get(start, 0) + 1
    balance[end] = balance.get(end, 0) - 1
    return not any(balance.values()) and all(left != reached for left, reached in moves)


async def test_parallel_moves_form_one_walk(admin_client: httpx.AsyncClient, heard: list[tuple[Any, ...]]) -> None:
    """However concurrent PUTs fall, each move starts where another one ended; the first one starts nowhere."""
    places = await make_places(admin_client, 4)
    npc_id = await make(admin_client, "npcs", name="Mira")
    goals = [*places, None] * 5
    await asyncio.gather(
        *(put_state(admin_client, npc_id, current_location_id=goal, state={"goal": goal}) for goal in goals)
    )
    stored = (await admin_client.get(f"{PATH}/{npc_id}/state")).json()
    assert stored["current_location_id"] == stored["state"]["goal"]
    await plugin_hooks.settle()
    moves = [(event[2], event[3]) for event in heard if event[0] == "location:changed"]
    assert follows(moves, None, stored["current_location_id"]), moves


async def test_parallel_first_states_make_one_row(
    admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient
) -> None:
    """The first PUTs of a state, in a world and outside, meet without an error."""
    npc_id = await make(admin_client, "npcs", name="Mira")
    world = await make(user_client, "worlds", name="Mine")
    for world_id in (None, world):
        await asyncio.gather(*(put_state(admin_client, npc_id, world_id=world_id, state={"n": n}) for n in range(8)))
        query = {} if world_id is None else {"world_id": world_id}
        assert (await admin_client.get(f"{PATH}/{npc_id}/state", params=query)).json()["state"]["n"] in range(8)


async def test_a_deleted_location_is_let_go_of(
    admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient, heard: list[tuple[Any, ...]]
) -> None:
    """Homes become empty, stays end, and whoever was put there is announced to leave, in every world."""
    home, shop, inn = await make_places(admin_client, 3)
    npc_id = await make(admin_client, "npcs", name="Mira", home_location_id=home)
    world = await make(user_client, "worlds", name="Mine")
    await put_schedule(admin_client, npc_id, stay(0, 8, 18, shop), stay(0, 8, 18, inn))
    for place in (home, shop):
        await put_state(admin_client, npc_id, current_location_id=place, state={"kept": True})
        await put_state(admin_client, npc_id, world_id=world, current_location_id=place, state={})
        await plugin_hooks.settle()
        heard.clear()
        assert (await admin_client.delete(f"/api/v1/game/locations/{place}")).status_code == 204
        await plugin_hooks.settle()
        assert heard == [("location:changed", npc_id, place, None)] * 2
    assert (await user_client.get(f"{PATH}/{npc_id}")).json()["home_location_id"] is None
    assert (await user_client.get(f"{PATH}/{npc_id}/schedule")).json() == [stay(0, 8, 18, inn)]
    state = (await user_client.get(f"{PATH}/{npc_id}/state")).json()
    assert (state["current_location_id"], state["state"]) == (None, {"kept": True})
    assert await whereabouts(user_client, world_time=9 * HOUR) == {npc_id: inn}


async def test_a_disabled_plugin_holds_no_location(
    backend: Backend, admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient
) -> None:
    """While NPCs are switched off, their rows keep no location from being deleted, and let go of it."""
    home, jail = await make_places(admin_client, 2)
    npc_id = await make(admin_client, "npcs", name="Mira", home_location_id=home)
    await put_state(admin_client, npc_id, current_location_id=jail, state={})
    manager = backend.app.state.plugin_manager
    await manager.disable("game-npcs", cascade=True)
    try:
        assert (await user_client.get(f"{PATH}/")).status_code == 404
        for place in (home, jail):
            assert (await admin_client.delete(f"/api/v1/game/locations/{place}")).status_code == 204
    finally:
        await manager.enable("game-npcs")
        await manager.enable("game-stealth")
    assert (await user_client.get(f"{PATH}/{npc_id}")).json()["home_location_id"] is None
    assert await presence(user_client) == []


async def test_locations_are_deleted_while_npcs_move_there(
    admin_client: httpx.AsyncClient, heard: list[tuple[Any, ...]]
) -> None:
    """Whoever is first: no server error, no NPC left in a place that is gone, and the moves still form one walk."""
    npc_id = await make(admin_client, "npcs", name="Mira")
    start: int | None = None
    for _ in range(4):
        heard.clear()
        (place,) = await make_places(admin_client, 1)
        address = f"{PATH}/{npc_id}/state"
        answers = await asyncio.gather(
            *(admin_client.put(address, json={"current_location_id": goal}) for goal in (place, None, place)),
            admin_client.delete(f"/api/v1/game/locations/{place}"),
        )
        assert {answer.status_code for answer in answers} <= {200, 204, 409, 422}
        end = (await admin_client.get(address)).json()["current_location_id"]
        if answers[-1].status_code == 204:
            assert end is None
        await plugin_hooks.settle()
        assert follows([(event[2], event[3]) for event in heard], start, end), heard
        start = end


# --- bad input ------------------------------------------------------------------------------------


async def test_bad_input_is_never_a_server_error(admin_client: httpx.AsyncClient) -> None:
    """Huge, infinite, unstorable or malformed values are the client's error."""
    npc_id = await make(admin_client, "npcs", name="Mira")
    huge = "1" + "0" * 400
    times = ["NaN", "inf", huge, "x", "%00"]
    ids = [huge, "0", "-1", "%00", str(2**63)]
    for query in [
        *(f"world_time={each}" for each in times),
        *(f"world_id={each}" for each in ids),
        *(f"location_id={each}" for each in ids),
    ]:
        answer = await admin_client.get(f"{PATH}/presence?{query}")
        assert answer.status_code == 422, query
    for key in ("0", "-1", "x", "%00", huge, str(2**31)):
        for part in ("", "/schedule", "/expressions", "/state"):
            assert (await admin_client.get(f"{PATH}/{key}{part}")).status_code in {404, 422}, (key, part)
    deep = '{"a":' * 5000 + "1" + "}" * 5000
    bodies = [
        '{"name": "\\u0000"}',
        '{"name": "x", "personality": {"a": Infinity}}',
        f'{{"name": "x", "personality": {deep}}}',
        f'{{"name": "x", "home_location_id": {huge}}}',
        '{"name": ["x"]}',
        "null",
    ]
    json_body = {"content-type": "application/json"}
    for body in bodies:
        for method, address in (("POST", f"{PATH}/"), ("PATCH", f"{PATH}/{npc_id}")):
            answer = await admin_client.request(method, address, content=body, headers=json_body)
            assert answer.status_code in {400, 422}, (method, body[:60])
    for body in (
        '{"state": {"a": NaN}}',
        '{"state": "x"}',
        f'{{"current_location_id": {huge}}}',
        '{"state": {"\\u0000": 1}}',
    ):
        answer = await admin_client.put(f"{PATH}/{npc_id}/state", content=body, headers=json_body)
        assert answer.status_code == 422, body[:60]
    assert (await admin_client.get(f"{PATH}/")).json()["total"] == 1
