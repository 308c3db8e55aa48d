"""A host in front of a jail that does what it likes: its own requests fail, with its name, and nothing else does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.types import Message, Scope

from pixsim7_backend.infrastructure.plugins._jail.allowances import HttpLimits
from pixsim7_backend.infrastructure.plugins._jail.application import JailedApplication
from pixsim7_backend.infrastructure.plugins._jail.channel import Channel, Stream
from pixsim7_backend.infrastructure.plugins._jail.errors import JailCallError, JailGoneError, JailProtocolError
from pixsim7_backend.infrastructure.plugins._jail.frames import Decoder, Frame, Kind, encode
from pixsim7_backend.infrastructure.plugins._jail.handshake import Greeting, greet
from pixsim7_backend.infrastructure.plugins._jail.streams import WINDOW

pytestmark = pytest.mark.anyio

LIMITS = HttpLimits(answer_time=0.5, idle_time=0.5, request_size=1 << 20, response_size=1 << 20)


class Rogue:
    """The other end of a channel, in the hands of a test."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._decoder = Decoder()
        self._frames: list[Frame] = []

    async def expect(self, kind: Kind) -> Frame:
        """Return the next frame of this kind; others are dropped."""
        loop = asyncio.get_running_loop()
        while True:
            while self._frames:
                frame = self._frames.pop(0)
                if frame.kind is kind:
                    return frame
            piece = await loop.sock_recv(self._connection, 1 << 16)
            assert piece, "the host has closed the channel"
            self._frames += self._decoder.feed(piece)

    async def say(self, kind: Kind, number: int, *payload: Any) -> None:
        """Send a frame."""
        await self.shout(encode(kind, number, *payload))

    async def shout(self, content: bytes) -> None:
        """Send any bytes."""
        await asyncio.get_running_loop().sock_sendall(self._connection, content)

    async def answer(self, number: int, *messages: Message) -> None:
        """Send ASGI messages, and the end."""
        for message in messages:
            await self.say(Kind.SEND, number, message)
        await self.say(Kind.END, number, None)

    def leave(self) -> None:
        """End as a process ends."""
        self._connection.close()


async def nothing_more(_scope: Scope) -> dict[str, Any]:
    """Say nothing of the caller."""
    return {}


class Meeting:
    """A channel with a rogue at the other end, and an application over it."""

    plugin = "rogue"

    def __init__(
        self, channel: Channel, rogue: Rogue, lost: asyncio.Queue[Exception | None], limits: HttpLimits
    ) -> None:
        self.lost = lost
        self.channel = channel
        self.rogue = rogue
        self.misbehaviour: list[str] = []
        self.sent: list[Message] = []
        self.application = JailedApplication(
            self, limits, extend=nothing_more, on_misbehaviour=lambda error: self.misbehaviour.append(str(error))
        )

    async def connect(self) -> Channel:
        return self.channel

    async def get(
        self, *received: Message, kind: str = "http", headers: Any = (), silent: bool = False
    ) -> list[Message]:
        """Send a request through the application; return what its client was sent. Silent: its body never comes."""
        scope: Scope = {
            "type": kind,
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/api/v1/rogue",
            "raw_path": b"/api/v1/rogue",
            "query_string": b"",
            "root_path": "",
            "server": ("game.example", 80),
            "headers": [(b"host", b"game.example"), *headers],
        }
        waiting = list(received or ([] if silent else [{"type": "http.request", "body": b"", "more_body": False}]))

        async def receive() -> Message:
            if waiting:
                return waiting.pop(0)
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: Message) -> None:
            self.sent.append(message)

        await self.application(scope, receive, send)
        return self.sent


@asynccontextmanager
async def meeting(limits: HttpLimits = LIMITS) -> AsyncIterator[Meeting]:
    """Bring a host and a rogue together."""
    ours, theirs = socket.socketpair()
    lost: asyncio.Queue[Exception | None] = asyncio.Queue()
    channel = Channel(on_call=lambda *_: None, on_log=lambda *_: None, on_lost=lost.put_nowait)
    await channel.open(ours, Greeting({}, Decoder()))
    rogue = Rogue(theirs)
    try:
        yield Meeting(channel, rogue, lost, limits)
    finally:
        channel.close()
        rogue.leave()
        await asyncio.sleep(0)
    assert lost.qsize() == 1


def start(status: Any = 200, headers: Any = None) -> Message:
    """Return the beginning of an answer."""
    return {"type": "http.response.start", "status": status, "headers": headers if headers is not None else []}


def body(content: Any = b"", *, more: bool = False) -> Message:
    """Return a piece of an answer."""
    return {"type": "http.response.body", "body": content, "more_body": more}


