"""Locations and their hotspots over HTTP, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from pixsim7_backend.infrastructure.plugins import ports

pytestmark = pytest.mark.anyio

PATH = "/api/v1/game/locations"
SCENE = {"title": "Gate", "entry_node_id": "a", "nodes": [{"id": "a"}]}


async def make_location(admin: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    """Create a location and return it."""
    answer = await admin.post(f"{PATH}/", json={"name": "Market", **fields})
    assert answer.status_code == 201, answer.text
    location: dict[str, Any] = answer.json()
    return location


async def make_scene(admin: httpx.AsyncClient) -> int:
    """Create a scene and return its id."""
    answer = await admin.post("/api/v1/game/scenes/", json=SCENE)
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


def spot(object_name: str = "door", hotspot_id: str = "knob", **fields: Any) -> dict[str, Any]:
    """A hotspot as a client sends it."""
    return {"object_name": object_name, "hotspot_id": hotspot_id, **fields}


async def test_a_location_is_made_read_changed_and_deleted(
    admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient
) -> None:
    """Every field comes back as it was stored, at the address that the answer names."""
    fields = {
        "name": "Pier",
        "x": 1.5,
        "y": -2,
        "asset_id": 7,
        "default_spawn": "steps",
        "meta": {"wet": [1, {"a": 2}]},
    }
    made = await admin_client.post(f"{PATH}/", json=fields)
    assert made.status_code == 201
    address = made.headers["location"]
    read = await user_client.get(address)
    assert read.json() == made.json()
    assert {name: read.json()[name] for name in fields} == fields
    assert read.json()["hotspots"] == []
    assert read.json()["created_at"].endswith("Z")
    changed = await admin_client.patch(address, json={"name": "Old Pier", "default_spawn": None})
    assert changed.json()["name"] == "Old Pier"
    assert changed.json()["default_spawn"] is None
    assert changed.json()["meta"] == fields["meta"]
    assert (await admin_client.delete(address)).status_code == 204
    assert (await user_client.get(address)).status_code == 404


async def test_a_list_pages_and_filters_by_name(
    admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient
) -> None:
    """Totals count the whole result, the cursor walks it once, filters come before paging."""
    names = [f"Place {number % 2}" for number in range(5)]
    for name in names:
        await make_location(admin_client, name=name)
    seen, cursor = [], None
    while True:
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await user_client.get(f"{PATH}/", params=query)).json()
        assert page["total"] == 5
        seen += [item["name"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == names
    filtered = (await user_client.get(f"{PATH}/", params={"name": "Place 1", "limit": 1})).json()
    assert (filtered["total"], len(filtered["items"])) == (2, 1)


async def test_only_admins_write(admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient) -> None:
    """A player reads but cannot add, change, replace or delete what all players share."""
    location = await make_location(admin_client)
    address = f"{PATH}/{location['id']}"
    answers = [
        await user_client.post(f"{PATH}/", json={"name": "Mine"}),
        await user_client.patch(address, json={"name": "Mine"}),
        await user_client.put(f"{address}/hotspots", json={"hotspots": []}),
        await user_client.delete(address),
    ]
    assert [answer.status_code for answer in answers] == [403] * 4
    assert {answer.headers["content-type"] for answer in answers} == {"application/problem+json"}
    assert (await user_client.get(address)).json() == location


async def test_nobody_reads_without_a_token(admin_client: httpx.AsyncClient) -> None:
    """Reading needs a login: 401 with the challenge, before the input is looked at."""
    location = await make_location(admin_client)
    nobody = {"Authorization": ""}
    for address in (f"{PATH}/", f"{PATH}/{location['id']}", f"{PATH}/not-an-id"):
        answer = await admin_client.get(address, headers=nobody)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
    assert (await admin_client.post(f"{PATH}/", json={"bad": 1}, headers=nobody)).status_code == 401


async def test_hotspots_are_replaced_as_a_whole_and_keep_their_order(
    admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient
) -> None:
    """The new set is all there is afterwards, also where it repeats keys of the old one."""
    scene_id = await make_scene(admin_client)
    location = await make_location(admin_client)
    address = f"{PATH}/{location['id']}"
    first = [spot("b", "1"), spot("a", "1", linked_scene_id=scene_id, meta={"glow": True})]
    second = [spot("c", "1"), spot("b", "1", meta={"n": 1})]
    for hotspots in (first, second, []):
        answer = await admin_client.put(f"{address}/hotspots", json={"hotspots": hotspots})
        assert answer.status_code == 200, answer.text
        full = [{"linked_scene_id": None, "meta": {}} | each for each in hotspots]
        assert answer.json()["hotspots"] == full
        assert (await user_client.get(address)).json()["hotspots"] == full


REFUSED_HOTSPOTS: list[Any] = [
    [spot("door", "knob"), spot("door", "knob")],
    [spot("door", "knob"), spot("door", " knob ")],
    [spot("new", "1"), spot("", "x")],
    [spot("new", "1"), spot("a", "b", linked_scene_id=999)],
    [spot("new", "1"), spot("a", "b", linked_scene_id=10**30)],
    [spot("new", "1"), spot("a", "b", meta={"nul": "\x00"})],
    [spot(str(number), "x") for number in range(501)],
    "none",
]


async def test_refused_hotspots_leave_the_old_ones(admin_client: httpx.AsyncClient) -> None:
    """Repeated keys, unknown scenes or unstorable values: 422, and not one hotspot is changed."""
    location = await make_location(admin_client)
    address = f"{PATH}/{location['id']}"
    before = (await admin_client.put(f"{address}/hotspots", json={"hotspots": [spot("old", "1")]})).json()
    for hotspots in REFUSED_HOTSPOTS:
        answer = await admin_client.put(f"{address}/hotspots", json={"hotspots": hotspots})
        assert answer.status_code == 422, (hotspots, answer.text)
        assert (await admin_client.get(address)).json() == before


async def test_a_deleted_scene_is_unlinked(admin_client: httpx.AsyncClient) -> None:
    """The hotspot stays without its link."""
    scene_id = await make_scene(admin_client)
    location = await make_location(admin_client)
    address = f"{PATH}/{location['id']}"
    await admin_client.put(f"{address}/hotspots", json={"hotspots": [spot(linked_scene_id=scene_id)]})
    assert (await admin_client.delete(f"/api/v1/game/scenes/{scene_id}")).status_code == 204
    assert (await admin_client.get(address)).json()["hotspots"] == [spot(linked_scene_id=None, meta={})]


async def test_if_match_refuses_a_stale_write(admin_client: httpx.AsyncClient) -> None:
    """Each write raises the version, hotspots included; a write over a newer version is 412 and changes nothing."""
    location = await make_location(admin_client)
    address = f"{PATH}/{location['id']}"
    first = (await admin_client.get(address)).headers["etag"]
    put = await admin_client.put(f"{address}/hotspots", json={"hotspots": [spot()]}, headers={"If-Match": first})
    assert put.status_code == 200
    assert put.headers["etag"] != first
    stale = {"If-Match": first}
    assert (await admin_client.patch(address, json={"name": "X"}, headers=stale)).status_code == 412
    assert (await admin_client.put(f"{address}/hotspots", json={"hotspots": []}, headers=stale)).status_code == 412
    assert (await admin_client.delete(address, headers=stale)).status_code == 412
    now = await admin_client.get(address)
    assert (now.json()["name"], len(now.json()["hotspots"])) == ("Market", 1)
    fresh = {"If-Match": now.headers["etag"]}
    assert (await admin_client.patch(address, json={"name": "X"}, headers=fresh)).status_code == 200


async def test_parallel_writers_with_if_match_admit_one(admin_client: httpx.AsyncClient) -> None:
    """Of eight writers that saw the same version exactly one wins; nobody is lost silently."""
    location = await make_location(admin_client)
    address = f"{PATH}/{location['id']}"
    seen = {"If-Match": (await admin_client.get(address)).headers["etag"]}
    answers = await asyncio.gather(
        *(admin_client.patch(address, json={"x": number}, headers=seen) for number in range(1, 9))
    )
    won = [answer for answer in answers if answer.status_code == 200]
    assert len(won) == 1
    assert {answer.status_code for answer in answers} <= {200, 412, 409}
    assert (await admin_client.get(address)).json() == won[0].json()


async def test_parallel_replacements_never_mix(admin_client: httpx.AsyncClient) -> None:
    """What is stored at the end is one of the sets that were sent, whole."""
    location = await make_location(admin_client)
    address = f"{PATH}/{location['id']}"
    sets = [[spot(f"o{number}", str(index)) for index in range(4)] for number in range(6)]
    answers = await asyncio.gather(
        *(admin_client.put(f"{address}/hotspots", json={"hotspots": hotspots}) for hotspots in sets)
    )
    assert {answer.status_code for answer in answers} == {200}
    stored = (await admin_client.get(address)).json()["hotspots"]
    assert [(each["object_name"], each["hotspot_id"]) for each in stored] in [
        [(each["object_name"], each["hotspot_id"]) for each in hotspots] for hotspots in sets
    ]


UNACCEPTABLE = [
    '{"name": "x", "x": NaN}',
    '{"name": "x", "y": Infinity}',
    '{"name": "x", "x": 1e999}',
    '{"name": "x", "x": 1' + "0" * 400 + "}",
    '{"name": "x", "asset_id": 1' + "0" * 30 + "}",
    '{"name": "x", "asset_id": 1' + "0" * 5000 + "}",
    '{"name": "x", "asset_id": 0}',
    '{"name": "a\\u0000b"}',
    '{"name": "\\ud800"}',
    '{"name": "   "}',
    '{"name": "' + "x" * 201 + '"}',
    '{"name": "x", "default_spawn": "\\u0000"}',
    '{"name": "x", "meta": {"a": NaN}}',
    '{"name": "x", "meta": {"a\\u0000": 1}}',
    '{"name": "x", "meta": {"a": 1' + "0" * 40 + "}}",
    '{"name": "x", "meta": ' + '{"a":' * 40 + "1" + "}" * 40 + "}",
    '{"name": "x", "meta": ' + '{"a":' * 100_000 + "1" + "}" * 100_000 + "}",
    '{"name": "x", "meta": []}',
    '{"name": "x", "id": 5}',
    '{"name": null}',
    "[]",
    "null",
    "{",
    "\x00",
]


async def test_large_numbers_in_meta_come_back_or_are_refused(admin_client: httpx.AsyncClient) -> None:
    """JSONB gives large floats back as whole numbers: what is stored can be read, what cannot be is not stored."""
    location = await make_location(admin_client, meta={"a": 1e18, "b": -(2**63), "c": 1e-300})
    address = f"{PATH}/{location['id']}"
    assert (await admin_client.get(address)).json()["meta"] == {"a": 1e18, "b": -(2**63), "c": 1e-300}
    for number in (1e19, 1e300, -1e300, 2**63):
        assert (await admin_client.patch(address, json={"meta": {"a": number}})).status_code == 422
    assert (await admin_client.get(address)).json()["meta"]["a"] == 1e18


async def test_bad_input_is_refused(admin_client: httpx.AsyncClient) -> None:
    """Values that no database could keep are the client's error, for POST and for PATCH."""
    location = await make_location(admin_client)
    json_body = {"content-type": "application/json"}
    for body in UNACCEPTABLE:
        for method, address in (("POST", f"{PATH}/"), ("PATCH", f"{PATH}/{location['id']}")):
            answer = await admin_client.request(method, address, content=body.encode(), headers=json_body)
            assert answer.status_code in {400, 413, 422}, (method, body[:60], answer.text)
            assert answer.headers["content-type"] == "application/problem+json"
    assert (await admin_client.get(f"{PATH}/")).json()["total"] == 1


