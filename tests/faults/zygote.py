"""Starts servers that die: a process that has imported everything, and forks one child for each start.

Spoken to in lines of JSON, a job in and its end out; importing the platform anew for each start would
take a second each.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True, kw_only=True)
class Start:
    """One start of a server, what its operator does next, and where it dies."""

    plugins: str
    data: str
    changes: tuple[tuple[str, ...], ...] = ()
    """Manager methods with their arguments, or ``("write", id, version, replace)`` and ``("cascade", id)``."""
    die_at: str = ""
    """The checkpoint at which the process kills itself: one of its changes, without any one of its start."""
    options: dict[str, Any] = field(default_factory=dict)
    stop: bool = True
    """Whether it is stopped in order in the end."""


@dataclass(frozen=True, kw_only=True)
class End:
    """How a start went: its signal or exit status, and what it said before."""

    signal: int = 0
    status: int = 0
    said: dict[str, Any] = field(default_factory=dict)

    @property
    def states(self) -> dict[str, str]:
        return {each: record["state"] for each, record in self.said["records"].items()}

    def reason(self, plugin: str) -> dict[str, Any]:
        reason: dict[str, Any] = self.said["records"][plugin]["reason"]
        return reason


class Zygote:
    """The process that forks; a context manager."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.communicate(timeout=10)

    def run(self, start: Start) -> End:
        """Carry out one start to its end."""
        return self.run_all([start])[0]

    def run_all(self, starts: Sequence[Start]) -> list[End]:
        """Carry out starts at the same time."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([asdict(start) for start in starts]) + "\n")
        self._process.stdin.flush()
        return [End(**each) for each in json.loads(self._process.stdout.readline())]


# --- in the zygote ------------------------------------------------------------------------------


def main() -> None:
    """Fork for each job until the input ends."""
    import pixsim7_backend.infrastructure.plugins.testing  # noqa: F401 - so that children need not

    gc.freeze()
    for line in sys.stdin:
        children = [_fork(Start(**job)) for job in json.loads(line)]
        sys.stdout.write(json.dumps([_wait(*each) for each in children]) + "\n")
        sys.stdout.flush()


def _fork(start: Start) -> tuple[int, int]:
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    os.close(reader)
    status = 70
    try:
        os.dup2(2, 1)
        said = asyncio.run(_serve(start))
        os.write(writer, json.dumps(said).encode())
        status = 0
    finally:
        os._exit(status)


def _wait(child: int, reader: int) -> dict[str, Any]:
    said = b""
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    return {
        "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
        "status": os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0,
        "said": json.loads(said) if said else {},
    }


async def _serve(start: Start) -> dict[str, Any]:
    """Start a server as the backend does, change it, and say what is."""
    from fastapi import FastAPI

    from pixsim7_backend.infrastructure.plugins import StartupJournal, init_plugin_manager
    from pixsim7_backend.infrastructure.plugins._store import FILE_NAME, FileStateStore
    from pixsim7_backend.infrastructure.plugins.errors import PluginError
    from tests.faults.consistency import iter_contradictions
    from tests.faults.scenes import write_everything

    def checkpoint(name: str) -> None:
        if name == start.die_at and (is_up or not start.changes):
            os.kill(os.getpid(), signal.SIGKILL)
        reached.append(name)

    reached: list[str] = []
    is_up = False
    data = Path(start.data)
    try:
        manager = init_plugin_manager(
            FastAPI(),
            start.plugins,
            disabled=(),
            store=FileStateStore(data / FILE_NAME),
            startup_journal=StartupJournal(data / "starts"),
            prepare=lambda _record, _folder: None,  # the backend's would import the database layer each time
            checkpoint=checkpoint,
            **start.options,
        )
        await manager.enable_all()
    except PluginError as error:
        return {"aborted": error.to_json()}
    is_up = True
    started = len(reached)
    refused = []
    for method, *arguments in start.changes:
        try:
            if method == "write":
                plugin, version, replace = arguments
                write_everything(Path(start.plugins), plugin, int(version), replace=replace)
            elif method == "cascade":
                await manager.disable(arguments[0], cascade=True)
            else:
                await getattr(manager, method)(*arguments)
        except PluginError as error:
            refused.append(error.to_json())
    await manager.settle()
    said = {
        "records": {each.id: each.to_json() for each in manager.iter_records()},
        "switched": dict(manager.desired.state.switched),
        "contradictions": list(iter_contradictions(manager)),
        "reached": reached[started:],
        "refused": refused,
    }
    if start.stop:
        await manager.disable_all()
        manager.close()
    return said


if __name__ == "__main__":
    main()
