"""What plugins have left in an app and its process, to be compared before and after."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections import Counter
from dataclasses import dataclass, fields

from pixsim7_backend.infrastructure.plugins import PluginManager, plugin_hooks

from .verdicts import Finding

_OURS = ("AnyIO", "asyncio_")  # thread pools that serve everybody and grow when they like


@dataclass(frozen=True, slots=True)
class Traces:
    """Everything that a plugin can leave behind, each kind with how often it is there."""

    subscription: Counter[str]
    port: Counter[str]
    state_key: Counter[str]
    route: Counter[str]
    task: Counter[str]
    thread: Counter[str]
    logging_handler: Counter[str]
    environment_variable: Counter[str]
    import_path: Counter[str]


def take_traces(manager: PluginManager) -> Traces:
    """Return what is there now."""
    app, key = manager.app, manager._key
    return Traces(
        subscription=Counter(repr(each) for each in plugin_hooks.iter_subscriptions() if each.app is key),
        port=Counter(list(key.ports)),
        state_key=Counter(list(app.state._state)),
        route=Counter(getattr(route, "path", type(route).__name__) for route in app.router.routes),
        task=Counter(task.get_name() for task in asyncio.all_tasks() if not _is_short_lived(task)),
        thread=Counter(each.name for each in threading.enumerate() if not each.name.startswith(_OURS)),
        logging_handler=Counter(repr(handler) for logger in _loggers() for handler in logger.handlers),
        environment_variable=Counter(list(os.environ)),
        import_path=Counter(sys.path),
    )


def left_behind(before: Traces, after: Traces) -> list[Finding]:
    """Return a finding for everything that is there after and was not before."""
    found = []
    for field in fields(Traces):
        kind = field.name.replace("_", " ")
        more = getattr(after, field.name) - getattr(before, field.name)
        found += [
            Finding(what=f"{kind} {name} is left behind", way_out=_WAYS.get(kind, _UNDO)) for name in sorted(more)
        ]
    return found


_UNDO = "undo it in on_disable"
_WAYS = {
    "thread": "stop and join it in on_disable",
    "task": "let it end when it is cancelled",
    "environment variable": "put it back in on_disable; better, use settings",
    "import path": "take it out again in on_disable",
}


def _is_short_lived(task: asyncio.Task[object]) -> bool:
    return task is asyncio.current_task() or task.get_name().startswith("retiring ")


def _loggers() -> list[logging.Logger]:
    known = list(logging.root.manager.loggerDict.values())
    return [logging.root, *(each for each in known if isinstance(each, logging.Logger))]
