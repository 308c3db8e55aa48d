"""Servers that tests need: found on their standard ports, else started from installed programs, else installed.

Packages are installed only with ``CI=true`` and as root. A test whose server cannot be had is
skipped with a line that says what is missing; with ``CI=true`` it fails instead.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

IS_CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")
_START_SECONDS = 30.0


@functools.cache
def postgresql_url() -> str:
    """Return the URL of a PostgreSQL server on which the user may create databases; skip when there is none.

    ``TEST_POSTGRES_URL`` names another one than those looked for.
    """
    if chosen := os.environ.get("TEST_POSTGRES_URL"):
        return chosen
    local = "postgresql://postgres@127.0.0.1:5432/postgres"
    if _accepts_postgresql(local):
        return local
    started = _start_postgresql() or (_install("postgresql") and _start_postgresql())
    return started or missing("PostgreSQL", "install it, or set TEST_POSTGRES_URL")


@functools.cache
def redis_url() -> str:
    """Return the URL of a Redis server; skip when there is none. ``TEST_REDIS_URL`` names another one."""
    if chosen := os.environ.get("TEST_REDIS_URL"):
        return chosen
    if _listens(6379):
        return "redis://127.0.0.1:6379/0"
    started = _start_redis() or (_install("redis-server") and _start_redis())
    return started or missing("Redis", "install redis-server, or set TEST_REDIS_URL")


@contextlib.contextmanager
def own_redis(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Redis server on this port that the test may end as it likes; skip when the program is not there."""
    server = _program("redis-server") or missing("redis-server", "install it")
    command = [server, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    with tempfile.TemporaryDirectory(prefix="pixsim7-redis-") as folder:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
        try:
            assert wait_until(lambda: _listens(port)), "Redis does not start"
            yield process
        finally:
            process.kill()
            process.wait()


def missing(service: str, remedy: str) -> str:
    """Skip the test that asks, or fail it in continuous integration."""
    text = f"{service} is missing: {remedy}"
    if IS_CI:
        pytest.fail(text)
    pytest.skip(text)


def free_port() -> int:
    """Return a TCP port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(is_true: Callable[[], bool], seconds: float = _START_SECONDS) -> bool:
    """Ask again and again; return False when the time is over."""
    deadline = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _accepts_postgresql(url: str) -> bool:
    import psycopg

    try:
        with psycopg.connect(url, connect_timeout=2) as connection:
            row = connection.execute(
                "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"
            ).fetchone()
            return bool(row and row[0])
    except psycopg.Error:
        return False


def _start_postgresql() -> str | None:
    """Run a server of our own in a temporary directory until the tests end."""
    initdb, server = _program("initdb"), _program("postgres")
    if not initdb or not server:
        return None
    place = Path(tempfile.mkdtemp(prefix="pixsim7-postgresql-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    account = _unprivileged(place)
    port = free_port()
    folder = str(place / "db")
    subprocess.run(
        [initdb, "-D", folder, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"],
        check=True,
        capture_output=True,
        user=account,
        cwd=place,
    )
    options = ["-h", "127.0.0.1", "-p", str(port), "-k", str(place), "-c", "fsync=off"]
    _run_until_exit([server, "-D", folder, *options], user=account, cwd=place)
    url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
    return url if wait_until(lambda: _accepts_postgresql(url)) else None


def _unprivileged(place: Path) -> str | None:
    """Return the account to run as where we are root, which PostgreSQL refuses; it gets the folder."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            shutil.chown(place, pwd.getpwnam(name).pw_uid)
            return name
    return None


def _start_redis() -> str | None:
    server = _program("redis-server")
    if not server:
        return None
    port = free_port()
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    _run_until_exit([server, *options], user=None, cwd=Path(tempfile.gettempdir()))
    return f"redis://127.0.0.1:{port}/0" if wait_until(lambda: _listens(port)) else None


def _run_until_exit(command: list[str], *, user: str | None, cwd: Path) -> None:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user=user, cwd=cwd)

    def stop() -> None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()

    atexit.register(stop)


def _program(name: str) -> str | None:
    """Return the path of a program, also where Debian hides the server's own ones."""
    found = shutil.which(name)
    return found or next((str(path) for path in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None)


def _install(package: str) -> bool:
    """Install a package where that is allowed; two test processes wait for one another."""
    installer = shutil.which("apt-get")
    if not (IS_CI and os.geteuid() == 0 and installer):
        return False
    options = ["-o", "DPkg::Lock::Timeout=300", "-y", "-q"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update", "-q"], ["install", *options, "--no-install-recommends", package]):
        if subprocess.run([installer, *arguments], env=environment, capture_output=True, check=False).returncode:
            return False
    return True
