"""Everything a plugin registered, with the undo of each entry, and what would not go away.

Whoever adds something on behalf of a plugin puts its undo here; disabling runs them last in, first
out, whatever any of them raises.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

Undo = Callable[[], object]

_LOADER = f"{__package__.rpartition('.')[0]}._code.loader"


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One registration: its kind (``"subscription"``, ``"route"``, …), what it is, and its undo."""

    kind: str
    name: str
    undo: Undo


@dataclass(frozen=True, slots=True)
class Leak:
    """Something of a plugin that is still there after its ledger was undone."""

    kind: str
    name: str
    why: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.why}"


@dataclass(frozen=True, slots=True)
class LeakReport:
    """What undoing a ledger did, and what would not die."""

    plugin: str
    undone: tuple[str, ...] = ()
    leaks: tuple[Leak, ...] = ()

    @property
    def is_clean(self) -> bool:
        return not self.leaks

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON-able values."""
        return {
            "plugin": self.plugin,
            "undone": list(self.undone),
            "leaks": [{"kind": leak.kind, "name": leak.name, "why": leak.why} for leak in self.leaks],
        }


class Stage:
    """Where generations that are built beside the ones in service register: seen by themselves only.

    :meth:`publish` makes everything visible at once; until then whoever asks with the same stage sees
    ``state`` (keys of ``app.state``) and ``ports`` as they will be.
    """

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}
        self.ports: dict[str, Any] = {}
        self._actions: list[Callable[[], None]] = []
        self._ledgers: list[Ledger] = []

    def hold(self, ledger: Ledger) -> None:
        """Let what is registered on ``ledger`` wait here."""
        self._ledgers.append(ledger)
        ledger.stage = self

    def defer(self, action: Callable[[], None]) -> None:
        self._actions.append(action)

    def publish(self) -> None:
        """Do what was put off, in order; from now on the ledgers register at once."""
        for ledger in self._ledgers:
            ledger.stage = None
        for action in self._actions:
            action()
        self._actions.clear()


@dataclass(slots=True, weakref_slot=True)
class Ledger:
    """The registrations and running tasks of one generation of one plugin."""

    stage: Stage | None = None
    """Where registrations wait while the generation is not in service yet."""
    _entries: list[LedgerEntry] = field(default_factory=list)
    _releases: list[LedgerEntry] = field(default_factory=list)
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, kind: str, name: str, undo: Undo) -> LedgerEntry:
        """Record a registration; ``undo`` takes nothing and must be safe to call when it is gone."""
        entry = LedgerEntry(kind, name, undo)
        with self._lock:
            self._entries.append(entry)
        return entry

    def add_release(self, kind: str, name: str, release: Undo) -> None:
        """Record what is to be let go when the code itself is given up, not only disabled (models)."""
        with self._lock:
            self._releases.append(LedgerEntry(kind, name, release))

    def when_live(self, action: Callable[[], None]) -> None:
        """Do it now, or once the generation is in service."""
        if self.stage is None:
            action()
        else:
            self.stage.defer(action)

    def discard(self, entry: LedgerEntry) -> None:
        """Forget an entry that was undone by its own owner (a cancelled subscription)."""
        with self._lock:
            self._entries = [kept for kept in self._entries if kept is not entry]

    def add_task(self, task: asyncio.Task[Any]) -> None:
        """Own a task until it is done."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def entries(self) -> tuple[LedgerEntry, ...]:
        return tuple(self._entries)

    @property
    def tasks(self) -> tuple[asyncio.Task[Any], ...]:
        return tuple(self._tasks)

    def undo(self, *kinds: str) -> tuple[tuple[str, ...], tuple[Leak, ...]]:
        """Undo every entry (of these kinds), last in, first out; return what was undone and what could not be.

        An undo that raises is reported and stops no other one. A second call finds nothing.
        """
        with self._lock:
            entries = [entry for entry in self._entries if not kinds or entry.kind in kinds]
            self._entries = [entry for entry in self._entries if kinds and entry.kind not in kinds]
        return _run_all(entries)

    def release(self) -> tuple[Leak, ...]:
        """Let go of what hangs on the code itself; return what could not be."""
        with self._lock:
            entries, self._releases = self._releases, []
        return _run_all(entries)[1]

    async def cancel_tasks(self, deadline: float) -> tuple[tuple[str, ...], tuple[Leak, ...]]:
        """Cancel the plugin's tasks, wait up to ``deadline`` seconds, and name those that live on."""
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if not tasks:
            return (), ()
        done, pending = await asyncio.wait(tasks, timeout=deadline)
        leaks = tuple(
            Leak("task", describe_task(task), f"still runs {deadline:g} s after its cancellation") for task in pending
        )
        return tuple(f"task {describe_task(task)}" for task in done), leaks


def _run_all(entries: list[LedgerEntry]) -> tuple[tuple[str, ...], tuple[Leak, ...]]:
    undone: list[str] = []
    leaks: list[Leak] = []
    for entry in reversed(entries):
        try:
            entry.undo()
        except Exception as error:  # noqa: BLE001 - an undo may be the plugin's own code
            leaks.append(Leak(entry.kind, entry.name, f"undo raised {type(error).__name__}: {error}"))
        else:
            undone.append(f"{entry.kind} {entry.name}")
    return tuple(undone), tuple(leaks)


def describe_task(task: asyncio.Task[Any]) -> str:
    """Return a task's name, coroutine and the line it waits at."""
    coroutine = task.get_coro()
    name = getattr(coroutine, "__qualname__", repr(coroutine))
    frames = task.get_stack(limit=1)
    where = f" at {frames[0].f_code.co_filename}:{frames[0].f_lineno}" if frames else ""
    return f"{task.get_name()} ({name}){where}"


def _is_importing(frame: FrameType | None) -> bool:
    """Tell whether the plugin's code runs here because the platform is importing it."""
    while frame is not None:
        if frame.f_code.co_name == "load_code" and frame.f_globals.get("__name__") == _LOADER:
            return True
        frame = frame.f_back
    return False


def find_line(thread: threading.Thread, directory: str) -> str:
    """Return the line below ``directory`` that a thread is in, as ``file:line``; empty when it is elsewhere."""
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None and not frame.f_code.co_filename.startswith(directory):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else ""


def find_threads(directory: str) -> tuple[Leak, ...]:
    """Name the threads that run code from below ``directory``.

    Neither the one that asks counts, nor one that the platform itself lets import the next generation.
    """
    frames = sys._current_frames()  # documented; the only way to see what another thread runs
    found = []
    for thread in threading.enumerate():
        if thread is threading.current_thread():
            continue  # its frames are those of whoever wants the plugin stopped, a test beside it perhaps
        frame = frames.get(thread.ident or 0)
        while frame is not None:
            if frame.f_code.co_filename.startswith(directory):
                if _is_importing(frame):
                    break
                where = f"runs {frame.f_code.co_qualname} at {frame.f_code.co_filename}:{frame.f_lineno}"
                found.append(Leak("thread", thread.name, where))
                break
            frame = frame.f_back
    return tuple(found)
