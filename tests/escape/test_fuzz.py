"""What no example thought of: frames, answers and statements made at random; ``FUZZ_SECONDS`` says for how long."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.exceptions import HTTPException

from pixsim7_backend.community.database.statements import check_statement
from pixsim7_backend.infrastructure.plugins._jail.frames import Decoder, Frame, FrameError, Kind, encode
from tests.integration.jail.test_misbehaviour import Meeting, body, meeting, start

_SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))
_TESTS = 4
pytestmark = pytest.mark.timeout(0 if _SECONDS else 120)
at_random = settings(
    max_examples=500 if _SECONDS else 60, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


def for_as_long_as_asked(check: Callable[[], None]) -> None:
    """Run a check once, and again, each time with other examples, until its share of the time is over."""
    end = time.monotonic() + _SECONDS / _TESTS
    check()
    while time.monotonic() < end:
        check()


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
_MESSAGES = st.builds(
    lambda message, more: {**message, **more},
    st.sampled_from([start(), body(b"x"), body(b"x", more=True), {"type": "websocket.accept"}, {}]),
    st.dictionaries(
        st.sampled_from(["type", "status", "headers", "body", "more_body", "text", "bytes", "code"]),
        _VALUES,
        max_size=2,
    ),
)
_FRAMES = st.one_of(
    st.builds(
        lambda number, messages: encode(Kind.SEND, number, *messages),
        st.integers(0, 3),
        st.lists(_MESSAGES, min_size=1, max_size=3),
    ),
    st.builds(
        lambda number, error, messages: encode(Kind.END, number, error, *messages),
        st.integers(0, 3),
        st.none() | st.just({"a": 1}),
        st.lists(_MESSAGES, max_size=3),
    ),
    st.builds(lambda number, amount: encode(Kind.CREDIT, number, amount), st.integers(0, 3), st.integers(-9, 1 << 40)),
    st.builds(encode, st.sampled_from(Kind), st.integers(0, 9)),
    st.builds(
        lambda number, good, value: encode(Kind.ANSWER, number, good, value), st.integers(0, 9), st.booleans(), _VALUES
    ),
    st.builds(
        lambda method, args: encode(Kind.CALL, 1, method, args), st.text(max_size=9), st.lists(_VALUES, max_size=3)
    ),
    st.builds(lambda level, text: encode(Kind.LOG, 0, level, text, text), st.integers(-99, 1 << 62), st.text()),
)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Valid frames, of which a few bytes were changed, lost or added."""
    content = bytearray(b"".join(draw(st.lists(_FRAMES, max_size=6))))
    for _ in range(draw(st.integers(0, 3))):
        if not content:
            break
        at = draw(st.integers(0, len(content) - 1))
        content[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=3))
    return bytes(content)


def test_frames_do_not_depend_on_pieces() -> None:
    """Bytes are the same frames or the same kind of error, however they are cut; nothing else can come of them."""

    @at_random
    @given(streams() | st.binary(max_size=300), st.integers(1, 50))
    def check(content: bytes, size: int) -> None:
        pieces = [content[at : at + size] for at in range(0, len(content), size)]
        whole, cut = _decode([content]), _decode(pieces)
        assert whole[1] is cut[1]
        if not whole[1]:
            assert repr(whole[0]) == repr(cut[0])

    for_as_long_as_asked(check)


def _decode(pieces: list[bytes]) -> tuple[list[Frame], bool]:
    decoder, frames = Decoder(), []
    try:
        for piece in pieces:
            frames += decoder.feed(piece)
    except FrameError:
        return frames, True
    return frames, False


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_the_host_survives_any_jail(kind: str) -> None:
    """Whatever a jail sends, its request is answered, refused or cut, and nothing of it stays behind."""

    @at_random
    @given(streams() | st.binary(max_size=300))
    def check(content: bytes) -> None:
        asyncio.run(_answer_with(content, kind))

    for_as_long_as_asked(check)


async def _answer_with(content: bytes, kind: str) -> None:
    async with meeting() as it:
        received: dict[str, Any] = {"type": "websocket.connect"} if kind == "websocket" else {"type": "http.request"}
        asked = asyncio.create_task(it.get(received, kind=kind))
        await it.rogue.expect(Kind.REQUEST)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the host has had enough
            await it.rogue.shout(content)
        it.rogue.leave()
        try:
            async with asyncio.timeout(20):
                await asked
        except HTTPException as refused:
            is_answered = refused.status_code in {502, 504}
        except ConnectionError:  # half an answer is cut
            is_answered = bool(it.sent)
        else:
            is_answered = bool(it.sent)
        assert is_answered
        _assert_in_order(it)
        assert it.channel.streams == 0


def _assert_in_order(it: Meeting) -> None:
    """What the client was sent is what ASGI servers can be sent."""
    kinds = [str(message["type"]).rpartition(".")[2] for message in it.sent]
    assert kinds.count("start") + kinds.count("accept") <= 1
    for message in it.sent:
        for name, value in message.get("headers", ()):
            assert not {*b"\r\n\0"} & {*name, *value}
        assert type(message.get("status", 200)) is int
        assert isinstance(message.get("body", b""), bytes)


_KEYWORDS = """
    SELECT WITH VALUES TABLE INSERT INTO UPDATE DELETE FROM CREATE DROP ALTER ATTACH DETACH PRAGMA VACUUM BEGIN COMMIT
    ROLLBACK SAVEPOINT RELEASE REINDEX ANALYZE EXPLAIN QUERY PLAN REPLACE TEMP TRIGGER VIEW INDEX DATABASE AS t x 1
    ( ) , ; * = ' -- /* */ writable_schema ON SET a RECURSIVE
"""
_WORDS = st.sampled_from([*_KEYWORDS.split(), '"', "\n", "\t", "\ufeff", "\x00", ""])
_FORBIDDEN = {
    getattr(sqlite3, f"SQLITE_{name}")
    for name in (
        "ATTACH", "DETACH", "PRAGMA", "TRANSACTION", "SAVEPOINT", "CREATE_TABLE", "CREATE_INDEX", "CREATE_TRIGGER",
        "CREATE_VIEW", "CREATE_TEMP_TABLE", "CREATE_TEMP_VIEW", "CREATE_TEMP_TRIGGER", "DROP_TABLE", "DROP_VIEW",
        "ALTER_TABLE", "REINDEX", "ANALYZE",
    )
}  # fmt: skip


def test_statements_that_pass_are_what_they_look_like() -> None:
    """What the check lets through, SQLite does not take for anything but a query or a change of rows."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE t (x)")
    seen: list[int] = []

    def note(action: int, *_: object) -> int:
        seen.append(action)
        return sqlite3.SQLITE_OK

    connection.set_authorizer(note)

    @at_random
    @given(st.lists(_WORDS, max_size=12).map(" ".join) | st.lists(_WORDS, max_size=12).map("".join) | st.text())
    def check(statement: str) -> None:
        if check_statement(statement, may_define=False) is not None:
            return
        seen.clear()
        with contextlib.suppress(sqlite3.Error, sqlite3.Warning, ValueError):
            connection.execute(f"EXPLAIN {statement}")
        assert not _FORBIDDEN & {*seen}

    for_as_long_as_asked(check)
    connection.close()
