"""Props: one zygote for the tests of a worker, and servers whose plugins run in process or confined."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pixsim7_backend.infrastructure.plugins import plugin_hooks
from pixsim7_backend.infrastructure.plugins._jail.jails import Jails, JailSettings
from pixsim7_backend.infrastructure.plugins._jail.launcher import Launcher
from pixsim7_backend.infrastructure.plugins._jail.supervision import SupervisorSettings
from pixsim7_backend.infrastructure.plugins._jail.uids import UidPool
from tests.integration.platform.live import LiveServer, live_server

Serve = Callable[..., AbstractAsyncContextManager[LiveServer]]

PATIENT = SupervisorSettings(heartbeat=0.5, first_pause=0.01, load_time=60, hook_time=60, patience=60)


@pytest.fixture(scope="session")
def launcher() -> Iterator[Launcher]:
    """A launcher whose zygote is started once."""
    made = Launcher(uids=UidPool() if os.geteuid() == 0 else None)
    yield made
    made.close()


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A directory that users of their own can read, as one for plugins is."""
    with tempfile.TemporaryDirectory(prefix="plugins-", dir="/var/tmp") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.fixture
def confined(launcher: Launcher, open_dir: Path) -> Serve:
    """Returns a server whose plugins, in ``open_dir``, run confined; a test may have a launcher of its own."""

    @asynccontextmanager
    async def serve(
        *, jails: dict[str, Any] | None = None, launcher: Launcher = launcher, **options: Any
    ) -> AsyncIterator[LiveServer]:
        settings = JailSettings(**({"supervision": PATIENT} | (jails or {})))
        made = Jails(launcher, settings, plugin_hooks)
        first_party = open_dir / ".none"
        first_party.mkdir(exist_ok=True)
        async with live_server(
            first_party, community_directory=open_dir, jails=lambda: made, hook_timeout=60, **options
        ) as server:
            yield server

    return serve


@pytest.fixture
def in_process(open_dir: Path) -> Serve:
    """Returns a server whose plugins, in ``open_dir``, run in its own process."""

    @asynccontextmanager
    async def serve(**options: Any) -> AsyncIterator[LiveServer]:
        async with live_server(open_dir, **options) as server:
            yield server

    return serve
