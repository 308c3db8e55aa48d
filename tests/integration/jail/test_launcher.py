"""Real jails from a zygote: started, asked, killed; nothing of them is left, and nothing of the host gets in."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.exceptions import HTTPException
from starlette.types import Message, Scope

from pixsim7_backend.infrastructure.plugins._jail.allowances import HttpLimits
from pixsim7_backend.infrastructure.plugins._jail.application import JailedApplication
from pixsim7_backend.infrastructure.plugins._jail.channel import Channel
from pixsim7_backend.infrastructure.plugins._jail.confine.probe import probe_level
from pixsim7_backend.infrastructure.plugins._jail.errors import JailCallError
from pixsim7_backend.infrastructure.plugins._jail.handshake import greet
from pixsim7_backend.infrastructure.plugins._jail.launcher import Launcher, LaunchError
from pixsim7_backend.infrastructure.plugins._jail.level import ConfinementLevel
from pixsim7_backend.infrastructure.plugins._jail.process import JailExit, JailProcess
from pixsim7_backend.infrastructure.plugins._jail.spec import JailSpec
from pixsim7_backend.infrastructure.plugins.testing import write_plugin

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(
        probe_level().level < ConfinementLevel.CONFINED, reason=f"this machine reaches only: {probe_level()}"
    ),
]

IS_ROOT = os.geteuid() == 0

PLUGIN = """
import os, sys, tempfile, threading
from pathlib import Path
from fastapi import UploadFile, WebSocket
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel

class Order(BaseModel):
    number: int

@router.get("/open")
async def open_quests(n: int = 3) -> list[int]:
    return list(range(n))

@router.get("/sync")
def sync() -> dict[str, str]:
    return {"thread": threading.current_thread().name.partition(" ")[0]}

@router.post("/order")
async def order(order: Order) -> int:
    return order.number + 1

@router.post("/upload")
async def upload(file: UploadFile) -> int:
    return len(await file.read())

@router.get("/stream")
async def stream() -> StreamingResponse:
    async def pieces():
        for _ in range(50):
            yield b"x" * 20_000
    return StreamingResponse(pieces())

@router.get("/file")
def file() -> FileResponse:
    return FileResponse(Path(__file__).with_name("picture.png"))

@router.websocket("/ws")
async def ws(socket: WebSocket) -> None:
    await socket.accept()
    while True:
        await socket.send_text("echo " + await socket.receive_text())

@router.get("/inside")
def inside() -> dict:
    open_ones = {}
    for number in range(64):
        try:
            open_ones[number] = os.fstat(number).st_mode >> 12
        except OSError:
            pass
    return {
        "environment": dict(os.environ), "descriptors": open_ones, "ids": [os.getuid(), os.getgid()],
        "directory": os.getcwd(), "temporary": tempfile.gettempdir(), "argv": sys.argv,
        "session": os.getsid(0) == os.getpid(), "modules": sorted(sys.modules),
    }

@router.get("/write")
def write(size: int) -> int:
    return Path("scratch.bin").write_bytes(b"x" * size)

@router.get("/say")
def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)

@router.get("/random")
def random_number() -> float:
    import random
    return random.random()

@router.get("/die")
def die(how: str) -> None:
    if how == "exit":
        os._exit(7)
    os.kill(os.getpid(), 11)
"""


@pytest.fixture
def folder(open_dir: Path) -> Path:
    """The folder of a plugin that tries everything."""
    made = write_plugin(open_dir, "quest", PLUGIN)
    (made / "picture.png").write_bytes(b"\x89PNG")
    return made


def parent_of(pid: int) -> int:
    """Return the process that started this one."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def spec_of(folder: Path, **fields: Any) -> JailSpec:
    """Return what a jail of this folder is started with."""
    name = folder.name
    return JailSpec(plugin=name, folder=name, path=str(folder), package=f"pixsim7_jailed.{name}", scratch="", **fields)


