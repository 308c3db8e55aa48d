"""Runs one attempt without any confinement, as a child process of the host: ``bare.py FOLDER MODULE NAME WORLD``.

Writes what came of it as one line of JSON; nothing, where the attempt became another program.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import os
import sys
import termios


def main(folder: str, module: str, name: str, world: str) -> None:
    """Run the attempt and write the outcome."""
    with contextlib.suppress(OSError):
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    sys.path.insert(0, folder)
    surroundings = importlib.import_module("attempts.world").World(**json.loads(world))
    os.chdir(surroundings.scratch)
    try:
        value = getattr(importlib.import_module(f"attempts.{module}"), name)(surroundings)
        outcome = {"value": repr(value)}
    except BaseException as error:  # noqa: BLE001 - it is what is asked for
        outcome = {"error": type(error).__name__, "text": str(error)}
    sys.stdout.write(json.dumps(outcome) + "\n")


main(*sys.argv[1:])
