"""A host and a jail in one process: real broker, real frames as bytes, but no socket between them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from pixsim7_backend.infrastructure.plugins._grants.permissions import Grants
from pixsim7_backend.infrastructure.plugins._jail.broker import Broker, BrokerLimits, JailIdentity, Service
from pixsim7_backend.infrastructure.plugins._jail.frames import Decoder, Kind, encode
from pixsim7_backend.infrastructure.plugins._jail.inside.channel import error_of


class Loopback:
    """Stands for the jail's channel: whatever goes to the broker, or comes from it, was bytes on the way."""

    def __init__(self, loop: asyncio.AbstractEventLoop, run: Callable[[Any], Any]) -> None:
        self._loop = loop
        self.run = run
        self._to_host, self._to_jail = Decoder(), Decoder()
        self._numbers = count(1)
        self._waiting: dict[int, Future[tuple[bool, Any]]] = {}
        self.broker: Broker
        self.methods: list[str] = []

    def call(self, method: str, *args: Any) -> Any:
        return self._result(self._send(method, args).result(30))

    async def acall(self, method: str, *args: Any) -> Any:
        return self._result(await asyncio.wrap_future(self._send(method, args)))

    def reply(self, number: int, is_good: bool, value: Any) -> None:
        for frame in self._to_jail.feed(encode(Kind.REPLY, number, is_good, value)):
            self._waiting.pop(frame.id).set_result((frame.payload[0], frame.payload[1]))

    def _send(self, method: str, args: Sequence[Any]) -> Future[tuple[bool, Any]]:
        number, answer = next(self._numbers), Future[tuple[bool, Any]]()
        packed = encode(Kind.CALL, number, method, list(args))
        self.methods.append(method)
        self._waiting[number] = answer
        self._loop.call_soon_threadsafe(self._take, packed)
        return answer

    def _take(self, packed: bytes) -> None:
        for frame in self._to_host.feed(packed):
            self.broker.take(frame.id, *frame.payload)

    @staticmethod
    def _result(answer: tuple[bool, Any]) -> Any:
        is_good, value = answer
        if not is_good:
            raise error_of(value)
        return value


@contextmanager
def host_loop() -> Iterator[Callable[[Any], Any]]:
    """Run an event loop in a thread; give what runs a coroutine there and waits for it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="host loop")
    thread.start()
    try:
        yield lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def connected(
    services: Sequence[Service],
    grants: Grants,
    directory: Path,
    *,
    limits: BrokerLimits | None = None,
    plugin: str = "quest-stats",
) -> Iterator[Loopback]:
    """Give the channel of a jail whose broker has these services."""
    jail = identity(directory, plugin)
    with host_loop() as run:

        async def start() -> Loopback:
            channel = Loopback(asyncio.get_running_loop(), run)
            channel.broker = Broker(jail, grants, services, reply=channel.reply, limits=limits)
            return channel

        channel = run(start())
        try:
            yield channel
        finally:
            run(channel.broker.close())


def identity(directory: Path, plugin: str = "quest-stats") -> JailIdentity:
    """Return the identity of the jail under test."""
    return JailIdentity(plugin=plugin, generation=1, directory=directory, scratch=directory)
