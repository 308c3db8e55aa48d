"""Run the lifespans of a plugin's routers: one task from enter to exit, whenever the plugin is switched."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRouter

from ._ledger.ownership import Entry, Owner, running_as, running_as_host
from .errors import HookTimeoutError, PluginHookError


def has_lifespan(router: APIRouter) -> bool:
    """Tell whether entering the router's lifespan would run any code of the plugin."""
    is_default = type(router.lifespan_context).__name__ == "_DefaultLifespan"
    return not is_default or bool(router.on_startup or router.on_shutdown)


class PluginLifespan:
    """The lifespans of one generation's routers.

    Enter and exit happen in the same task, as cancel scopes and context variables require; what
    the lifespans yield is ``state`` for that plugin's requests.
    """

    def __init__(self, app: FastAPI, owner: Owner, routers: Sequence[APIRouter], limit: float) -> None:
        self._app = app
        self._owner = owner
        self._routers = [router for router in routers if has_lifespan(router)]
        self._limit = limit
        self._stop = asyncio.Event()
        self._started: asyncio.Future[dict[str, Any]] | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> dict[str, Any]:
        """Enter the lifespans in order and return what they yielded, merged.

        Raises:
            PluginHookError: one of them raised.
            HookTimeoutError: they were not ready within the limit.
        """
        if not self._routers:
            return {}
        self._started = asyncio.get_running_loop().create_future()
        with running_as_host(self._owner.app):
            self._task = asyncio.create_task(self._run(), name=f"lifespan of {self._owner.plugin}")
        try:
            async with asyncio.timeout(self._limit):
                return await asyncio.shield(self._started)
        except TimeoutError:
            await self._abandon()
            raise HookTimeoutError(plugin=self._owner.plugin, hook="lifespan", limit=self._limit) from None
        except asyncio.CancelledError:
            await self._abandon()
            raise

    async def stop(self) -> None:
        """Leave the lifespans in reverse order; the same errors as :meth:`start`."""
        if self._task is None:
            return
        self._stop.set()
        done, _ = await asyncio.wait({self._task}, timeout=self._limit)
        if not done:
            await self._abandon()
            raise HookTimeoutError(plugin=self._owner.plugin, hook="lifespan", limit=self._limit)
        if not self._task.cancelled() and (error := self._task.exception()) is not None:
            raise error

    def cancel(self) -> None:
        """Leave the lifespans at once, without waiting for it; from any thread."""
        if self._task is not None and not (loop := self._task.get_loop()).is_closed():
            loop.call_soon_threadsafe(self._task.cancel)

    async def _run(self) -> None:
        assert self._started is not None
        with running_as(self._owner, Entry.LIFESPAN):
            try:
                async with AsyncExitStack() as stack:
                    state: dict[str, Any] = {}
                    for router in self._routers:
                        context: Any = router.lifespan_context(self._app)
                        state.update(await stack.enter_async_context(context) or {})
                    self._started.set_result(state)
                    await self._stop.wait()
            except (Exception, SystemExit) as error:  # a lifespan is the plugin's own code
                wrapped = PluginHookError(plugin=self._owner.plugin, hook="lifespan", cause=error)
                if self._started.done():
                    raise wrapped from error
                self._started.set_exception(wrapped)

    async def _abandon(self) -> None:
        """Cancel the task and give it a moment; one that swallows this stays behind as a leak."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=1.0)
        if not self._task.done():
            self._owner.ledger.add_task(self._task)
