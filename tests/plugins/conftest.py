"""The running backend with all first-party plugins, on both databases, and people who are logged in to it.

``backend`` is an anonymous ``httpx.AsyncClient`` inside the process; ``live_backend`` is one of a real
server, for tests of concurrency. Both start once per test module and have empty tables in each test.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio.to_thread
import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import inspect, text

from pixsim7_backend import plugins
from pixsim7_backend.db import Database
from pixsim7_backend.db.migrations import find_source, upgrade
from pixsim7_backend.infrastructure.plugins import plugin_hooks
from pixsim7_backend.infrastructure.plugins.preview import preview
from pixsim7_backend.main import create_app
from pixsim7_backend.plugin_store import MIGRATIONS
from pixsim7_backend.settings import Settings
from tests.databases import KINDS, fresh_database

PASSWORD = "correct horse battery"
PLUGINS_DIR = Path(plugins.__file__).parent
ROOT = PLUGINS_DIR.parents[1]

#: For this process and that of a live backend. Passwords get real Argon2id, at the least it can cost.
ENVIRONMENT = {
    "AUTH_ARGON2_TIME": "1",
    "AUTH_ARGON2_MEMORY_KIB": "8",
    "AUTH_ARGON2_LANES": "1",
    "DISABLED_PLUGINS": "",
    "ON_PLUGIN_ERROR": "strict",
}


class Client(httpx.AsyncClient):
    """A client of the backend; ``user`` and ``token`` are those of its login, where it has one."""

    def __init__(self, transport: httpx.AsyncBaseTransport | None, url: str, **options: Any) -> None:
        limits = httpx.Limits(max_connections=100, max_keepalive_connections=100)
        super().__init__(transport=transport, base_url=url, limits=limits, timeout=60, trust_env=False, **options)
        self.user: dict[str, Any] = {}
        self.token = ""

    def carry(self, login: dict[str, Any]) -> None:
        """Send the token of this login from now on."""
        self.user, self.token = login["user"], login["access_token"]
        self.headers["Authorization"] = f"Bearer {self.token}"


class Backend(Client):
    """An anonymous client of a running backend, and what a test needs of the backend besides HTTP.

    ``app`` is the app inside this process; a live backend has none, and ``log`` is its server's output.
    """

    def __init__(
        self, settings: Settings, database: Database, url: str, *, app: FastAPI | None = None, log: Path | None = None
    ) -> None:
        super().__init__(_transport(app), url)
        self.settings = settings
        self.database = database
        self.url = url
        self.log = log
        self._app = app
        self._clients = contextlib.AsyncExitStack()

    @property
    def app(self) -> FastAPI:
        assert self._app is not None, "a live backend runs in another process"
        return self._app

    @property
    def printed(self) -> str:
        """The end of what the server of a live backend has printed."""
        return self.log.read_text()[-4000:] if self.log else ""

    async def new_client(self, address: str = "127.0.0.1") -> Client:
        """Return another anonymous client; ``address`` is where it calls from (inside the process only)."""
        return await self._clients.enter_async_context(Client(_transport(self._app, address), self.url))

    async def sign_up(self, username: str, *, role: str = "user") -> Client:
        """Return a client of a new user, registered and logged in over HTTP; the role is set in the database."""
        client = await self.new_client()
        account = {"email": f"{username}@example.com", "username": username, "password": PASSWORD}
        answer = await client.post("/api/v1/auth/register", json=account)
        assert answer.status_code == 201, answer.text
        client.carry(answer.json())
        if role != "user":
            statement = "UPDATE users SET role = :role WHERE id = :id"
            await anyio.to_thread.run_sync(self.execute, statement, {"role": role, "id": client.user["id"]})
            client.user["role"] = role
        return client

    def execute(self, statement: str, values: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Run SQL beside the backend, committed at once; return the rows, if any."""
        with self.database.session() as session:
            result: Any = session.execute(text(statement), values or {})
            return [tuple(row) for row in result] if result.returns_rows else []

    async def aclose(self) -> None:
        """Close this client and all that it made."""
        await self._clients.aclose()
        await super().aclose()


def _transport(app: FastAPI | None, address: str = "127.0.0.1") -> httpx.AsyncBaseTransport | None:
    return None if app is None else httpx.ASGITransport(app, client=(address, 50_000))


# --- databases ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def backend_environment() -> Iterator[None]:
    """Let all plugins run, start-up fail where one cannot, and passwords cost next to nothing."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        yield


def make_tables(url: str) -> None:
    """Upgrade an empty database to the tables of all first-party plugins and of the platform."""
    database = Database(url)
    plan = preview([PLUGINS_DIR], disabled=(), resources={"db": lambda: None, "redis": lambda: None})
    found = (find_source(each, plan.candidates[each].source.path) for each in plan.order)
    upgrade(database, [*(source for source in found if source is not None), MIGRATIONS])
    database.close()


@pytest.fixture(scope="module", params=KINDS)
def backend_kind(request: pytest.FixtureRequest) -> str:
    """``sqlite`` or ``postgresql``: each test with a backend runs on both."""
    kind: str = request.param
    return kind


@pytest.fixture(scope="module")
def backend_settings(backend_kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of a backend with a data directory and a database of its own; a module may override this fixture."""
    directory = tmp_path_factory.mktemp("backend")
    with contextlib.ExitStack() as stack:
        url = ""  # the embedded default, which the backend migrates itself
        if backend_kind == "postgresql":
            url = stack.enter_context(fresh_database(backend_kind, directory, make_tables))
        yield Settings(data_dir=directory, database_url=SecretStr(url), plugins_dir=str(PLUGINS_DIR))


