"""Where attempts are made: a server with a hostile plugin in a jail, and another plugin that has to go on serving."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from pixsim7_backend.infrastructure.plugins import plugin_hooks
from pixsim7_backend.infrastructure.plugins._jail.allowances import Allowance, Allowances, HttpLimits
from pixsim7_backend.infrastructure.plugins._jail.jails import Jails, JailSettings
from pixsim7_backend.infrastructure.plugins._jail.launcher import Launcher
from pixsim7_backend.infrastructure.plugins._jail.level import ConfinementReport
from pixsim7_backend.infrastructure.plugins._jail.spec import JailLimits
from pixsim7_backend.infrastructure.plugins._jail.supervision import SupervisorSettings
from pixsim7_backend.infrastructure.plugins._jail.supervisor import JailSupervisor
from pixsim7_backend.infrastructure.plugins.testing import write_plugin
from tests.escape.attempts.world import World
from tests.escape.surroundings import SECRET, Surroundings
from tests.integration.platform.live import LiveServer, live_server

_HERE = Path(__file__).parent
BASE = "/api/v1/hostile"

#: Impatient, so that what is contained is contained soon; it is never given up.
SETTINGS = JailSettings(
    allowances=Allowances(
        Allowance(
            jail=JailLimits(file_size=4 << 20, scratch=8 << 20, scratch_entries=5_000),
            http=HttpLimits(request_size=1 << 20, response_size=4 << 20, answer_time=30, idle_time=1),
        )
    ),
    supervision=SupervisorSettings(
        heartbeat=0.3, missed_heartbeats=5, first_pause=0.01, longest_pause=0.05, crashes=10_000,
        load_time=60, hook_time=60, patience=60,
    ),
)  # fmt: skip

_HOSTILE = """
from typing import Any

from .answers import router as answers
from .attempts import answering, files, network, processes, resources, runtime
from .attempts.world import World

router.include_router(answers)
_ATTEMPTS = (answering, files, network, processes, resources, runtime)
_MODULES = {each.__name__.rpartition(".")[2]: each for each in _ATTEMPTS}

def run(module: str, name: str, world: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"value": repr(getattr(_MODULES[module], name)(World(**world)))}
    except BaseException as error:
        return {"error": type(error).__name__, "text": str(error)}

@router.post("/thread/{module}/{name}")
def in_thread(module: str, name: str, world: dict[str, Any]) -> dict[str, Any]:
    return run(module, name, world)

@router.post("/loop/{module}/{name}")
async def on_loop(module: str, name: str, world: dict[str, Any]) -> dict[str, Any]:
    return run(module, name, world)
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt: what it got, or what kept it from that; or how the host answered in its place."""

    value: str = ""
    error: str = ""
    text: str = ""
    status: int = 200

    @property
    def is_good(self) -> bool:
        """It got what it wanted."""
        return not self.error and self.status == 200


#: How the kernel, Python or the host say no; anything else would be a mistake in the attempt.
DENIALS = frozenset(
    {"PermissionError", "OSError", "FileNotFoundError", "ProcessLookupError", "NotADirectoryError", "MemoryError",
     "Foiled"}
)  # fmt: skip


def write_hostile(directory: Path, code: str = _HOSTILE, **fields: Any) -> Path:
    """Write the hostile plugin's folder and return it."""
    folder = write_plugin(directory, "hostile", code, **fields)
    for name in ("attempts", "answers.py"):
        copy = shutil.copytree if (_HERE / name).is_dir() else shutil.copyfile
        copy(_HERE / name, folder / name)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


