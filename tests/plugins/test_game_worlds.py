from __future__ import annotations

from typing import Any

import anyio.to_thread
import httpx
import pytest

from tests.plugins.conftest import Backend

pytestmark = pytest.mark.anyio

WORLDS = "/api/v1/game/worlds/"


async def _create(client: httpx.AsyncClient, name: str = "Avalon", **fields: Any) -> dict[str, Any]:
    answer = await client.post(WORLDS, json={"name": name, **fields})
    assert answer.status_code == 201, answer.text
    world: dict[str, Any] = answer.json()
    return world


async def test_a_world_begins_at_time_0_and_says_where_it_is(user_client: httpx.AsyncClient) -> None:
    """The answer to POST carries the world, its place and its version."""
    answer = await user_client.post(WORLDS, json={"name": "  Avalon ", "meta": {"tiers": [1, {"a": None}]}})
    world = answer.json()
    assert (world["name"], world["world_time"], world["version"]) == ("Avalon", 0.0, 1)
    assert world["meta"] == {"tiers": [1, {"a": None}]}
    assert world["created_at"].endswith("Z")
    assert answer.headers["location"] == f"{WORLDS}{world['id']}"
    assert answer.headers["etag"] == '"1"'
    assert (await user_client.get(answer.headers["location"])).json() == world


async def test_only_own_worlds_are_listed_and_found(
    user_client: httpx.AsyncClient, other_client: httpx.AsyncClient, admin_client: httpx.AsyncClient
) -> None:
    """Somebody else's world is 404 for every method, for admins too, and says what an unknown one says."""
    world = await _create(user_client)
    place = f"{WORLDS}{world['id']}"
    for client in (other_client, admin_client):
        answers = [
            await client.get(place),
            await client.patch(place, json={"name": "Mine"}),
            await client.patch(place, json={"name": "Mine"}, headers={"If-Match": '"1"'}),
            await client.post(f"{place}/advance", json={"delta_seconds": 1}),
            await client.delete(place),
        ]
        assert [answer.status_code for answer in answers] == [404] * 5
        assert {answer.json()["detail"] for answer in answers} == {f"there is no game world {world['id']}"}
        assert (await client.get(WORLDS)).json() == {"items": [], "total": 0, "next_cursor": None}
    assert (await user_client.get(place)).json() == world


