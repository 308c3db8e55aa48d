"""52 to 63: more than its share of what the machine and the channel have."""

from __future__ import annotations

import asyncio
import logging
import zlib

import httpx
import pytest

from tests.escape.arena import BASE, Arena
from tests.escape.attempts import resources

pytestmark = pytest.mark.anyio


async def test_052_take_memory(arena: Arena) -> None:
    """Memory ends at its limit, shared memory too."""
    await arena.denied(resources.take_memory)


async def test_053_spin(arena: Arena, caplog: pytest.LogCaptureFixture) -> None:
    """A loop without end on the event loop is noticed, and costs the plugin its jail."""
    await arena.contained(resources.spin, status=502, on_loop=True, size=3600, bare_size=1)
    assert "Plugin hostile crashed: its event loop has stood still" in caplog.text


@pytest.mark.thorough
async def test_054_backtrack(arena: Arena) -> None:
    """So is a regular expression that never comes back, in a thread that lets no other one run."""
    await arena.contained(resources.backtrack, status=502, size=60, bare_size=18)


async def test_055_open_many_files(arena: Arena) -> None:
    """Descriptors end at their limit."""
    await arena.denied(resources.open_many_files)


async def test_056_bomb_the_client(arena: Arena) -> None:
    """The host passes a packed answer on as it is: what it would unpack to is never in its memory."""
    async with arena.watched() as client, client.stream("GET", f"{BASE}/bomb") as answer:
        raw = b"".join([piece async for piece in answer.aiter_raw()])
    assert len(raw) < 200_000
    assert len(zlib.decompress(raw, 31)) == 64 << 20
    arena.note("contained", f"{len(raw):,} bytes are passed on, and {64 << 20:,} never unpacked")


async def test_057_flood_log(arena: Arena, caplog: pytest.LogCaptureFixture) -> None:
    """Of a flood of lines a burst is written, then so many a second; the rest is counted."""
    with caplog.at_level(logging.INFO):
        outcome = await arena.confined(resources.flood_log, size=20_000)
        assert outcome.is_good
    written = [each for each in caplog.records if each.name.startswith("pixsim7.plugins.jail")]
    assert 0 < len(written) < 5_000
    arena.note("contained", f"{len(written):,} of 20,000 lines are written")


async def test_flood_frames(used_up: Arena) -> None:
    """A flood of frames for nobody leaves the host to others."""
    assert (await used_up.confined(resources.flood_frames)).status in {200, 502, 504}
    async with used_up.watched():
        pass
    used_up.note("contained", "the host reads in turns")


async def test_058_endless_stream(arena: Arena) -> None:
    """A stream is cut at the size that an answer may have."""
    assert (await _read(arena, "endless"))[1] <= 4 << 20
    arena.note("contained", "cut at its size")


async def test_059_one_byte_now_and_then(arena: Arena) -> None:
    """A stream that pauses for longer than it may is cut."""
    error, size = await _read(arena, "dripping")
    assert error
    assert size == 1
    arena.note("contained", "cut after its pause")


async def test_060_never_answer_a_cancellation(arena: Arena) -> None:
    """When a client leaves the host is done with its request, whatever the plugin does with the news."""
    async with arena.watched() as client:
        async with client.stream("GET", f"{BASE}/stubborn") as answer:
            assert await anext(answer.aiter_raw())
        life = arena.supervisor._life
        assert life is not None
        while life.channel.streams:  # noqa: ASYNC110 - the host tells nobody
            await asyncio.sleep(0.02)
        assert (await client.get(f"{BASE}/plain")).status_code == 200
    arena.note("contained", "the host lets go of the request")


async def test_061_ten_thousand_headers(arena: Arena) -> None:
    """An answer with more headers than a few is a 502."""
    async with arena.watched() as client:
        answer = await client.get(f"{BASE}/many-headers")
    assert answer.status_code == 502
    assert "hostile" in answer.text
    arena.note("contained", answer.text)


async def test_062_announce_gigabytes(arena: Arena, caplog: pytest.LogCaptureFixture) -> None:
    """A frame that announces four gigabytes ends the jail before memory is taken."""
    outcome = await arena.confined(resources.announce_gigabytes)
    assert outcome.status == 502
    assert "Plugin hostile crashed: it misbehaved: a frame of 4,294,967,295 bytes was announced" in caplog.text
    arena.note("contained", outcome.text)


async def test_063_nest_deeply(arena: Arena, caplog: pytest.LogCaptureFixture) -> None:
    """So do values that lie too deep in one another, by a few levels or by thousands."""
    for attempt in (resources.nest_deeply, resources.nest_just_too_deeply):
        outcome = await arena.confined(attempt)
        assert outcome.status == 502
        arena.note("contained", outcome.text)
        await arena.restart()
    assert caplog.text.count("Plugin hostile crashed: it misbehaved") == 2


async def _read(arena: Arena, path: str) -> tuple[str, int]:
    """Read a stream to its end; return how it ended and how much came."""
    size, error = 0, ""
    async with arena.watched() as client:
        try:
            async with client.stream("GET", f"{BASE}/{path}") as answer:
                assert answer.status_code == 200
                async for piece in answer.aiter_raw():
                    size += len(piece)
        except httpx.RemoteProtocolError as cut:
            error = str(cut)
    return error, size
