"""Who owns a task: seen by a task factory that every ``asyncio.create_task`` goes through.

A task belongs to the plugin whose code its coroutine is, else to the plugin whose hook, handler or
task creates it. Tasks that FastAPI, anyio or a shared client create to serve a request are not the
plugin's to cancel, unless the plugin's own code called ``create_task``.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from .ownership import Entry, Owner, Running, running

_TaskFactory = Callable[..., "asyncio.Future[Any]"]


class OwningTaskFactory:
    """A task factory that records each task in its owner's ledger and then does what the former one did."""

    def __init__(self, former: _TaskFactory | None) -> None:
        self.former = former
        self.uses = 0

    def __call__(self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **options: Any) -> Any:
        now = running.get()
        owner = _owner_of(coro, now) if now is not None and now.owner is not None else None
        if owner is not None and now is not None and now.entry is not Entry.TASK:
            options["context"] = _as_task_of(owner, options.get("context"))
        task = self.former(loop, coro, **options) if self.former else asyncio.Task(coro, loop=loop, **options)
        if owner is not None and isinstance(task, asyncio.Task):
            owner.ledger.add_task(task)
        return task


def _as_task_of(owner: Owner, context: contextvars.Context | None) -> contextvars.Context:
    inside = context.copy() if context is not None else contextvars.copy_context()
    inside.run(running.set, Running(owner.app, owner, Entry.TASK))
    return inside


def _owner_of(coro: Coroutine[Any, Any, Any], now: Running) -> Owner | None:
    """Return whose the task is, None when it is not a plugin's to cancel."""
    owner = now.owner
    if owner is None:
        return None
    code = getattr(coro, "cr_code", None)
    if code is not None and code.co_filename.startswith(owner.directory):
        return owner
    if now.entry is not Entry.REQUEST:
        return owner
    return owner if _called_by(owner.directory) else None


def _called_by(directory: str) -> bool:
    """Tell whether the code that called ``create_task`` (or ``ensure_future``) lies below ``directory``."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        name = frame.f_globals.get("__name__", "")
        if name != __name__ and not name.startswith("asyncio."):
            return frame.f_code.co_filename.startswith(directory)
    return False


def own_tasks(loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
    """Make ``loop`` record the tasks of plugins; return the undo. Several apps may share a loop."""
    current: Any = loop.get_task_factory()
    factory: Any = current if isinstance(current, OwningTaskFactory) else OwningTaskFactory(current)
    if factory is not current:
        loop.set_task_factory(factory)
    factory.uses += 1

    def undo() -> None:
        factory.uses -= 1
        is_last = factory.uses == 0 and not loop.is_closed()
        now: Any = loop.get_task_factory() if is_last else None
        if now is factory:
            loop.set_task_factory(factory.former)

    return undo
