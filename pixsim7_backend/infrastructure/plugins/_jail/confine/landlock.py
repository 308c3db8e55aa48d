"""Landlock: the kernel keeps this thread, and what it starts, to the files that are named here.

Version 1 of its ABI came with Linux 5.13; each later one can deny more, and whatever the running kernel
can deny is denied. https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable
from enum import IntFlag

from .syscalls import invoke

__all__ = ["READ", "WRITE", "Access", "find_abi", "restrict"]


class Access(IntFlag):
    """What can be done with files; the kernel's own bits."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15
    RESOLVE_UNIX = 1 << 16


READ = Access.READ_FILE | Access.READ_DIR
#: No symbolic links, sockets or devices: the host walks through this directory later.
WRITE = (
    READ | Access.WRITE_FILE | Access.TRUNCATE | Access.MAKE_REG | Access.MAKE_DIR
    | Access.REMOVE_FILE | Access.REMOVE_DIR | Access.REFER
)  # fmt: skip

_FIRST_THIRTEEN = Access((1 << 13) - 1)
_SINCE = ((2, Access.REFER), (3, Access.TRUNCATE), (5, Access.IOCTL_DEV), (9, Access.RESOLVE_UNIX))
_OF_FILES = Access.EXECUTE | Access.WRITE_FILE | Access.READ_FILE | Access.TRUNCATE | Access.IOCTL_DEV
_BIND_TCP, _CONNECT_TCP = 1, 2
_ABSTRACT_SOCKETS, _SIGNALS = 1, 2
_ASK_VERSION = 1
_RULE_PATH = 1


def find_abi() -> int:
    """Return the version of Landlock that the kernel speaks, 0 where it has none or it is switched off."""
    try:
        return invoke("landlock_create_ruleset", None, 0, _ASK_VERSION)
    except OSError:
        return 0


def restrict(rules: Iterable[tuple[str, Access]], abi: int) -> None:
    """Deny this thread all files but those below ``rules``, and TCP; abstract sockets and signals of others too.

    Needs no-new-privileges to be set. What is open stays open.

    Raises:
        OSError: a path cannot be opened, or the kernel refused.
    """
    handled = _FIRST_THIRTEEN
    for version, access in _SINCE:
        if abi >= version:
            handled |= access
    attributes = struct.pack("<Q", handled)
    if abi >= 4:
        attributes += struct.pack("<Q", _BIND_TCP | _CONNECT_TCP)
    if abi >= 6:
        attributes += struct.pack("<Q", _ABSTRACT_SOCKETS | _SIGNALS)
    ruleset = invoke("landlock_create_ruleset", attributes, len(attributes), 0)
    try:
        for path, access in rules:
            _add(ruleset, path, access & handled)
        invoke("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)


def _add(ruleset: int, path: str, access: Access) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            access &= _OF_FILES  # the kernel refuses rights of directories on anything else
        invoke("landlock_add_rule", ruleset, _RULE_PATH, struct.pack("<Qi", access, descriptor), 0)
    finally:
        os.close(descriptor)
