"""The plugin's process while it serves: frames come, requests and questions begin, answers and log lines go."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import Any

from pixsim7_backend.infrastructure.plugins._jail.confine.syscalls import get_libc
from pixsim7_backend.infrastructure.plugins._jail.frames import Frame, Kind
from pixsim7_backend.infrastructure.plugins._jail.spec import JailSpec

from . import services
from .asgi import StreamServer
from .channel import Channel
from .errors import describe_error
from .plugin import PluginInJail

__all__ = ["serve"]

_LONGEST_LINE = 8192
_CHATTY = ("asyncio", "httpcore", "httpx")


def serve(connection: socket.socket, spec: JailSpec) -> None:
    """Run the plugin of ``spec`` for the host at the other end, until that closes the connection."""
    asyncio.run(_Jail(spec, Channel(connection)).run())


class _Jail:
    def __init__(self, spec: JailSpec, channel: Channel) -> None:
        plugin = PluginInJail(spec)
        self._directory = f"{spec.path}/"
        self._channel = channel
        self._methods = plugin.methods
        self._server = StreamServer(plugin.app, channel)
        self._asked: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        services.use(self._channel)
        logging.root.addHandler(_FrameHandler(self._channel))
        logging.root.setLevel(logging.INFO)
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
        self._channel.start(self._take)
        await asyncio.get_running_loop().create_future()  # the process ends when the host does

    def _take(self, frame: Frame) -> None:
        if frame.kind is Kind.ASK:
            task = asyncio.create_task(self._answer(frame.id, *frame.payload), name=f"asked to {frame.payload[0]}")
            self._asked.add(task)
            task.add_done_callback(self._asked.discard)
        else:
            self._server.take(frame)

    async def _answer(self, number: int, method: str, args: list[Any]) -> None:
        try:
            value = await self._methods[method](*args)
        except Exception as error:  # noqa: BLE001 - whatever the plugin raises, the host is told
            self._channel.send(Kind.ANSWER, number, False, describe_error(error, self._directory))
        else:
            self._channel.send(Kind.ANSWER, number, True, value)
        if method == "enable":
            _give_back_memory()


def _give_back_memory() -> None:
    """Return to the kernel what loading the plugin has left free, where the C library can do that."""
    with contextlib.suppress(AttributeError):
        get_libc().malloc_trim(0)


class _FrameHandler(logging.Handler):
    """Sends every line of the log to the host, which decides what becomes of it."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)[:_LONGEST_LINE]
            self._channel.send(Kind.LOG, 0, record.levelno, record.name, text)
        except Exception:  # noqa: BLE001 - a line that cannot be sent must not stop who wrote it
            self.handleError(record)
