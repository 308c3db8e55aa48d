"""A user for each jail, where the host is root: one who owns nothing, and whom no other jail has at that time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import stat
from pathlib import Path

__all__ = ["NoUidError", "UidLease", "UidPool"]

_FIRST, _COUNT = 61184, 256
_DIRECTORY = Path("/run/pixsim7-jail-uids")
_OF_SYSTEMD = Path("/run/systemd/dynamic-uid")


class NoUidError(Exception):
    """There is no user for a jail; the text says why."""


class UidLease:
    """One user, who belongs to one jail until :meth:`release`."""

    def __init__(self, uid: int, lock: int) -> None:
        self.uid = uid
        self._lock = lock

    def release(self) -> None:
        """Let another jail have the user."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)


class UidPool:
    """The users ``first`` to ``first + count - 1``, shared by all hosts on a machine by locks on files.

    They need not exist in any list of users. A lock ends with the process that holds it, however that ends.
    """

    def __init__(self, *, first: int = _FIRST, count: int = _COUNT, directory: Path = _DIRECTORY) -> None:
        self._uids = range(first, first + count)
        self._directory = directory

    def lease(self) -> UidLease:
        """Return a user that nobody has.

        Raises:
            NoUidError: all are taken, or the directory of the locks belongs to somebody else.
        """
        self._make_directory()
        for uid in self._uids:
            if not _is_somebody(uid):
                with contextlib.suppress(BlockingIOError):
                    return UidLease(uid, self._lock(uid))
        raise NoUidError(
            f"all users from {self._uids.start} to {self._uids.stop - 1} have a plugin already, or belong to somebody: "
            "let fewer plugins run, or name another range"
        )

    def _lock(self, uid: int) -> int:
        lock = os.open(self._directory / str(uid), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise
        return lock

    def _make_directory(self) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = self._directory.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise NoUidError(f"{self._directory} must be a directory that only the host's user can enter (mode 700)")


def _is_somebody(uid: int) -> bool:
    """Tell whether the system knows this user, or a service has it while it runs."""
    if (_OF_SYSTEMD / str(uid)).exists():
        return True
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True