async def test_an_answer_that_is_in_order_passes() -> None:
    """What the application sends, its client gets, with the headers that the host adds."""
    async with meeting() as it:
        asked = asyncio.create_task(it.get())
        number = (await it.rogue.expect(Kind.REQUEST)).id
        await it.rogue.answer(number, start(201, [[b"X-Mood", b"good"]]), body(b"a", more=True), body(b"b"))
        first, *pieces = await asked
        assert first["status"] == 201
        assert (b"x-mood", b"good") in first["headers"]
        assert b"".join(piece["body"] for piece in pieces) == b"ab"
        assert not pieces[-1]["more_body"]
        assert it.channel.streams == 0


BAD_ANSWERS: dict[str, list[Message]] = {
    "informational": [start(101), body()],
    "no status": [start("200"), body()],
    "true": [start(True), body()],
    "body first": [body(b"x")],
    "another kind": [{"type": "http.response.push"}],
    "no kind": [{}],
    "kind of a list": [{"type": ["http.response.start"]}],
    "too many headers": [start(200, [[b"a", b"b"]] * 101), body()],
    "line break": [start(200, [[b"a", b"b\r\nc: d"]]), body()],
    "redirect elsewhere": [start(302, [[b"location", b"//evil.example"]]), body()],
    "two lengths": [start(200, [[b"content-length", b"1"], [b"content-length", b"2"]]), body(b"x")],
    "promises too much": [start(200, [[b"content-length", b"99999999"]]), body(b"x")],
}


@pytest.mark.parametrize("messages", BAD_ANSWERS.values(), ids=BAD_ANSWERS)
async def test_an_answer_that_may_not_begin_is_a_bad_gateway(messages: list[Message]) -> None:
    """The client is told whose fault it is, and gets nothing of it."""
    async with meeting() as it:
        asked = asyncio.create_task(it.get())
        number = (await it.rogue.expect(Kind.REQUEST)).id
        await it.rogue.answer(number, *messages)
        with pytest.raises(HTTPException, match="plugin 'rogue' misbehaved") as raised:
            await asked
        assert raised.value.status_code == 502
        assert it.sent == []
        assert len(it.misbehaviour) == 1


BAD_BODIES: dict[str, list[Message]] = {
    "longer than it said": [start(200, [[b"content-length", b"1"]]), body(b"xy")],
    "shorter than it said": [start(200, [[b"content-length", b"3"]]), body(b"x")],
    "with a status that has none": [start(204), body(b"x")],
    "no bytes": [start(200), body("text")],
    "starts twice": [start(200), start(200)],
    "too large": [start(200), *[body(bytes(1 << 16), more=True)] * 17],
}


@pytest.mark.parametrize("messages", BAD_BODIES.values(), ids=BAD_BODIES)
async def test_an_answer_that_goes_wrong_is_cut(messages: list[Message]) -> None:
    """Once it has begun, the connection ends in the middle, so that it never looks whole."""
    async with meeting() as it:
        asked = asyncio.create_task(it.get())
        number = (await it.rogue.expect(Kind.REQUEST)).id
        answering = asyncio.create_task(it.rogue.answer(number, *messages))
        with pytest.raises(ConnectionError, match="plugin 'rogue' misbehaved"):
            await asked
        answering.cancel()
        assert it.sent[0]["type"] == "http.response.start"
        assert all(message.get("more_body", True) for message in it.sent)


GARBAGE: dict[str, bytes] = {
    "random": os.urandom(64),
    "gigantic": b"\xff\xff\xff\xff",
    "no frame": b"\x00\x00\x00\x01\xc0",
    "a frame of the host": encode(Kind.REQUEST, 1, {}),
    "a reply": encode(Kind.REPLY, 1, True, None),
    "credit without end": encode(Kind.CREDIT, 1, 1 << 40),
    "no credit": encode(Kind.CREDIT, 1, 0),
}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
async def test_garbage_ends_the_jail(content: bytes) -> None:
    """One that breaks the rules of the channel is not listened to any more; its requests fail."""
    async with meeting() as it:
        asked = [asyncio.create_task(it.get()) for _ in range(3)]
        await it.rogue.expect(Kind.REQUEST)
        await it.rogue.shout(content)
        for each in asked:
            with pytest.raises(HTTPException, match=r"plugin 'rogue' (misbehaved|ended)"):
                await each
        with pytest.raises(JailGoneError):
            it.channel.begin({})


