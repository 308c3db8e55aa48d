"""64 to 77: answers that would do harm to clients, to proxies, to the host's other pages, or to other requests."""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from pixsim7_backend.infrastructure.plugins import PluginState
from pixsim7_backend.infrastructure.plugins._jail.launcher import Launcher
from pixsim7_backend.infrastructure.plugins.testing import write_plugin
from tests.escape.arena import BASE, CALM, Arena, confined_server, write_hostile
from tests.escape.attempts import answering
from tests.integration.platform.live import live_server

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def bare() -> AsyncIterator[str]:
    """The address of a server that runs the hostile plugin in its own process."""
    with tempfile.TemporaryDirectory(prefix="bare-", dir="/var/tmp") as name:
        write_hostile(Path(name))
        write_plugin(Path(name), "calm", CALM)
        async with live_server(Path(name)) as server:
            yield server.address


async def say(address: str, path: str, *headers: str, target: str | None = None) -> bytes:
    """Ask for a path as it is, or a whole target; return all that comes, to the end of the connection."""
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    lines = [f"GET {target or BASE + path} HTTP/1.1", f"Host: {address}", "Connection: close", *headers]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    try:
        async with asyncio.timeout(60):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


Escaped = Callable[[bytes], bool]


async def fails(arena: Arena, bare: str, tries: Mapping[str, Escaped], *headers: str) -> None:
    """Assert that answers which do harm bare do none out of the jail; one of them has to do it bare."""
    harmful, answers = [], []
    for path, escaped in tries.items():
        async with arena.watched():
            answer = await say(arena.address, path, *headers)
        assert not escaped(answer), answer
        answers.append(answer[9:12].decode() or "cut")
        harmful.append(escaped(await say(bare, path, *headers)))
    is_cut = any(code in {"cut", "502"} for code in answers)
    arena.note("contained" if is_cut else "denied", f"answered {', '.join(answers)}")
    if not any(harmful):
        arena.proves_nothing("no harm")


def head(answer: bytes) -> bytes:
    """Return the head of an answer in small letters."""
    return answer.partition(b"\r\n\r\n")[0].lower()


async def test_064_split_headers(arena: Arena, bare: str) -> None:
    """A name or a value that holds a new line makes no further header, and no answer."""
    await fails(arena, bare, dict.fromkeys(("/split/value", "/split/name"), lambda said: b"\nx-evil: 1" in said))


async def test_065_two_lengths(arena: Arena, bare: str) -> None:
    """An answer does not have two lengths, of which a proxy might believe the other one."""

    def has_two(said: bytes) -> bool:
        return b"content-length" in head(said) and b"transfer-encoding" in head(said)

    await fails(arena, bare, {"/two-lengths": has_two})


async def test_066_wrong_length(arena: Arena, bare: str) -> None:
    """An answer that is longer or shorter than it says does not look whole, and nothing follows it."""

    def looks_whole(said: bytes) -> bool:
        declared = re.search(rb"content-length: (\d+)", head(said))
        body = said.partition(b"\r\n\r\n")[2]
        return b" 200 " in said[:15] and (declared is None or len(body) >= int(declared[1]))

    await fails(arena, bare, dict.fromkeys(("/length/5", "/length/1000"), looks_whole))


async def test_067_strange_status(arena: Arena, bare: str) -> None:
    """Answers that would take over the connection, or have a body where none can be, are cut."""

    def is_strange(said: bytes) -> bool:
        return said[9:10] == b"1" or b"a body" in said

    await fails(arena, bare, {f"/status/{status}": is_strange for status in (101, 103, 204, 304)})


async def test_068_spoofed_headers(arena: Arena, bare: str) -> None:
    """What a client claims of itself in a proxy's or the host's name does not reach the plugin."""
    claims = ["X-Forwarded-For: 6.6.6.6", "X-User-Id: 66", "X-Pixsim7-User: 66", "Forwarded: for=6.6.6.6"]
    await fails(arena, bare, {"/headers": lambda said: b"6.6.6.6" in said or b'"66"' in said}, *claims)


async def test_069_read_credentials(arena: Arena, bare: str) -> None:
    """Neither the caller's cookie nor the bearer token reaches the plugin."""
    secrets = ["Cookie: session=hidden", "Authorization: Bearer hidden", "X-API-Key: hidden"]
    await fails(arena, bare, {"/headers": lambda said: b"hidden" in said}, *secrets)


async def test_070_set_cookie(arena: Arena, bare: str) -> None:
    """A plugin sets no cookie for the host."""
    await fails(arena, bare, {"/cookie": lambda said: b"set-cookie" in head(said)})


