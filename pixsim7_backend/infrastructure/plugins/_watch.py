"""Follow the plugin directories while the server runs: what is saved is live, what is broken waits to be mended.

The file system's events only say where to look. What a folder holds is told by its files' times and
sizes, so that an event that got lost, came twice or belongs to a write in progress does no harm.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio.to_thread

from ._code.excerpt import excerpt, let_go
from ._manager import PluginManager
from .errors import ConfigurationError, PluginDisabledError, PluginError, PluginLoadError
from .records import PluginRecord
from .states import PluginState
from .types import normalize_plugin_id

logger = logging.getLogger("pixsim7.plugins")

#: Seconds that a folder must rest before what is wrong with it is believed.
SETTLE = 0.2
#: Milliseconds between two looks at the queue of events, and at most between a first event and ours.
_STEP, _DEBOUNCE = 3, 50

_IGNORED_NAMES = frozenset({"__pycache__", "4913"})  # the latter is how vim finds out whether it may write
_IGNORED_ENDS = ("~", ".pyc", ".pyo", ".swp", ".swo", ".swx", ".tmp", ".temp", ".bak", ".part", ".lock")
_IGNORED_STARTS = (".", "#")
_IGNORED_PARTS = ("___jb_",)

Fingerprint = frozenset[tuple[str, int, int, int, int]]


@asynccontextmanager
async def watch_plugins(manager: PluginManager, *, settle: float = SETTLE) -> AsyncIterator[None]:
    """Replace plugins as their files change, load new folders, and stop what is deleted, while inside.

    To be entered on the running loop, after ``enable_all()``. An error leaves what serves in place; it
    is logged with the line at fault and kept in ``manager.reload_errors``, once the folder has not
    changed for ``settle`` seconds: a file that is half written is no error.

    Raises:
        ConfigurationError: the package ``watchfiles`` is missing, the system refuses to watch, or
            there are several workers.
    """
    if not manager.settings.allow_live_changes:
        problem = "the plugins of several worker processes cannot be reloaded; set WORKERS=1"
        raise ConfigurationError(source="RELOAD_PLUGINS", problem=problem)
    watcher = _Watcher(manager, settle)
    stop = asyncio.Event()
    watching = asyncio.create_task(watcher.watch(_import_awatch(), stop), name="watching plugins")
    try:
        await asyncio.sleep(0)  # from now on nothing is missed: the first step of the task sets the watch up
        if watching.done():
            watching.result()
        watching.add_done_callback(_say_why_it_ended)
        yield
    finally:
        stop.set()
        await asyncio.wait({watching})
        await watcher.rest()


def _say_why_it_ended(watching: asyncio.Task[None]) -> None:
    error = None if watching.cancelled() else watching.exception()
    if error is not None:
        logger.error("Live reload has ended, plugins stay as they are until the server is restarted: %s", error)


def _import_awatch() -> Callable[..., AsyncIterator[Any]]:
    try:
        from watchfiles import awatch
    except ImportError:
        problem = "live reload needs the package `watchfiles`: `pip install watchfiles`"
        raise ConfigurationError(source="RELOAD_PLUGINS", problem=problem) from None
    return awatch


@dataclass(frozen=True, slots=True)
class _Failure:
    """What was wrong with a folder, when as many others had been brought in line."""

    error: PluginError
    successes: int


class _Watcher:
    """Brings one manager's plugins in line with their folders, each folder in a task of its own."""

    def __init__(self, manager: PluginManager, settle: float) -> None:
        self._manager = manager
        self._settle = settle
        self._changed: set[Path] = set()
        self._known: dict[Path, Fingerprint] = {}
        self._wakes: dict[Path, asyncio.Event] = {}
        self._followers: dict[Path, asyncio.Task[None]] = {}
        self._failing: dict[Path, _Failure] = {}
        """What is wrong with folders and not believed yet."""
        self._successes = 0
        self._working: set[Path] = set()
        self._quiet = asyncio.Event()
        """Nothing is being followed; what failed only waits to be believed."""

    async def watch(self, awatch: Callable[..., AsyncIterator[Any]], stop: asyncio.Event) -> None:
        """Notice changes until ``stop`` is set."""
        directories = self._manager.directories
        try:
            async for batch in awatch(
                *directories, watch_filter=None, step=_STEP, debounce=_DEBOUNCE, stop_event=stop, recursive=True
            ):
                self.notice(_folders_of((Path(path) for _, path in batch), directories))
        except (OSError, RuntimeError) as error:  # the latter where not even a watch without a folder can be had
            problem = f"cannot watch {', '.join(map(str, directories))}: {error}"
            hint = (
                "raise fs.inotify.max_user_watches and fs.inotify.max_user_instances,"
                " or set WATCHFILES_FORCE_POLLING=true"
            )
            raise ConfigurationError(source="RELOAD_PLUGINS", problem=f"{problem}; {hint}") from error

    async def rest(self) -> None:
        """Stop looking; changes that have begun go on to their end."""
        followers = [task for task in self._followers.values() if not task.done()]
        for task in followers:
            task.cancel()
        if followers:
            await asyncio.wait(followers)

    def notice(self, folders: Iterable[Path]) -> None:
        """Look at these folders, now or once more after the look under way."""
        for folder in folders:
            self._changed.add(folder)
            if folder in self._wakes:
                self._wakes[folder].set()
            if not self._is_followed(folder):
                self._followers[folder] = asyncio.create_task(self._follow(folder), name=f"following {folder.name}")

    def _is_followed(self, folder: Path) -> bool:
        follower = self._followers.get(folder)
        return follower is not None and not follower.done()

    async def _follow(self, folder: Path) -> None:
        self._works(folder)
        try:
            while folder in self._changed:
                self._changed.discard(folder)
                await self._catch_up(folder)
        finally:
            self._stops_working(folder)

    async def _catch_up(self, folder: Path) -> None:
        """Bring the plugin in line with its folder, again and again until the folder rests."""
        while (seen := await _look(folder)) != self._known.get(folder):
            self._known[folder] = seen
            if not seen and not await self._rests(folder, seen):  # many tools write a folder anew by deleting it first
                continue
            error = await self._refresh(folder)
            waiting = await self._retry_waiting(folder, has_failed=error is not None)
            if error is not None and waiting:
                await self._refresh(folder)
            if folder in self._failing and await self._is_believed(folder, seen):
                self._report(folder, self._failing.pop(folder).error)

    async def _is_believed(self, folder: Path, seen: Fingerprint) -> bool:
        """Wait until the folder rests and no other one is being followed; tell whether it is still failing.

        Of many that change at once one may be right only together with the others, so it is tried again
        after each success, and none is believed before all have been.
        """
        while folder in self._failing:
            self._stops_working(folder)
            try:
                if not await self._rests(folder, seen):
                    return False
                await self._quiet.wait()
            finally:
                self._works(folder)
            if self._is_outdated(folder):
                await self._refresh(folder)
            elif not any(map(self._is_outdated, self._failing)):
                return folder in self._failing
        return False

    def _is_outdated(self, folder: Path) -> bool:
        failure = self._failing.get(folder)
        return failure is not None and failure.successes != self._successes

    def _works(self, folder: Path) -> None:
        self._working.add(folder)
        self._quiet.clear()

    def _stops_working(self, folder: Path) -> None:
        self._working.discard(folder)
        if not self._working:
            self._quiet.set()

    async def _rests(self, folder: Path, seen: Fingerprint) -> bool:
        """Wait a while; tell whether the folder stays as it was seen, at once when it does not."""
        wakes = self._wakes[folder] = asyncio.Event()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settle):
                while True:
                    wakes.clear()
                    if await _look(folder) != seen:
                        return False
                    await wakes.wait()
        return await _look(folder) == seen

    async def _refresh(self, folder: Path) -> PluginError | None:
        """Let the manager follow the folder; return, and note, what is wrong."""
        before = self._successes
        error = await self._try_to_refresh(folder)
        if error is None:
            self._successes += 1
            self._failing.pop(folder, None)
        else:
            self._failing[folder] = _Failure(error, before)
        return error

    async def _try_to_refresh(self, folder: Path) -> PluginError | None:
        try:
            await self._manager.refresh(folder)
        except PluginError as error:
            record = self._find(folder)
            is_off = isinstance(error, PluginDisabledError) and (not record or record.state is PluginState.DISABLED)
            return None if is_off else error
        except Exception as error:  # noqa: BLE001  # code of a plugin runs in there; a dead watcher would help nobody
            plugin = self._id_of(folder)
            return PluginLoadError(plugin=plugin, file=folder, line=None, cause=error)
        return None

    async def _retry_waiting(self, folder: Path, *, has_failed: bool) -> bool:
        """Give those another chance that may have waited for this change; tell whether one has succeeded."""
        succeeded = False
        for record in list(self._iter_waiting(folder, has_failed=has_failed)):
            error = await self._refresh(record.source.path)
            if error is None:
                succeeded = True
            elif self._is_followed(record.source.path):
                continue  # it is shown there, if it is believed
            else:
                self._failing.pop(record.source.path, None)
                let_go(error)
                if record.id in self._manager.reload_errors:
                    self._keep(record.id, error)
        return succeeded

    def _iter_waiting(self, folder: Path, *, has_failed: bool) -> Iterator[PluginRecord]:
        plugin = self._id_of(folder)
        plan = self._manager.plan()
        dependants = plan.dependants_of(plugin, transitive=True) if plugin in plan.candidates else ()
        for record in self._manager.iter_records():
            is_dependant = not has_failed and record.id in dependants and record.state is PluginState.FAILED
            is_failing = record.id in self._manager.reload_errors or record.source.path in self._failing
            if record.id != plugin and (is_dependant or is_failing):
                yield record

    def _report(self, folder: Path, error: PluginError) -> None:
        record = self._find(folder)
        is_serving = record is not None and record.state is PluginState.ENABLED
        what = f"its generation {record.generation} serves on" if record and is_serving else "it does not run"
        where = excerpt(error, folder)
        plugin = self._id_of(folder)
        _log_error(where, "Plugin %s was not reloaded, %s: %s", plugin, what, error)
        self._keep(plugin, error)

    def _keep(self, plugin: str, error: PluginError) -> None:
        let_go(error)
        self._manager.note_reload_error(plugin, error)
        self._manager.journal.note("not replaced", plugin, str(error))

    def _id_of(self, folder: Path) -> str:
        record = self._find(folder)
        return record.id if record else normalize_plugin_id(folder.name)

    def _find(self, folder: Path) -> PluginRecord | None:
        return next((each for each in self._manager.iter_records() if each.source.path == folder), None)


