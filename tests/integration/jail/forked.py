"""Runs functions in forked children: as the host, or confined, as root or as nobody in particular.

Hosts are copies of a process that never had a thread: a copy of one that has some may find a lock held for ever.
So what they run is named by its module and has to be pickled.
"""

from __future__ import annotations

import contextlib
import json
import mimetypes
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

import pytest

import pixsim7_backend
from pixsim7_backend.infrastructure.plugins._jail.code import SHARED
from pixsim7_backend.infrastructure.plugins._jail.confine import namespaces
from pixsim7_backend.infrastructure.plugins._jail.confine.apply import ConfinementPlan, confine
from pixsim7_backend.infrastructure.plugins._jail.confine.privileges import drop_capabilities
from pixsim7_backend.infrastructure.plugins._jail.confine.probe import probe_level
from pixsim7_backend.infrastructure.plugins._jail.confine.syscalls import get_libc, invoke
from pixsim7_backend.infrastructure.plugins._jail.spec import JailLimits

NOBODY = 65534
OWN_UID = 61999
IS_ROOT = os.geteuid() == 0
CODE = (
    *sorted({sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}),
    str(Path(pixsim7_backend.__file__).parent),
)
_FRESH = multiprocessing.get_context("forkserver")
_FRESH.set_forkserver_preload([f"{__package__}.test_confinement", f"{__package__}.test_libraries"])
_CLOSED_TO_OTHERS = next((p for p in reversed(Path(sys.base_prefix).parents) if not p.stat().st_mode & 0o001), None)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a function in a child: its value, or the name and text of its error, or the signal that killed."""

    value: Any = None
    error: str = ""
    text: str = ""
    signal: int = 0

    @property
    def is_good(self) -> bool:
        return not self.error and not self.signal


@dataclass(frozen=True, slots=True)
class Mode:
    """As whom the host runs, and whether its jails have namespaces."""

    name: str
    host_is_root: bool
    has_namespaces: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What there is around a jail: things of the host, and its own."""

    host: int
    """The host's process."""
    home: Path
    """A directory of the host that others can read, with the files ``secret`` and ``socket``."""
    port: int
    """A TCP port that the host listens on."""
    descriptor: int
    """A descriptor of the host that was left open: it reads ``secret``."""
    plugin: Path
    """The plugin's folder, with a file ``code.py``."""
    scratch: Path


MODES = [
    Mode("root", host_is_root=True, has_namespaces=False),
    Mode("root, namespaces", host_is_root=True, has_namespaces=True),
    Mode("unprivileged", host_is_root=False, has_namespaces=False),
    Mode("unprivileged, namespaces", host_is_root=False, has_namespaces=True),
]
#: For tests in each mode: the strongest and the weakest always, those between with ``make test-escape``.
EACH_MODE = [
    pytest.param(mode, id=mode.name, marks=() if mode in (MODES[1], MODES[2]) else pytest.mark.thorough)
    for mode in MODES
]


def require(mode: Mode) -> None:
    """Skip the test where this machine cannot have the mode."""
    if obstacle := find_obstacle(mode):
        pytest.skip(obstacle)


def find_obstacle(mode: Mode) -> str:
    """Return why this machine cannot have the mode; nothing where it can."""
    if mode.host_is_root and not IS_ROOT:
        return "the tests do not run as root"
    if mode.has_namespaces:
        outcome = run_fresh(_isolate, mode)
        if not outcome.is_good:
            return f"no namespaces for this user: {outcome.text}"
    return ""


def _isolate(mode: Mode) -> None:
    become_host(mode)
    namespaces.isolate()


def run_fresh(action: Callable[..., Any], *arguments: Any) -> Outcome:
    """Run a function of a module in a copy of a process that never had a thread."""
    reader, writer = _FRESH.Pipe(duplex=False)
    process = _FRESH.Process(target=_answer, args=(writer, action, *arguments))
    process.start()
    writer.close()
    try:
        outcome = Outcome(**json.loads(reader.recv_bytes()))
    except EOFError:
        outcome = Outcome()
    process.join()
    return replace(outcome, signal=max(0, -(process.exitcode or 0)))


def _answer(connection: Connection, action: Callable[..., Any], *arguments: Any) -> None:
    connection.send_bytes(_attempt(lambda: action(*arguments)))


