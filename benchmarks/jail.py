"""What confinement costs: a plugin in its jail against the same one in process, and behind a proxy.

Requests go over real HTTP to one server that serves all three; the client is in this process.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from statistics import median

import httpx
import uvloop
from fastapi import FastAPI

from pixsim7_backend.infrastructure.plugins import init_plugin_manager, plugin_hooks
from pixsim7_backend.infrastructure.plugins._jail.frames import Kind, encode
from pixsim7_backend.infrastructure.plugins._jail.handshake import greet
from pixsim7_backend.infrastructure.plugins._jail.jails import Jails, JailSettings
from pixsim7_backend.infrastructure.plugins._jail.launcher import Launcher
from pixsim7_backend.infrastructure.plugins._jail.process import JailProcess
from pixsim7_backend.infrastructure.plugins._jail.spec import JailSpec
from pixsim7_backend.infrastructure.plugins._jail.supervision import SupervisorSettings
from pixsim7_backend.infrastructure.plugins._jail.uids import UidPool
from pixsim7_backend.infrastructure.plugins.testing import write_plugin

from .dispatch import ratio
from .jail_queries import query_rows
from .reload import free_port
from .report import Row, at_least, at_most, for_comparison

_CODE = """
@router.get("/items/{item}")
async def read(item: int, q: str = "") -> dict[str, object]:
    return {"item": item, "q": q}