async def test_worlds_are_paged(user_client: httpx.AsyncClient, other_client: httpx.AsyncClient) -> None:
    """The total counts the caller's worlds, whatever the page."""
    mine = [(await _create(user_client, f"world {number}"))["id"] for number in range(5)]
    await _create(other_client)
    seen, cursor = [], None
    while True:
        query = {"limit": "2", **({"cursor": cursor} if cursor else {})}
        page = (await user_client.get(WORLDS, params=query)).json()
        assert page["total"] == 5
        seen += [world["id"] for world in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == mine


async def test_a_patch_is_merged_and_really_stored(user_client: httpx.AsyncClient) -> None:
    """Changing a non-empty meta a second time is stored too, also where Python finds old and new equal."""
    world = await _create(user_client, meta={"on": 1, "npcs": {"3": {"mood": "glad"}}, "gone": 1})
    place = f"{WORLDS}{world['id']}"
    first = await user_client.patch(place, json={"meta": {"npcs": {"4": {}}, "gone": None}})
    assert first.json()["meta"] == {"on": 1, "npcs": {"3": {"mood": "glad"}, "4": {}}}
    await user_client.patch(place, json={"meta": {"on": True}})
    assert (await user_client.get(place)).json()["meta"]["on"] is True
    second = await user_client.patch(place, json={"meta": {"npcs": {"3": {"mood": "sad"}}}, "name": "B"})
    stored = (await user_client.get(place)).json()
    assert stored == second.json()
    assert stored["meta"] == {"on": True, "npcs": {"3": {"mood": "sad"}, "4": {}}}
    assert stored["name"] == "B"
    assert (await user_client.patch(place, json={"meta": None})).json()["meta"] == {}


async def test_a_stale_if_match_is_412_and_changes_nothing(user_client: httpx.AsyncClient) -> None:
    """PATCH and DELETE honour If-Match; advancing makes a new version."""
    world = await _create(user_client)
    place = f"{WORLDS}{world['id']}"
    moved = await user_client.post(f"{place}/advance", json={"delta_seconds": 5})
    assert moved.headers["etag"] != '"1"'
    stale = await user_client.patch(place, json={"name": "B"}, headers={"If-Match": '"1"'})
    assert stale.status_code == 412
    assert stale.headers["content-type"] == "application/problem+json"
    assert stale.headers["etag"] == moved.headers["etag"]
    assert (await user_client.delete(place, headers={"If-Match": '"1"'})).status_code == 412
    fresh = await user_client.patch(place, json={"name": "B"}, headers={"If-Match": moved.headers["etag"]})
    assert fresh.status_code == 200
    assert (await user_client.patch(place, json={"name": "C"}, headers={"If-Match": "*"})).status_code == 200
    assert (await user_client.patch(place, json={"name": "D"}, headers={"If-Match": "nonsense"})).status_code == 400
    assert (await user_client.get(place)).json()["name"] == "C"


async def test_a_deleted_world_is_gone(user_client: httpx.AsyncClient) -> None:
    """Deleting answers 204 once, then 404."""
    place = f"{WORLDS}{(await _create(user_client))['id']}"
    assert (await user_client.delete(place)).status_code == 204
    assert (await user_client.delete(place)).status_code == 404
    assert (await user_client.get(place)).status_code == 404


async def test_advancing_adds_to_the_clock(user_client: httpx.AsyncClient) -> None:
    """Fractions and 0 are fine."""
    place = f"{WORLDS}{(await _create(user_client))['id']}/advance"
    for delta in (90.5, 0, 3600):
        answer = await user_client.post(place, json={"delta_seconds": delta})
    assert answer.json()["world_time"] == 3690.5


WRONG_STEPS = [
    b'{"delta_seconds": -1}',
    b'{"delta_seconds": NaN}',
    b'{"delta_seconds": Infinity}',
    b'{"delta_seconds": 1e400}',
    b'{"delta_seconds": 1e11}',
    b'{"delta_seconds": null}',
    b'{"delta_seconds": "soon"}',
    b'{"delta_seconds": 1, "speed": 2}',
    b"{}",
    b"[]",
    b"{",
    b'{"delta_seconds": ' + b"9" * 5000 + b"}",
]


async def test_a_wrong_step_is_refused(user_client: httpx.AsyncClient) -> None:
    """Time never goes back, and never leaves what a float can count."""
    place = f"{WORLDS}{(await _create(user_client))['id']}"
    for body in WRONG_STEPS:
        answer = await user_client.post(f"{place}/advance", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code in (400, 422), (body, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        assert (await user_client.get(place)).json()["world_time"] == 0


async def test_a_clock_has_an_end(backend: Backend, user_client: httpx.AsyncClient) -> None:
    """At the end of the representable time advancing is a conflict that says so."""
    place = f"{WORLDS}{(await _create(user_client))['id']}/advance"
    await anyio.to_thread.run_sync(backend.execute, "UPDATE game_worlds SET world_time = 999999999990")
    assert (await user_client.post(place, json={"delta_seconds": 10})).json()["world_time"] == 1e12
    answer = await user_client.post(place, json={"delta_seconds": 1})
    assert answer.status_code == 409
    assert answer.json()["detail"].endswith("is at 1000000000000 s and ends at 1000000000000 s")
    assert (await user_client.post(place, json={"delta_seconds": 0})).status_code == 200


WRONG_WORLDS = [
    b'{"name": ""}',
    b'{"name": "   "}',
    b'{"name": null}',
    b'{"name": "a\\u0000b"}',
    b'{"name": "\\ud800"}',
    b'{"name": "a", "meta": {"\\ud800": 1}}',
    b'{"name": "a", "meta": {"x": "\\udfff"}}',
    b'{"name": "a", "meta": {"x": "\\u0000"}}',
    b'{"name": "a", "meta": {"x": NaN}}',
    b'{"name": "a", "meta": {"x": 1e999}}',
    b'{"name": "a", "meta": {"x": 99999999999999999999}}',
    b'{"name": "a", "meta": []}',
    b'{"name": "a", "meta": {"x": ' + b"[" * 50 + b"]" * 50 + b"}}",
    b'{"name": "a", "meta": {"x": ' + b"[" * 50_000 + b"]" * 50_000 + b"}}",
    b'{"name": "a", "meta": {"x": "' + b"y" * 70_000 + b'"}}',
    b'{"name": "a", "owner_id": 1}',
    b'"text"',
    b"\xff\xfe",
]


async def test_a_world_that_cannot_be_stored_is_refused(user_client: httpx.AsyncClient) -> None:
    """What one of the two databases would refuse or break is invalid input, for POST and PATCH alike."""
    place = f"{WORLDS}{(await _create(user_client))['id']}"
    for body in WRONG_WORLDS:
        for method, url in (("POST", WORLDS), ("PATCH", place)):
            answer = await user_client.request(method, url, content=body, headers={"Content-Type": "application/json"})
            assert answer.status_code in (400, 422), (method, body, answer.text)
            assert answer.headers["content-type"] == "application/problem+json"
        assert (await user_client.get(WORLDS)).json()["total"] == 1


async def test_meta_cannot_grow_beyond_its_bound_by_patches(user_client: httpx.AsyncClient) -> None:
    """The bound holds for what would be stored, not only for what is sent."""
    place = f"{WORLDS}{(await _create(user_client, meta={'a': 'x' * 40_000}))['id']}"
    answer = await user_client.patch(place, json={"meta": {"b": "x" * 40_000}})
    assert answer.status_code == 422
    assert answer.json()["detail"] == "meta: JSON must not be longer than 65536 bytes"
    assert list((await user_client.get(place)).json()["meta"]) == ["a"]


WRONG_IDS = ["0", "-1", "abc", str(2**31), str(2**63), "9" * 40, "1.5", "%00", "NaN"]


async def test_an_id_that_no_row_can_have_is_refused(user_client: httpx.AsyncClient) -> None:
    """Also where the database's integer type would overflow."""
    for world_id in WRONG_IDS:
        assert (await user_client.get(f"{WORLDS}{world_id}")).status_code in (404, 422), world_id


async def test_the_largest_id_is_simply_not_found(user_client: httpx.AsyncClient) -> None:
    """It reaches the database, and finds nothing."""
    place = f"{WORLDS}{2**31 - 1}"
    assert (await user_client.get(place)).status_code == 404
    assert (await user_client.post(f"{place}/advance", json={"delta_seconds": 1})).status_code == 404


async def test_without_a_token_every_route_is_401(user_client: httpx.AsyncClient) -> None:
    """Even with a wrong body: who is asking comes first."""
    for method, path in (
        ("GET", ""),
        ("POST", ""),
        ("GET", "1"),
        ("PATCH", "1"),
        ("DELETE", "1"),
        ("POST", "1/advance"),
    ):
        answer = await user_client.request(method, f"{WORLDS}{path}", headers={"Authorization": ""})
        assert answer.status_code == 401, (method, path)
        assert answer.headers["www-authenticate"] == "Bearer"
