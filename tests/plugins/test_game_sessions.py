from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio.to_thread
import httpx
import pytest

from pixsim7_backend.infrastructure.plugins import PluginEvents, plugin_hooks, ports
from tests.plugins.conftest import Backend

pytestmark = pytest.mark.anyio

SESSIONS = "/api/v1/game/sessions/"
SCENES = "/api/v1/game/scenes/"
WORLDS = "/api/v1/game/worlds/"

CASTLE: dict[str, Any] = {
    "title": "Castle",
    "entry_node_id": "gate",
    "nodes": [{"id": "gate"}, {"id": "yard"}, {"id": "hall"}],
    "edges": [
        {"id": "enter", "from": "gate", "to": "yard", "effects": [{"type": "increment_flag", "path": "visits.yard"}]},
        {"id": "leave", "from": "yard", "to": "gate"},
        {
            "id": "audience",
            "from": "yard",
            "to": "hall",
            "conditions": [
                {"type": "flag", "path": "pass"},
                {"type": "relationship", "subject": "npc:3", "op": "gte", "value": 30},
            ],
            "effects": [
                {"type": "set_flag", "path": "arcs.main", "value": {"step": 2}},
                {"type": "change_relationship", "subject": "npc:3", "by": 80, "max": 100},
            ],
        },
        {"id": "knock", "from": "gate", "to": "gate", "cooldown_sec": 3600},
        {"id": "break", "from": "gate", "to": "gate", "effects": [{"type": "increment_flag", "path": "name"}]},
    ],
}

Heard = list[tuple[Any, ...]]


@pytest.fixture
def heard() -> Iterator[Heard]:
    """Every session event, as (name, payload...)."""
    events: Heard = []
    subscriptions = [
        plugin_hooks.register(PluginEvents.SESSION_CREATED, lambda *payload: events.append(("created", *payload))),
        plugin_hooks.register(PluginEvents.SESSION_UPDATED, lambda *payload: events.append(("updated", *payload))),
    ]
    yield events
    for subscription in subscriptions:
        subscription.cancel()


@pytest.fixture
async def scene_id(admin_client: httpx.AsyncClient) -> int:
    """The id of a scene to play."""
    answer = await admin_client.post(SCENES, json=CASTLE)
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


async def _begin(client: httpx.AsyncClient, scene_id: int, **fields: Any) -> dict[str, Any]:
    answer = await client.post(SESSIONS, json={"scene_id": scene_id, **fields})
    assert answer.status_code == 201, answer.text
    session: dict[str, Any] = answer.json()
    return session


async def _take(client: httpx.AsyncClient, session: dict[str, Any], edge_id: str) -> httpx.Response:
    return await client.post(f"{SESSIONS}{session['id']}/advance", json={"edge_id": edge_id})


async def _patch(client: httpx.AsyncClient, session: dict[str, Any], **fields: Any) -> dict[str, Any]:
    answer = await client.patch(f"{SESSIONS}{session['id']}", json=fields)
    assert answer.status_code == 200, answer.text
    patched: dict[str, Any] = answer.json()
    return patched


# --- beginning ----------------------------------------------------------------------------------


async def test_a_session_begins_at_the_entry(user_client: httpx.AsyncClient, scene_id: int, heard: Heard) -> None:
    """The answer says where the session is and where to find it; ``session:created`` is announced once."""
    answer = await user_client.post(SESSIONS, json={"scene_id": scene_id})
    session = answer.json()
    assert answer.status_code == 201
    assert (session["scene_id"], session["current_node_id"], session["version"]) == (scene_id, "gate", 1)
    assert (session["flags"], session["relationships"], session["world_time"]) == ({}, {}, 0.0)
    assert answer.headers["location"] == f"{SESSIONS}{session['id']}"
    assert answer.headers["etag"] == '"1"'
    assert (await user_client.get(answer.headers["location"])).json() == session
    await plugin_hooks.settle()
    assert heard == [("created", session["id"])]


async def test_a_session_in_a_world_has_its_id_and_time(user_client: httpx.AsyncClient, scene_id: int) -> None:
    """The world's id is in ``flags.world.id``, and the session's clock starts with the world's."""
    world = (await user_client.post(WORLDS, json={"name": "Avalon"})).json()
    await user_client.post(f"{WORLDS}{world['id']}/advance", json={"delta_seconds": 90})
    session = await _begin(user_client, scene_id, world_id=world["id"])
    assert session["flags"] == {"world": {"id": world["id"]}}
    assert session["world_time"] == 90.0


