"""Events in a jail: the process's bus is heard in the host too, as far as that was granted."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from fastapi import FastAPI

from pixsim7_backend.infrastructure.plugins import plugin_hooks
from pixsim7_backend.infrastructure.plugins._jail.services.payload import PayloadError, plain_payload

from .channel import BrokerCallError
from .services import acall

__all__ = ["announce", "heard", "install"]

logger = logging.getLogger("pixsim7.plugins.jail")


def install(_app: FastAPI) -> None:
    """Let the host hear what the plugin emits."""
    _Process.outlet = _HostOutlet()
    plugin_hooks.connect(_Process.outlet)


async def announce() -> list[str]:
    """Tell the host from now on which events the plugin listens to; return those."""
    if _Process.outlet is not None:
        await _Process.outlet.announce()
    return heard()


class _HostOutlet:
    """The host, as the bus of this process sees it."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told: list[str] = []
        self._warned: set[str] = set()
        self._telling = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def announce(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._tell()

    async def emit(self, event: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            plain_args, plain_kwargs, _ = plain_payload(args, kwargs)
        except PayloadError as error:
            raise PayloadError(f"the payload of {event} cannot leave the plugin: {error}") from None
        await acall("events.emit", event, plain_args, plain_kwargs)

    def audience_changed(self) -> None:
        if self._loop is not None:  # before that the host takes no calls, and asks when it does
            self._loop.call_soon_threadsafe(self._tell_soon)

    def _tell_soon(self) -> None:
        task = asyncio.get_running_loop().create_task(self._tell_quietly(), name="telling which events are heard")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell_quietly(self) -> None:
        try:
            await self._tell()
        except BrokerCallError as error:
            logger.warning("The host does not take note of the events that are listened to: %s", error)

    async def _tell(self) -> None:
        async with self._telling:
            names = heard()
            if names == self._told:
                return
            refused = await acall("events.subscribe", names)
            self._told = names
            for each in refused:
                self._warn(each)

    def _warn(self, event: str) -> None:
        if event not in self._warned:
            self._warned.add(event)
            logger.warning(
                "Nothing is heard of %s: ask for it (permissions=[%r]) and let the operator grant it",
                event, f"events:subscribe:{event}",
            )  # fmt: skip


class _Process:
    """The outlet of this process, which is one jail."""

    outlet: _HostOutlet | None = None


def heard() -> list[str]:
    """Return the events that the plugin listens to now."""
    return sorted({each.event for each in plugin_hooks.iter_subscriptions()})
