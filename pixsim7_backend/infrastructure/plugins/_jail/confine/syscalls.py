"""The numbers of the system calls that a jail may use or is confined with, and a way to make one.

From Linux's tables; they never change. The C library has no functions for the newest calls, and a filter
of system calls needs the numbers anyway.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Mapping
from enum import Enum
from functools import cache

__all__ = ["Machine", "check", "find_machine", "find_number", "get_libc", "invoke"]


class Machine(Enum):
    """A processor architecture that jails run on: its column in the table, and the kernel's name for it."""

    X86_64 = (0, 0xC000003E)
    AARCH64 = (1, 0xC00000B7)

    def __init__(self, column: int, audit: int) -> None:
        self.column = column
        self.audit = audit


# name: (x86_64, aarch64); None: that architecture has only the newer form
# fmt: off
_NUMBERS: Mapping[str, tuple[int | None, int | None]] = {
    # files
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67),
    "pwrite64": (18, 68), "preadv": (295, 69), "pwritev": (296, 70), "preadv2": (327, 286), "pwritev2": (328, 287),
    "close": (3, 57), "close_range": (436, 436), "lseek": (8, 62), "open": (2, None), "openat": (257, 56),
    "fcntl": (72, 25), "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24), "fstat": (5, 80), "stat": (4, None),
    "lstat": (6, None), "newfstatat": (262, 79), "statx": (332, 291), "statfs": (137, 43), "fstatfs": (138, 44),
    "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439), "readlink": (89, None),
    "readlinkat": (267, 78), "getcwd": (79, 17), "chdir": (80, 49), "fchdir": (81, 50), "getdents": (78, None),
    "getdents64": (217, 61), "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None), "unlink": (87, None),
    "unlinkat": (263, 35), "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276),
    "ftruncate": (77, 46), "fallocate": (285, 47), "fsync": (74, 82), "fdatasync": (75, 83), "umask": (95, 166),
    "fadvise64": (221, 223), "copy_file_range": (326, 285), "sendfile": (40, 71),
    # memory
    "mmap": (9, 222), "munmap": (11, 215), "mremap": (25, 216), "mprotect": (10, 226), "madvise": (28, 233),
    "brk": (12, 214), "msync": (26, 227), "membarrier": (324, 283),
    # threads
    "clone": (56, 220), "clone3": (435, 435), "futex": (202, 98), "futex_waitv": (449, 449),
    "set_robust_list": (273, 99), "get_robust_list": (274, 100), "rseq": (334, 293), "set_tid_address": (218, 96),
    "gettid": (186, 178), "exit": (60, 93), "exit_group": (231, 94), "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123), "getcpu": (309, 168), "arch_prctl": (158, None),
    # identity
    "getpid": (39, 172), "getppid": (110, 173), "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176),
    "getegid": (108, 177), "getresuid": (118, 148), "getresgid": (120, 150), "getgroups": (115, 158),
    "getpgid": (121, 155), "getpgrp": (111, None), "getsid": (124, 156), "getpriority": (140, 141),
    "getrlimit": (97, 163), "prlimit64": (302, 261), "getrusage": (98, 165), "times": (100, 153), "capget": (125, 90),
    "prctl": (157, 167), "uname": (63, 160), "sysinfo": (99, 179),
    # signals
    "kill": (62, 129), "tgkill": (234, 131), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139), "rt_sigpending": (127, 136), "rt_sigtimedwait": (128, 137),
    "rt_sigsuspend": (130, 133), "sigaltstack": (131, 132), "restart_syscall": (219, 128), "pause": (34, None),
    "alarm": (37, None), "setitimer": (38, 103), "getitimer": (36, 102), "wait4": (61, 260), "waitid": (247, 95),
    # time
    "nanosleep": (35, 101), "clock_nanosleep": (230, 115), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "gettimeofday": (96, 169), "time": (201, None), "timer_create": (222, 107), "timer_settime": (223, 110),
    "timer_gettime": (224, 108), "timer_getoverrun": (225, 109), "timer_delete": (226, 111),
    "timerfd_create": (283, 85), "timerfd_settime": (286, 86), "timerfd_gettime": (287, 87), "getrandom": (318, 278),
    # waiting
    "epoll_create": (213, None), "epoll_create1": (291, 20), "epoll_ctl": (233, 21), "epoll_wait": (232, None),
    "epoll_pwait": (281, 22), "epoll_pwait2": (441, 441), "poll": (7, None), "ppoll": (271, 73), "select": (23, None),
    "pselect6": (270, 72), "eventfd": (284, None), "eventfd2": (290, 19), "pipe": (22, None), "pipe2": (293, 59),
    "signalfd4": (289, 74),
    # sockets
    "socketpair": (53, 199), "sendto": (44, 206), "recvfrom": (45, 207), "shutdown": (48, 210),
    "getsockname": (51, 204), "getpeername": (52, 205), "getsockopt": (55, 209), "setsockopt": (54, 208),
    "ioctl": (16, 29),
    # confining
    "landlock_create_ruleset": (444, 444), "landlock_add_rule": (445, 445), "landlock_restrict_self": (446, 446),
    "seccomp": (317, 277), "capset": (126, 91), "unshare": (272, 97), "pivot_root": (155, 41),
    "open_tree": (428, 428), "move_mount": (429, 429), "mount_setattr": (442, 442), "pidfd_send_signal": (424, 424),
}
# fmt: on


def find_machine() -> Machine | None:
    """Return what this interpreter runs on, None where jails cannot be confined.

    A 32-bit interpreter on a 64-bit kernel makes other system calls, so it is none of ours.
    """
    if not sys.platform.startswith("linux") or ctypes.sizeof(ctypes.c_void_p) != 8:
        return None
    return {"x86_64": Machine.X86_64, "aarch64": Machine.AARCH64}.get(platform.machine())


def find_number(name: str, machine: Machine) -> int | None:
    """Return the number of a system call, None where the architecture does not have it."""
    return _NUMBERS[name][machine.column]


@cache
def get_libc() -> ctypes.CDLL:
    """Return the C library of this process."""
    return ctypes.CDLL(None, use_errno=True)


def invoke(name: str, *args: int | bytes | None) -> int:
    """Make a system call; numbers are passed as machine words, bytes by their address.

    Raises:
        OSError: the kernel refused it; the text names the call.
    """
    machine = find_machine()
    number = None if machine is None else find_number(name, machine)
    if number is None:
        raise OSError(f"{name}: there is no such system call on this machine")
    words = [ctypes.c_long(each) if isinstance(each, int) else each for each in args]
    call = get_libc().syscall
    call.restype = ctypes.c_long
    return check(name, call(ctypes.c_long(number), *words))


def check(name: str, result: int) -> int:
    """Return what a function of the C library returned.

    Raises:
        OSError: that was a failure; the text names the function.
    """
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result