async def test_somebody_elses_world_cannot_be_entered(
    user_client: httpx.AsyncClient, other_client: httpx.AsyncClient, scene_id: int
) -> None:
    """Neither at the beginning nor by patching the flag later; the answer is that of an unknown world."""
    world = (await other_client.post(WORLDS, json={"name": "Theirs"})).json()
    session = await _begin(user_client, scene_id)
    for world_id in (world["id"], 4711):
        begun = await user_client.post(SESSIONS, json={"scene_id": scene_id, "world_id": world_id})
        moved = await user_client.patch(f"{SESSIONS}{session['id']}", json={"flags": {"world": {"id": world_id}}})
        for answer in (begun, moved):
            assert answer.status_code == 404
            assert answer.json()["detail"] == f"there is no game world {world_id}"
    assert (await user_client.get(f"{SESSIONS}{session['id']}")).json() == session
    own = (await user_client.post(WORLDS, json={"name": "Mine"})).json()
    assert (await _patch(user_client, session, flags={"world": {"id": own["id"]}}))["version"] == 2


async def test_where_nobody_keeps_worlds_any_id_is_taken(
    user_client: httpx.AsyncClient, scene_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sessions only welcome worlds; without them the id is stored unchecked, and time begins at 0."""
    monkeypatch.setattr(ports, "find", lambda _name: None)
    session = await _begin(user_client, scene_id, world_id=4711)
    assert (session["flags"], session["world_time"]) == ({"world": {"id": 4711}}, 0.0)


async def test_a_session_needs_a_scene_that_can_be_played(
    admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient, heard: Heard
) -> None:
    """An unknown scene is 404, a draft is 409, and nothing is announced."""
    assert (await user_client.post(SESSIONS, json={"scene_id": 99})).status_code == 404
    draft = (await admin_client.post(SCENES, json={"title": "Draft", "nodes": [{"id": "a"}]})).json()
    answer = await user_client.post(SESSIONS, json={"scene_id": draft["id"]})
    assert answer.status_code == 409
    assert "has no entry node" in answer.json()["detail"]
    assert (await user_client.get(SESSIONS)).json()["total"] == 0
    await plugin_hooks.settle()
    assert heard == []


# --- whose --------------------------------------------------------------------------------------


async def test_a_foreign_session_is_404_everywhere(
    user_client: httpx.AsyncClient, other_client: httpx.AsyncClient, admin_client: httpx.AsyncClient, scene_id: int
) -> None:
    """For admins too; what is answered is what an unknown id gets, and nothing changes."""
    session = await _begin(user_client, scene_id)
    place = f"{SESSIONS}{session['id']}"
    for client in (other_client, admin_client):
        answers = [
            await client.get(place),
            await client.patch(place, json={"flags": {"x": 1}}, headers={"If-Match": '"99"'}),
            await client.post(f"{place}/advance", json={"edge_id": "enter"}),
            await client.get(f"{place}/events"),
            await client.delete(place),
        ]
        assert [answer.status_code for answer in answers] == [404] * 5
        assert {answer.json()["detail"] for answer in answers} == {f"there is no game session {session['id']}"}
        assert (await client.get(SESSIONS)).json()["total"] == 0
    assert (await user_client.get(place)).json() == session


async def test_without_a_token_every_route_is_401(backend: Backend) -> None:
    """Who is asking comes before everything else."""
    routes = [("GET", ""), ("POST", ""), ("GET", "1"), ("PATCH", "1"), ("DELETE", "1")]
    for method, path in [*routes, ("POST", "1/advance"), ("GET", "1/events")]:
        answer = await backend.request(method, f"{SESSIONS}{path}")
        assert answer.status_code == 401, (method, path)
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_own_sessions_are_listed_by_scene(
    admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient, other_client: httpx.AsyncClient, scene_id: int
) -> None:
    """The filter applies before paging; what sessions remember is not in lists."""
    second = int((await admin_client.post(SCENES, json=CASTLE)).json()["id"])
    mine = [(await _begin(user_client, scene))["id"] for scene in (scene_id, second, scene_id, scene_id)]
    await _begin(other_client, scene_id)
    assert (await user_client.get(SESSIONS)).json()["total"] == 4
    page = (await user_client.get(SESSIONS, params={"scene_id": scene_id, "limit": 2})).json()
    assert (page["total"], [session["id"] for session in page["items"]]) == (3, [mine[0], mine[2]])
    assert "flags" not in page["items"][0]
    rest = {"scene_id": scene_id, "limit": 2, "cursor": page["next_cursor"]}
    assert [session["id"] for session in (await user_client.get(SESSIONS, params=rest)).json()["items"]] == [mine[3]]
    assert (await user_client.get(SESSIONS, params={"scene_id": 2**40})).status_code == 422


async def test_a_deleted_session_takes_its_history_along(
    backend: Backend, user_client: httpx.AsyncClient, scene_id: int
) -> None:
    """Deleting answers 204 once, then 404, honours If-Match, and leaves no row."""
    session = await _begin(user_client, scene_id)
    await _take(user_client, session, "enter")
    place = f"{SESSIONS}{session['id']}"
    assert (await user_client.delete(place, headers={"If-Match": '"1"'})).status_code == 412
    assert (await user_client.delete(place)).status_code == 204
    assert (await user_client.delete(place)).status_code == 404
    assert (await user_client.get(f"{place}/events")).status_code == 404
    assert await anyio.to_thread.run_sync(backend.execute, "SELECT id FROM game_session_events") == []


# --- advancing ----------------------------------------------------------------------------------


async def test_advancing_walks_the_graph(user_client: httpx.AsyncClient, scene_id: int, heard: Heard) -> None:
    """Conditions are met, effects applied and announced with exactly what they changed."""
    session = await _begin(user_client, scene_id)
    await _patch(user_client, session, flags={"pass": True}, relationships={"npc:3": {"affinity": 30}})
    assert (await _take(user_client, session, "enter")).json()["current_node_id"] == "yard"
    answer = await _take(user_client, session, "audience")
    assert answer.status_code == 200, answer.text
    assert answer.headers["etag"] == '"4"'
    after = answer.json()
    assert after["current_node_id"] == "hall"
    assert after["flags"] == {"pass": True, "visits": {"yard": 1}, "arcs": {"main": {"step": 2}}}
    assert after["relationships"] == {"npc:3": {"affinity": 100}}
    assert (await user_client.get(f"{SESSIONS}{session['id']}")).json() == after
    await plugin_hooks.settle()
    assert heard[1:] == [
        ("updated", session["id"], {"flags": {"pass": True}, "relationships": {"npc:3": {"affinity": 30}}}),
        ("updated", session["id"], {"current_node_id": "yard", "flags": {"visits": {"yard": 1}}}),
        (
            "updated",
            session["id"],
            {
                "current_node_id": "hall",
                "flags": {"arcs": {"main": {"step": 2}}},
                "relationships": {"npc:3": {"affinity": 100}},
            },
        ),
    ]


async def test_effects_on_flags_that_are_not_empty_are_stored(user_client: httpx.AsyncClient, scene_id: int) -> None:
    """The second change of the same nested flag is in the database, not only in the answer."""
    session = await _begin(user_client, scene_id)
    for _ in range(3):
        await _take(user_client, session, "enter")
        answer = await _take(user_client, session, "leave")
    stored = (await user_client.get(f"{SESSIONS}{session['id']}")).json()
    assert stored == answer.json()
    assert stored["flags"] == {"visits": {"yard": 3}}


async def test_an_edge_must_start_where_the_session_is(
    user_client: httpx.AsyncClient, scene_id: int, heard: Heard
) -> None:
    """409 names both places; nothing is changed, recorded or announced."""
    session = await _begin(user_client, scene_id)
    answer = await _take(user_client, session, "leave")
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"] == "edge 'leave' starts at node 'yard', but the session is at 'gate'"
    assert answer.json()["reason"] == "edge-elsewhere"
    unknown = await _take(user_client, session, "teleport")
    assert unknown.status_code == 404
    assert unknown.json()["detail"] == f"there is no edge 'teleport' in game scene {scene_id}"
    assert (await user_client.get(f"{SESSIONS}{session['id']}")).json() == session
    assert (await user_client.get(f"{SESSIONS}{session['id']}/events")).json()["total"] == 1
    await plugin_hooks.settle()
    assert len(heard) == 1


async def test_conditions_that_fail_are_all_named(user_client: httpx.AsyncClient, scene_id: int) -> None:
    """409 lists every condition that does not hold, with what the session holds instead."""
    session = await _begin(user_client, scene_id)
    await _take(user_client, session, "enter")
    answer = await _take(user_client, session, "audience")
    assert answer.status_code == 409
    assert answer.json()["reason"] == "conditions"
    assert answer.json()["failed"] == [
        "flag 'pass' eq True (it is missing)",
        "'affinity' of relationship 'npc:3' gte 30 (it is missing)",
    ]
    await _patch(user_client, session, flags={"pass": True})
    assert (await _take(user_client, session, "audience")).json()["failed"] == [
        "'affinity' of relationship 'npc:3' gte 30 (it is missing)"
    ]


async def test_an_effect_that_does_not_fit_is_409(user_client: httpx.AsyncClient, scene_id: int) -> None:
    """A player may put anything into a flag; an effect that stumbles over it is no accident of the server."""
    session = await _begin(user_client, scene_id)
    await _patch(user_client, session, flags={"name": "Ann"})
    answer = await _take(user_client, session, "break")
    assert answer.status_code == 409
    assert answer.json()["detail"] == "effect 1 (increment_flag): 'name' is 'Ann', not a number"


async def test_an_edge_cools_down_in_wall_time(backend: Backend, user_client: httpx.AsyncClient, scene_id: int) -> None:
    """Taken again too early it is 409 with Retry-After; another session, or an hour later, is free to take it."""
    session = await _begin(user_client, scene_id)
    assert (await _take(user_client, session, "knock")).status_code == 200
    answer = await _take(user_client, session, "knock")
    assert answer.status_code == 409
    assert answer.json()["reason"] == "cooldown"
    assert 3500 < int(answer.headers["retry-after"]) <= 3600
    assert answer.json()["detail"].startswith("edge 'knock' is cooling down for another 3")
    assert (await _take(user_client, await _begin(user_client, scene_id), "knock")).status_code == 200
    an_hour_ago = (datetime.now(UTC) - timedelta(seconds=3601)).replace(tzinfo=None).isoformat(" ")
    statement = "UPDATE game_session_events SET at = :at WHERE session_id = :id"
    await anyio.to_thread.run_sync(backend.execute, statement, {"at": an_hour_ago, "id": session["id"]})
    assert (await _take(user_client, session, "knock")).status_code == 200


async def test_a_session_outlives_changes_of_its_scene(
    admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient, scene_id: int
) -> None:
    """Where its node stays it goes on; where the node or the scene is gone it keeps its memory and gets 409."""
    session = await _begin(user_client, scene_id)
    place = f"{SESSIONS}{session['id']}"
    await admin_client.put(f"{SCENES}{scene_id}", json={**CASTLE, "title": "Castle, painted"})
    assert (await _take(user_client, session, "enter")).status_code == 200
    without_yard = {"title": "Gate only", "entry_node_id": "gate", "nodes": [{"id": "gate"}]}
    await admin_client.put(f"{SCENES}{scene_id}", json=without_yard)
    stranded = await _take(user_client, session, "leave")
    assert stranded.status_code == 409
    assert stranded.json()["reason"] == "node-gone"
    assert "is at node 'yard', which is no longer in game scene" in stranded.json()["detail"]
    assert (await admin_client.delete(f"{SCENES}{scene_id}")).status_code == 204
    kept = (await user_client.get(place)).json()
    assert (kept["scene_id"], kept["current_node_id"], kept["flags"]) == (None, "yard", {"visits": {"yard": 1}})
    assert (await _take(user_client, session, "leave")).json()["reason"] == "scene-gone"
    assert (await _patch(user_client, session, flags={"x": 1}))["flags"]["x"] == 1


# --- patching -----------------------------------------------------------------------------------


async def test_a_patch_is_merged_as_rfc_7386_says(user_client: httpx.AsyncClient, scene_id: int) -> None:
    """Members are merged, null removes, anything but an object replaces, and all of it is stored."""
    session = await _begin(user_client, scene_id)
    await _patch(user_client, session, flags={"a": {"b": 1, "c": [1, 2]}, "d": 1}, world_time=60)
    merged = await _patch(
        user_client, session, flags={"a": {"b": None, "c": [3]}, "d": {"e": {"f": None}}}, relationships={"npc:1": {}}
    )
    assert merged["flags"] == {"a": {"c": [3]}, "d": {"e": {}}}
    assert merged["relationships"] == {"npc:1": {}}
    assert merged["world_time"] == 60.0
    assert (await user_client.get(f"{SESSIONS}{session['id']}")).json() == merged
    assert (await _patch(user_client, session, flags=None))["flags"] == {}


async def test_a_patch_that_changes_only_a_type_is_stored(user_client: httpx.AsyncClient, scene_id: int) -> None:
    """1 and true are equal in Python, but not to a player."""
    session = await _begin(user_client, scene_id)
    await _patch(user_client, session, flags={"on": 1, "many": [0]})
    await _patch(user_client, session, flags={"on": True, "many": [False]})
    stored = (await user_client.get(f"{SESSIONS}{session['id']}")).json()
    assert stored["flags"]["on"] is True
    assert stored["flags"]["many"][0] is False


async def test_a_patch_without_effect_is_no_change(user_client: httpx.AsyncClient, scene_id: int, heard: Heard) -> None:
    """No new version, no entry in the history, no event."""
    session = await _begin(user_client, scene_id)
    await _patch(user_client, session, flags={"a": {"b": 1}})
    patches: list[dict[str, Any]] = [{}, {"flags": {}}, {"flags": {"a": {"b": 1}, "gone": None}}, {"world_time": 0}]
    for patch in patches:
        assert (await _patch(user_client, session, **patch))["version"] == 2
    assert (await user_client.get(f"{SESSIONS}{session['id']}/events")).json()["total"] == 2
    await plugin_hooks.settle()
    assert len(heard) == 2


async def test_a_merge_patch_media_type_is_understood(user_client: httpx.AsyncClient, scene_id: int) -> None:
    """``application/merge-patch+json`` is what RFC 7386 registers; curl without a type works as well."""
    session = await _begin(user_client, scene_id)
    for number, media_type in enumerate(("application/merge-patch+json", "application/json", "")):
        answer = await user_client.patch(
            f"{SESSIONS}{session['id']}",
            content=b'{"flags": {"n": %d}}' % number,
            headers={"Content-Type": media_type} if media_type else {},
        )
        assert answer.status_code == 200, answer.text
        assert answer.json()["flags"] == {"n": number}


async def test_if_match_lets_only_the_latest_version_be_changed(user_client: httpx.AsyncClient, scene_id: int) -> None:
    """Strong tags, lists and ``*`` as RFC 9110 says; weak and stale tags are 412, nonsense is 400."""
    session = await _begin(user_client, scene_id)
    place = f"{SESSIONS}{session['id']}"

    async def patch(tag: str, value: int) -> int:
        answer = await user_client.patch(place, json={"flags": {"n": value}}, headers={"If-Match": tag})
        if answer.status_code == 412:
            assert answer.headers["etag"] == (await user_client.get(place)).headers["etag"]
        return answer.status_code

    assert await patch('"1"', 1) == 200
    assert await patch('"1"', 2) == 412
    assert await patch('W/"2"', 2) == 412
    assert await patch('"7", "2"', 3) == 200
    assert await patch("*", 4) == 200
    assert await patch("two", 5) == 400
    assert (await user_client.get(place)).json()["flags"] == {"n": 4}
    stale = await user_client.post(f"{place}/advance", json={"edge_id": "enter"}, headers={"If-Match": '"1"'})
    assert stale.status_code == 412


WRONG_PATCHES = [
    b'{"flags": []}',
    b'{"flags": 3}',
    b'{"flags": {"x": NaN}}',
    b'{"flags": {"x": -Infinity}}',
    b'{"flags": {"x": 1e999}}',
    b'{"flags": {"x": 99999999999999999999}}',
    b'{"flags": {"x": "\\u0000"}}',
    b'{"flags": {"\\u0000": 1}}',
    b'{"flags": {"x": "\\ud800"}}',
    b'{"flags": {"\\udc00": 1}}',
    b'{"flags": {"x": ' + b"[" * 60 + b"]" * 60 + b"}}",
    b'{"flags": ' + b'{"a": ' * 3000 + b"1" + b"}" * 3000 + b"}",
    b'{"flags": {"x": "' + b"y" * 300_000 + b'"}}',
    b'{"flags": {"stealth": 3}}',
    b'{"flags": {"arcs": []}}',
    b'{"flags": {"world": 3}}',
    b'{"flags": {"world": {"id": "3"}}}',
    b'{"flags": {"world": {"id": 99999999999}}}',
    b'{"relationships": {"npc:1": 3}}',
    b'{"relationships": {"npc:1": {"affinity": "high"}}}',
    b'{"relationships": {"npc:1": {"flags": 1}}}',
    b'{"world_time": -1}',
    b'{"world_time": null}',
    b'{"world_time": NaN}',
    b'{"world_time": 1e13}',
    b'{"current_node_id": "hall"}',
    b'{"version": 9}',
    b"[]",
    b"null",
    b"{",
]


async def test_what_would_break_a_session_is_refused(user_client: httpx.AsyncClient, scene_id: int) -> None:
    """Every bad patch is a problem below 500 that leaves the session as it was."""
    session = await _begin(user_client, scene_id)
    place = f"{SESSIONS}{session['id']}"
    for body in WRONG_PATCHES:
        answer = await user_client.patch(place, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code in (400, 413, 422), (body, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        assert (await user_client.get(place)).json() == session


async def test_memory_cannot_grow_beyond_its_bound_by_patches(user_client: httpx.AsyncClient, scene_id: int) -> None:
    """The bound holds for what would be stored, not only for what is sent."""
    session = await _begin(user_client, scene_id)
    await _patch(user_client, session, flags={"a": "x" * 200_000})
    answer = await user_client.patch(f"{SESSIONS}{session['id']}", json={"flags": {"b": "x" * 200_000}})
    assert answer.status_code == 422
    assert "flags: JSON must not be longer than 262144 bytes" in answer.json()["detail"]
    assert (await _patch(user_client, session, flags={"a": None}))["flags"] == {}


WRONG_BEGINNINGS: list[dict[str, Any]] = [
    {},
    {"scene_id": 0},
    {"scene_id": 2**63},
    {"scene_id": "x"},
    {"scene_id": None},
    {"scene_id": 1, "world_id": -1},
]


async def test_a_beginning_without_a_usable_scene_is_refused(user_client: httpx.AsyncClient, scene_id: int) -> None:
    """Ids that no row can have never reach the database."""
    for body in WRONG_BEGINNINGS:
        assert (await user_client.post(SESSIONS, json=body)).status_code == 422, body


WRONG_EDGE_IDS: list[Any] = [None, "", "a b", "\x00", "x" * 200, {"a": 1}]


async def test_an_edge_id_that_no_edge_can_have_is_refused(user_client: httpx.AsyncClient, scene_id: int) -> None:
    """Before the session is even locked."""
    session = await _begin(user_client, scene_id)
    for edge_id in WRONG_EDGE_IDS:
        answer = await user_client.post(f"{SESSIONS}{session['id']}/advance", json={"edge_id": edge_id})
        assert answer.status_code == 422, edge_id


# --- the history --------------------------------------------------------------------------------


async def test_the_history_tells_what_happened(user_client: httpx.AsyncClient, scene_id: int) -> None:
    """Oldest first, with the version after each entry, its paths and its changes; paged like every list."""
    session = await _begin(user_client, scene_id)
    await _patch(user_client, session, flags={"a": {"b": 1}, "c": 2})
    await _take(user_client, session, "enter")
    await _patch(user_client, session, flags={"long": "x" * 5000, "c": None})
    place = f"{SESSIONS}{session['id']}/events"
    page = (await user_client.get(place)).json()
    assert page["total"] == 4
    created, patched, advanced, long = page["items"]
    assert (created["kind"], created["session_version"]) == ("created", 1)
    assert created["detail"] == {"scene_id": scene_id, "node_id": "gate", "world_id": None}
    assert (patched["kind"], patched["paths"]) == ("patched", ["flags.a.b", "flags.c"])
    assert patched["changes"] == {"flags": {"a": {"b": 1}, "c": 2}}
    assert (advanced["kind"], advanced["edge_id"], advanced["session_version"]) == ("advanced", "enter", 3)
    assert advanced["detail"] == {"from": "gate", "to": "yard", "choice_label": ""}
    assert advanced["changes"] == {"current_node_id": "yard", "flags": {"visits": {"yard": 1}}}
    assert (sorted(long["paths"]), long["changes"]) == (["flags.c", "flags.long"], None)
    assert created["at"] <= patched["at"] <= advanced["at"] <= long["at"]
    first = (await user_client.get(place, params={"limit": 3})).json()
    rest = (await user_client.get(place, params={"limit": 3, "cursor": first["next_cursor"]})).json()
    assert first["items"] + rest["items"] == page["items"]
    assert rest["next_cursor"] is None
