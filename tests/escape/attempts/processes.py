"""20 to 38: other processes, programs, and what the kernel offers beside them."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import platform
import resource
import subprocess
import sys
import termios
import threading
from pathlib import Path

from .kernel import call, call_number
from .world import Foiled, World, each

_SEIZE, _DETACH = 0x4206, 17


def trace_others(world: World) -> str:
    def seize(pid: int) -> str:
        call("ptrace", _SEIZE, pid, 0, 0)
        return f"traced {pid}"

    return str(each(*(lambda pid=pid: seize(pid) for pid in world.processes)))


def read_memory_by_call(world: World) -> str:
    here = ctypes.create_string_buffer(len(world.secret))

    def read(pid: int) -> str:
        local = ctypes.addressof(here).to_bytes(8, "little") + len(here.raw).to_bytes(8, "little")
        remote = world.address.to_bytes(8, "little") + len(here.raw).to_bytes(8, "little")
        call("process_vm_readv", pid, local, 1, remote, 1, 0)
        return here.raw.decode()

    return str(each(*(lambda pid=pid: read(pid) for pid in world.processes)))


def take_descriptor(world: World) -> str:
    def take(pid: int) -> str:
        return os.pread(call("pidfd_getfd", call("pidfd_open", pid, 0), world.descriptor, 0), 100, 0).decode()

    return str(each(*(lambda pid=pid: take(pid) for pid in world.processes)))


def signal_others(world: World) -> str:
    def send(pid: int) -> str:
        os.kill(pid, 0)
        return f"may signal {pid}"

    targets = (*world.processes, *(-os.getpgid(pid) for pid in world.processes[:2]), -1)
    return str(each(*(lambda pid=pid: send(pid) for pid in targets)))


def limit_others(world: World) -> str:
    def limit(pid: int) -> str:
        soft, hard = resource.prlimit(pid, resource.RLIMIT_CORE)
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, hard))
        return f"limited {pid}: {soft}"

    return str(each(*(lambda pid=pid: limit(pid) for pid in world.processes)))


def slow_down_others(world: World) -> str:
    ways = []
    for pid in world.processes[:1]:
        ways += [
            lambda pid=pid: os.sched_setaffinity(pid, {0}),
            lambda pid=pid: os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, pid) + 1),
            lambda pid=pid: os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0)),
            lambda pid=pid: call("ioprio_set", 1, pid, 3 << 13),
        ]
    return str(each(*ways))


def fork_bomb(world: World) -> int:
    children = []
    for _ in range(50):
        child = os.fork()
        if child == 0:
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    return len(children)


def thread_bomb(world: World) -> int:
    threading.stack_size(64 << 10)
    hold, started = threading.Event(), 0
    try:
        for _ in range(world.size):
            threading.Thread(target=hold.wait, daemon=True).start()
            started += 1
    except RuntimeError as error:
        raise Foiled(f"{started} threads, then: {error}") from error
    finally:
        hold.set()
    return started


def run_shell(world: World) -> str:
    return str(
        each(
            lambda: subprocess.run(["/bin/sh", "-c", "id"], capture_output=True, check=True, text=True).stdout,
            lambda: os.waitpid(os.posix_spawn("/bin/sh", ["sh", "-c", "exit"], {}), 0),
            lambda: os.execv("/bin/sh", ["sh", "-c", "exit"]),
            lambda: os.execv(sys.executable, [sys.executable, "-c", ""]),
        )
    )


def run_from_memory(world: World) -> str:
    made = world.inside(world.token)

    def from_file() -> None:
        made.write_text("#!/bin/sh\n")
        made.chmod(0o700)
        os.execv(made, ["x"])

    def from_memory() -> None:
        descriptor = call("memfd_create", b"x\0", 0)
        os.write(descriptor, b"#!/bin/sh\n")
        os.execve(descriptor, ["x"], {})

    return str(each(from_memory, from_file))


def gain_privileges(world: World) -> str:
    setuid = [path for path in ("/usr/bin/su", "/bin/su", "/usr/bin/passwd") if os.path.exists(path)]
    return str(
        each(
            *(lambda path=path: subprocess.run([path, "--help"], capture_output=True, check=True) for path in setuid),
            lambda: os.setuid(0),
            lambda: os.setresuid(0, 0, 0),
        )
    )


def mount_in_namespace(world: World) -> str:
    call("unshare", 0x10000000 | 0x00020000)
    call("mount", b"none\0", os.fsencode(world.scratch) + b"\0", b"tmpfs\0", 0, 0)
    return "mounted"


def use_other_numbers(world: World) -> str:
    """Getpid by the numbers of x32; then by those of 32-bit programs, in machine code: mov eax, 20; int 0x80; ret."""

    def x32() -> int:
        return call_number(0x40000000 | 39, "x32")

    def i386() -> int:
        if platform.machine() != "x86_64":
            raise Foiled("another machine")
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(b"\x53\xb8\x14\x00\x00\x00\xcd\x80\x5b\xc3")
        start = ctypes.addressof(ctypes.c_char.from_buffer(page))
        found = int(ctypes.CFUNCTYPE(ctypes.c_int)(start)())
        if found < 0:
            raise OSError(-found, "int 0x80")
        return found

    return str(each(x32, i386))


def make_ring(world: World) -> int:
    return call("io_uring_setup", 1, bytes(120))


def use_kernel_machines(world: World) -> str:
    counter = (1).to_bytes(4, "little") + (112).to_bytes(4, "little") + bytes(104)
    table = (2).to_bytes(4, "little") + b"\4\0\0\0\4\0\0\0\1\0\0\0" + bytes(56)
    return str(
        each(
            lambda: call("bpf", 0, table, 72),
            lambda: call("perf_event_open", counter, 0, -1, -1, 0),
            lambda: call("userfaultfd", 1),
            lambda: call("keyctl", 0, -3, 1),
            lambda: call("add_key", b"user\0", world.token.encode() + b"\0", b"y", 1, -2),
        )
    )


def share_memory(world: World) -> str:
    def segment() -> str:
        made = call("shmget", 0, 4096, 0o1600)
        call("shmctl", made, 0, 0)
        return "segment"

    def queue() -> str:
        name = world.token.encode() + b"\0"
        call("mq_open", name, os.O_CREAT | os.O_RDWR, 0o600, 0)
        call("mq_unlink", name)
        return "queue"

    return str(each(segment, queue, lambda: call("semget", 0, 1, 0o1600), lambda: call("msgget", 0, 0o1600)))


def type_on_terminal(world: World) -> str:
    def type_on(descriptor: int) -> str:
        fcntl.ioctl(descriptor, termios.TIOCSTI, b"x")
        return f"typed on {descriptor}"

    return str(each(*(lambda number=number: type_on(number) for number in range(3)), lambda: Path("/dev/tty").open()))


def confine_everybody(world: World) -> str:
    """Put one more filter on all threads of the process, one that lets everything pass."""
    program = ctypes.create_string_buffer(b"\x06\0\0\0\0\0\xff\x7f", 8)
    described = (1).to_bytes(8, "little") + ctypes.addressof(program).to_bytes(8, "little")

    def filter_again() -> str:
        ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
        call("seccomp", 1, 1, described)
        return "one more filter"

    return str(each(filter_again, lambda: call("landlock_create_ruleset", (1).to_bytes(8, "little"), 8, 0)))


def outlive_kill(world: World) -> str:
    def twice() -> str:
        if (child := os.fork()) == 0:
            os.setsid()
            if os.fork() == 0:
                os._exit(0)
            os._exit(0)
        os.waitpid(child, 0)
        return "a grandchild in a session of its own"

    def raw() -> str:
        child = call("clone", 17, 0, 0, 0, 0)
        if child == 0:
            os._exit(0)
        return f"a child, {child}"

    return str(each(twice, raw, lambda: os.setsid(), lambda: os.setpgid(0, 0)))