"""
_PATHS = {
    "in process": "/api/v1/here/items/7?q=x",
    "confined": "/api/v1/there/items/7?q=x",
    "proxied": "/proxied/api/v1/here/items/7?q=x",
}
_ECHOED = "/echoed/items/7?q=x"


# --- over HTTP --------------------------------------------------------------------------------------


class Connection:
    """A client that keeps its connection: as little work as possible beside the server's."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> Connection:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def get(self, path: str) -> tuple[int, bytes]:
        """Send a request; return status and body."""
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
        head = await self._reader.readuntil(b"\r\n\r\n")
        if b"chunked" in head:
            return int(head[9:12]), await self._chunks()
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        return int(head[9:12]), await self._reader.readexactly(length)

    async def _chunks(self) -> bytes:
        body = b""
        while size := int(await self._reader.readline(), 16):
            body += (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readline()
        return body

    def close(self) -> None:
        self._writer.close()


@asynccontextmanager
async def serving(arguments: Sequence[str], environment: dict[str, str]) -> AsyncIterator[None]:
    """Run uvicorn until the end of the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "uvicorn", "--factory", "--log-level", "error", *arguments, env=os.environ | environment
    )
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


@contextmanager
def open_directory() -> Iterator[Path]:
    """Give a directory that plugins' own users can read."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


@asynccontextmanager
async def everything() -> AsyncIterator[int]:
    """Serve the plugin in process, confined and proxied; give the port."""
    with open_directory() as root:
        write_plugin(root / "plugins", "here", _CODE)
        write_plugin(root / "community", "there", _CODE)
        environment = {
            "BENCH_PLUGINS": str(root / "plugins"),
            "BENCH_COMMUNITY": str(root / "community"),
            "BENCH_SOCKET": str(root / "behind.sock"),
        }
        port = free_port()
        async with AsyncExitStack() as stack:
            behind = ["benchmarks.reload_app:make_app", "--uds", environment["BENCH_SOCKET"]]
            await stack.enter_async_context(serving(behind, environment))
            front = ["benchmarks.jail_app:make_app", "--port", str(port)]
            await stack.enter_async_context(serving(front, environment))
            await _until_served(port)
            yield port


async def _until_served(port: int, limit: float = 60) -> None:
    async with asyncio.timeout(limit):
        for path in (*_PATHS.values(), _ECHOED):
            while True:
                try:
                    connection = await Connection.open(port)
                    status, _ = await connection.get(path)
                    connection.close()
                except OSError:
                    status = 0
                if status == 200:
                    break
                await asyncio.sleep(0.05)


async def _one(port: int, path: str, requests: int) -> float:
    """Return the median time of a request of one client, in microseconds."""
    connection = await Connection.open(port)
    times = []
    for _ in range(requests):
        started = time.perf_counter()
        await connection.get(path)
        times.append(time.perf_counter() - started)
    connection.close()
    return median(times) * 1e6


async def _rate(port: int, path: str, clients: int, requests: int) -> float:
    """Return how many requests a second so many clients get answered together."""
    connections = [await Connection.open(port) for _ in range(clients)]

    async def ask(connection: Connection) -> None:
        for _ in range(requests // clients):
            status, _ = await connection.get(path)
            assert status == 200

    started = time.perf_counter()
    await asyncio.gather(*map(ask, connections))
    taken = time.perf_counter() - started
    for connection in connections:
        connection.close()
    return requests / taken


async def over_http(quick: bool) -> list[Row]:
    """Latency with one client, throughput with one and 32."""
    rounds, requests = (3, 200) if quick else (11, 1000)
    alone: dict[str, list[float]] = {name: [] for name in (*_PATHS, "echoed")}
    rates: dict[tuple[str, int], list[float]] = {(name, clients): [] for name in _PATHS for clients in (1, 32)}
    async with everything() as port:
        for _ in range(rounds):
            for name, path in (*_PATHS.items(), ("echoed", _ECHOED)):
                alone[name].append(await _one(port, path, requests))
            for name, path in _PATHS.items():
                for clients in (1, 32):
                    rates[name, clients].append(await _rate(port, path, clients, requests))
    added = median(there - here for there, here in zip(alone["confined"], alone["in process"], strict=True))
    hop = median(there - here for there, here in zip(alone["echoed"], alone["in process"], strict=True))
    rows = [
        at_most(
            "confined request over HTTP, added p50, 1 client", added, 150, "µs",
            f"{median(alone['confined']):.0f} µs against {median(alone['in process']):.0f} µs in process",
        ),
        for_comparison(
            "added by a process that only sends back what it is sent", hop, "µs", f"{median(alone['echoed']):.0f} µs",
        ),
    ]  # fmt: skip
    for clients, limit in ((1, 0.5), (32, 0.6)):
        share = ratio(rates["confined", clients], rates["in process", clients])
        detail = (
            f"{median(rates['confined', clients]):,.0f} against {median(rates['in process', clients]):,.0f} a second"
        )
        plural = "clients" if clients > 1 else "client"
        rows.append(at_least(f"throughput confined / in process, {clients} {plural}", share, limit, "x", detail))
    for clients in (1, 32):
        factor = ratio(rates["confined", clients], rates["proxied", clients])
        detail = f"{median(rates['proxied', clients]):,.0f} a second by the proxy"
        rows.append(at_least(f"throughput confined / httpx proxy to uvicorn, {clients}", factor, 4, "x", detail))
    return rows


# --- starting and memory ----------------------------------------------------------------------------


@contextmanager
def launching() -> Iterator[tuple[Launcher, JailSpec]]:
    """Give a launcher whose zygote runs, and what a plugin is started with."""
    with open_directory() as root:
        folder = write_plugin(root, "there", _CODE)
        launcher = Launcher(uids=UidPool() if os.geteuid() == 0 else None)
        launcher.start()
        try:
            yield launcher, JailSpec(plugin="there", folder="there", path=str(folder), package="pixsim7_jailed.there")
        finally:
            launcher.close()


def answer_once(launcher: Launcher, spec: JailSpec) -> JailProcess:
    """Start a jail, load and enable its plugin, and let it answer one request."""
    process = launcher.spawn(spec)
    greeting = greet(process.connection, limit=30, on_log=lambda *_: None)
    connection, decoder = process.connection, greeting.decoder
    scope = {
        "type": "http", "http_version": "1.1", "method": "GET", "scheme": "http", "path": "/api/v1/there/items/7",
        "raw_path": b"/api/v1/there/items/7", "query_string": b"", "root_path": "", "headers": [],
    }  # fmt: skip
    request = {"type": "http.request", "body": b"", "more_body": False}
    _exchange(connection, decoder.feed, encode(Kind.ASK, 1, "enable", []), Kind.ANSWER)
    begin = encode(Kind.REQUEST, 1, scope) + encode(Kind.RECEIVE, 1, request)
    _exchange(connection, decoder.feed, begin, Kind.END)
    return process


def _exchange(connection: socket.socket, feed: object, said: bytes, until: Kind) -> None:
    assert callable(feed)
    connection.settimeout(30)
    connection.sendall(said)
    while all(frame.kind is not until for frame in feed(connection.recv(1 << 16))):
        pass


def starting(quick: bool) -> list[Row]:
    """Time from fork to the first answer, and the memory of many."""
    times: list[float] = []
    with launching() as (launcher, spec):
        for _ in range(5 if quick else 31):
            started = time.perf_counter()
            process = answer_once(launcher, spec)
            times.append((time.perf_counter() - started) * 1e3)
            process.close()
            process.wait(10)
        rows = [
            at_most("confined plugin, from fork to first answer", median(times), 60, "ms", f"worst {max(times):.0f}")
        ]
        running: list[JailProcess] = []
        for count in (1, 10, 30, 50):
            running += [answer_once(launcher, spec) for _ in range(count - len(running))]
            share = median(_proportional(process.pid) for process in running) / (1 << 20)
            title = f"proportional memory of a confined plugin, {count} running"
            rows.append(at_most(title, share, 15, "MiB") if count == 30 else for_comparison(title, share, "MiB"))
        for process in running:
            process.close()
    return rows


def calling(quick: bool) -> list[Row]:
    """Time from a kill to the next answer, and what the broker takes of a query."""
    with launching() as (launcher, _), open_directory() as root:
        times = uvloop.run(_respawns(launcher, root / "killed", 3 if quick else 21))
        row = at_most("respawn after a kill, to first answer", median(times), 100, "ms", f"worst {max(times):.0f}")
        return [row, *query_rows(launcher, root, 5 if quick else 21)]


async def _respawns(launcher: Launcher, directory: Path, rounds: int) -> list[float]:
    """Kill a jail again and again, as if each time were the first; return the milliseconds until it answers."""
    write_plugin(directory, "there", _CODE)
    (directory / "none").mkdir()
    patient = JailSettings(supervision=SupervisorSettings(crashes=2 * rounds, healthy_after=0))
    jails = Jails(launcher, patient, plugin_hooks)
    app, times = FastAPI(), []
    manager = init_plugin_manager(
        app, directory / "none", community_directory=directory, disabled=(), jails=lambda: jails
    )
    await manager.enable_all()
    try:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://bench") as client:
            for _ in range(rounds):
                process = jails.supervisors["there"].process
                assert process is not None
                started = time.perf_counter()
                os.kill(process.pid, signal.SIGKILL)
                while (await client.get(_PATHS["confined"])).status_code != 200:  # noqa: ASYNC110 - as clients ask
                    await asyncio.sleep(0.001)
                times.append((time.perf_counter() - started) * 1e3)
    finally:
        await manager.disable_all()
        manager.close()
    return times


def _proportional(pid: int) -> int:
    """Return the bytes of memory of a process, what it shares with others divided among them."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    return 1024 * next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))


def rows(quick: bool) -> list[Row]:
    """Measure everything about jails; ``quick`` repeats less."""
    return [*asyncio.run(over_http(quick)), *starting(quick), *calling(quick)]