@contextmanager
def jail(launcher: Launcher, folder: Path, **fields: Any) -> Iterator[JailProcess]:
    """A jail of this folder, ended afterwards."""
    process = launcher.spawn(spec_of(folder, **fields))
    try:
        yield process
    finally:
        process.close()
        assert process.wait(20) is not None


class Host:
    """The host of one jail, which is greeted and enabled."""

    plugin = "quest"

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.application = JailedApplication(self, HttpLimits(), extend=_add_nothing, on_misbehaviour=lambda _: None)

    async def connect(self) -> Channel:
        return self._channel

    async def talk(self, path: str, *texts: str) -> list[str]:
        """Open a WebSocket, say each text and wait for what comes back; return that."""
        said: asyncio.Queue[Message] = asyncio.Queue()
        heard: asyncio.Queue[Message] = asyncio.Queue()
        scope = {
            "type": "websocket", "http_version": "1.1", "scheme": "ws", "path": path, "raw_path": path.encode(),
            "query_string": b"", "root_path": "", "headers": [], "subprotocols": [],
        }  # fmt: skip
        said.put_nowait({"type": "websocket.connect"})
        task = asyncio.create_task(self.application(scope, said.get, heard.put))
        assert (await heard.get())["type"] == "websocket.accept"
        answers = []
        for text in texts:
            said.put_nowait({"type": "websocket.receive", "text": text})
            answers.append((await heard.get())["text"])
        said.put_nowait({"type": "websocket.disconnect", "code": 1000})
        with contextlib.suppress(HTTPException, ConnectionError):
            await task
        return answers


@asynccontextmanager
async def host_of(process: JailProcess) -> AsyncIterator[tuple[Host, httpx.AsyncClient]]:
    """The host of a jail, and a client of its plugin."""
    greeting = await asyncio.to_thread(greet, process.connection, limit=60, on_log=lambda *_: None)
    channel = Channel(on_call=lambda *_: None, on_log=lambda *_: None, on_lost=lambda _: None)
    await channel.open(process.connection, greeting)
    await channel.ask("enable")
    host = Host(channel)
    transport = httpx.ASGITransport(host.application)
    async with httpx.AsyncClient(transport=transport, base_url="http://t/api/v1/quest") as client:
        yield host, client
    channel.close()


async def test_it_answers_everything_that_a_plugin_does(launcher: Launcher, folder: Path) -> None:
    """Endpoints of both kinds, bodies, uploads, streams, files and WebSockets work from a jail."""
    with jail(launcher, folder) as process:
        async with host_of(process) as (host, client):
            assert (await client.get("/open", params={"n": 2})).json() == [0, 1]
            assert (await client.get("/sync")).json() == {"thread": "AnyIO"}
            assert (await client.post("/order", json={"number": 41})).json() == 42
            assert (await client.post("/order", json={"number": "x"})).status_code == 422
            big = {"file": b"y" * 3_000_000}  # more than is kept in memory: it goes to the scratch directory
            assert (await client.post("/upload", files=big)).json() == 3_000_000
            assert len((await client.get("/stream")).content) == 1_000_000
            picture = await client.get("/file")
            assert (picture.content, picture.headers["content-type"]) == (b"\x89PNG", "image/png")
            assert await host.talk("/api/v1/quest/ws", "hello", "you") == ["echo hello", "echo you"]


async def test_nothing_of_the_host_gets_in(launcher: Launcher, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A jail has its channel and no other descriptor of the host, no variable, no argument, no user of it."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://secret")
    with jail(launcher, folder) as process:
        async with host_of(process) as (_, client):
            found = (await client.get("/inside")).json()
        scratch = process.spec.scratch
        assert found["environment"] == {
            "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "MALLOC_ARENA_MAX": "1", "TMPDIR": scratch, "HOME": scratch,
        } | ({"LC_CTYPE": "C.UTF-8"} if "LC_CTYPE" in found["environment"] else {})  # fmt: skip
        kinds = list(found["descriptors"].values())
        assert kinds[:3] == [0o02, 0o02, 0o01]  # two characters devices, the pipe to the host
        assert sorted(kinds[3:]) == [
            0,
            0,
            0o14,
            0o14,
            0o14,
        ]  # its event loop and watch; the channel and the loop's pair
        assert found["directory"] == found["temporary"] == scratch
        assert found["argv"] == ["jail quest"]
        assert found["session"]
        assert not [
            name for name in found["modules"] if name.startswith(("pixsim7_backend.main", "pixsim7_backend.db"))
        ]
        if IS_ROOT:
            assert found["ids"] == [process.spec.uid] * 2
            assert process.spec.uid is not None
    assert not await asyncio.to_thread(Path(scratch).exists)


