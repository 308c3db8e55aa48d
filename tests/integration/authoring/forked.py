"""Checks of plugins in processes that are forked from one: importing the backend anew takes longer than a check."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pixsim7_backend.cli.check_process import main as check
from pixsim7_backend.cli.plugins_check import Launch, settings_in


@contextmanager
def launcher() -> Iterator[Launch]:
    """Give what runs a check as :func:`start_process` does, but for the time limit, which is pytest's."""
    command = [sys.executable, "-m", __name__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        to, of = process.stdin, process.stdout

        def launch(place: Path, _timeout: float) -> str:
            to.write(json.dumps([str(place), {**os.environ, **settings_in(place)}]) + "\n")
            to.flush()
            status = int(of.readline())
            return "" if status == 0 else f"its process ended with {status}"

        yield launch
        to.close()


# --- in the process -------------------------------------------------------------------------------


def main() -> None:
    """Fork for each check until the input ends."""
    for line in sys.stdin:
        place, environment = json.loads(line)
        child = os.fork()
        if not child:
            _check(Path(place), environment)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(f"{status}\n")
        sys.stdout.flush()


def _check(place: Path, environment: dict[str, str]) -> None:
    os.setsid()
    with (place / "output.txt").open("wb") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)
    sys.dont_write_bytecode = True
    try:
        check(place)
    finally:
        os._exit(1)  # a check that comes to its end has left before


if __name__ == "__main__":
    main()