async def test_a_strange_id_is_never_a_server_error(admin_client: httpx.AsyncClient) -> None:
    """It names nothing: 404, or 422 where it cannot be an id."""
    for key in ("0", "-1", "1.5", "x", "%00", str(2**31 - 1), str(2**31), str(2**63), "1" + "0" * 400):
        for method in ("GET", "DELETE"):
            assert (await admin_client.request(method, f"{PATH}/{key}")).status_code in {404, 422}, (method, key)


async def test_an_empty_change_is_refused(admin_client: httpx.AsyncClient) -> None:
    """PATCH with nothing to change says which fields there are."""
    location = await make_location(admin_client)
    answer = await admin_client.patch(f"{PATH}/{location['id']}", json={})
    assert answer.status_code == 422
    assert "default_spawn" in answer.json()["errors"][0]["detail"]


class OneAsset:
    """A media library that holds asset 5 only."""

    def find_readable(self, db: object, asset_ids: Any, user_id: int) -> dict[int, Any]:
        """Return asset 5 when it is asked for."""
        return {asset_id: object() for asset_id in asset_ids if asset_id == 5}


@pytest.fixture
def media() -> Iterator[None]:
    """Somebody provides the port ``media``."""
    withdraw = ports.provide("media", OneAsset())
    yield
    withdraw()


async def test_pictures_are_checked_where_media_is_kept(admin_client: httpx.AsyncClient, media: None) -> None:
    """With the port ``media`` an unknown asset is 422; without it any id is stored."""
    assert (await admin_client.post(f"{PATH}/", json={"name": "x", "asset_id": 6})).status_code == 422
    location = await make_location(admin_client, asset_id=5)
    address = f"{PATH}/{location['id']}"
    assert (await admin_client.patch(address, json={"asset_id": 6})).status_code == 422
    assert (await admin_client.patch(address, json={"asset_id": None})).status_code == 200
