"""A control group for each jail, where a part of the cgroup v2 tree is delegated to the host.

The kernel wants a group to hold processes or further groups, not both. So the host's own group is a leaf, and what is
delegated is the one above it: there the host makes a group for all its jails, and in that one for each. It moves a
jail before anything of the plugin is told to it, kills by group, and removes the groups; what a host left behind that
was killed, the next one removes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .spec import JailLimits

__all__ = [
    "CONTROLLERS",
    "Base",
    "JailGroup",
    "JailGroups",
    "NoGroupsError",
    "OwnGroup",
    "find_base",
    "find_obstacle",
    "find_own",
    "limits_of",
]

CONTROLLERS = ("memory", "pids", "cpu")
_PREFIX = "pixsim7-jails-"
_WEIGHT = "30"
"""Of all jails together, where the host and each other group beside them has 100."""
_DELEGATED = ("user.delegate", "trusted.delegate")
_TRIES, _PAUSE = 100, 0.01
_ESCAPED = re.compile(r"\\([0-7]{3})")


class NoGroupsError(Exception):
    """Jails get no groups here; the text says why."""


@dataclass(frozen=True, slots=True)
class OwnGroup:
    """The group of this process."""

    path: Path
    top: Path
    """Where the tree is mounted: what is above that cannot be reached."""


def find_own(groups: str, mounts: str) -> OwnGroup | None:
    """Return the group of a process; None where there is no cgroup v2, or it lies outside of what is mounted. Pure.

    Args:
        groups: its ``/proc/self/cgroup``.
        mounts: its ``/proc/self/mountinfo``.
    """
    own = next((line[3:] for line in groups.splitlines() if line.startswith("0::")), None)
    if own is None or own.startswith("/.."):
        return None
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        root, point = (_ESCAPED.sub(lambda found: chr(int(found[1], 8)), each) for each in before.split()[3:5])
        inside = os.path.relpath(own, root)
        if after.startswith("cgroup2 ") and inside.split("/")[0] != "..":
            return OwnGroup(Path(point, inside), Path(point))
    return None


def limits_of(limits: JailLimits, controllers: Collection[str] = CONTROLLERS) -> Mapping[str, str]:
    """Return what is written to the files of a jail's group, by name. Pure.

    Its memory may be its own data and what lies in its scratch directory, if that is in memory; nothing is swapped.
    """
    files = {
        "memory.max": str(limits.memory + limits.scratch),
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "pids.max": str(limits.threads),
    }
    return {name: value for name, value in files.items() if name.partition(".")[0] in controllers}


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The group above the host's own, as it was found."""

    path: Path
    controllers: frozenset[str]
    is_delegated: bool
    """To the host, by whoever manages the tree."""
    has_processes: bool


def find_obstacle(own: OwnGroup, base: Base) -> str | None:
    """Return why jails get no groups in ``base``; None: they do. Pure."""
    if missing := ", ".join(each for each in CONTROLLERS if each not in base.controllers):
        return f"{base.path} lacks the controllers {missing}"
    if own.path == own.top:
        return f"the server must be in a group of its own below {own.top}"
    if not base.is_delegated:
        return f"{base.path} is not delegated to the server"
    if base.has_processes:
        return f"processes are in {base.path}: they must be in groups below it, as the server is"
    return None


def find_base() -> Path:
    """Return the group below which jails get theirs.

    Raises:
        NoGroupsError: there is none that is delegated, with all that is needed; the text says why.
    """
    try:
        own = find_own(Path("/proc/self/cgroup").read_text(), Path("/proc/self/mountinfo").read_text())
        if own is None:
            raise NoGroupsError("no cgroup v2 is mounted")
        base = _look(own)
    except OSError as error:
        raise NoGroupsError(str(error)) from error
    if obstacle := find_obstacle(own, base):
        raise NoGroupsError(obstacle)
    return base.path


def _look(own: OwnGroup) -> Base:
    path = own.path if own.path == own.top else own.path.parent
    return Base(
        path=path,
        controllers=frozenset((path / "cgroup.controllers").read_text().split()),
        is_delegated=_is_marked(path) or (path == own.top and (path / "cgroup.type").exists()),
        has_processes=bool((path / "cgroup.procs").read_text()),
    )


def _is_marked(path: Path) -> bool:
    """Tell whether systemd says that it is delegated; the top of a container's own tree is without that."""
    for name in _DELEGATED:
        with contextlib.suppress(OSError):
            if os.getxattr(path, name) == b"1":
                return True
    return False