class Arena:
    """A server with both plugins. Its methods assert that the other plugin was answered all the while."""

    def __init__(
        self, server: LiveServer, jails: Jails, *, report: ConfinementReport, around: Surroundings, directory: Path
    ) -> None:
        self.address = server.address
        self.jails = jails
        self.report = report
        self.around = around
        self.directory = directory
        self.note: Callable[[str, str], None] = lambda *_: None
        """Is told what came of the attempt: denied, contained, open or nothing, and why."""

    # --- attempts -------------------------------------------------------------------------------------

    async def denied(self, attempt: Callable[[World], Any], **more: Any) -> None:
        """Assert that the attempt, which gets somewhere bare, is refused in the jail."""
        outcome = await self.confined(attempt, **more)
        assert not outcome.is_good, f"it got {outcome.value}"
        if outcome.status != 200:
            self.note("contained", outcome.text)
        else:
            assert outcome.error in DENIALS, outcome
            self.note("denied", f"{outcome.error}: {outcome.text}")
        await self._prove(attempt, **more)

    async def contained(
        self, attempt: Callable[[World], Any], *, status: int, on_loop: bool = False, **more: Any
    ) -> None:
        """Assert that the attempt costs the plugin its jail, and its caller is told so with this status."""
        before = len(self.supervisor.crashes)
        outcome = await self.confined(attempt, on_loop=on_loop, patience=60.0, **more)
        assert outcome.status == status, outcome
        assert "hostile" in outcome.text
        crashes = list(self.supervisor.crashes)[before:]
        assert crashes
        self.note("contained", crashes[-1].what)
        if "bare_size" in more:
            more["size"] = more.pop("bare_size")
        await self._prove(attempt, **more)

    async def confined(self, attempt: Callable[[World], Any], *, on_loop: bool = False, **more: Any) -> Outcome:
        """Make the attempt in the jail, while the other plugin is asked."""
        more.pop("bare_size", None)
        world = self.world(**more)
        place = f"{BASE}/{'loop' if on_loop else 'thread'}/{_where(attempt)}"
        async with self.watched() as client:
            answer = await client.post(place, json=asdict(world))
        if answer.status_code != 200:
            return Outcome(status=answer.status_code, text=answer.text)
        return Outcome(**answer.json())

    async def bare(self, attempt: Callable[[World], Any], **more: Any) -> Outcome:
        """Make the attempt in a child of the host that nothing confines."""
        return await asyncio.to_thread(self._run_bare, attempt, self.world(**more))

    def _run_bare(self, attempt: Callable[[World], Any], world: World) -> Outcome:
        with tempfile.TemporaryDirectory(prefix="bare-", dir="/var/tmp") as name:
            plugin, scratch = Path(name, "plugin"), Path(name, "scratch")
            shutil.copytree(_HERE / "attempts", plugin / "attempts")
            (plugin / "manifest.py").write_text("")
            scratch.mkdir()
            return self._start_bare(attempt, replace(world, plugin=str(plugin), scratch=str(scratch)))

    def _start_bare(self, attempt: Callable[[World], Any], world: World) -> Outcome:
        command = [sys.executable, "-I", str(_HERE / "bare.py"), world.plugin, *_where(attempt).split("/")]
        outer, inner = pty.openpty()
        try:
            done = subprocess.run(
                [*command, json.dumps(asdict(world))],
                stdin=inner,
                capture_output=True,
                check=False,
                timeout=100,
                start_new_session=True,
                pass_fds=[self.around.descriptor],
                env={**os.environ, "SECRET_KEY": SECRET},
            )
        finally:
            os.close(outer)
            os.close(inner)
        if done.returncode < 0:
            return Outcome(error=f"signal {-done.returncode}")
        assert done.returncode == 0, done.stderr.decode()
        return Outcome(**json.loads(done.stdout)) if done.stdout else Outcome(value="it became another program")

    async def _prove(self, attempt: Callable[[World], Any], **more: Any) -> None:
        bare = await self.bare(attempt, **more)
        if not bare.is_good:
            self.proves_nothing(f"{bare.error}: {bare.text}")

    def proves_nothing(self, why: str) -> None:
        """Skip the rest: not even bare it gets anywhere on this machine."""
        self.note("nothing", why)
        pytest.skip(f"denied, but it proves nothing here: bare it ends with {why}")

    # --- the other plugin -------------------------------------------------------------------------------

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[httpx.AsyncClient]:
        """Give a client of the hostile plugin; the other one is asked meanwhile, and has to answer each time."""
        over = asyncio.Event()
        async with self.client() as client, self.client() as bystander:
            asking = asyncio.create_task(_keep_asking(bystander, over))
            try:
                yield client
            finally:
                over.set()
                answered = await asking
        assert answered

    def client(self, **options: Any) -> httpx.AsyncClient:
        """Return a client of the server."""
        return httpx.AsyncClient(base_url=f"http://{self.address}", timeout=100, **options)

    # --- the jail ---------------------------------------------------------------------------------------

    @property
    def supervisor(self) -> JailSupervisor:
        """The hostile plugin's."""
        return self.jails.supervisors["hostile"]

    async def restart(self) -> None:
        """Give the hostile plugin a new jail, and wait until it answers."""
        process = self.supervisor.process
        if process is not None:
            process.kill()
            await asyncio.to_thread(process.wait, 20)
        async with self.client() as client:
            for _ in range(500):
                with contextlib.suppress(httpx.HTTPError):
                    if (await client.get(f"{BASE}/plain")).status_code == 200:
                        return
                await asyncio.sleep(0.02)
        raise AssertionError("the hostile plugin does not come back")

    def world(self, **more: Any) -> World:
        """Return what an attempt in the jail is told."""
        process, around = self.supervisor.process, self.around
        known: dict[str, Any] = (
            {
                "host": os.getpid(), "victim": around.victim, "address": around.address, "secret": SECRET,
                "descriptor": around.victims_descriptor, "home": str(around.home), "port": around.port,
                "datagram_port": around.datagram_port, "abstract": around.abstract,
                "plugin": str(self.directory / "hostile"), "neighbour": str(self.directory / "calm"),
                "scratch": "" if process is None else process.spec.scratch,
                "token": f"escape_{secrets.token_hex(6)}",
            } | more
        )  # fmt: skip
        return World(**known)


def _where(attempt: Callable[..., Any]) -> str:
    return f"{attempt.__module__.rpartition('.')[2]}/{attempt.__name__}"


async def _keep_asking(client: httpx.AsyncClient, over: asyncio.Event) -> int:
    answered = 0
    while not over.is_set() or not answered:
        answer = await client.get("/api/v1/calm/open")
        assert (answer.status_code, answer.json()) == (200, [0, 1, 2])
        answered += 1
        await asyncio.sleep(0.01)
    return answered


@asynccontextmanager
async def arena_in(directory: Path, launcher: Launcher, around: Surroundings) -> AsyncIterator[Arena]:
    """Serve both plugins from jails."""
    write_hostile(directory)
    write_plugin(directory, "calm", CALM)
    report = await asyncio.to_thread(launcher.start)
    async with confined_server(directory, launcher) as (server, jails):
        yield Arena(server, jails, report=report, around=around, directory=directory)


@asynccontextmanager
async def confined_server(
    directory: Path, launcher: Launcher, **supervision: Any
) -> AsyncIterator[tuple[LiveServer, Jails]]:
    """Serve the plugins of ``directory`` from jails, with nothing granted."""
    settings = replace(SETTINGS, supervision=replace(SETTINGS.supervision, **supervision))
    jails = Jails(launcher, settings, plugin_hooks)
    first_party = directory / ".none"
    first_party.mkdir(exist_ok=True)
    options = {"community_directory": directory, "jails": lambda: jails, "hook_timeout": 60}
    async with live_server(first_party, **options) as server:
        yield server, jails


CALM = """
@router.get("/open")
async def open_quests(n: int = 3) -> list[int]:
    return list(range(n))
"""
