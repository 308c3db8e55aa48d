"""System calls that Python has no name for."""

from __future__ import annotations

import ctypes
import os
import platform

# numbers on x86_64 and on aarch64, by name
_NUMBERS = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "pidfd_getfd": (438, 438), "pidfd_open": (434, 434),
    "unshare": (272, 97), "mount": (165, 40), "setns": (308, 268), "clone": (56, 220), "io_uring_setup": (425, 425),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "keyctl": (250, 219),
    "add_key": (248, 217), "shmget": (29, 194), "shmctl": (31, 195), "semget": (64, 190), "msgget": (68, 186),
    "mq_open": (240, 180), "mq_unlink": (241, 181), "memfd_create": (319, 279), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "seccomp": (317, 277), "landlock_create_ruleset": (444, 444),
    "ioprio_set": (251, 30), "execveat": (322, 281), "kexec_load": (246, 104), "init_module": (175, 105),
}  # fmt: skip


def call(name: str, *arguments: int | bytes | None) -> int:
    """Make a system call; raise what the kernel says."""
    number = _NUMBERS[name][platform.machine() == "aarch64"]
    return call_number(number, name, *arguments)


def call_number(number: int, name: str, *arguments: int | bytes | None) -> int:
    """Make a system call by its number."""
    function = ctypes.CDLL(None, use_errno=True).syscall
    function.restype = ctypes.c_long
    words = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result = int(function(ctypes.c_long(number), *words))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result