class JailGroup:
    """The group of one jail."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def admit(self, process: int) -> None:
        """Move a process into it."""
        (self.path / "cgroup.procs").write_text(str(process))

    def kill(self) -> None:
        """End all that is in it; nothing happens where it is gone."""
        with contextlib.suppress(FileNotFoundError):
            (self.path / "cgroup.kill").write_text("1")

    def ran_out_of_memory(self) -> bool:
        """Tell whether the kernel has ended something in it, since it had more memory than it may have."""
        try:
            events = (self.path / "memory.events").read_text()
        except OSError:  # there is no such controller, or it is gone
            return False
        return any(int(line.split()[1]) for line in events.splitlines() if line.startswith("oom_kill "))

    def remove(self) -> None:
        """End what is left in it, and remove it; one that does not go is left to the next host."""
        self.kill()
        with contextlib.suppress(OSError):
            _remove(self.path)


class JailGroups:
    """Makes groups for the jails of this process. Any thread may use it.

    Args:
        base: where; it is delegated, and holds no process.
        controllers: what jails are bounded by.
    """

    def __init__(self, base: Path, controllers: Collection[str] = CONTROLLERS) -> None:
        self._base = base
        self._controllers = tuple(controllers)
        self._lock = threading.Lock()
        self._root: Path | None = None
        self._held = -1

    def make(self, name: str, limits: JailLimits) -> JailGroup:
        """Return a new group with these limits.

        Raises:
            OSError: the kernel refuses it.
        """
        with self._lock:
            root = self._root or self._open()
        group = JailGroup(Path(tempfile.mkdtemp(prefix=f"{name}-", dir=root)))
        try:
            for file, value in limits_of(limits, self._controllers).items():
                with contextlib.suppress(FileNotFoundError):  # a kernel that cannot swap has no limit of that
                    (group.path / file).write_text(value)
        except OSError:
            group.remove()
            raise
        return group

    def close(self) -> None:
        """Remove all of them; their jails are ended."""
        with self._lock:
            root, self._root = self._root, None
            if root is not None:
                _remove_all(root)
                os.close(self._held)

    def forget(self) -> None:
        """Leave them to the process that this one is a copy of."""
        self._lock = threading.Lock()
        root, self._root = self._root, None
        if root is not None:
            os.close(self._held)

    def _open(self) -> Path:
        for stale in self._base.glob(f"{_PREFIX}*"):
            with contextlib.suppress(OSError), _holding(stale):
                _remove_all(stale)
        _enable(self._base, self._controllers)
        root, self._held = self._make_root()
        try:
            _enable(root, self._controllers)
            if "cpu" in self._controllers:
                (root / "cpu.weight").write_text(_WEIGHT)
        except OSError:
            _remove_all(root)
            os.close(self._held)
            raise
        self._root = root
        return root

    def _make_root(self) -> tuple[Path, int]:
        """Return a new directory that this process holds; another one that starts may take it for stale before."""
        for _ in range(_TRIES):
            path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._base))
            with contextlib.suppress(FileNotFoundError, BlockingIOError):
                held = _hold(path)
                if path.exists():
                    return path, held
                os.close(held)
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(self._base))


def _enable(path: Path, controllers: Collection[str]) -> None:
    """Let the groups below one be bounded by these controllers."""
    for name in controllers:
        (path / "cgroup.subtree_control").write_text(f"+{name}")


def _hold(path: Path) -> int:
    """Return a descriptor that locks a directory as long as it is open."""
    held = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        raise
    return held


@contextlib.contextmanager
def _holding(path: Path) -> Iterator[None]:
    held = _hold(path)
    try:
        yield
    finally:
        os.close(held)


def _remove_all(root: Path) -> None:
    """Remove the group of a host with those of its jails."""
    for path in root.iterdir():
        if path.is_dir():
            JailGroup(path).remove()
    with contextlib.suppress(OSError):
        _remove(root)


def _remove(path: Path) -> None:
    """Remove a group as soon as what was killed in it is gone."""
    for _ in range(_TRIES):
        try:
            path.rmdir()
        except OSError as error:
            if error.errno == errno.ENOENT:
                return
            if error.errno != errno.EBUSY:
                raise
            time.sleep(_PAUSE)
        else:
            return
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))
