"""What is begun goes on to its end, whoever stops waiting for it: a request that is cancelled, a shutdown."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import anyio.to_thread

from ._ownership import AppKey, running_as_host

logger = logging.getLogger("pixsim7.plugins")

P = ParamSpec("P")
T = TypeVar("T")


class Changing(Protocol):
    """Whose methods are changes, one at a time."""

    _key: AppKey
    _changer: asyncio.Task[Any] | None
    """The task whose change is under way."""


C = TypeVar("C", bound=Changing)


def to_the_end(
    change: Callable[Concatenate[C, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[C, P], Coroutine[Any, Any, T]]:
    """Make a change run in a task of its own: cancelling its caller ends it only while it waits for its turn."""

    @functools.wraps(change)
    async def run(self: C, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with running_as_host(self._key):  # the task is nobody's, so that stopping a plugin does not end it
            task = asyncio.create_task(change(self, *args, **kwargs), name=f"plugin change {change.__name__}")
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if self._changer is not task:
                task.cancel()
            task.add_done_callback(_say_how_it_ended)
            raise

    return run


def _say_how_it_ended(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.warning("A %s, for which nobody waited any more, failed: %s", task.get_name(), error)


async def off_loop(call: Callable[[], T]) -> T:
    """Call it in a thread. When this is cancelled it ends after the thread has: nothing runs on unseen."""
    task = asyncio.ensure_future(_in_thread(call))
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        task.exception()
        raise cancelled
    return task.result()


def _in_thread(call: Callable[[], T]) -> Awaitable[T]:
    return anyio.to_thread.run_sync(call)
