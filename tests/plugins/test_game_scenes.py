from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import anyio
import httpx
import pytest
from sqlalchemy.orm import Session

from pixsim7_backend.infrastructure.plugins import ports, running_as_host
from pixsim7_backend.plugins.game_scenes import PlayableMedia
from tests.plugins.conftest import Backend

pytestmark = pytest.mark.anyio

SCENES = "/api/v1/game/scenes/"

GATE: dict[str, Any] = {
    "title": "At the gate",
    "description": "Two guards.",
    "entry_node_id": "gate",
    "meta": {"act": 1},
    "nodes": [
        {"id": "gate", "label": "The gate", "loopable": True, "reveal_choices_at_sec": 2.5},
        {"id": "yard", "asset_id": 12, "skippable": True, "meta": {"mood": "calm"}},
    ],
    "edges": [
        {
            "from": "gate",
            "to": "yard",
            "choice_label": "Show the pass",
            "cooldown_sec": 30,
            "conditions": [{"type": "flag", "path": "pass", "op": "exists"}],
            "effects": [{"type": "clear_flag", "path": "pass"}],
        },
        {"id": "back", "from": "yard", "to": "gate", "weight": 0.5, "reveal_at_sec": 1},
    ],
}


async def _create(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await client.post(SCENES, json={**GATE, **fields})
    assert answer.status_code == 201, answer.text
    scene: dict[str, Any] = answer.json()
    return scene


async def test_a_graph_is_stored_in_one_call_and_played_by_users(
    admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient
) -> None:
    """Ids are strings, node ids are the author's, edges without one are named after their nodes."""
    answer = await admin_client.post(SCENES, json=GATE)
    saved = answer.json()
    assert answer.status_code == 201
    assert saved.pop("warnings") == []
    assert answer.headers["location"] == f"{SCENES}{saved['id']}"
    played = await user_client.get(answer.headers["location"])
    assert played.headers["etag"] == '"1"'
    scene = played.json()
    assert scene == saved
    assert isinstance(scene["id"], str)
    assert (scene["title"], scene["startNodeId"], scene["meta"]) == ("At the gate", "gate", {"act": 1})
    assert [node["id"] for node in scene["nodes"]] == ["gate", "yard"]
    assert scene["nodes"][0] == {
        "id": "gate",
        "asset_id": None,
        "label": "The gate",
        "loopable": True,
        "skippable": False,
        "reveal_choices_at_sec": 2.5,
        "meta": {},
        "media": [],
    }
    assert scene["nodes"][1]["asset_id"] == "12"
    there, back = scene["edges"]
    assert (there["id"], there["from"], there["to"], there["cooldown_sec"]) == ("gate--yard", "gate", "yard", 30.0)
    assert there["conditions"] == [{"type": "flag", "path": "pass", "op": "exists", "value": None}]
    assert (back["id"], back["weight"], back["reveal_at_sec"]) == ("back", 0.5, 1.0)


async def test_what_get_gave_can_be_put_back(admin_client: httpx.AsyncClient) -> None:
    """An editor needs no translation between reading and writing."""
    place = f"{SCENES}{(await _create(admin_client))['id']}"
    scene = (await admin_client.get(place)).json()
    again = await admin_client.put(place, json=scene)
    assert again.status_code == 200, again.text
    may_change = {"version", "updated_at", "warnings"}
    assert set(again.json()) - set(scene) == {"warnings"}
    assert {name for name, value in scene.items() if again.json()[name] != value} <= may_change


async def test_put_replaces_everything(admin_client: httpx.AsyncClient) -> None:
    """What the new graph leaves out is gone, node ids that it keeps stay, and the answer carries its warnings."""
    place = f"{SCENES}{(await _create(admin_client))['id']}"
    graph = {"title": "Later", "startNodeId": "yard", "nodes": [{"id": "yard"}, {"id": "attic"}]}
    answer = await admin_client.put(place, json=graph)
    assert answer.status_code == 200
    assert answer.headers["etag"] == '"2"'
    assert [(warning["kind"], warning["node_id"]) for warning in answer.json()["warnings"]] == [
        ("unreachable", "attic")
    ]
    scene = (await admin_client.get(place)).json()
    assert (scene["title"], scene["description"], scene["meta"], scene["edges"]) == ("Later", "", {}, [])
    assert [node["id"] for node in scene["nodes"]] == ["yard", "attic"]


async def test_a_refused_graph_changes_nothing(admin_client: httpx.AsyncClient) -> None:
    """PUT is all or nothing; the problem names every culprit."""
    scene = await _create(admin_client)
    place = f"{SCENES}{scene['id']}"
    graph = {**GATE, "entry_node_id": "nowhere", "edges": [{"from": "gate", "to": "moon"}]}
    for answer in (await admin_client.put(place, json=graph), await admin_client.post(SCENES, json=graph)):
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"
        (error,) = answer.json()["errors"]
        assert error["detail"] == (
            "edge 'gate--moon' goes to 'moon', which is not a node of this scene;"
            " entry node 'nowhere' is not a node of this scene"
        )
    assert (await admin_client.get(place)).json()["version"] == 1
    assert (await admin_client.get(SCENES)).json()["total"] == 1


async def test_a_reader_sees_the_old_graph_or_the_new_one(
    admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient
) -> None:
    """While a scene is replaced again and again, every answer is one of its graphs, never a mixture."""
    place = f"{SCENES}{(await _create(admin_client))['id']}"
    graphs = [
        {"title": name, "startNodeId": name, "nodes": [{"id": name}], "edges": [{"from": name, "to": name}]}
        for name in ("odd", "even")
    ]
    await admin_client.put(place, json=graphs[0])
    seen: set[tuple[str, ...]] = set()

    async def read() -> None:
        for _ in range(15):
            scene = (await user_client.get(place)).json()
            ends = (scene["title"], scene["startNodeId"], scene["nodes"][0]["id"], scene["edges"][0]["to"])
            seen.add(tuple(set(ends)))

    async def write() -> None:
        for turn in range(15):
            assert (await admin_client.put(place, json=graphs[turn % 2])).status_code == 200

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        tasks.start_soon(write)
        tasks.start_soon(read)
    assert seen <= {("odd",), ("even",)}


async def test_only_admins_write(user_client: httpx.AsyncClient, admin_client: httpx.AsyncClient) -> None:
    """A user gets 403 for every write, even a malformed one, and nothing changes."""
    place = f"{SCENES}{(await _create(admin_client))['id']}"
    for method, url in (("POST", SCENES), ("PUT", place), ("DELETE", place)):
        for body in (GATE, {}):
            answer = await user_client.request(method, url, json=body)
            assert answer.status_code == 403, (method, answer.text)
    assert (await user_client.get(place)).status_code == 200


async def test_without_a_token_every_route_is_401(backend: Backend) -> None:
    """Reading scenes needs a login too."""
    for method, path in (("GET", ""), ("POST", ""), ("GET", "1"), ("PUT", "1"), ("DELETE", "1")):
        answer = await backend.request(method, f"{SCENES}{path}")
        assert answer.status_code == 401, (method, path)
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_scene_without_an_entry_is_409(admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient) -> None:
    """It may be stored as a draft, with a warning, and played once it has an entry."""
    draft = await _create(admin_client, entry_node_id=None)
    assert draft["startNodeId"] is None
    assert [warning["kind"] for warning in draft["warnings"]] == ["no-entry"]
    answer = await user_client.get(f"{SCENES}{draft['id']}")
    assert answer.status_code == 409
    assert answer.json()["detail"].startswith(f"game scene {draft['id']} has no entry node")
    await admin_client.put(f"{SCENES}{draft['id']}", json=GATE)
    assert (await user_client.get(f"{SCENES}{draft['id']}")).status_code == 200


async def test_unknown_scenes_are_404(admin_client: httpx.AsyncClient) -> None:
    """For every method that names one."""
    for method, body in (("GET", None), ("PUT", GATE), ("DELETE", None)):
        answer = await admin_client.request(method, f"{SCENES}77", json=body)
        assert answer.status_code == 404
        assert answer.json()["detail"] == "there is no game scene 77"


async def test_deleting_and_replacing_honour_if_match(admin_client: httpx.AsyncClient) -> None:
    """Of two authors who edit the same scene the second is told."""
    place = f"{SCENES}{(await _create(admin_client))['id']}"
    mine, theirs = {**GATE, "title": "mine"}, {**GATE, "title": "theirs"}
    assert (await admin_client.put(place, json=mine, headers={"If-Match": '"1"'})).status_code == 200
    assert (await admin_client.put(place, json=theirs, headers={"If-Match": '"1"'})).status_code == 412
    assert (await admin_client.get(place)).json()["title"] == "mine"
    assert (await admin_client.delete(place, headers={"If-Match": '"1"'})).status_code == 412
    assert (await admin_client.delete(place, headers={"If-Match": '"2"'})).status_code == 204
    assert (await admin_client.delete(place)).status_code == 404


async def test_scenes_are_listed_without_graphs(
    admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient
) -> None:
    """Filters apply before paging, and totals count what they leave."""
    for number in range(4):
        await _create(admin_client, title=f"Act {number}")
    await _create(admin_client, title="100% odd_one", entry_node_id=None)
    first = (await user_client.get(SCENES, params={"title": "act", "limit": 3})).json()
    assert first["total"] == 4
    assert [scene["title"] for scene in first["items"]] == ["Act 0", "Act 1", "Act 2"]
    assert set(first["items"][0]) == {
        "id", "title", "description", "startNodeId", "version", "created_at", "updated_at",
    }  # fmt: skip
    rest = (await user_client.get(SCENES, params={"title": "act", "limit": 3, "cursor": first["next_cursor"]})).json()
    assert [scene["title"] for scene in rest["items"]] == ["Act 3"]
    assert rest["next_cursor"] is None
    for query, total in (
        ({"title": "%"}, 1),
        ({"title": "d_o"}, 1),
        ({"playable": "true"}, 4),
        ({"playable": "false"}, 1),
        ({"title": "x"}, 0),
    ):
        assert (await user_client.get(SCENES, params=query)).json()["total"] == total, query
    for query in ({"title": "a\x00"}, {"limit": "0"}, {"limit": "101"}, {"cursor": "x"}, {"playable": "maybe"}):
        assert (await user_client.get(SCENES, params=query)).status_code == 422, query


LOOP = b'{"title": "a", "nodes": [{"id": "n"}], "edges": [{"from": "n", "to": "n", %s}]}'
WRONG_SCENES = [
    b'{"title": "a\\u0000"}',
    b'{"title": "\\ud800"}',
    b'{"title": "a", "meta": {"\\ud800": 1}}',
    b'{"title": "a", "nodes": [{"id": "n", "meta": {"x": NaN}}]}',
    b'{"title": "a", "nodes": [{"id": "n", "asset_id": 99999999999}]}',
    b'{"title": "a", "nodes": [{"id": "n\\u0000"}]}',
    b'{"title": "a", "nodes": [{"id": true}]}',
    b'{"title": "a", "nodes": [[]]}',
    b'{"title": "a", "nodes": {"id": "n"}}',
    LOOP % b'"weight": 1e999',
    LOOP % b'"conditions": [{"type": "any", "of": [{"type": "flag", "path": "\\u0000"}]}]',
    LOOP
    % (b'"conditions": [' + b'{"type": "not", "of": ' * 200 + b'{"type": "flag", "path": "x"}' + b"}" * 200 + b"]"),
    LOOP % b'"effects": ["x"]',
    b"[]",
    b"null",
    b"",
]


async def test_a_scene_that_cannot_be_stored_is_refused(admin_client: httpx.AsyncClient) -> None:
    """Bad input is a problem with a status below 500, whatever the database would have said."""
    for body in WRONG_SCENES:
        answer = await admin_client.post(SCENES, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code in (400, 422), (body, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        assert (await admin_client.get(SCENES)).json()["total"] == 0


class _Shelf:
    """Keeps assets 12 (for everybody) and 13 (for nobody)."""

    def find_readable(self, db: Session, asset_ids: Collection[int], user_id: int) -> Mapping[int, PlayableMedia]:
        clip = PlayableMedia(id=12, url="/assets/12", duration_sec=3.5, tags=("yard", "day"))
        return {12: clip} if 12 in asset_ids else {}


@pytest.fixture
def shelf() -> Iterator[None]:
    """Provide the port that the media library will provide."""
    with running_as_host():
        undo = ports.provide("media", _Shelf())
    yield
    undo()


async def test_media_is_shown_where_somebody_keeps_it(
    admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient, shelf: None
) -> None:
    """A node carries its readable media in the player's words."""
    scene = (await user_client.get(f"{SCENES}{(await _create(admin_client))['id']}")).json()
    assert scene["nodes"][1]["media"] == [
        {"id": "12", "url": "/assets/12", "durationSec": 3.5, "tags": ["yard", "day"]}
    ]
    assert scene["nodes"][0]["media"] == []


async def test_unknown_media_is_refused_where_somebody_keeps_it(admin_client: httpx.AsyncClient, shelf: None) -> None:
    """The problem lists the ids that nobody can read."""
    nodes = [{"id": "a", "asset_id": 12}, {"id": "b", "asset_id": 13}, {"id": "c", "asset_id": 7}]
    answer = await admin_client.post(SCENES, json={"title": "x", "nodes": nodes})
    assert answer.status_code == 422
    assert answer.json()["asset_ids"] == [7, 13]
    assert answer.json()["detail"] == "there is no asset 7, 13"