async def test_071_speak_for_the_origin(arena: Arena, bare: str) -> None:
    """A plugin opens the host to no other site, switches nothing in its clients, and leads them nowhere else."""
    words = (b"access-control-", b"strict-transport", b"clear-site-data")
    places = (
        "https://evil.example/",
        "//evil.example/",
        "/%5Cevil.example",
        "javascript:alert(1)",
        "http:evil.example",
    )
    leads_away: Escaped = lambda said: b"\nlocation: " in head(said)  # noqa: E731 - one of several conditions
    await fails(
        arena,
        bare,
        {"/origin": lambda said: any(word in head(said) for word in words)}
        | {f"/away?to={place}": leads_away for place in places},
    )


async def test_072_traverse_paths(arena: Arena, bare: str) -> None:
    """A path that climbs out of the plugin's folder finds nothing there."""
    tries: dict[str, Escaped] = {
        f"/files/{'..%2f' * 12}etc%2fpasswd": lambda said: b"root:" in said,
        "/files/..%2fcalm%2fmanifest.py": lambda said: b"open_quests" in said,
        "/%2e%2e/calm/open": lambda said: b"[0,1,2]" in said,
    }
    await fails(arena, bare, tries)


async def test_073_strange_targets(arena: Arena) -> None:
    """Whatever form a target has, the plugin is asked only for paths below its own."""
    targets = [
        f"http://evil.example{BASE}/where/x", f"{BASE}/where/../../calm/open", f"/{BASE}/where/x",
        f"{BASE}/where/%2e%2e/%2e%2e/calm", "http://evil.example/api/v1/calm/open", "*",
    ]  # fmt: skip
    async with arena.watched():
        for target in targets:
            answer = await say(arena.address, "", "X-Forwarded-Prefix: /evil", target=target)
            if b'"path"' in answer:
                told = json.loads(answer.partition(b"\r\n\r\n")[2])
                assert told["path"].startswith(f"{BASE}/where/")
                assert told["root"] == ""
    arena.note("denied", "only paths of its own reach it")


async def test_074_routes_of_others(arena: Arena, launcher: Launcher, open_dir: Path) -> None:
    """A jail that says it serves another plugin's paths, or the host's, is not believed."""
    await _claims(arena, launcher, open_dir, answering.CLAIMS_ROUTES, "/api/v1/calm/open")


async def test_075_pollute_openapi(arena: Arena, launcher: Launcher, open_dir: Path) -> None:
    """Of a jail's document only its own operations are shown, without scripts, under ids that are free."""
    write_hostile(open_dir, answering.POLLUTES)
    write_plugin(open_dir, "calm", CALM)
    async with arena.watched(), confined_server(open_dir, launcher) as (server, _), server.client() as client:
        document = (await client.get("/openapi.json")).json()
        shown = json.dumps(document)
        operations = [each["operationId"] for item in document["paths"].values() for each in item.values()]
    assert "/api/v1/calm/open" in document["paths"]
    assert f"{BASE}/x" in document["paths"]
    assert "/admin" not in shown
    assert "<script" not in shown
    assert "evil.example" not in shown
    assert len(set(operations)) == len(operations)
    arena.note("denied", "only its own operations are shown")


async def test_076_strip_websocket(arena: Arena) -> None:
    """A WebSocket has no cookies either way, and one that sends what cannot be is closed."""
    async with arena.watched():
        address = f"ws://{arena.address}{BASE}/ws"
        async with connect(address, additional_headers={"Cookie": "session=hidden"}) as websocket:
            assert websocket.response is not None
            assert "set-cookie" not in websocket.response.headers
            assert "hidden" not in str(await websocket.recv())
    arena.note("denied", "its handshake passes the same policy")


async def test_077_answer_other_requests(arena: Arena) -> None:
    """Answers to requests that were never sent to it reach nobody: others' requests are on other channels."""
    outcome = await arena.confined(answering.answer_everybody)
    assert outcome.is_good, outcome
    async with arena.watched() as client:
        assert (await client.get(f"{BASE}/plain")).json() == "plain"
    arena.note("contained", "a hundred answers reached nobody")


async def _claims(arena: Arena, launcher: Launcher, directory: Path, code: str, path: str) -> None:
    write_hostile(directory, code)
    write_plugin(directory, "calm", CALM)
    async with arena.watched(), confined_server(directory, launcher) as (server, _), server.client() as client:
        record = server.manager.get("hostile")
        assert record.state is not PluginState.ENABLED
        assert "hostile" in str(record.reason)
        assert (await client.get(path)).json() == [0, 1, 2]
    arena.note("denied", str(record.reason))
