"""What there is around a jail: a process, files and sockets of the host that a plugin must not get at."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

SECRET = f"secret-{secrets.token_hex(8)}"

_VICTIM = """
import ctypes, sys
kept = ctypes.create_string_buffer(sys.argv[1].encode())
file = open(sys.argv[2], "rb")
print(ctypes.addressof(kept), file.fileno(), flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Things of the host."""

    home: Path
    victim: int
    address: int
    victims_descriptor: int
    descriptor: int
    """Of this process; programs that it starts inherit it."""
    port: int
    datagram_port: int
    abstract: str


@contextmanager
def surroundings(home: Path) -> Iterator[Surroundings]:
    """Put a host's things into an empty directory, and a process and sockets beside it."""
    home.chmod(0o755)
    for name in ("secret", ".env", "settings.yaml", "key.pem", "movable"):
        (home / name).write_text(f"SECRET_KEY={SECRET}\n")
    with ExitStack() as stack:
        listener, datagrams, local, named, mail = (
            stack.enter_context(socket.socket(family, kind))
            for family, kind in (
                (socket.AF_INET, socket.SOCK_STREAM),
                (socket.AF_INET, socket.SOCK_DGRAM),
                (socket.AF_UNIX, socket.SOCK_STREAM),
                (socket.AF_UNIX, socket.SOCK_STREAM),
                (socket.AF_UNIX, socket.SOCK_DGRAM),
            )
        )
        abstract = f"escape-{secrets.token_hex(8)}"
        for each in (listener, datagrams):
            each.bind(("127.0.0.1", 0))
        local.bind(str(home / "socket"))
        named.bind(f"\0{abstract}")
        mail.bind(str(home / "datagrams"))
        for each in (listener, local, named):
            each.listen()
        file = stack.enter_context((home / "secret").open("rb"))
        os.set_inheritable(file.fileno(), True)
        victim = stack.enter_context(_process(home))
        assert victim.stdout is not None
        address, number = victim.stdout.readline().split()
        yield Surroundings(
            home=home,
            victim=victim.pid,
            address=int(address),
            victims_descriptor=int(number),
            descriptor=file.fileno(),
            port=listener.getsockname()[1],
            datagram_port=datagrams.getsockname()[1],
            abstract=abstract,
        )


@contextmanager
def _process(home: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-I", "-c", _VICTIM, SECRET, str(home / "secret")]
    environment = {**os.environ, "SECRET_KEY": SECRET}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()