def test_secrets_of_a_plugin_go_past_the_zygote(launcher: Launcher, folder: Path) -> None:
    """What a plugin is told is in its own memory and not in that of the zygote, of which each jail has a copy."""
    secret = "a-key-of-this-plugin-alone"
    with jail(launcher, folder, services={"some": secret}) as process:
        greet(process.connection, limit=60, on_log=lambda *_: None)
        memory = read_memory(parent_of(process.pid))
        assert b"pixsim7_backend" in memory
        assert secret.encode() not in memory
        if IS_ROOT:  # it hides its memory from all others
            assert secret.encode() in read_memory(process.pid)


def read_memory(pid: int) -> bytes:
    """Return all that a process has in memory and could have written."""
    pieces = []
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, modes, *_ = line.split()
            start, end = (int(each, 16) for each in span.split("-"))
            if modes.startswith("rw") and "[v" not in line:
                memory.seek(start)
                with contextlib.suppress(OSError):
                    pieces.append(memory.read(end - start))
    return b"".join(pieces)


async def test_jails_differ(launcher: Launcher, folder: Path) -> None:
    """Jails of one zygote have other random numbers, directories and, where the host is root, users."""
    with jail(launcher, folder) as one, jail(launcher, folder) as other:
        async with host_of(one) as (_, first), host_of(other) as (_, second):
            assert (await first.get("/random")).json() != (await second.get("/random")).json()
        assert one.spec.scratch != other.spec.scratch
        assert one.report is not None
        assert one.report.level is launcher.start().level
        assert (one.spec.uid != other.spec.uid) is IS_ROOT


async def test_its_use_and_its_last_words_are_known(launcher: Launcher, folder: Path) -> None:
    """The host sees memory, time, threads and scratch of a jail, and the last 8 KiB that it wrote."""
    with jail(launcher, folder) as process:
        async with host_of(process) as (_, client):
            await client.get("/write", params={"size": 300_000})
            assert 300_000 <= process.measure_scratch().size < 400_000
            use = process.read_use()
            assert use is not None
            assert use.memory > 10 << 20
            assert use.threads >= 2
            await client.get("/say", params={"text": "x" * 20_000})
            await client.get("/say", params={"text": "\x1b[31mlast\x00"})
            await _until(lambda: "last" in process.stderr_tail())
            said = process.stderr_tail()
            assert said.endswith("\\x1b[31mlast\\x00\n")
            assert len(said) < 8300


@pytest.mark.parametrize(
    ("how", "code", "text"), [("exit", 7, "exited with code 7"), ("signal", -11, "was killed by SIGSEGV")]
)
async def test_its_end_is_known(launcher: Launcher, folder: Path, how: str, code: int, text: str) -> None:
    """How a jail ended is told, and what it took."""
    with jail(launcher, folder) as process:
        assert process.describe_exit() == "is still running"
        async with host_of(process) as (_, client):
            with pytest.raises(HTTPException, match="ended before it had answered"):
                await client.get("/die", params={"how": how})
        ended = await asyncio.to_thread(process.wait, 20)
        assert ended is not None
        assert ended.code == code
        assert process.describe_exit() == text
        assert ended.cpu > 0
        assert ended.peak > 10 << 20
        assert process.read_use() is None
        process.kill()


