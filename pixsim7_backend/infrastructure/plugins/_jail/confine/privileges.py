"""Who a jail is for the kernel: a user without any privilege, which it can never gain again."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct

from .syscalls import check, get_libc, invoke

__all__ = ["become", "die_with_parent", "drop_capabilities", "forbid_new_privileges", "hide_memory", "set_name"]

_SET_PDEATHSIG, _SET_DUMPABLE, _SET_NAME = 1, 4, 15
_CAPBSET_DROP, _SET_SECUREBITS, _SET_NO_NEW_PRIVS, _CAP_AMBIENT, _AMBIENT_CLEAR_ALL = 24, 28, 38, 47, 4
#: NOROOT, NO_SETUID_FIXUP and NO_CAP_AMBIENT_RAISE with their locks, and the lock of KEEP_CAPS: uid 0 means nothing.
_SECUREBITS = 0b11101111
_CAPABILITY_VERSION = 0x20080522


def _prctl(option: int, *args: int | bytes) -> None:
    words = [ctypes.c_ulong(each) if isinstance(each, int) else each for each in args]
    words += [ctypes.c_ulong(0)] * (4 - len(words))
    check(f"prctl {option}", get_libc().prctl(ctypes.c_int(option), *words))


def die_with_parent(parent: int) -> None:
    """Be killed as soon as the thread that started this process ends; ``parent`` is its process.

    To be called again after whatever changes the user: that clears it.
    """
    _prctl(_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it had ended before it could be told
        os._exit(1)


def set_name(name: str) -> None:
    """Show the process under this name, of which the kernel keeps 15 bytes."""
    _prctl(_SET_NAME, name.encode()[:15] + b"\0")


def hide_memory() -> None:
    """Leave no core dump, and let no other process of the same user look into this one."""
    _prctl(_SET_DUMPABLE, 0)


def forbid_new_privileges() -> None:
    """Make set-uid programs ordinary ones for this process."""
    _prctl(_SET_NO_NEW_PRIVS, 1)


def become(uid: int) -> None:
    """Be this user and the group of the same number, in no other group; needs privileges."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def drop_capabilities(*, become_uid: int | None = None) -> None:
    """Lose all capabilities and the way to any, and first become another user where one is named."""
    _empty_bounding_set()
    if become_uid is not None:
        become(become_uid)
    invoke("capset", struct.pack("<Ii", _CAPABILITY_VERSION, 0), struct.pack("<6I", *[0] * 6))


def _empty_bounding_set() -> None:
    """Do what only a privileged process can, and only it needs: without privileges there is nothing to lose."""
    try:
        for capability in range(64):
            _prctl(_CAPBSET_DROP, capability)
    except OSError as error:
        if error.errno == errno.EPERM:
            return
        if error.errno != errno.EINVAL:  # that was one more than there are
            raise
    _prctl(_CAP_AMBIENT, _AMBIENT_CLEAR_ALL)
    _prctl(_SET_SECUREBITS, _SECUREBITS)
