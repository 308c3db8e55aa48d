"""One change at a time, and to its end, whoever stops waiting for it: a request that is cancelled, a shutdown."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

import anyio.to_thread

from ._ledger.ownership import AppKey, running_as_host
from .errors import PluginBusyError

#: Seconds that a thread gets to end when nobody waits for what it does any more.
_PATIENCE = 5.0

logger = logging.getLogger("pixsim7.plugins")

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Operation:
    """One change under way; code that runs inside it must not wait for another one."""

    is_over: bool = False


_operation: ContextVar[_Operation | None] = ContextVar("pixsim7_operation", default=None)


class Turns:
    """Lets changes take turns; ``changer`` is the task whose change is under way."""

    def __init__(self) -> None:
        self.changer: asyncio.Task[Any] | None = None
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """Wait for the turn; it lasts until the end of the block.

        Raises:
            PluginBusyError: this runs inside another change, for whose end it would wait in vain.
        """
        outer = _operation.get()
        if outer is not None and not outer.is_over:
            raise PluginBusyError(plugin="")
        async with self._lock:
            operation = _Operation()
            token = _operation.set(operation)
            self.changer = asyncio.current_task()
            try:
                yield
            finally:
                self.changer = None
                operation.is_over = True
                _operation.reset(token)


class Changing(Protocol):
    """Whose methods are changes."""

    _key: AppKey
    _turns: Turns


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
            if self._turns.changer is not task:
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


async def off_loop_within(limit: float, call: Callable[[], T], *, name: str) -> T:
    """Call it in a thread of its own, which is left to itself after ``limit`` seconds and dies with the process.

    When this is cancelled, the thread gets a few seconds to end.

    Raises:
        StillRunningError: it runs on.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def finish(error: BaseException | None, value: T | None) -> None:
        if result.done():
            return
        if error is not None:
            result.set_exception(error)
        else:
            result.set_result(cast("T", value))

    def run() -> None:
        error, value = None, None
        try:
            value = call()
        except BaseException as raised:  # noqa: BLE001 - raised again where it is awaited
            error = raised
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(finish, error, value)

    thread = threading.Thread(target=copy_context().run, args=(run,), name=name, daemon=True)
    thread.start()
    try:
        done, _ = await asyncio.wait({result}, timeout=limit)
    except asyncio.CancelledError:
        await asyncio.wait({result}, timeout=_PATIENCE)
        if not result.cancel():
            result.exception()
        raise
    if not done:
        result.cancel()
        raise StillRunningError(thread)
    return result.result()


class StillRunningError(Exception):
    """A thread has not ended in time."""

    def __init__(self, thread: threading.Thread) -> None:
        super().__init__(thread.name)
        self.thread = thread


def is_interrupt(error: BaseException) -> bool:
    """Tell whether this is somebody's Ctrl+C, which only the main thread gets, and not what a plugin raises."""
    return isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()


def _in_thread(call: Callable[[], T]) -> Awaitable[T]:
    return anyio.to_thread.run_sync(call)