async def test_a_jail_ends_when_the_host_closes_the_channel(launcher: Launcher, folder: Path) -> None:
    """Nobody has to kill a jail whose host has let go."""
    process = launcher.spawn(spec_of(folder))
    greet(process.connection, limit=60, on_log=lambda *_: None)
    process.connection.close()
    assert await asyncio.to_thread(process.wait, 20) == process.exit
    assert process.exit is not None
    assert process.exit.code == 0


async def test_many_are_started_at_once(launcher: Launcher, folder: Path) -> None:
    """Threads may start jails at the same time; each gets its own."""
    started = await asyncio.gather(*(asyncio.to_thread(launcher.spawn, spec_of(folder)) for _ in range(8)))
    assert len({process.pid for process in started}) == 8
    assert len({process.spec.scratch for process in started}) == 8
    for process in started:
        process.close()
    ended = [await asyncio.to_thread(process.wait, 20) for process in started]
    assert [each.code for each in ended if each is not None] == [-signal.SIGKILL] * 8


async def test_a_broken_plugin_says_where(launcher: Launcher, open_dir: Path) -> None:
    """An error of the plugin's own code at its import arrives with file and line."""
    broken = write_plugin(open_dir, "broken", "raise ValueError('no quests')")
    with jail(launcher, broken) as process, pytest.raises(JailCallError, match="no quests") as caught:
        greet(process.connection, limit=60, on_log=lambda *_: None)
    assert caught.value.said["file"] == str(broken / "manifest.py")


@pytest.mark.skipif(not IS_ROOT, reason="only root gives jails users of their own")
def test_what_its_user_cannot_read_is_named(launcher: Launcher, folder: Path) -> None:
    """A plugin whose files are closed to its user is refused with the file, the user and the way out."""
    (folder / "manifest.py").chmod(0o600)
    with pytest.raises(LaunchError) as caught:
        launcher.spawn(spec_of(folder))
    text = str(caught.value)
    assert f"cannot read {folder}/manifest.py" in text
    assert f"chmod o+rX {folder}/manifest.py" in text
    (folder / "manifest.py").chmod(0o644)
    folder.chmod(0o700)
    with pytest.raises(LaunchError, match=f"because {folder} is closed to others"):
        launcher.spawn(spec_of(folder))


def test_a_jail_below_the_floor_does_not_run(folder: Path) -> None:
    """Where less is reached than is asked for, the plugin's code does not run."""
    launcher = Launcher(floor=ConfinementLevel.NAMESPACED)
    try:
        if launcher.start().level < ConfinementLevel.NAMESPACED:
            with pytest.raises(LaunchError, match="only the level confined was reached"):
                launcher.spawn(spec_of(folder))
        else:
            launcher.spawn(spec_of(folder)).close()
    finally:
        launcher.close()


def test_a_missing_folder_is_named(launcher: Launcher, open_dir: Path) -> None:
    """A folder that is not there is named in the error, and nothing is left of the attempt."""
    with pytest.raises(LaunchError, match=r"the jail of plugin 'gone' cannot be started: .*gone"):
        launcher.spawn(spec_of(open_dir / "gone"))


def test_a_zygote_that_cannot_start_says_why() -> None:
    """What goes wrong while the zygote imports is in the error."""
    launcher = Launcher(preload=["no_such_module"])
    with pytest.raises(LaunchError, match=r"(?s)ended with code 1.*No module named 'no_such_module'"):
        launcher.start()
    launcher.close()


def test_a_new_zygote_replaces_a_dead_one(folder: Path) -> None:
    """When the zygote is killed its jails end with it; one that is just being started comes from a new one."""
    launcher = Launcher()
    try:
        process = launcher.spawn(spec_of(folder))
        zygote = parent_of(process.pid)
        os.kill(zygote, signal.SIGSTOP)
        with ThreadPoolExecutor(1) as thread:
            starting = thread.submit(launcher.spawn, spec_of(folder))
            keeper = launcher._keeper
            assert keeper is not None
            while len(keeper._launches) < 2:
                time.sleep(0.01)
            os.kill(zygote, signal.SIGKILL)
            again = starting.result(60)
        assert process.wait(20) == JailExit(code=None)
        assert process.describe_exit() == "ended with the process that starts jails"
        assert not Path(process.spec.scratch).exists()
        process.close()
        assert parent_of(again.pid) != zygote
        assert greet(again.connection, limit=60, on_log=lambda *_: None).answer["routes"]
        again.close()
    finally:
        launcher.close()
    assert again.exit is not None


