"""From a saved file to its answer: replaced while serving, against restarting the server; and what it leaves behind.

Servers are processes of their own, asked over real HTTP. A save is timed until the first answer of the
new code; meanwhile other clients keep asking, and not one answer may fail.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.util
import os
import socket
import sys
import tempfile
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median, quantiles

import httpx

from pixsim7_backend.infrastructure.plugins.testing import plugin_host, write_plugin

from .report import Row, at_least, at_most, for_comparison

COUNT = 100
WATCHED = "plugin50"

_CODE = """
from pydantic import BaseModel

VERSION = {version}

class Item(BaseModel):
    name: str
    count: int = 0

class Answer(BaseModel):
    item: Item
    version: int

def limit(most: int = 10) -> int:
    return most

@router.get("/version")
async def version() -> int:
    return VERSION

async def add(item: Item, most: int = Depends(limit)) -> Answer:
    return Answer(item=item, version=VERSION)

async def read(number: int) -> Item:
    return Item(name=str(number))

for number in range(4):
    router.add_api_route(f"/items{{number}}", add, methods=["POST"])
    router.add_api_route(f"/items{{number}}/{{{{number}}}}", read)

async def on_enable():
    plugin_hooks.register("item:added", version)
"""

_MODELS = """
from typing import Any
from sqlalchemy.orm import Mapped, mapped_column
from pixsim7_backend.db.models import Timestamps, plugin_base

Base = plugin_base("{plugin}")

class Row(Timestamps, Base):
    __tablename__ = "rows"
    id: Mapped[int] = mapped_column(primary_key=True)
    flags: Mapped[dict[str, Any]] = mapped_column(default=dict)
"""


def write(directory: Path, plugin: str, version: int, more: str = "") -> None:
    """Save one version of a plugin of nine routes."""
    write_plugin(directory, plugin, _CODE.format(version=version) + more.format(plugin=plugin))


# --- servers ----------------------------------------------------------------------------------------


@asynccontextmanager
async def serving(command: Sequence[str], port: int, **environment: str) -> AsyncIterator[None]:
    """Run a server until the end of the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *command,
        "--port",
        str(port),
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


async def until_live(client: httpx.AsyncClient, path: str, version: int, limit: float = 60) -> None:
    """Ask until the answer is of this version; a server that is down is asked again."""
    async with asyncio.timeout(limit):
        while True:
            with contextlib.suppress(httpx.TransportError, ValueError):
                answer = await client.get(path)
                if answer.status_code == 200 and answer.json() == version:
                    return
            await asyncio.sleep(0.003)


async def times_to_live(
    port: int, path: str, save: Callable[[int], None], rounds: int, *, pause: float
) -> tuple[list[float], int]:
    """Return the milliseconds from each save to its answer, and how many answers others missed meanwhile."""
    times, lost, is_over = [], [0], asyncio.Event()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        await until_live(client, path, 0)
        others = [asyncio.create_task(_keep_asking(port, path, lost, is_over)) for _ in range(2)]
        for version in range(1, rounds + 1):
            await asyncio.sleep(pause)
            started = time.perf_counter()
            save(version)
            await until_live(client, path, version)
            times.append((time.perf_counter() - started) * 1e3)
        is_over.set()
        await asyncio.gather(*others)
    return times, lost[0]


async def _keep_asking(port: int, path: str, lost: list[int], is_over: asyncio.Event) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        while not is_over.is_set():
            try:
                lost[0] += (await client.get(path)).status_code != 200
            except httpx.TransportError:
                lost[0] += 1
            await asyncio.sleep(0.02)


# --- the rows ---------------------------------------------------------------------------------------


async def save_to_live(quick: bool) -> list[Row]:
    """A save among 100 plugins: here, with ``uvicorn --reload``, and with Datasette where it is installed."""
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        for number in range(COUNT):
            write(directory, f"plugin{number}", 0)

        def save(version: int) -> None:
            write(directory, WATCHED, version)

        path, app = f"/api/v1/{WATCHED}/version", ("uvicorn", "benchmarks.reload_app:make_app", "--factory")
        port = free_port()
        async with serving(app, port, BENCH_PLUGINS=place, BENCH_WATCH="1"):
            ours, lost = await times_to_live(port, path, save, 10 if quick else 50, pause=0.25)
        save(0)
        port = free_port()
        async with serving((*app, "--reload", "--reload-dir", place), port, BENCH_PLUGINS=place):
            restarts, missed = await times_to_live(port, path, save, 2 if quick else 5, pause=0.5)
    p50, worst = median(ours), quantiles(ours, n=20)[-1]
    detail = f"p95 {worst:.0f} ms, {len(ours)} saves"
    restart = median(restarts)
    rows = [
        at_most(f"file saved to new answer among {COUNT} plugins, p50", p50, 40, "ms", detail),
        at_most("requests lost by others meanwhile", lost, 0, ""),
        at_least("the same: faster than uvicorn --reload", restart / p50, 40, "x", f"{restart:,.0f} ms, {missed} lost"),
    ]
    if importlib.util.find_spec("datasette") is not None:
        peer, missed = await _datasette(quick)
        rows.append(
            for_comparison("the same: faster than datasette --reload, 1 plugin", peer / p50, "x", f"{peer:,.0f} ms")
        )
    return rows


async def _datasette(quick: bool) -> tuple[float, int]:
    """Time Datasette's own reload. It follows its metadata file, so that is saved with the plugin."""
    code = """
from datasette import hookimpl
from datasette.utils.asgi import Response

async def version():
    return Response.json({version})

@hookimpl
def register_routes():
    return [("^/version$", version)]
"""
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        (directory / "plugins").mkdir()
        metadata = directory / "metadata.json"

        def save(version: int) -> None:
            (directory / "plugins" / "versions.py").write_text(code.format(version=version))
            metadata.write_text(f'{{"title": "{version}"}}')

        save(0)
        port = free_port()
        command = ("datasette", "--memory", "--reload", "--metadata", str(metadata))
        async with serving((*command, "--plugins-dir", str(directory / "plugins")), port):
            times, missed = await times_to_live(port, "/version", save, 2 if quick else 5, pause=1)
    return median(times), missed


async def leaking(quick: bool) -> list[Row]:
    """What stays in memory of each reload of one plugin with routes, bodies, models and handlers."""
    rounds = 40 if quick else 500
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        write(directory, "quest", 0, _MODELS)
        async with plugin_host(directory) as host:

            async def reload(versions: range) -> int:
                for version in versions:
                    write(directory, "quest", version, _MODELS)
                    await host.manager.reload("quest")
                    await host.manager.settle()
                    answer = await host.client.post("/api/v1/quest/items0", json={"name": "x"})
                    assert answer.json()["version"] == version
                for _ in range(3):
                    gc.collect()
                return tracemalloc.get_traced_memory()[0]

            tracemalloc.start()
            try:
                before = await reload(range(1, 21))
                after = await reload(range(21, 21 + rounds))
            finally:
                tracemalloc.stop()
            left = sum(len(report.leaks) for report in host.manager.find_leaks())
    each = (after - before) / rounds / 1024
    return [
        at_most(f"memory kept by each of {rounds} reloads of one plugin", each, 5, "KB", f"{left} objects of old code")
    ]


def rows(quick: bool) -> list[Row]:
    """Measure everything about reloading; ``quick`` repeats less."""
    measured: list[Row] = []
    for measure in (save_to_live, leaking):
        measured += asyncio.run(measure(quick))
    return measured
