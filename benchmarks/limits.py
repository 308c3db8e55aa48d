"""Limits: what a rate check costs in memory and on Redis, and what a limit adds to a request."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from statistics import median

from benchmarks.dispatch import Platform, interleaved, paths_of, ratio
from benchmarks.report import Row, at_most, for_comparison
from pixsim7_backend.infrastructure.plugins import Rate
from pixsim7_backend.infrastructure.plugins._limits.gate import Gate
from pixsim7_backend.infrastructure.plugins._limits.memory import MemoryRates
from pixsim7_backend.rate_limits import RedisRates
from pixsim7_backend.redis import configure_redis, new_async_redis

RATE = Rate.parse("1000/minute")  # no client here is refused
GENEROUS = Rate.parse("100000000/minute")  # nor is one who asks all the time
CLIENTS = [f"203.0.{high}.{low}" for high in range(4) for low in range(250)]


def rows(quick: bool) -> list[Row]:
    """Return the rows of the rate check, and of a request with a limit against one without."""
    return asyncio.run(_rows(5 if quick else 31))


async def _rows(rounds: int) -> list[Row]:
    return [_in_memory(rounds), await _request(rounds), *await _on_redis(rounds)]


def _in_memory(rounds: int) -> Row:
    rates, times = MemoryRates(RATE, time.monotonic_ns), []
    for _ in range(10 * rounds):
        started = time.perf_counter()
        for client in CLIENTS:
            rates.take(client)
        times.append((time.perf_counter() - started) / len(CLIENTS) * 1e6)
    return at_most("rate check in memory", median(times), 1.0, "µs", f"{len(CLIENTS):,} clients")


async def _request(rounds: int) -> Row:
    free, limited = Platform(1), Platform(1)
    for mount in limited.mounts.values():
        mount.gate = Gate(mount.plugin_id, rates=MemoryRates(GENEROUS, time.monotonic_ns), room=64)
    paths = paths_of(0)
    times = await interleaved({"free": (free.app, paths, 40), "limited": (limited.app, paths, 40)}, rounds)
    detail = f"{median(times['limited']):.1f} µs against {median(times['free']):.1f} µs; with header fields"
    return for_comparison("a request with a limit / without", ratio(times["limited"], times["free"]), "x", detail)


async def _on_redis(rounds: int) -> list[Row]:
    """Return nothing where there is no Redis to be had."""
    program = shutil.which("redis-server")
    if program is None:
        return []
    with _redis(program) as url:
        configure_redis(url)
        client = new_async_redis(connections=8, timeout=5)
        try:
            rates, one, many = RedisRates(client), [], []
            for _ in range(rounds):
                one.append(await _each(rates, at_once=1))
                many.append(await _each(rates, at_once=32))
        finally:
            await client.aclose()
            configure_redis(None)
    return [
        for_comparison("rate check on Redis", median(one), "µs", "one after the other"),
        for_comparison("the same, 32 at once", median(many), "µs", "8 connections"),
    ]


async def _each(rates: RedisRates, at_once: int) -> float:
    """Return the microseconds that one of many checks takes."""

    async def ask() -> None:
        for client in CLIENTS[: 256 // at_once]:
            await rates.take("benchmark", client, GENEROUS)

    await rates.take("benchmark", "first", GENEROUS)
    started = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(at_once)))
    return (time.perf_counter() - started) / 256 * 1e6


@contextmanager
def _redis(program: str) -> Iterator[str]:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port: int = free.getsockname()[1]
    command = [program, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)  # noqa: S603  # what PATH has
        try:
            while not _listens(port):
                assert server.poll() is None, "Redis does not start"
                time.sleep(0.05)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.kill()
            server.wait()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
