"""What goes on working in a confined process: what plugins are made of."""

from __future__ import annotations

import asyncio
import concurrent.futures
import ctypes
import importlib
import importlib.util
import mimetypes
import os
import pickle
import signal
import socket
import sqlite3
import ssl
import sys
import tempfile
import threading
import time
import traceback
import zoneinfo
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import anyio.to_thread
import pytest
import sqlalchemy
from cryptography.fernet import Fernet

from pixsim7_backend.infrastructure.plugins._jail.confine.probe import probe_level
from pixsim7_backend.infrastructure.plugins._jail.level import ConfinementLevel

from .forked import EACH_MODE, Mode, World, require, run_confined

pytestmark = pytest.mark.skipif(
    probe_level().level < ConfinementLevel.CONFINED, reason=f"this machine reaches only: {probe_level()}"
)


def threads(world: World) -> bool:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        return bool(sum(pool.map(lambda number: number * 2, range(100))) == 9900)


def event_loop(world: World) -> bool:
    async def work() -> bool:
        reader, writer = socket.socketpair()
        stream, out = await asyncio.open_connection(sock=reader)
        writer.sendall(b"line\n")
        line = await stream.readline()
        out.writelines([b"a", b"b"])
        await out.drain()
        numbers = await asyncio.gather(*(asyncio.to_thread(abs, -number) for number in range(8)))
        blocking = await anyio.to_thread.run_sync(lambda: 5)
        out.close()
        async with asyncio.timeout(5):
            await asyncio.sleep(0.001)
        return line == b"line\n" and writer.recv(2) == b"ab" and sum(numbers) + blocking == 33

    return asyncio.run(work())


def faster_event_loop(world: World) -> bool:
    uvloop = importlib.import_module("uvloop")

    async def work() -> bool:
        return await asyncio.to_thread(abs, -3) == 3

    return bool(uvloop.run(work()))


def tls_contexts(world: World) -> bool:
    return ssl.create_default_context().verify_mode is ssl.CERT_REQUIRED


def time_zones(world: World) -> bool:
    return datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")).utcoffset() is not None and bool(
        time.strftime("%Z")
    )


def tracebacks(world: World) -> bool:
    try:
        ssl.create_default_context(cafile=3)  # type: ignore[arg-type]
    except TypeError:
        return "load_verify_locations(cafile" in traceback.format_exc()  # a line of the library's source
    return False


def media_types(world: World) -> bool:
    return mimetypes.guess_type("x.png")[0] == "image/png"


def database_toolkit(world: World) -> bool:
    engine = sqlalchemy.create_engine("sqlite://")
    with engine.connect() as connection:
        return connection.execute(sqlalchemy.text("select 6 * 7")).scalar() == 42


def database_in_scratch(world: World) -> bool:
    with sqlite3.connect(world.scratch / "own.db") as connection:
        connection.execute("create table t (x)")
        connection.execute("insert into t values (1)")
    return bool(connection.execute("select count(*) from t").fetchone() == (1,))


def late_imports(world: World) -> bool:
    names = ("xmlrpc.client", "fractions", "html.parser", "wave", "redis.asyncio", "psycopg", "yaml", "jinja2")
    found = [name for name in names if importlib.util.find_spec(name.partition(".")[0])]
    for name in [each for each in sys.modules if each.partition(".")[0] in {n.partition(".")[0] for n in found}]:
        del sys.modules[name]
    return all(importlib.import_module(name) for name in found)


def temporary_files(world: World) -> bool:
    tempfile.tempdir = str(world.scratch)
    with tempfile.TemporaryDirectory() as directory, tempfile.NamedTemporaryFile(dir=directory) as file:
        file.write(b"x")
    with tempfile.SpooledTemporaryFile(max_size=10) as spooled:
        spooled.write(b"x" * 1000)
    with tempfile.TemporaryFile() as nameless:
        nameless.write(b"x")
    return list(world.scratch.iterdir()) == []


def files_in_scratch(world: World) -> bool:
    (world.scratch / "a").mkdir()
    (world.scratch / "b").mkdir()
    (world.scratch / "a" / "file").write_text("x")
    (world.scratch / "a" / "file").rename(world.scratch / "b" / "file")
    (world.scratch / "b" / "file").write_text("y")
    return [path.name for path in world.scratch.rglob("*")] != [] and (world.scratch / "b" / "file").read_text() == "y"


def own_files(world: World) -> bool:
    return Path(world.plugin / "code.py").read_text() == "pass\n" and [
        path.name for path in world.plugin.iterdir()
    ] == ["code.py"]


def signals_to_itself(world: World) -> bool:
    seen: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, _frame: seen.append(number))
    signal.raise_signal(signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGUSR1)
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    signal.signal(signal.SIGALRM, lambda number, _frame: seen.append(number))
    time.sleep(0.05)
    return seen[:2] == [signal.SIGUSR1] * 2


def randomness_and_ciphers(world: World) -> bool:
    key = Fernet.generate_key()
    return len(os.urandom(8)) == 8 and Fernet(key).decrypt(Fernet(key).encrypt(b"x")) == b"x"


def foreign_functions(world: World) -> bool:
    callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda value: value + 1)
    return int(callback(41)) == 42 and pickle.loads(pickle.dumps([1])) == [1]  # noqa: S301 - of its own making


def many_threads_at_once(world: World) -> bool:
    ctypes.CDLL(None).mallopt(-8, 1)  # as MALLOC_ARENA_MAX=1: each arena would reserve 64 MiB of addresses
    threading.stack_size(512 << 10)
    barrier = threading.Barrier(33)
    for _ in range(32):
        threading.Thread(target=barrier.wait, daemon=True).start()
    barrier.wait(10)
    return True


LIBRARIES: list[Callable[[World], bool]] = [
    event_loop, tls_contexts, time_zones, tracebacks, media_types, database_toolkit, database_in_scratch,
    late_imports, temporary_files, files_in_scratch, own_files, signals_to_itself, randomness_and_ciphers,
    foreign_functions, threads, many_threads_at_once,
    *([faster_event_loop] if importlib.util.find_spec("uvloop") else []),
]  # fmt: skip


@pytest.mark.parametrize("mode", EACH_MODE)
@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.__name__)
def test_it_works_confined(mode: Mode, library: Callable[[World], bool]) -> None:
    """Confinement takes nothing away that a plugin is made of."""
    require(mode)
    assert run_confined(mode, library) is True
