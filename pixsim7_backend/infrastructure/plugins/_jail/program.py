"""The zygote as a program: this interpreter, with nothing of the host's but the places that code is imported from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

__all__ = ["start_zygote"]

_PACKAGE_ROOT = str(Path(__file__).parents[4])
#: Isolated mode knows neither the host's variables nor its directories: where code is found, it is told.
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[3]); "
    "from pixsim7_backend.infrastructure.plugins._jail.zygote import main; main(int(sys.argv[1]), int(sys.argv[2]))"
)
_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "MALLOC_ARENA_MAX": "1",  # each thread's own would reserve 64 MiB of the addresses that a jail may have
}


def start_zygote(descriptor: int) -> subprocess.Popen[bytes]:
    """Start the zygote with this end of the socket to it, which it inherits; its errors are piped.

    It ends with the thread that calls this.

    Raises:
        OSError: the interpreter cannot be started.
    """
    roots = [entry for entry in sys.path if Path(entry).is_absolute()]
    path = json.dumps(list(dict.fromkeys([*roots, _PACKAGE_ROOT])))
    return subprocess.Popen(  # noqa: S603 - this interpreter, and a program of ours
        [sys.executable, "-I", "-c", _PROGRAM, str(descriptor), str(os.getpid()), path],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd="/",
        env=_ENVIRONMENT,
        pass_fds=[descriptor],
        start_new_session=True,
    )