def _log_error(below: str, message: str, *args: object) -> None:
    """Log an error with lines below its message, where tracebacks stand: as they are, whatever the format."""
    record = logger.makeRecord(logger.name, logging.ERROR, __file__, 0, message, args, None, sinfo=below or None)
    logger.handle(record)


# --- files ----------------------------------------------------------------------------------------


def _folders_of(paths: Iterable[Path], directories: Iterable[Path]) -> set[Path]:
    """Return the plugin folders to which these paths belong."""
    found = set()
    for path in paths:
        for directory in directories:
            inside = path.relative_to(directory).parts if directory in path.parents else ()
            if inside and not any(map(is_ignored, inside)):
                found.add(directory / inside[0])
    return found


def is_ignored(name: str) -> bool:
    """Tell whether a file or folder of this name is none of a plugin's: compiled code, an editor's own, hidden."""
    return (
        name in _IGNORED_NAMES
        or name.startswith(_IGNORED_STARTS)
        or name.endswith(_IGNORED_ENDS)
        or any(part in name for part in _IGNORED_PARTS)
    )


async def _look(folder: Path) -> Fingerprint:
    return await anyio.to_thread.run_sync(fingerprint, folder)


def fingerprint(folder: Path) -> Fingerprint:
    """Return what tells one state of a folder from another; empty when it holds no plugin."""
    found = set()
    for directory, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_ignored(name)]
        for name in files:
            if not is_ignored(name):
                found |= _stamp(os.path.join(directory, name))  # noqa: PTH118  # a Path per file costs more
    is_plugin = any(os.path.lexists(folder / name) for name in ("manifest.py", "__init__.py"))
    return frozenset(found) if is_plugin else frozenset()


def _stamp(path: str) -> set[tuple[str, int, int, int, int]]:
    try:
        status = os.stat(path)  # noqa: PTH116  # as above
    except OSError:  # deleted since, or a link that leads nowhere
        return set()
    # the last one tells what keeps time and size: a copy that preserves them, a clock that was set back
    return {(path, status.st_mtime_ns, status.st_size, status.st_ino, status.st_ctime_ns)}
