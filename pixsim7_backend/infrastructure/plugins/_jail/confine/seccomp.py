"""The system calls that a plugin may make: those that Python with an event loop and threads needs, and no other.

What is missing on purpose, beside all that configures the machine: any socket but a connected pair, passing
descriptors over one, starting processes and programs, looking into other processes, and changing what Landlock
does not cover (modes, owners, times and extended attributes of files).
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Mapping

from .bpf import ALLOW, Check, Code, assemble, decide, is_null, refuse
from .syscalls import Machine, find_machine, find_number, invoke

__all__ = ["build_filter", "install_filter"]

# fmt: off
_PLAIN = (
    "read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev", "preadv2", "pwritev2", "close",
    "close_range", "lseek", "dup", "dup2", "dup3",
    "fstat", "stat", "lstat", "newfstatat", "statx", "statfs", "fstatfs", "access", "faccessat", "faccessat2",
    "readlink", "readlinkat", "getcwd", "chdir", "fchdir",
    "getdents", "getdents64", "mkdir", "mkdirat", "rmdir", "unlink", "unlinkat", "rename", "renameat", "renameat2",
    "ftruncate", "fallocate", "fsync", "fdatasync",
    "umask", "fadvise64", "copy_file_range", "sendfile",
    "mmap", "munmap", "mremap", "mprotect", "madvise", "brk", "msync", "membarrier",
    "futex", "futex_waitv", "set_robust_list", "get_robust_list", "rseq", "set_tid_address", "gettid", "exit",
    "exit_group", "sched_yield",
    "sched_getaffinity", "getcpu", "arch_prctl",
    "getpid", "getppid", "getuid", "geteuid", "getgid", "getegid", "getresuid", "getresgid", "getgroups", "getpgid",
    "getpgrp", "getsid", "getpriority", "getrlimit",
    "getrusage", "times", "capget", "uname", "sysinfo",
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigpending", "rt_sigtimedwait", "rt_sigsuspend",
    "sigaltstack", "restart_syscall", "pause",
    "alarm", "setitimer", "getitimer", "wait4", "waitid",
    "nanosleep", "clock_nanosleep", "clock_gettime", "clock_getres", "gettimeofday", "time", "timer_create",
    "timer_settime", "timer_gettime",
    "timer_getoverrun", "timer_delete", "timerfd_create", "timerfd_settime", "timerfd_gettime", "getrandom",
    "epoll_create", "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll",
    "select", "pselect6", "eventfd", "eventfd2",
    "pipe", "pipe2", "signalfd4",
    "recvfrom", "shutdown", "getsockname", "getpeername", "getsockopt",
)
# fmt: on

_REFUSED = refuse(errno.EPERM)
_UNKNOWN = refuse(errno.ENOSYS)
_X32 = 0x40000000

# Linux's own numbers, as Python does not name all of them everywhere.
_THREAD = 0x00010000
_NEW_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
_AF_UNIX, _SOCK_STREAM, _SOL_SOCKET = 1, 1, 1
_SOCKET_KIND = 0xF  # the bits above it are SOCK_NONBLOCK and SOCK_CLOEXEC
#: SO_SNDBUF, SO_RCVBUF, SO_KEEPALIVE, SO_RCVTIMEO, SO_SNDTIMEO; no filters, no credentials.
_SOCKET_OPTIONS = (7, 8, 9, 20, 21)
#: F_DUPFD, F_[GS]ETFD, F_[GS]ETFL, F_GETLK, F_SETLK, F_SETLKW, the same three of F_OFD, F_DUPFD_CLOEXEC, F_GETPIPE_SZ.
#: Not F_SETOWN, F_SETSIG, F_NOTIFY, F_SETLEASE: with them the kernel sends signals to whom a plugin names.
_FCNTL = (3, 4, 1, 2, 0, 5, 6, 7, 36, 37, 38, 1030, 1032)
#: TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX.
_IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
#: PR_GET_DUMPABLE, PR_SET_NAME, PR_GET_NAME, PR_CAPBSET_READ, PR_GET_NO_NEW_PRIVS, PR_SET_VMA.
_PRCTL = (3, 15, 16, 23, 39, 0x53564D41)
_SET_MODE_FILTER, _ALL_THREADS = 1, 1


def build_filter(machine: Machine, pid: int) -> bytes:
    """Return the filter for the process ``pid``, as a program of the kernel's filter machine."""
    by_name: dict[str, Code] = {**dict.fromkeys(_PLAIN, ALLOW), **_by_argument(pid)}
    rules: dict[int, Code] = {}
    for name, code in by_name.items():
        number = find_number(name, machine)
        if number is not None:
            rules[number] = code
    return assemble(machine.audit, rules, foreign_from=_X32, unknown=_UNKNOWN, other=_REFUSED)


def _by_argument(pid: int) -> Mapping[str, Code]:
    is_own = Check(0, (pid,))
    return {
        "open": _unless_truncating_reader(1),
        "openat": _unless_truncating_reader(2),
        "fcntl": _only_if(Check(1, _FCNTL)),
        "ioctl": decide([Check(1, _IOCTL)], then=ALLOW, otherwise=refuse(errno.ENOTTY)),
        "clone": _only_if(Check(0, (_THREAD,), mask=_THREAD | _NEW_NAMESPACES)),
        # Its flags lie in memory, where a filter cannot look; told that there is none, the C library uses clone.
        "clone3": _UNKNOWN,
        "kill": _only_if(is_own),
        "tgkill": _only_if(is_own),
        "prlimit64": _only_if(Check(0, (0, pid)), *is_null(2)),
        "prctl": _only_if(Check(0, _PRCTL)),
        # A datagram socket could send to any path; a stream of a pair is bound to its twin for good.
        "socketpair": _only_if(Check(0, (_AF_UNIX,)), Check(1, (_SOCK_STREAM,), mask=_SOCKET_KIND)),
        "sendto": _only_if(*is_null(4)),
        "setsockopt": _only_if(Check(1, (_SOL_SOCKET,)), Check(2, _SOCKET_OPTIONS)),
    }


def _only_if(*checks: Check) -> Code:
    return decide(checks, then=ALLOW, otherwise=_REFUSED)


def _unless_truncating_reader(flags: int) -> Code:
    """Return what refuses to open a file for reading and cut it off at once: old Landlock takes that for reading."""
    cuts_off = Check(flags, (os.O_RDONLY | os.O_TRUNC,), mask=os.O_ACCMODE | os.O_TRUNC)
    return decide([cuts_off], then=_REFUSED, otherwise=ALLOW)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def install_filter() -> None:
    """Put the filter on all threads of this process; needs no-new-privileges to be set.

    Raises:
        OSError: the kernel refused it, or there is no filter for this machine.
    """
    machine = find_machine()
    if machine is None:
        raise OSError(errno.ENOSYS, "there is no filter of system calls for this machine")
    program = build_filter(machine, os.getpid())
    buffer = ctypes.create_string_buffer(program, len(program))
    described = _Program(len(program) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    invoke("seccomp", _SET_MODE_FILTER, _ALL_THREADS, bytes(described))
