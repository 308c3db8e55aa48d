"""What a start is at, noted on disk: a start that dies leaves the name of the plugin that it died in.

A directory holds one ``.start`` file for each start under way, empty unless a plugin is being loaded
or enabled, and one ``.json`` file for each plugin in which a start ended, its suspects. A start's file
is locked by its process; the kernel lets go of the lock however the process ends, so that a file
without a lock is one of a dead start, whatever became of its process id since.

Nothing is flushed to the disk itself: what a process has written survives its end, and this is about
processes that end, not about power cuts, which are no plugin's fault.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from .errors import SuspectedCrashError

try:
    import fcntl
except ImportError:  # not a POSIX system: then every start but our own is taken for dead
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger("pixsim7.plugins")

_ours: set[Path] = set()
"""Entries of this process: a process is never kept out by its own locks, and loses them by looking."""
_numbers = itertools.count(1)


class StartupJournal:
    """Notes for one start, and knows the suspects of earlier ones. Without a directory it does nothing.

    A disk that cannot be written to stops no start: the journal says so once and does nothing more.
    """

    def __init__(self, directory: Path | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._clock = clock
        self._entry: Path | None = None
        self._file = -1
        self._notes: list[bytes] = []

    def begin(self, folders: Mapping[str, Path]) -> dict[str, SuspectedCrashError]:
        """Open the entry of this start; return the plugins that it should leave out, with the reasons.

        Args:
            folders: where each plugin's code is, by id; a plugin whose code has changed since its
                crash is no longer suspected.
        """
        if self._directory is None:
            return {}
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._collect_dead()
            self._open()
            return self._suspects(folders)
        except OSError as error:
            self._give_up(error)
            return {}

    def suspects(self, folders: Mapping[str, Path]) -> dict[str, SuspectedCrashError]:
        """Return what :meth:`begin` would, as far as it can be seen, without beginning a start; makes no file."""
        if self._directory is None:
            return {}
        with suppress(OSError):
            self._collect_dead()
        with suppress(OSError):
            return self._suspects(folders)
        return {}

    @contextmanager
    def at(self, plugin: str, step: str) -> Iterator[None]:
        """Note that the start is at a plugin as long as the code inside runs; the innermost note counts.

        Whatever ends it in an orderly way takes the note back; Ctrl-C does not, since that is how an
        operator ends a start that hangs.
        """
        note = self._note(plugin, step)
        try:
            yield
        except KeyboardInterrupt:
            raise
        except BaseException:
            self._take_back(note)
            raise
        else:
            self._take_back(note)

    def finish(self) -> None:
        """Close the entry: the start is over. One that was interrupted at a plugin stays."""
        if self._entry is None:
            return
        with suppress(OSError):
            if not self._notes:
                self._entry.unlink(missing_ok=True)
        os.close(self._file)
        _ours.discard(self._entry)
        self._entry = None

    def forget(self, plugin: str) -> bool:
        """Suspect a plugin no longer; tell whether it was."""
        if self._directory is None:
            return False
        try:
            if self._entry is None:  # nobody has begun, which would have turned dead starts into suspects
                self._collect_dead()
            self._suspect_file(plugin).unlink()
        except OSError:
            return False
        return True

    # --- this start -------------------------------------------------------------------------------

    def _open(self) -> None:
        assert self._directory is not None
        self.finish()
        while self._entry is None:
            path = self._directory / f"{os.getpid()}-{time.time_ns()}-{next(_numbers)}.start"
            _ours.add(path)
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
            if fcntl is not None:
                fcntl.lockf(file, fcntl.LOCK_EX)
            if os.fstat(file).st_nlink:
                self._entry, self._file, self._notes = path, file, []
            else:  # another start took it for a dead one before it was locked
                os.close(file)
                _ours.discard(path)

    def _note(self, plugin: str, step: str) -> bytes:
        if self._entry is None:
            return b""
        at = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="seconds")
        note = (json.dumps({"plugin": plugin, "step": step, "at": at}) + "\n").encode()
        self._notes.append(note)
        self._write_last()
        return note

    def _take_back(self, note: bytes) -> None:
        if self._entry is not None and note in self._notes:
            self._notes.remove(note)
            self._write_last()

    def _write_last(self) -> None:
        try:
            os.ftruncate(self._file, 0)
            if self._notes:
                os.write(self._file, self._notes[-1])
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        logger.warning("A start that crashes will not be noticed: %s cannot be used: %s", self._directory, error)
        self._notes = []
        self.finish()
        self._directory = None

    # --- earlier starts ---------------------------------------------------------------------------

    def _collect_dead(self) -> None:
        assert self._directory is not None
        for entry in sorted(self._directory.glob("*.start")):
            self._collect(entry)

    def _collect(self, entry: Path) -> None:
        """Turn the entry of a dead start into a suspect; several starts may do so at once."""
        if entry in _ours:
            return
        try:
            file = os.open(entry, os.O_RDWR)
        except FileNotFoundError:
            return
        try:
            if fcntl is not None:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._suspect(os.read(file, 65536))
            entry.unlink(missing_ok=True)
        except BlockingIOError:
            return  # that start is still under way
        finally:
            os.close(file)

    def _suspect(self, text: bytes) -> None:
        lines = text.splitlines(keepends=True)
        if not lines or not lines[-1].endswith(b"\n"):
            return  # it died before any plugin, or in the middle of a word
        try:
            file = self._suspect_file(json.loads(lines[-1])["plugin"])
        except (ValueError, KeyError, TypeError):
            return  # not one of ours
        draft = file.with_suffix(f".{os.getpid()}.draft")
        draft.write_bytes(lines[-1])
        draft.replace(file)

    def _suspect_file(self, plugin: str) -> Path:
        assert self._directory is not None
        return self._directory / f"{urllib.parse.quote(plugin, safe='')}.json"

    def _suspects(self, folders: Mapping[str, Path]) -> dict[str, SuspectedCrashError]:
        return {each.plugin: each for each in self._iter_suspects(folders)}

    def _iter_suspects(self, folders: Mapping[str, Path]) -> Iterator[SuspectedCrashError]:
        assert self._directory is not None
        for file in sorted(self._directory.glob("*.json")):
            try:
                note = json.loads(file.read_bytes())
                plugin, at = note["plugin"], datetime.fromisoformat(note["at"])
                error = SuspectedCrashError(plugin=plugin, step=note["step"], at=note["at"], file=file)
            except (OSError, ValueError, KeyError, TypeError):
                continue  # deleted meanwhile, or not one of ours
            if plugin in folders and _has_changed(folders[plugin], at.timestamp()):
                file.unlink(missing_ok=True)
            else:
                yield error


def _has_changed(folder: Path, since: float) -> bool:
    return any(file.stat().st_mtime > since + 1 for file in folder.rglob("*.py"))
