"""A file tree and a network of a jail's own, where the kernel lets this process have them.

The tree holds what the jail may use and nothing else, so that not even the existence of other files can be
asked for, which Landlock does not deny. A directory whose parents are closed to the jail's user, like a home
directory, is within reach there, since the tree has parents of its own.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from .syscalls import check, get_libc, invoke

__all__ = ["NAMES", "isolate", "own_tree"]

NAMES = ("mount", "net", "ipc")
_NEW_NS, _NEW_USER, _NEW_NET, _NEW_IPC = 0x00020000, 0x10000000, 0x40000000, 0x08000000
_MS_REC, _MS_SLAVE, _MS_NOSUID, _MS_NODEV = 1 << 14, 1 << 19, 2, 4
_MNT_DETACH = 2
_AT_FDCWD = -100
_AT_EMPTY_PATH, _AT_RECURSIVE, _OPEN_TREE_CLONE, _MOVE_FROM_DESCRIPTOR = 0x1000, 0x8000, 1, 0x4
_READ_ONLY, _NO_SUID, _NO_DEVICES, _NO_EXEC = 1, 2, 4, 8
_TREE_OPTIONS = b"mode=0755,size=1m,nr_inodes=4k"


def isolate() -> None:
    """Leave the host's mounts, network and System V objects; without privileges, in a user namespace of one user.

    Raises:
        OSError: the kernel or a security module refused.
    """
    wanted = _NEW_NS | _NEW_NET | _NEW_IPC
    if os.geteuid() == 0:
        invoke("unshare", wanted)
        return
    uid, gid = os.getuid(), os.getgid()
    invoke("unshare", wanted | _NEW_USER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def own_tree(read: Iterable[str], write: Iterable[str], devices: Iterable[str], at: str) -> None:
    """Make a tree of these files and directories, under their own names, the root directory; after :func:`isolate`.

    Args:
        read: can be read.
        write: can be written to; nothing in them can be executed.
        devices: can be read and written.
        at: an existing directory that the tree is mounted on while it is built.

    Raises:
        OSError: one of them does not exist, or the kernel refused.
    """
    locked = _NO_SUID | _NO_DEVICES
    _mount(b"none", b"/", None, _MS_REC | _MS_SLAVE, None)
    grafts = [
        *(_Graft(path, locked | _READ_ONLY) for path in _outermost(read)),
        *(_Graft(path, _NO_SUID | _NO_EXEC) for path in devices),
        *(_Graft(path, locked | _NO_EXEC) for path in write),
    ]
    _mount(b"jail", os.fsencode(at), b"tmpfs", _MS_NOSUID | _MS_NODEV, _TREE_OPTIONS)
    mask = os.umask(0o022)  # others must get through its directories: the jail may become another user
    for graft in grafts:
        graft.attach(at)
    os.umask(mask)
    _enter(at, locked | _READ_ONLY)


def _enter(tree: str, attributes: int) -> None:
    """Make the tree the root directory, and let go of the one before."""
    root = os.open(tree, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fchdir(root)
        invoke("pivot_root", b".", b".")  # the old root lies on the new one then, and is taken off it
        check("umount2", get_libc().umount2(b".", _MNT_DETACH))
        os.chdir("/")
        _set_attributes(root, attributes, is_recursive=False)
    finally:
        os.close(root)


def _outermost(paths: Iterable[str]) -> Sequence[str]:
    """Return the paths without those that lie below another one."""
    kept: list[str] = []
    for path in sorted(set(paths)):
        if not kept or not os.path.realpath(path).startswith(f"{os.path.realpath(kept[-1])}/"):
            kept.append(path)
    return kept


class _Graft:
    """One file or directory of the host, taken out with all that is mounted below it."""

    def __init__(self, path: str, attributes: int) -> None:
        self._path = path
        self._real = os.path.realpath(path)
        self._is_directory = Path(self._real).is_dir()
        self._tree = invoke(
            "open_tree", _AT_FDCWD, os.fsencode(self._real), _OPEN_TREE_CLONE | _AT_RECURSIVE | os.O_CLOEXEC
        )
        _set_attributes(self._tree, attributes, is_recursive=True)

    def attach(self, root: str) -> None:
        """Put it where it was, below ``root``; under the name that it was given by, too."""
        target = Path(root + self._real)
        if not target.exists():  # else it lies in what is there already
            target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            if self._is_directory:
                target.mkdir(mode=0o755)
            else:
                target.touch(mode=0o644)
        invoke("move_mount", self._tree, b"", _AT_FDCWD, os.fsencode(target), _MOVE_FROM_DESCRIPTOR)
        os.close(self._tree)
        link = Path(root + self._path)
        if self._path != self._real and not os.path.lexists(link):
            link.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            link.symlink_to(self._real)


def _mount(source: bytes, target: bytes, kind: bytes | None, flags: int, options: bytes | None) -> None:
    check("mount", get_libc().mount(source, target, kind, ctypes.c_ulong(flags), options))


def _set_attributes(tree: int, attributes: int, *, is_recursive: bool) -> None:
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if is_recursive else 0)
    described = attributes.to_bytes(8, "little") + bytes(24)  # set, clear, propagation, user namespace
    invoke("mount_setattr", tree, b"", flags, described, len(described))