@pytest.fixture(scope="module")
def beside_backend(backend_settings: Settings) -> Iterator[Database]:
    """The backend's database, for looking at it without the backend."""
    database = Database(backend_settings.database)
    yield database
    database.close()


@pytest.fixture(scope="module")
def wipe(beside_backend: Database) -> Callable[[], None]:
    """Empties all tables but those of the migrations, and lets ids start at 1."""
    statements: list[str] = []

    def clean() -> None:
        if not statements:
            statements.extend(_emptying(beside_backend))
        with beside_backend.session() as session:
            for statement in statements:
                session.execute(text(statement))

    return clean


def _emptying(database: Database) -> list[str]:
    """Return the statements, referring tables first; DELETE, since TRUNCATE costs tenths of a second."""
    with database.session() as session:
        ordered = [name for name, _ in inspect(session.connection()).get_sorted_table_and_fkc_names() if name]
    kept = ("alembic_", "plugin_state")  # what the running manager knows to be stored
    deletes = [f'DELETE FROM "{name}"' for name in reversed(ordered) if not name.startswith(kept)]
    restart = "SELECT setval(oid::regclass, 1, false) FROM pg_class WHERE relkind = 'S'"
    return deletes if database.is_sqlite else [*deletes, restart]


# --- inside this process --------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def running_app(backend_settings: Settings, backend_environment: None) -> AsyncIterator[FastAPI]:
    """The real app, started."""
    app = create_app(backend_settings)
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def backend(
    running_app: FastAPI, backend_settings: Settings, beside_backend: Database, wipe: Callable[[], None]
) -> AsyncIterator[Backend]:
    """An anonymous client of the running backend, whose tables are empty."""
    await anyio.to_thread.run_sync(wipe)
    client = Backend(backend_settings, beside_backend, "http://backend.test", app=running_app)
    yield client
    await client.aclose()


@pytest.fixture
async def admin_client(backend: Backend) -> Client:
    """A logged-in admin."""
    return await backend.sign_up("admin", role="admin")


@pytest.fixture
async def user_client(backend: Backend) -> Client:
    """A logged-in user."""
    return await backend.sign_up("user")


@pytest.fixture
async def other_client(backend: Backend) -> Client:
    """Another logged-in user, to whom the first one's things are none of their business."""
    return await backend.sign_up("other")


# --- a real server --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def live_workers() -> int:
    """How many processes the live backend has; a module may override this fixture."""
    return 1


@pytest.fixture(scope="module")
def live_server(backend_settings: Settings, live_workers: int) -> Iterator[tuple[str, Path]]:
    """The URL of a real server in another process, and the file with what it prints."""
    log = backend_settings.data_dir / "server.log"
    with socket.socket() as listener, log.open("w") as output:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # inherited; a server given --fd does not set it
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        command = ["-m", "uvicorn", "pixsim7_backend.main:app", "--fd", str(listener.fileno()), "--no-access-log"]
        server = subprocess.Popen(
            [sys.executable, *command, "--workers", str(live_workers)],
            pass_fds=[listener.fileno()],
            env=_environment(backend_settings),
            cwd=backend_settings.data_dir,
            stdout=output,
            stderr=output,
        )
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            _wait_until_ready(url, server, log)
            yield url, log
        finally:
            server.terminate()
            server.wait(30)


@pytest.fixture
async def live_backend(
    live_server: tuple[str, Path], backend_settings: Settings, beside_backend: Database, wipe: Callable[[], None]
) -> AsyncIterator[Backend]:
    """An anonymous client of a real server, whose tables are empty."""
    url, log = live_server
    await anyio.to_thread.run_sync(wipe)
    client = Backend(backend_settings, beside_backend, url, log=log)
    yield client
    await client.aclose()


def _environment(settings: Settings) -> dict[str, str]:
    return {
        **os.environ,
        **ENVIRONMENT,
        "PYTHONPATH": str(ROOT),
        "DATA_DIR": str(settings.data_dir),
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "SECRET_KEY": settings.secret_key.get_secret_value(),
        "PLUGINS_DIR": str(PLUGINS_DIR),
        "LOG_LEVEL": "WARNING",
    }


def _wait_until_ready(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    is_ready = functools.partial(httpx.get, f"{url}/readyz", timeout=5, trust_env=False)
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if is_ready().status_code == 200:
                return
        time.sleep(0.05)
    pytest.fail(f"the server did not start:\n{log.read_text()}")


@pytest.fixture
def heard(request: pytest.FixtureRequest) -> Iterator[list[tuple[Any, ...]]]:
    """The events that the test module names in ``HEARD``, as they are delivered: (event, *payload)."""
    events: list[tuple[Any, ...]] = []

    def listen(event: str) -> Any:
        return lambda *payload: events.append((event, *payload))

    subscriptions = [plugin_hooks.register(event, listen(str(event))) for event in request.module.HEARD]
    yield events
    for subscription in subscriptions:
        subscription.cancel()


async def make(client: httpx.AsyncClient, path: str, **fields: Any) -> int:
    """Create something of the game and return its id."""
    answer = await client.post(f"/api/v1/game/{path}/", json=fields)
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])
