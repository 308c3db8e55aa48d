"""Events that wait for one jail: put there from any thread, taken out one after the other."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException

from pixsim7_backend.infrastructure.plugins._jail.errors import JailCallError, JailGoneError, JailProtocolError
from pixsim7_backend.infrastructure.plugins._jail.frames import FrameError

__all__ = ["Ask", "Delivery", "DeliveryLimits"]

logger = logging.getLogger("pixsim7.plugins.jail")

Ask = Callable[..., Awaitable[Any]]
"""Asks a jail, starting it where it is not running: ``await ask("event", …)``."""
_UNDELIVERABLE = (JailCallError, JailGoneError, JailProtocolError, TimeoutError, FrameError, HTTPException)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryLimits:
    """What may wait for one jail. Sizes are in bytes, durations in seconds."""

    waiting: int = 1000
    size: int = 4 << 20
    time: float = 30.0
    """How long the jail may take for one event."""


@dataclass(frozen=True, slots=True)
class _Event:
    name: str
    args: list[Any]
    kwargs: dict[str, Any]
    size: int


class Delivery:
    """Gives events to a jail in their order; those for which there is no place are dropped, and counted.

    What fails is not tried again: an event that ends the jail would end it over and over.
    """

    def __init__(self, plugin: str, ask: Ask, limits: DeliveryLimits) -> None:
        self.dropped = 0
        """Events that did not reach the jail, in all."""
        self._plugin = plugin
        self._ask = ask
        self._limits = limits
        self._waiting: deque[_Event] = deque()
        self._size = 0
        self._lost = 0
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Deliver on this event loop."""
        self._loop = asyncio.get_running_loop()

    def put(self, name: str, args: list[Any], kwargs: dict[str, Any], size: int) -> None:
        """Let an event be delivered by and by; never waits."""
        with self._lock:
            is_full = len(self._waiting) >= self._limits.waiting or self._size + size > self._limits.size
            if not is_full:
                self._waiting.append(_Event(name, args, kwargs, size))
                self._size += size
        if is_full:
            self._lose()
        elif self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake, context=Context())

    def clear(self) -> None:
        """Nobody waits for them any more."""
        with self._lock:
            self._waiting.clear()
            self._size = 0

    def _wake(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._deliver(), name=f"events for {self._plugin}")

    async def _deliver(self) -> None:
        while (event := self._take()) is not None:
            try:
                async with asyncio.timeout(self._limits.time):
                    await self._ask("event", event.name, event.args, event.kwargs)
            except _UNDELIVERABLE as error:
                logger.debug("Event %s did not reach plugin %s: %s", event.name, self._plugin, error)
                self._lose()
        if self._lost:
            logger.warning("Events for plugin %s: %d could not be delivered", self._plugin, self._lost)
            self._lost = 0

    def _take(self) -> _Event | None:
        with self._lock:
            if not self._waiting:
                return None
            event = self._waiting.popleft()
            self._size -= event.size
            return event

    def _lose(self) -> None:
        with self._lock:
            self.dropped += 1
            self._lost += 1
            is_first = self._lost == 1
        if is_first:
            logger.warning(
                "Events for plugin %s are dropped: %d wait for it, or it does not take them",
                self._plugin, len(self._waiting),
            )  # fmt: skip