HOST = """
import os, sys, time
from pathlib import Path
from pixsim7_backend.infrastructure.plugins._jail.handshake import greet
from pixsim7_backend.infrastructure.plugins._jail.launcher import Launcher
from pixsim7_backend.infrastructure.plugins._jail.spec import JailSpec
from pixsim7_backend.infrastructure.plugins._jail.uids import UidPool

folder = Path(sys.argv[1])
launcher = Launcher(uids=UidPool(directory=folder.parent / ".uids"), scratch=folder.parent)
jail = launcher.spawn(JailSpec(
    plugin="quest", folder="quest", path=str(folder), package="pixsim7_jailed.quest", scratch=""))
greet(jail.connection, limit=60, on_log=lambda *_: None)
zygote = Path(f"/proc/{jail.pid}/stat").read_text().rpartition(")")[2].split()[1]
print(zygote, jail.pid, flush=True)
time.sleep(120)
"""


def test_no_process_outlives_a_killed_host(folder: Path) -> None:
    """When the host is killed outright, its zygote and its jails are gone, though they run as other users."""
    with subprocess.Popen([sys.executable, "-c", HOST, str(folder)], stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout is not None
        zygote, jailed = (os.pidfd_open(int(pid)) for pid in host.stdout.readline().split())
        host.kill()
    for descriptor in (zygote, jailed):
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        assert poll.poll(20_000), "it still runs"
        os.close(descriptor)


FORKING = """
import os, sys
from pathlib import Path
from pixsim7_backend.infrastructure.plugins._jail.launcher import Launcher
from pixsim7_backend.infrastructure.plugins._jail.spec import JailSpec

folder = Path(sys.argv[1])
before = set(os.listdir("/proc/self/fd"))
launcher = Launcher()
spec = JailSpec(plugin="quest", folder="quest", path=str(folder), package="pixsim7_jailed.quest", scratch="")
jail = launcher.spawn(spec)
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    kept = {each for each in set(os.listdir("/proc/self/fd")) - before if os.path.exists(f"/proc/self/fd/{each}")}
    print(len(kept - {str(reader), str(writer)}), flush=True)
    os.close(writer)
    os.read(reader, 1)
    other = launcher.spawn(spec)
    print(other.pid != jail.pid, flush=True)
    launcher.close()
    os._exit(0)
os.close(reader)
launcher.close()
print(jail.describe_exit(), flush=True)
jail.close()
os.close(writer)
os.waitpid(child, 0)
print(sorted(set(os.listdir("/proc/self/fd")) - before))
"""


def test_a_forked_copy_of_the_host_holds_nothing(folder: Path) -> None:
    """A host that forks leaves no descriptor of its jails in the copy, which can start jails of its own."""
    ran = subprocess.run(
        [sys.executable, "-c", FORKING, str(folder)], capture_output=True, text=True, timeout=100, check=False
    )
    assert ran.stdout.split("\n")[:4] == ["0", "ended with the process that starts jails", "True", "[]"], (
        ran.stdout + ran.stderr
    )


def test_programs_of_the_host_inherit_nothing(folder: Path) -> None:
    """What the host opens for its jails is closed in the programs that it starts."""
    before = _inheritable()
    launcher = Launcher()
    with jail(launcher, folder):
        assert _inheritable() <= before
    launcher.close()


def _inheritable() -> set[int]:
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if os.get_inheritable(int(entry.name)):
                found.add(int(entry.name))
    return found


async def _add_nothing(_scope: Scope) -> Mapping[str, Any]:
    return {}


async def _until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came true")
