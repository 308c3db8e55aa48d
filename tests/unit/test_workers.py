"""Whether a worker is the only one of its data directory."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pixsim7_backend.workers import counted_worker

pytestmark = pytest.mark.anyio

_WORKER = """
import asyncio, sys
from pathlib import Path
from pixsim7_backend.workers import counted_worker

async def main():
    async with counted_worker(Path(sys.argv[1])) as is_only_worker:
        print(is_only_worker(), flush=True)
        sys.stdin.read()

asyncio.run(main())
"""


def start_worker(data_dir: Path) -> tuple[subprocess.Popen[str], bool]:
    """Start another process that serves; say whether it found itself alone."""
    command = [sys.executable, "-c", _WORKER, str(data_dir)]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    return worker, worker.stdout.readline() == "True\n"


async def test_each_of_several_workers_knows_of_the_others(tmp_path: Path) -> None:
    """It is asked anew each time: who comes later counts, and who has gone or was killed does not."""
    place = tmp_path / "data"
    async with counted_worker(place) as is_only_worker:
        assert is_only_worker()
        assert is_only_worker()
        other, was_alone = start_worker(place)
        assert not was_alone
        assert not is_only_worker()
        assert not is_only_worker()
        other.send_signal(signal.SIGKILL)
        other.communicate(timeout=30)
        assert is_only_worker()
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    last, was_alone = start_worker(place)
    last.communicate("", timeout=30)
    assert was_alone


async def test_workers_that_ask_at_once_never_take_themselves_for_alone(tmp_path: Path) -> None:
    """Three that ask again and again at the same time are each told that there are others."""
    async with counted_worker(tmp_path) as one, counted_worker(tmp_path) as two, counted_worker(tmp_path) as three:
        found: set[bool] = set()

        def ask(is_only_worker: Callable[[], bool]) -> None:
            found.update(is_only_worker() for _ in range(1000))

        threads = [threading.Thread(target=ask, args=(each,)) for each in (one, two, three)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == {False}


async def test_workers_of_other_directories_do_not_count(tmp_path: Path) -> None:
    """Each data directory has its own."""
    async with counted_worker(tmp_path / "one") as one, counted_worker(tmp_path / "two") as two:
        assert (one(), two()) == (True, True)


async def test_place_that_cannot_be_written_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The server starts; the log says what cannot be told."""
    (tmp_path / "data").write_text("")
    async with counted_worker(tmp_path / "data") as is_only_worker:
        assert is_only_worker()
    assert f"Cannot tell whether other workers serve: {tmp_path / 'data'}: File exists" in caplog.text
