"""What is left of code that was given up, and who keeps it: found by weak references, only when somebody asks.

Python cannot force code out of memory; it dies with the last reference to it. What the platform
knows of is let go of; a reference that a plugin has put elsewhere can only be named.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from types import FrameType, FunctionType, ModuleType
from typing import Any

from .ledger import Leak, LeakReport

_DEPTH = 24
_ROUNDS = 3
"""Collections before something counts as alive: caches with weak values let go of their keys one round later."""
_EXPLAINED = 20
"""How many leaks of a plugin get their path: each costs some walks over the heap."""


class Remains:
    """Watches the code of generations that were given up; what has died is gone from here."""

    def __init__(self) -> None:
        self._watched: dict[int, tuple[str, int, weakref.ref[Any]]] = {}

    def watch(self, plugin: str, generation: int, modules: Mapping[str, ModuleType], others: Iterable[object]) -> None:
        """Watch these modules, what they define, and ``others`` (routers)."""
        for each in (*modules.values(), *_definitions(modules), *others):
            key = id(each)
            reference = weakref.ref(each, functools.partial(_forget, self._watched, key))
            self._watched[key] = plugin, generation, reference

    def find(self) -> tuple[LeakReport, ...]:
        """Collect garbage, and report by plugin what is still alive and who keeps it."""
        for _ in range(_ROUNDS):
            if not gc.collect():
                break
        alive: dict[str, list[tuple[int, Any]]] = {}
        for plugin, generation, reference in list(self._watched.values()):
            if (each := reference()) is not None:
                alive.setdefault(plugin, []).append((generation, each))
        return tuple(LeakReport(plugin, (), tuple(_explain(alive[plugin]))) for plugin in sorted(alive))


def _forget(watched: dict[int, Any], key: int, reference: weakref.ref[Any]) -> None:
    if key in watched and watched[key][2] is reference:
        del watched[key]


def _definitions(modules: Mapping[str, ModuleType]) -> Iterator[Any]:
    """Yield the functions and classes that the modules define themselves."""
    for name, module in modules.items():
        for value in tuple(vars(module).values()):
            if isinstance(value, (FunctionType, type)) and value.__module__ == name:
                yield value


def _explain(alive: list[tuple[int, Any]]) -> Iterator[Leak]:
    for number, (generation, each) in enumerate(alive):
        why = f"generation {generation} is kept by {find_keeper(each)}" if number < _EXPLAINED else "is kept too"
        yield Leak("code", _describe(each), why)


def find_keeper(target: object, *, depth: int = _DEPTH) -> str:
    """Return the shortest way by which something that lives on refers to ``target``.

    It begins at a name in a module or at a running function: ``registry.HANDLERS → list → function f``.
    """
    objects, children, seen, level = [target], [-1], {id(target)}, [0]
    for _ in range(depth):
        beyond: list[int] = []
        wanted = {id(objects[index]): index for index in level}
        for holder in _holders([objects[index] for index in level], ours=(objects, children, seen, level, wanted)):
            child = next((wanted[id(each)] for each in gc.get_referents(holder) if id(each) in wanted), None)
            if child is None or id(holder) in seen:
                continue
            seen.add(id(holder))
            objects.append(holder)
            children.append(child)
            if (root := _root(holder, objects[child])) is not None:
                return _join((root, *map(_describe, _way(objects, children, child))))
            beyond.append(len(objects) - 1)
        if not beyond:
            break
        level = beyond
    return _join(map(_describe, _way(objects, children, len(objects) - 1)))


def _join(names: Iterable[str]) -> str:
    """Join the steps of a way; tracebacks and the like hang on one another in long rows."""
    return " → ".join(name for name, _ in groupby(names))


def _holders(targets: list[Any], *, ours: tuple[object, ...]) -> list[Any]:
    own = {id(each) for each in ours} | {id(targets)}
    found = gc.get_referrers(*targets)
    return [each for each in found if id(each) not in own and not _is_own_frame(each)]


def _is_own_frame(holder: object) -> bool:
    return isinstance(holder, FrameType) and holder.f_code.co_filename == __file__


def _way(objects: list[Any], children: list[int], index: int) -> Iterator[Any]:
    while index != -1:
        if not _is_namespace(objects[index]):
            yield objects[index]
        index = children[index]


def _is_namespace(held: object) -> bool:
    return isinstance(held, dict) and "__builtins__" in held


def _root(holder: Any, child: object) -> str | None:
    """Return the name under which ``holder`` is known for itself, None when it only hangs on something else."""
    if isinstance(holder, FrameType) and _is_running(holder):
        return f"{holder.f_code.co_qualname} at {holder.f_code.co_filename}:{holder.f_lineno}"
    if not isinstance(holder, dict):
        return None
    module = sys.modules.get(str(holder.get("__name__")))
    if module is None or vars(module) is not holder:
        return None
    name = next((name for name, value in holder.items() if value is child), "?")
    return f"{module.__name__}.{name}"


def _is_running(frame: FrameType) -> bool:
    """Tell whether a thread is in this frame now; others are held by tracebacks and waiting coroutines."""
    for running in sys._current_frames().values():  # documented; the only way to see the other threads
        now: FrameType | None = running
        while now is not None:
            if now is frame:
                return True
            now = now.f_back
    return False


_NAMED: tuple[tuple[type, Callable[[Any], str]], ...] = (
    (FrameType, lambda frame: f"frame of {frame.f_code.co_qualname}"),
    (ModuleType, lambda module: f"module {module.__name__}"),
    (FunctionType, lambda function: f"function {function.__module__}.{function.__qualname__}"),
    (type, lambda kind: f"class {kind.__module__}.{kind.__qualname__}"),
)


def _describe(held: object) -> str:
    found = next((name for kind, name in _NAMED if isinstance(held, kind)), None)
    return found(held) if found else type(held).__name__


def release_timers(loop: asyncio.AbstractEventLoop | None) -> None:
    """Let go of the contexts of cancelled timers, which asyncio keeps until there are a hundred of them.

    A task that was cancelled in ``asyncio.sleep`` leaves one, and its context holds the values of the
    plugin's context variables.
    """
    for timer in tuple(getattr(loop, "_scheduled", ())):
        if timer.cancelled() and hasattr(timer, "_context"):
            timer._context = None  # nothing runs in it any more
