"""Props of the escape suite, and the table at its end."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pixsim7_backend.infrastructure.plugins._jail.launcher import Launcher
from pixsim7_backend.infrastructure.plugins._jail.uids import UidPool
from tests.escape.arena import Arena, arena_in
from tests.escape.surroundings import Surroundings, surroundings

_FIELD = "escape"
_LEVEL = "escape level"
_COLUMNS = ("denied", "contained", "open", "nothing")


@pytest.fixture(scope="session")
def around() -> Iterator[Surroundings]:
    """Things of the host, made before the process that jails come from."""
    with tempfile.TemporaryDirectory(prefix="host-", dir="/var/tmp") as name, surroundings(Path(name)) as made:
        yield made


@pytest.fixture(scope="session")
def launcher(around: Surroundings) -> Iterator[Launcher]:
    """A launcher whose zygote is started once."""
    made = Launcher(uids=UidPool() if os.geteuid() == 0 else None)
    yield made
    made.close()


@contextmanager
def readable_directory() -> Iterator[Path]:
    """Make a directory that users of their own can read, as one for plugins is."""
    with tempfile.TemporaryDirectory(prefix="plugins-", dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A directory for plugins."""
    with readable_directory() as directory:
        yield directory


@pytest.fixture(scope="session")
async def stage(launcher: Launcher, around: Surroundings) -> AsyncIterator[Arena]:
    """The server that all attempts share."""
    with readable_directory() as directory:
        async with arena_in(directory, launcher, around) as made:
            yield made


@pytest.fixture
def arena(stage: Arena, record_property: Callable[[str, object], None]) -> Iterator[Arena]:
    """The server, which notes what comes of this test's attempt."""
    record_property(_LEVEL, f"{stage.report}".splitlines()[0])
    stage.note = lambda what, why: record_property(_FIELD, [what, why])
    yield stage
    stage.note = lambda *_: None


@pytest.fixture
async def used_up(arena: Arena) -> AsyncIterator[Arena]:
    """The server, whose hostile plugin gets a new jail afterwards: this one will be of no use."""
    yield arena
    await arena.restart()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Show what came of each attempt."""
    reports = [each for name in ("passed", "failed", "skipped") for each in terminalreporter.stats.get(name, ())]
    rows = {}
    levels = set()
    for report in reports:
        properties = dict(getattr(report, "user_properties", ()))
        if _FIELD in properties:
            rows[report.nodeid.rpartition("::")[2]] = properties[_FIELD]
            levels.add(properties[_LEVEL])
    if not rows:
        return
    terminalreporter.section("attempts to escape")
    user = "root, each jail as a user of its own" if os.geteuid() == 0 else f"user {os.geteuid()}"
    terminalreporter.write_line(f"as {user}; {'; '.join(sorted(levels))}")
    for name, (what, why) in sorted(rows.items()):
        said = {"nothing": "proves nothing here"}.get(what, what)
        terminalreporter.write_line(f"  {name.removeprefix('test_'):<52} {said:<19} {' '.join(why.split())[:90]}")
    count = Counter(what for what, _ in rows.values())
    figures = ", ".join(f"{count[each]} {each}" for each in _COLUMNS[:3])
    terminalreporter.write_line(f"{len(rows)} attempted: {figures}, {count['nothing']} prove nothing here")
