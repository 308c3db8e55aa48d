"""A plugin directory that plugins are put into and taken out of, so that a kill at any point loses nothing.

Beside the plugins lies ``.pixsim7``, which discovery does not look into::

    lock        held while one command works here
    staging/    what is being unpacked; leftovers of a killed command are removed by the next one
    journal     a change under way: made before its first step, removed after its last
    former/     the version that was replaced, one per folder
    removed/    what is being deleted
    receipts/   where each plugin that was added came from

A plugin's folder changes by renames within one file system only: at every moment it is the old one,
absent while the journal says so, or the new one.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pixsim7_backend.infrastructure.plugins.errors.installing import (
    ArchiveRefusedError,
    FolderTakenError,
    InstallBusyError,
    NoFormerVersionError,
)

if os.name == "posix":
    import fcntl

logger = logging.getLogger("pixsim7.plugins")

__all__ = ["CHECKPOINTS", "Checkpoint", "InstallDirectory", "finish_interrupted"]

Checkpoint = Callable[[str], None]
"""Told of every step that was done; tests kill the process there."""

OWN_FOLDER = ".pixsim7"
#: The steps that each kind of change passes, in order.
CHECKPOINTS: dict[str, tuple[str, ...]] = {
    "add": ("locked", "staged", "receipt-written", "moved"),
    "upgrade": (
        "locked", "staged", "journal-written", "former-moved-away", "new-moved-in", "journal-removed", "older-removed",
    ),
    "remove": (
        "locked", "journal-written", "taken-away", "exported", "forgotten", "dropped", "journal-removed", "deleted",
    ),
}  # fmt: skip


def _ignore(_step: str) -> None:
    """Nobody wants to know."""


class InstallDirectory:
    """One plugin directory; every change happens inside :meth:`locked`."""

    def __init__(self, directory: Path, *, checkpoint: Checkpoint = _ignore) -> None:
        self.path = directory
        self._own = directory / OWN_FOLDER
        self._reached = checkpoint

    # --- one at a time ----------------------------------------------------------------------------

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let one command work here at a time; finish or undo first what a killed one has left.

        Raises:
            InstallBusyError: another command works here.
            ArchiveRefusedError: the directory cannot be written to.
        """
        try:
            self._own.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self._own / "lock", os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        except OSError as error:
            raise ArchiveRefusedError(source=str(self.path), reason=f"cannot be used: {error.strerror}") from error
        try:
            self._take(lock)
            self.recover()
            self._reached("locked")
            yield
        finally:
            os.close(lock)  # which lets go of the lock

    def _take(self, lock: int) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise InstallBusyError(directory=self.path) from None
            raise

    def recover(self) -> None:
        """Undo a change that was interrupted in the middle, and clear away what killed commands left."""
        self._settle_journal()
        for name in ("staging", "removed"):
            _delete(self._own / name)

    def _settle_journal(self) -> None:
        """Put a folder back that is absent; finish a swap that was complete."""
        journal = self._read_journal()
        if journal is None:
            return
        target, former = self.path / journal["folder"], self._own / journal["former"]
        if not os.path.lexists(target) and former.exists():
            _rename(former, target)
        elif former.exists() and journal["receipt"] is not None:
            self._write_receipt(journal["folder"], journal["receipt"])
        self._remove_journal()

    # --- putting in -------------------------------------------------------------------------------

    def new_staging(self) -> Path:
        """Return a new empty folder on the same file system as the plugins."""
        staging = self._own / "staging" / secrets.token_hex(8)
        staging.parent.mkdir(mode=0o700, exist_ok=True)
        staging.mkdir()
        return staging

    def put(self, staged: Path, folder: str, receipt: dict[str, Any]) -> Path:
        """Move a staged plugin into place, where none is yet; return its folder.

        Raises:
            FolderTakenError: something is there.
        """
        target = self.path / folder
        if os.path.lexists(target):
            raise FolderTakenError(plugin=folder, directory=target)
        self._make_durable(staged)
        self._write_receipt(folder, receipt)
        self._reached("receipt-written")
        _rename(staged, target)
        self._reached("moved")
        return target

    def swap(self, staged: Path, folder: str, receipt: dict[str, Any]) -> Path:
        """Put a staged version in the place of the present one, which is kept; return its folder."""
        self._make_durable(staged)
        target, kept = self.path / folder, self._own / "former" / folder
        kept.mkdir(mode=0o700, parents=True, exist_ok=True)
        numbers = [int(each.name) for each in kept.iterdir() if each.name.isdigit()]
        former = kept / f"{max(numbers, default=0) + 1:06}"
        receipt = {**receipt, "former": {**self.read_receipt(folder), "former": None}}
        with self._journal(folder, former, receipt):
            _rename(target, former)
            self._reached("former-moved-away")
            _rename(staged, target)
            self._reached("new-moved-in")
            self._write_receipt(folder, receipt)
        return target

    def keep_one_former(self, folder: str) -> None:
        """Delete the versions before the former one."""
        kept = self._own / "former" / folder
        for older in sorted(kept.iterdir())[:-1] if kept.is_dir() else ():
            _delete(older)
        self._reached("older-removed")

    def find_former(self, folder: str) -> Path | None:
        """Return where the former version of a plugin is kept, None when none is."""
        kept = self._own / "former" / folder
        return max(kept.iterdir(), default=None) if kept.is_dir() else None

    def swap_back(self, folder: str) -> Path:
        """Exchange the present and the former version of a plugin; return its folder.

        Raises:
            NoFormerVersionError: none is kept.
        """
        former = self.find_former(folder)
        if former is None:
            raise NoFormerVersionError(plugin=folder)
        return self.swap(former, folder, self.read_receipt(folder).get("former") or {})

    def take_back(self, folder: str, *, had_former: bool) -> None:
        """Undo :meth:`put` or :meth:`swap`: nothing of the new version is kept."""
        if had_former:
            self.swap_back(folder)
            _delete(max((self._own / "former" / folder).iterdir()))
        else:
            with self.taken_away(folder):
                pass

    def _make_durable(self, staged: Path) -> None:
        for folder, _, _ in os.walk(staged):
            _synchronise_folder(Path(folder))
        self._reached("staged")

    # --- taking out -------------------------------------------------------------------------------

    @contextmanager
    def taken_away(self, folder: str) -> Iterator[Path]:
        """Take a plugin's folder away and give where it is meanwhile; at the end delete it, on an error put it back."""
        removed = self._own / "removed" / secrets.token_hex(8) / folder
        removed.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        target = self.path / folder
        with self._journal(folder, removed, None):
            _rename(target, removed)
            self._reached("taken-away")
            yield removed
        for rest in (removed.parent, self._own / "former" / folder):
            _delete(rest)
        (self._own / "receipts" / f"{folder}.json").unlink(missing_ok=True)
        self._reached("deleted")

    # --- notes ------------------------------------------------------------------------------------

    def read_receipt(self, folder: str) -> dict[str, Any]:
        """Return where a plugin came from; {} when it was not added here."""
        try:
            receipt = json.loads((self._own / "receipts" / f"{folder}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return receipt if isinstance(receipt, dict) else {}

    def _write_receipt(self, folder: str, receipt: dict[str, Any]) -> None:
        _write_durably(self._own / "receipts" / f"{folder}.json", json.dumps(receipt, indent=2))

    @contextmanager
    def _journal(self, folder: str, former: Path, receipt: dict[str, Any] | None) -> Iterator[None]:
        """Note where a plugin's folder is going for as long as it may be absent."""
        journal = {"folder": folder, "former": str(former.relative_to(self._own)), "receipt": receipt}
        _write_durably(self._own / "journal", json.dumps(journal))
        self._reached("journal-written")
        try:
            yield
        except BaseException:
            self._settle_journal()
            raise
        self._remove_journal()
        self._reached("journal-removed")

    def _read_journal(self) -> dict[str, Any] | None:
        try:
            journal = json.loads((self._own / "journal").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):  # it is written in one step: what cannot be read is not ours
            return None
        return journal if isinstance(journal, dict) and journal.keys() == {"folder", "former", "receipt"} else None

    def _remove_journal(self) -> None:
        (self._own / "journal").unlink(missing_ok=True)
        _synchronise_folder(self._own)


def _rename(old: Path, new: Path) -> None:
    old.rename(new)
    _synchronise_folder(new.parent)
    if old.parent != new.parent:
        _synchronise_folder(old.parent)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)


def _write_durably(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with part.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)
    _synchronise_folder(path.parent)


def _synchronise_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def finish_interrupted(directories: Iterable[Path]) -> None:
    """Bring plugin directories in order in which a command was killed, unless one works there now.

    One that cannot be written to stays as it is, and the log says so.
    """
    for directory in directories:
        if (directory / OWN_FOLDER / "journal").exists():
            try:
                with InstallDirectory(directory).locked():
                    pass
            except InstallBusyError:
                continue
            except (ArchiveRefusedError, OSError) as error:
                logger.warning("A command that was killed in %s cannot be undone: %s", directory, error)
