"""Call a lifecycle hook of a plugin: owned, under a time limit, its errors translated."""

from __future__ import annotations

import asyncio
import inspect
import time
import traceback
from collections.abc import Callable
from typing import Any

from pixsim7_backend.infrastructure.plugins._attribution.culprit import place_of
from pixsim7_backend.infrastructure.plugins._interruption import is_interrupt
from pixsim7_backend.infrastructure.plugins._ledger.ownership import Entry, Owner, running_as, running_as_host
from pixsim7_backend.infrastructure.plugins.errors import AsyncHookError, HookTimeoutError, PluginError, PluginHookError

#: How long a cancelled hook may take to clean up before it is left behind, in seconds.
_GRACE = 1.0


def call_sync_hook(owner: Owner, name: str, hook: Callable[..., Any], *args: Any, limit: float) -> Any:
    """Call a synchronous hook and return what it returns.

    Nothing can interrupt it; one that took longer than ``limit`` seconds fails afterwards.

    Raises:
        PluginHookError: it raised.
        HookTimeoutError: it took too long.
        AsyncHookError: it returned a coroutine.
    """
    started = time.monotonic()
    with running_as(owner, Entry.HOOK):
        try:
            result = hook(*args)
        except PluginError:
            raise
        except BaseException as error:  # a hook is the plugin's own code, which may raise anything
            if is_interrupt(error):
                raise
            raise _translate(owner, name, error) from error
    if inspect.iscoroutine(result):
        result.close()
        raise AsyncHookError(plugin=owner.plugin, hook=name, where=place_of(hook))
    took = time.monotonic() - started
    if took > limit:
        raise HookTimeoutError(plugin=owner.plugin, hook=name, limit=limit, took=took, where=place_of(hook))
    return result


async def call_hook(owner: Owner, name: str, hook: Callable[..., Any], *, limit: float) -> Any:
    """Call a hook that may be sync or async and return what it returns.

    An async one runs in a task of its own and is cancelled after ``limit`` seconds; if it swallows
    that, it is left behind on the owner's ledger, where the leak report finds it.

    Raises:
        PluginHookError: it raised.
        HookTimeoutError: it took too long.
    """
    if not inspect.iscoroutinefunction(hook):
        return call_sync_hook(owner, name, hook, limit=limit)
    with running_as_host(owner.app):
        task = asyncio.create_task(_run(owner, name, hook), name=f"{name} of {owner.plugin}")
    try:
        done, _ = await asyncio.wait({task}, timeout=limit)
    except asyncio.CancelledError:
        await _end(owner, task)
        raise
    if not done:
        where = _waits_at(owner, task) or place_of(hook)
        await _end(owner, task)
        raise HookTimeoutError(plugin=owner.plugin, hook=name, limit=limit, where=where)
    try:
        return task.result()
    except PluginError:
        raise
    except (Exception, asyncio.CancelledError) as error:  # as above; it may also cancel itself
        raise _translate(owner, name, error) from error


async def _run(owner: Owner, name: str, hook: Callable[..., Any]) -> Any:
    with running_as(owner, Entry.HOOK):
        try:
            return await hook()
        except (SystemExit, KeyboardInterrupt) as error:  # out of a task, either would end the event loop
            if is_interrupt(error):
                raise
            raise _translate(owner, name, error) from error


async def _end(owner: Owner, task: asyncio.Task[Any]) -> None:
    task.cancel()
    try:
        await asyncio.wait({task}, timeout=_GRACE)
    finally:
        if not task.done():
            owner.ledger.add_task(task)
        elif not task.cancelled():
            task.exception()  # seen, so that asyncio does not report it once more


def _waits_at(owner: Owner, task: asyncio.Task[Any]) -> str:
    """Return file and line of the innermost code of the plugin in which the task waits."""
    where = ""
    waiting: Any = task.get_coro()
    while (frame := getattr(waiting, "cr_frame", None)) is not None:
        if frame.f_code.co_filename.startswith(owner.directory):
            where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        waiting = getattr(waiting, "cr_await", None)
    return where


def _translate(owner: Owner, name: str, error: BaseException) -> PluginHookError:
    where = ""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename.startswith(owner.directory):
            where = f"{frame.filename}:{frame.lineno}"
            break
    return PluginHookError(plugin=owner.plugin, hook=name, cause=error, where=where)
