"""What a confined process cannot do, each shown to work before it is confined; run as root and as anybody."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import multiprocessing
import os
import platform
import resource
import signal
import socket
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from pixsim7_backend.infrastructure.plugins._jail.confine.apply import find_level
from pixsim7_backend.infrastructure.plugins._jail.confine.probe import probe_level
from pixsim7_backend.infrastructure.plugins._jail.confine.syscalls import get_libc
from pixsim7_backend.infrastructure.plugins._jail.level import ConfinementLevel
from pixsim7_backend.infrastructure.plugins._jail.spec import JailLimits

from .forked import (
    EACH_MODE,
    MODES,
    Mode,
    Outcome,
    World,
    confine_in,
    require,
    run_both,
    run_confined,
    run_fresh,
    world_of,
)

pytestmark = pytest.mark.skipif(
    probe_level().level < ConfinementLevel.CONFINED, reason=f"this machine reaches only: {probe_level()}"
)

# numbers on x86_64 and on aarch64, by name
_NUMBERS = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "pidfd_open": (434, 434), "unshare": (272, 97),
    "keyctl": (250, 219), "io_uring_setup": (425, 425), "userfaultfd": (323, 282), "memfd_create": (319, 279),
    "shmget": (29, 194), "shmctl": (31, 195), "mq_unlink": (241, 181), "mq_open": (240, 180),
    "inotify_init1": (294, 26), "add_key": (248, 217), "perf_event_open": (298, 241), "bpf": (321, 280),
    "setns": (308, 268), "personality": (135, 92), "name_to_handle_at": (303, 264), "kcmp": (312, 272),
    "landlock_create_ruleset": (444, 444), "seccomp": (317, 277),
}  # fmt: skip


def raw(name: str, *arguments: int | bytes) -> int:
    """Make a system call; raise what the kernel says."""
    number = _NUMBERS[name][platform.machine() == "aarch64"]
    call = get_libc().syscall
    call.restype = ctypes.c_long
    words = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result = int(call(ctypes.c_long(number), *words))
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


# --- files ---------------------------------------------------------------------------------------------


def read_users(world: World) -> None:
    Path("/etc/passwd").read_bytes()


def read_secret(world: World) -> None:
    (world.home / "secret").read_text()


def list_directory(world: World) -> None:
    list(world.home.iterdir())


def read_environment(world: World) -> None:
    Path(f"/proc/{world.host}/environ").read_bytes()


def read_memory(world: World) -> None:
    os.close(os.open(f"/proc/{world.host}/mem", os.O_RDONLY))


def write_outside(world: World) -> None:
    (world.home / "new").write_text("x")


def write_own_code(world: World) -> None:
    (world.plugin / "code.py").write_text("evil()")


def cut_off_own_code(world: World) -> None:
    os.close(os.open(world.plugin / "code.py", os.O_RDONLY | os.O_TRUNC))


def truncate_own_code(world: World) -> None:
    os.truncate(world.plugin / "code.py", 0)


def change_mode(world: World) -> None:
    (world.plugin / "code.py").chmod(0o777)


def change_mode_of_open_file(world: World) -> None:
    with (world.plugin / "code.py").open() as file:
        os.fchmod(file.fileno(), 0o777)


def change_times(world: World) -> None:
    os.utime(world.plugin / "code.py", (0, 0))


def change_attributes(world: World) -> None:
    os.setxattr(world.plugin / "code.py", "user.x", b"x")


def link_out(world: World) -> None:
    (world.scratch / "link").symlink_to("/etc")


def link_in(world: World) -> None:
    os.link(world.home / "secret", world.home / "twin")


def rename_across(world: World) -> None:
    (world.scratch / "file").touch()
    (world.scratch / "file").rename(world.home / "file")


def make_pipe(world: World) -> None:
    os.mkfifo(world.scratch / "pipe")


def make_socket(world: World) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(world.scratch / "socket"))


def lock_code(world: World) -> None:
    with (world.plugin / "code.py").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)


def get_handle(world: World) -> None:
    handle, mount = (8).to_bytes(4, "little") + (128).to_bytes(4, "little") + bytes(256), bytes(8)
    raw("name_to_handle_at", -100, os.fsencode(world.plugin) + b"\0", b"\x80" + handle[1:], mount, 0)


# --- processes -----------------------------------------------------------------------------------------


def fork(world: World) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def run_program(world: World) -> None:
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)


def become_program(world: World) -> None:
    os.execv("/bin/true", ["true"])  # noqa: S606 - that is the attempt


def make_file_in_memory(world: World) -> None:
    raw("memfd_create", b"x\0", 0)


def trace(world: World) -> None:
    raw("ptrace", 0x4206, world.host, 0, 0)


def read_other_memory(world: World) -> None:
    here = ctypes.create_string_buffer(b"x" * 8)
    vector = ctypes.addressof(here).to_bytes(8, "little") + (8).to_bytes(8, "little")
    raw("process_vm_readv", world.host, vector, 1, vector, 1, 0)


def compare_processes(world: World) -> None:
    raw("kcmp", os.getpid(), world.host, 1, 0, 0)


def open_process(world: World) -> None:
    raw("pidfd_open", world.host, 0)


def signal_host(world: World) -> None:
    os.kill(world.host, 0)


def signal_everybody(world: World) -> None:
    os.killpg(os.getpgrp(), 0)


def own_by_host(world: World) -> None:
    reader, _ = os.pipe()
    fcntl.fcntl(reader, fcntl.F_SETOWN, world.host)


def change_limit_of_host(world: World) -> None:
    limits = resource.prlimit(world.host, resource.RLIMIT_CORE)
    resource.prlimit(world.host, resource.RLIMIT_CORE, limits)


def change_priority_of_host(world: World) -> None:
    os.setpriority(os.PRIO_PROCESS, world.host, os.getpriority(os.PRIO_PROCESS, world.host) + 1)


def change_processors_of_host(world: World) -> None:
    os.sched_setaffinity(world.host, os.sched_getaffinity(world.host))


def leave_session(world: World) -> None:
    os.setsid()


def let_memory_be_read(world: World) -> None:
    if get_libc().prctl(4, 1, 0, 0, 0):
        raise OSError(errno.EPERM, "PR_SET_DUMPABLE")


def outlive_host(world: World) -> None:
    if get_libc().prctl(1, 0, 0, 0, 0):
        raise OSError(errno.EPERM, "PR_SET_PDEATHSIG")


def make_user_namespace(world: World) -> None:
    raw("unshare", 0x10000000)


def make_ring(world: World) -> None:
    raw("io_uring_setup", 1, bytes(120))


def watch_memory(world: World) -> None:
    raw("userfaultfd", 1)


def count_events(world: World) -> None:
    raw("perf_event_open", (1).to_bytes(4, "little") + (112).to_bytes(4, "little") + bytes(104), 0, -1, -1, 0)


def load_program(world: World) -> None:
    raw("bpf", 0, (2).to_bytes(4, "little") + b"\4\0\0\0\4\0\0\0\1\0\0\0" + bytes(56), 72)


def add_key(world: World) -> None:
    raw("add_key", b"user\0", b"x\0", b"y", 1, -2)


def share_memory(world: World) -> None:
    segment = raw("shmget", 0, 4096, 0o1600)
    raw("shmctl", segment, 0, 0)


def make_queue(world: World) -> None:
    raw("mq_open", b"jail-test\0", os.O_CREAT | os.O_RDWR, 0o600, 0)
    raw("mq_unlink", b"jail-test\0")


def watch_files(world: World) -> None:
    raw("inotify_init1", 0)


def change_personality(world: World) -> None:
    raw("personality", 0x0040000)


def confine_again(world: World) -> None:
    raw("landlock_create_ruleset", (1).to_bytes(8, "little"), 8, 0)


def filter_again(world: World) -> None:
    raw("seccomp", 2, 0, (0x7FFF0000).to_bytes(4, "little"))


def raise_limit(world: World) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))


def use_other_abi(world: World) -> None:
    if get_libc().syscall(ctypes.c_long(0x40000000 | 39)) < 0:
        raise OSError(ctypes.get_errno(), "x32")


# --- network -------------------------------------------------------------------------------------------


def connect(world: World) -> None:
    socket.create_connection(("127.0.0.1", world.port)).close()


def connect_at_once(world: World) -> None:
    with socket.socket() as made:
        made.sendto(b"x", 0x20000000, ("127.0.0.1", world.port))


def connect_many_ways(world: World) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262) as made:
        made.connect(("127.0.0.1", world.port))


def listen(world: World) -> None:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))


def send_datagram(world: World) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.sendto(b"x", ("127.0.0.1", world.port))


def talk_to_kernel(world: World) -> None:
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close()


def encrypt_in_kernel(world: World) -> None:
    socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET).close()


def connect_to_path(world: World) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.connect(str(world.home / "socket"))


def pair_of_datagrams(world: World) -> None:
    for each in socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM):
        each.close()


def pass_descriptor(world: World) -> None:
    here, there = socket.socketpair()
    with here, there:
        socket.send_fds(here, [b"x"], [0])


ATTEMPTS: list[Callable[[World], None]] = [
    read_users, read_secret, list_directory, read_environment, read_memory, write_outside, write_own_code,
    cut_off_own_code, truncate_own_code, change_mode, change_mode_of_open_file, change_times, change_attributes,
    link_out, link_in, rename_across, make_pipe, make_socket, lock_code, get_handle,
    fork, run_program, become_program, make_file_in_memory, trace, read_other_memory, compare_processes, open_process,
    signal_host, signal_everybody, own_by_host, change_limit_of_host, change_priority_of_host,
    change_processors_of_host, leave_session, let_memory_be_read, outlive_host, make_user_namespace, make_ring,
    watch_memory, count_events, load_program, add_key, share_memory, make_queue, watch_files, change_personality,
    confine_again, filter_again, raise_limit, use_other_abi,
    connect, connect_at_once, connect_many_ways, listen, send_datagram, talk_to_kernel, encrypt_in_kernel,
    connect_to_path, pair_of_datagrams, pass_descriptor,
]  # fmt: skip


@pytest.fixture(params=EACH_MODE)
def mode(request: pytest.FixtureRequest) -> Mode:
    """As whom the host runs, and whether jails have namespaces; those that this machine can have."""
    found: Mode = request.param
    require(found)
    return found


def _is_denied(outcome: Outcome) -> bool:
    denials = {"PermissionError", "OSError", "FileNotFoundError", "ProcessLookupError", "NotADirectoryError"}
    if outcome.error == "ValueError":  # setrlimit's way to say so
        return outcome.text == "not allowed to raise maximum limit"
    return outcome.error in denials or outcome.signal == signal.SIGSYS


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.__name__)
def test_confined_it_is_denied(mode: Mode, attempt: Callable[[World], None]) -> None:
    """What a process of the host can do, a confined one is denied."""
    bare, confined = run_both(mode, attempt)
    assert _is_denied(confined), confined
    if not bare.is_good and not confined.signal:
        pytest.skip(f"denied, but it proves nothing: this user cannot do it bare either ({bare.error}: {bare.text})")


def _measure_secret(world: World) -> int:
    return (world.home / "secret").stat().st_size


def test_existence_is_hidden_by_a_tree_of_its_own(mode: Mode) -> None:
    """Only in a file tree of its own a jail cannot find out which files exist; Landlock does not deny that."""
    bare, confined = run_both(mode, _measure_secret)
    assert bare.value == len("a secret")
    assert confined.is_good is not mode.has_namespaces


def _exists(world: World) -> list[bool]:
    paths = ("/proc", "/sys", "/etc/shadow", "/bin", "/var/log", str(world.home), str(world.plugin), "/dev/null")
    return [os.path.lexists(path) for path in paths]


def test_the_tree_holds_what_it_may_use_and_nothing_else(mode: Mode) -> None:
    """In a tree of its own there are the top directories of what it may use; its parents lead to nothing else."""
    if not mode.has_namespaces:
        pytest.skip("this mode has no tree of its own")
    assert run_confined(mode, _exists) == [False] * 6 + [True, True]


def _describe(world: World) -> dict[str, Any]:
    return {
        "uids": os.getresuid(),
        "gids": os.getresgid(),
        "groups": os.getgroups(),
        "dumpable": get_libc().prctl(3),
    }


def test_it_has_no_privilege_and_its_own_user(mode: Mode) -> None:
    """Confined, it has no capability, cannot gain one, is in no group of the host, and as root another user."""
    found = run_confined(mode, _describe)
    assert found["dumpable"] == 0
    assert len({*found["uids"]}) == len({*found["gids"]}) == 1
    assert found["groups"] == []
    assert 0 not in {*found["uids"], *found["gids"]}


def _use_up(world: World) -> list[str]:
    seen = []
    try:
        bytearray(1 << 30)
    except MemoryError:
        seen.append("memory")
    try:
        mmap.mmap(-1, 2 << 30)
    except OSError:
        seen.append("shared memory")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        (world.scratch / "big").write_bytes(b"x" * (2 << 20))
    except OSError:
        seen.append("file size")
    descriptors = []
    try:
        while True:
            descriptors.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        seen.append("files")
    assert len(descriptors) < 40
    return seen


def test_memory_and_files_are_bounded(mode: Mode) -> None:
    """More memory, files or bytes in a file than the limits say are refused, and it goes on."""
    found = run_confined(mode, _use_up, JailLimits(file_size=1 << 20, open_files=40))
    assert found == ["memory", "shared memory", "file size", "files"]


def _start_threads(world: World) -> int:
    get_libc().mallopt(-8, 1)  # as MALLOC_ARENA_MAX=1: each arena would reserve 64 MiB of addresses
    threading.stack_size(64 << 10)
    hold = threading.Event()
    started = 0
    try:
        for _ in range(200):
            threading.Thread(target=hold.wait, daemon=True).start()
            started += 1
    except RuntimeError:
        pass
    hold.set()
    return started


def test_threads_are_bounded(mode: Mode) -> None:
    """A user of its own, or a user namespace, has so many threads; otherwise memory is the bound."""
    started = run_confined(mode, _start_threads, JailLimits(threads=32))
    assert started == 200 if mode == MODES[2] else started < 32


def _die_with_jail(mode: Mode, connection: Connection) -> None:
    reader, writer = os.pipe()
    with world_of(mode) as world:
        if os.fork() == 0:
            confine_in(mode, world)
            os.write(writer, b"confined")
            signal.pause()
        os.read(reader, 8)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_jail_ends_with_its_host(mode: Mode) -> None:
    """When its parent is killed a confined process ends too, though it has become another user."""
    reader, writer = multiprocessing.Pipe(duplex=False)
    assert run_fresh(_die_with_jail, mode, writer).signal == signal.SIGKILL
    writer.close()
    with pytest.raises(EOFError):  # nobody holds the other end any more
        reader.recv()


def _confine_with_thread(world: World) -> str:
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    return confine_in(MODES[2], world)


def test_a_process_with_threads_is_not_confined() -> None:
    """Landlock would leave other threads free, so a process that has some is refused."""
    bare, _ = run_both(MODES[2], _confine_with_thread)
    assert bare.error == "RuntimeError"
    assert "a process with 2 threads cannot be confined" in bare.text


def test_levels_count_what_is_there() -> None:
    """A part without its base makes no level."""
    assert find_level(0, has_filter=True, has_namespaces=True) is ConfinementLevel.LIMITS
    assert find_level(1, has_filter=False, has_namespaces=True) is ConfinementLevel.LANDLOCK
    assert find_level(7, has_filter=True, has_namespaces=False) is ConfinementLevel.CONFINED
    assert find_level(7, has_filter=True, has_namespaces=True) is ConfinementLevel.NAMESPACED
