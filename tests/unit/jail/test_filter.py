"""The filter of system calls, run on a model of the kernel's filter machine, for both architectures."""

from __future__ import annotations

import errno
import os
import struct

import pytest

from pixsim7_backend.infrastructure.plugins._jail.confine.bpf import ALLOW, KILL, Check, assemble, decide, refuse
from pixsim7_backend.infrastructure.plugins._jail.confine.seccomp import build_filter
from pixsim7_backend.infrastructure.plugins._jail.confine.syscalls import Machine, find_number

PID = 4711
ALLOWED, KILLED, FAILS = 0x7FFF0000, 0x80000000, 0x00050000
MACHINES = pytest.mark.parametrize("machine", list(Machine), ids=lambda machine: machine.name)


def run(program: bytes, number: int, *arguments: int, audit: int) -> int:
    """Return what the kernel would do with a system call, as the filter's last instruction says it."""
    call = struct.pack("<iIQ6Q", number, audit, 0, *(arguments + (0,) * (6 - len(arguments))))
    instructions = list(struct.iter_unpack("<HBBI", program))
    position, value = 0, 0
    while True:
        code, if_true, if_false, operand = instructions[position]
        position += 1
        if code == 0x20:
            (value,) = struct.unpack_from("<I", call, operand)
        elif code == 0x54:
            value &= operand
        elif code == 0x05:
            position += operand
        elif code == 0x15:
            position += if_true if value == operand else if_false
        elif code == 0x35:
            position += if_true if value >= operand else if_false
        else:
            assert code == 0x06, hex(code)
            return int(operand)


def ask(machine: Machine, name: str, *arguments: int) -> int:
    """Return what the filter of the jail ``PID`` does with a call by name."""
    number = find_number(name, machine)
    assert number is not None
    return run(build_filter(machine, PID), number, *arguments, audit=machine.audit)


@MACHINES
@pytest.mark.parametrize("name", ["read", "futex", "epoll_pwait", "mmap", "getrandom", "exit_group", "recvfrom"])
def test_what_every_program_needs_is_allowed(machine: Machine, name: str) -> None:
    """Calls without which there is no Python are allowed, whatever their arguments."""
    assert ask(machine, name, 1, 2, 3, 4, 5, 6) == ALLOWED


@MACHINES
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("clone", (0x003D0F00,)),
        ("socketpair", (1, 1 | 0o2000000 | 0o4000)),
        ("sendto", (3, 0x1000, 5, 0, 0, 0)),
        ("prlimit64", (0, 7, 0, 0x1000)),
        ("prlimit64", (PID, 7, 0, 0x1000)),
        ("kill", (PID, 9)),
        ("tgkill", (PID, PID + 1, 10)),
        ("prctl", (15, 0x1000)),
        ("ioctl", (1, 0x5401)),
        ("fcntl", (3, 4, 0o4000)),
        ("setsockopt", (3, 1, 7)),
        ("openat", (0, 0x1000, os.O_RDONLY | os.O_CLOEXEC)),
        ("openat", (0, 0x1000, os.O_RDWR | os.O_CREAT | os.O_TRUNC)),
    ],
)
def test_arguments_that_do_no_harm_are_allowed(machine: Machine, name: str, arguments: tuple[int, ...]) -> None:
    """Of calls that are decided by their arguments, what Python makes of them is allowed."""
    assert ask(machine, name, *arguments) == ALLOWED


@MACHINES
@pytest.mark.parametrize(
    ("name", "arguments", "error"),
    [
        ("clone", (17,), errno.EPERM),
        ("clone", (0x003D0F00 | 0x10000000,), errno.EPERM),
        ("clone", (0x00010000 | 0x40000000,), errno.EPERM),
        ("clone3", (0x1000, 88), errno.ENOSYS),
        ("socketpair", (1, 2), errno.EPERM),
        ("socketpair", (1, 5), errno.EPERM),
        ("socketpair", (16, 1), errno.EPERM),
        ("sendto", (3, 0x1000, 5, 0, 0x2000, 16), errno.EPERM),
        ("sendto", (3, 0x1000, 5, 0, 0x2000 << 32, 16), errno.EPERM),
        ("prlimit64", (0, 7, 0x1000, 0), errno.EPERM),
        ("prlimit64", (0, 7, 1 << 40, 0), errno.EPERM),
        ("prlimit64", (1, 7, 0, 0x1000), errno.EPERM),
        ("kill", (0xFFFFFFFF, 9), errno.EPERM),
        ("kill", (0, 9), errno.EPERM),
        ("tgkill", (PID - 1, PID - 1, 9), errno.EPERM),
        ("prctl", (1, 0), errno.EPERM),
        ("prctl", (4, 1), errno.EPERM),
        ("ioctl", (0, 0x5412), errno.ENOTTY),
        ("fcntl", (3, 8, 1), errno.EPERM),
        ("fcntl", (3, 10, 9), errno.EPERM),
        ("setsockopt", (3, 1, 26), errno.EPERM),
        ("setsockopt", (3, 6, 7), errno.EPERM),
        ("openat", (0, 0x1000, os.O_RDONLY | os.O_TRUNC), errno.EPERM),
    ],
)
def test_arguments_that_reach_others_are_refused(
    machine: Machine, name: str, arguments: tuple[int, ...], error: int
) -> None:
    """The same calls fail where they would reach another process, a path or a privilege."""
    assert ask(machine, name, *arguments) == FAILS | error


@MACHINES
@pytest.mark.parametrize(
    "name", ["landlock_restrict_self", "seccomp", "unshare", "pivot_root", "capset", "open_tree", "pidfd_send_signal"]
)
def test_confining_is_over(machine: Machine, name: str) -> None:
    """What a jail is confined with it cannot use itself."""
    assert ask(machine, name) == FAILS | errno.EPERM


@MACHINES
def test_newer_calls_do_not_exist(machine: Machine) -> None:
    """A number that is newer than all that is allowed looks as on an older kernel, so that libraries fall back."""
    assert run(build_filter(machine, PID), 999, audit=machine.audit) == FAILS | errno.ENOSYS


@MACHINES
def test_other_numbers_kill(machine: Machine) -> None:
    """Calls by the numbers of another architecture, or of x32, end the process."""
    program = build_filter(machine, PID)
    assert run(program, 39, audit=0x40000003) == KILLED
    assert run(program, 0x40000000 | 39, audit=machine.audit) == KILLED
    assert run(program, -1, audit=machine.audit) == KILLED


def test_any_number_is_found_in_a_few_steps() -> None:
    """The tree decides on each number as the table does, those at the edges of ranges too."""
    odd = decide([Check(0, (1, 3, 5), mask=7), Check(1, (9,), is_upper=True)], then=ALLOW, otherwise=refuse(7))
    rules = {number: (ALLOW if number % 3 else odd) for number in range(400) if number % 7}
    program = assemble(5, rules, foreign_from=1 << 30, unknown=refuse(38), other=KILL)
    for number in range(450):
        for first, second in ((1, 9 << 32), (1, 9), (4, 9 << 32), (13, 9 << 32)):
            allowed = first & 7 in (1, 3, 5) and second >> 32 == 9
            expected = FAILS | 38 if number > max(rules) else KILLED
            if number in rules:
                expected = ALLOWED if number % 3 or allowed else FAILS | 7
            assert run(program, number, first, second, audit=5) == expected, number


@MACHINES
def test_the_kernel_takes_programs_of_this_size(machine: Machine) -> None:
    """The filter is far below the 4,096 instructions that the kernel takes."""
    assert len(build_filter(machine, PID)) // 8 < 600