def run_forked(action: Callable[[], Any]) -> Outcome:
    """Run a function in a child of this process, which has no threads; what it returns has to be JSON-able."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _report(action, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        written = stream.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return Outcome(signal=os.WTERMSIG(status))
    return Outcome(**json.loads(written)) if written else Outcome()  # it became another program


def _report(action: Callable[[], Any], writer: int) -> NoReturn:
    try:
        os.write(writer, _attempt(action))
    finally:
        os._exit(0)


def _attempt(action: Callable[[], Any]) -> bytes:
    signal.alarm(60)
    try:
        outcome = Outcome(value=action())
    except BaseException as error:  # noqa: BLE001 - it is what the test asks for
        outcome = Outcome(error=type(error).__name__, text=str(error))
    return json.dumps(asdict(outcome)).encode()


def run_both(mode: Mode, action: Callable[[World], Any]) -> tuple[Outcome, Outcome]:
    """Run a function as a child of a host, first bare and then confined; return both outcomes."""
    outcome = run_fresh(_host_both, mode, action)
    assert outcome.is_good, outcome
    bare, confined = (Outcome(**each) for each in outcome.value)
    return bare, confined


def _host_both(mode: Mode, action: Callable[[World], Any]) -> list[dict[str, Any]]:
    with world_of(mode) as world:
        bare = run_forked(lambda: action(world))
        confined = run_forked(lambda: confine_in(mode, world) and action(world))
    return [asdict(bare), asdict(confined)]


def run_confined(mode: Mode, action: Callable[[World], Any], limits: JailLimits | None = None) -> Any:
    """Run a function confined; return its value, which has to be good."""
    outcome = run_fresh(_host_confined, mode, action, limits)
    assert outcome.is_good, outcome
    confined = Outcome(**outcome.value)
    assert confined.is_good, confined
    return confined.value


def _host_confined(mode: Mode, action: Callable[[World], Any], limits: JailLimits | None) -> dict[str, Any]:
    mimetypes.init()
    with world_of(mode) as world:
        return asdict(run_forked(lambda: confine_in(mode, world, limits) and action(world)))


def confine_in(mode: Mode, world: World, limits: JailLimits | None = None) -> str:
    """Confine this process as the mode says; return the level."""
    report = confine(
        ConfinementPlan(
            code=(*CODE, str(world.plugin)),
            plugin=str(world.plugin),
            more=SHARED,
            scratch=str(world.scratch),
            limits=limits or JailLimits(),
            uid=OWN_UID if mode.host_is_root else None,
            parent=world.host,
            has_namespaces=mode.has_namespaces,
        )
    )
    assert report == replace(
        probe_level(),
        level=report.level,
        own_uid=mode.host_is_root,
        namespaces=namespaces.NAMES if mode.has_namespaces else (),
        cgroup=False,  # the host puts it there
        notes=(),
    )
    return report.level.name


def become_host(mode: Mode) -> None:
    """Become the user that the host of this mode runs as, to whom the interpreter is readable."""
    if IS_ROOT:
        _open_interpreter()
        if not mode.host_is_root:
            drop_capabilities(become_uid=NOBODY)
            get_libc().prctl(4, 1, 0, 0, 0)  # as after exec: what changes its user becomes undumpable


def _open_interpreter() -> None:
    """Let other users get at an interpreter in a closed directory, in a mount namespace of this child's own."""
    if _CLOSED_TO_OTHERS is None:
        return
    invoke("unshare", 0x00020000)
    namespaces._mount(b"none", b"/", None, 1 << 14 | 1 << 18, None)
    interpreter = namespaces._Graft(sys.base_prefix, 0)
    namespaces._mount(b"open", os.fsencode(_CLOSED_TO_OTHERS), b"tmpfs", 0, b"mode=0755")
    os.umask(0o022)
    interpreter.attach("")


@contextlib.contextmanager
def world_of(mode: Mode) -> Iterator[World]:
    """Become the host of this mode, and have what a host has; nothing is left of it afterwards."""
    become_host(mode)
    base = Path(tempfile.mkdtemp(prefix="world-", dir="/var/tmp"))
    base.chmod(0o755)
    home, plugin, scratch = base / "home", base / "plugin", base / "scratch"
    for directory in (home, plugin, scratch):
        directory.mkdir()
    (home / "secret").write_text("a secret")
    (plugin / "code.py").write_text("pass\n")
    scratch.chmod(0o700)
    if mode.host_is_root:
        os.chown(scratch, OWN_UID, OWN_UID)
    try:
        with socket.socket() as listener, socket.socket(socket.AF_UNIX) as local:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            local.bind(str(home / "socket"))
            local.listen()
            yield World(
                host=os.getpid(),
                home=home,
                port=listener.getsockname()[1],
                descriptor=os.open(home / "secret", os.O_RDONLY),
                plugin=plugin,
                scratch=scratch,
            )
    finally:
        shutil.rmtree(base)