async def test_a_body_without_credit_ends_the_jail() -> None:
    """More than the window of a stream whose client does not read is not kept in memory."""
    async with meeting() as it:
        stream = it.channel.begin({})
        await it.rogue.expect(Kind.REQUEST)
        flood = encode(Kind.SEND, stream.number, body(bytes(1 << 16), more=True)) * (WINDOW // (1 << 16) + 1)
        with contextlib.suppress(ConnectionError):
            await it.rogue.shout(flood)
        it.lost.put_nowait(await it.lost.get())
        with pytest.raises(JailProtocolError, match="had no credit"):
            await _read_to_the_end(stream)


async def _read_to_the_end(stream: Stream) -> None:
    while await stream.receive():
        pass


async def test_a_flood_of_frames_leaves_the_loop_to_others() -> None:
    """What a jail sends without pause is taken in turns, between which the host serves others; none of it is lost."""
    lines: list[str] = []
    ours, theirs = socket.socketpair()
    channel = Channel(on_call=lambda *_: None, on_log=lambda *line: lines.append(line[2]), on_lost=lambda _: None)
    await channel.open(ours, Greeting({}, Decoder()))
    channel.data_received(b"".join(encode(Kind.LOG, 0, 20, "x", str(number)) for number in range(50_000)))
    assert len(lines) < 50_000
    async with meeting() as it:
        asked = asyncio.create_task(it.get())
        number = (await it.rogue.expect(Kind.REQUEST)).id
        await it.rogue.answer(number, start(), body())
        await asked
    while len(lines) < 50_000:  # noqa: ASYNC110 - nobody is told
        await asyncio.sleep(0.01)
    assert lines == [str(number) for number in range(50_000)]
    theirs.sendall(encode(Kind.LOG, 0, 20, "x", "last"))
    while lines[-1] != "last":  # noqa: ASYNC110 - nobody is told
        await asyncio.sleep(0.01)
    channel.close()
    theirs.close()


async def test_silence_is_a_gateway_timeout() -> None:
    """A jail that says nothing keeps its client as long as the setting allows."""
    async with meeting() as it:
        with pytest.raises(HTTPException, match="plugin 'rogue' did not answer in time") as raised:
            await it.get()
        assert raised.value.status_code == 504
        await it.rogue.expect(Kind.CANCEL)


async def test_half_a_frame_is_silence() -> None:
    """What never becomes a frame holds up nothing but its own jail."""
    async with meeting() as it:
        asked = asyncio.create_task(it.get())
        await it.rogue.expect(Kind.REQUEST)
        await it.rogue.shout(encode(Kind.END, 1, None)[:-1])
        with pytest.raises(HTTPException, match="did not answer in time"):
            await asked


@pytest.mark.parametrize("begun", [False, True])
async def test_an_end_in_the_middle_is_told_apart(begun: bool) -> None:
    """Without an answer it is a bad gateway, after its beginning the connection is cut."""
    async with meeting() as it:
        asked = asyncio.create_task(it.get())
        number = (await it.rogue.expect(Kind.REQUEST)).id
        if begun:
            await it.rogue.say(Kind.SEND, number, start())
        await it.rogue.shout(b"")
        it.rogue.leave()
        with pytest.raises(ConnectionError if begun else HTTPException, match="plugin 'rogue' ended before"):
            await asked


async def test_an_application_that_returns_without_an_answer() -> None:
    """Its end alone is none."""
    async with meeting() as it:
        asked = asyncio.create_task(it.get())
        await it.rogue.answer((await it.rogue.expect(Kind.REQUEST)).id)
        with pytest.raises(HTTPException, match="ended without an answer"):
            await asked


async def test_streams_that_are_over_or_never_were_are_nobodys() -> None:
    """An answer to another number reaches no client; the request that was asked goes on."""
    async with meeting() as it:
        asked = asyncio.create_task(it.get())
        number = (await it.rogue.expect(Kind.REQUEST)).id
        await it.rogue.answer(number + 7, start(418), body(b"not yours"))
        await it.rogue.answer(number, start(200), body(b"yours"))
        assert [message.get("body") for message in await asked] == [None, b"yours"]


async def test_a_body_that_is_too_large_is_refused() -> None:
    """In the first piece and later; the jail is told that nobody waits."""
    piece = {"type": "http.request", "body": bytes(1 << 18), "more_body": True}
    async with meeting() as it:
        asked = asyncio.create_task(it.get(*[piece] * 5))
        number = (await it.rogue.expect(Kind.REQUEST)).id

        async def swallow() -> None:
            while True:
                await it.rogue.expect(Kind.RECEIVE)
                await it.rogue.say(Kind.CREDIT, number, 1 << 16)

        swallowing = asyncio.create_task(swallow())
        with pytest.raises(HTTPException) as raised:
            await asked
        assert raised.value.status_code == 413
        swallowing.cancel()


async def test_clients_that_leave_are_told_to_the_application() -> None:
    """It hears that its client has left, as under any server, and may end in its own way."""
    async with meeting() as it:
        request = {"type": "http.request", "body": b"", "more_body": False}
        asked = asyncio.create_task(it.get(request, {"type": "http.disconnect"}))
        number = (await it.rogue.expect(Kind.REQUEST)).id
        assert (await it.rogue.expect(Kind.RECEIVE)).payload[0]["type"] == "http.disconnect"
        await it.rogue.answer(number, start(), body())
        await asked


async def test_an_answer_that_goes_on_without_a_client_is_ended() -> None:
    """An application that does not care that its client has left is left, too, and cancelled."""
    async with meeting() as it:
        request = {"type": "http.request", "body": b"", "more_body": False}
        asked = asyncio.create_task(it.get(request, {"type": "http.disconnect"}))
        number = (await it.rogue.expect(Kind.REQUEST)).id
        await it.rogue.say(Kind.SEND, number, start())

        async def go_on() -> None:
            while True:
                await it.rogue.say(Kind.SEND, number, body(more=True))
                await asyncio.sleep(0.05)

        going_on = asyncio.create_task(go_on())
        with pytest.raises(ConnectionError, match="did not answer in time"):
            await asked
        assert (await it.rogue.expect(Kind.CANCEL)).id == number
        going_on.cancel()


async def test_an_answer_that_drips_is_ended() -> None:
    """However steadily pieces come: an answer is complete after some time, or it is cut, and cancelled."""
    async with meeting(replace(LIMITS, idle_time=30, total_time=0.3)) as it:
        asked = asyncio.create_task(it.get())
        number = (await it.rogue.expect(Kind.REQUEST)).id
        await it.rogue.say(Kind.SEND, number, start())

        async def drip() -> None:
            while True:
                await it.rogue.say(Kind.SEND, number, body(b".", more=True))
                await asyncio.sleep(0.01)

        dripping = asyncio.create_task(drip())
        with pytest.raises(ConnectionError, match="did not answer in time"):
            await asked
        dripping.cancel()
        assert (await it.rogue.expect(Kind.CANCEL)).id == number
        assert any(message.get("body") for message in it.sent)


async def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    """A client that is silent behind its headers keeps no place; the jail never hears of it."""
    async with meeting(replace(LIMITS, answer_time=0.1)) as it:
        with pytest.raises(HTTPException) as raised:
            await it.get(silent=True)
        assert raised.value.status_code == 408
        assert it.channel.streams == 0


async def test_a_cancelled_request_is_cancelled_in_the_jail() -> None:
    """Nobody waits any more: neither here nor there."""
    async with meeting() as it:
        asked = asyncio.create_task(it.get())
        number = (await it.rogue.expect(Kind.REQUEST)).id
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert (await it.rogue.expect(Kind.CANCEL)).id == number
        assert it.channel.streams == 0


async def test_questions_are_answered_or_end_with_the_jail() -> None:
    """An answer to another question is nobody's; what the jail says went wrong is an error here."""
    async with meeting() as it:
        asked = [asyncio.create_task(it.channel.ask("ping")) for _ in range(3)]
        numbers = [(await it.rogue.expect(Kind.ASK)).id for _ in asked]
        await it.rogue.say(Kind.ANSWER, 999, True, "x")
        await it.rogue.say(Kind.ANSWER, numbers[0], True, "pong")
        await it.rogue.say(Kind.ANSWER, numbers[1], False, {"type": "ValueError", "message": "no"})
        assert await asked[0] == "pong"
        with pytest.raises(JailCallError, match="no"):
            await asked[1]
        it.rogue.leave()
        with pytest.raises(JailGoneError):
            await asked[2]


BAD_GREETINGS: dict[str, tuple[bytes, type[Exception]]] = {
    "an answer": (encode(Kind.ANSWER, 0, True, {}) + encode(Kind.LOG, 0, 20, "x", "y"), Exception),
    "a failure": (encode(Kind.ANSWER, 0, False, {"message": "cannot"}), JailCallError),
    "garbage": (os.urandom(3) * 50, JailProtocolError),
    "an early message": (encode(Kind.SEND, 1, {}), JailProtocolError),
    "half a frame": (b"\x00\x00", JailGoneError),
}


@pytest.mark.parametrize(("content", "expected"), BAD_GREETINGS.values(), ids=BAD_GREETINGS)
def test_greetings(content: bytes, expected: type[Exception]) -> None:
    """The first answer comes in time, or the reason is told; what follows it is kept."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(content)
        ask: Callable[[], Greeting] = lambda: greet(ours, limit=0.2, on_log=lambda *_: None)  # noqa: E731
        if expected is Exception:
            assert [frame.kind for frame in ask().more] == [Kind.LOG]
        else:
            with pytest.raises(expected):
                ask()
