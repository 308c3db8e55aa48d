"""A private server for the demo: a process of its own, a free port, and a data directory that goes with it."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

import pixsim7_backend

from .client import DemoError

__all__ = ["OWN_PLUGINS", "Server", "private_server"]

PACKAGE = Path(pixsim7_backend.__file__).parent
OWN_PLUGINS = PACKAGE / "demo" / "plugins"
ADMIN_EMAIL = "demo@example.org"
START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Server:
    """A running server and an admin of it."""

    base_url: str
    login: str
    """E-mail address or username of the admin."""
    password: str


@contextmanager
def private_server() -> Iterator[Server]:
    """Start a server with an admin and the demo's own plugins; stop it and remove its data in the end.

    Raises:
        DemoError: it does not start; the text ends with what it printed last.
    """
    with tempfile.TemporaryDirectory(prefix="pixsim7-demo-", ignore_cleanup_errors=True) as place:
        password = secrets.token_urlsafe(24)
        environment = _environment(Path(place), password)
        _make_admin(environment, place)
        with _serve(environment, Path(place)) as base_url:
            yield Server(base_url, ADMIN_EMAIL, password)


def _environment(place: Path, password: str) -> dict[str, str]:
    """Return the settings of the server: nothing of the machine's own installation is used or touched."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "SYSTEMROOT") if name in os.environ}
    return inherited | {
        "PYTHONPATH": os.pathsep.join((str(PACKAGE.parent), os.environ.get("PYTHONPATH", ""))).rstrip(os.pathsep),
        "DATA_DIR": str(place),
        "PLUGINS_DIR": str(PACKAGE / "plugins"),
        "EXTRA_PLUGINS_DIRS": str(OWN_PLUGINS),
        "LOG_LEVEL": "WARNING",
        "PIXSIM7_ADMIN_PASSWORD": password,
    }


def _make_admin(environment: dict[str, str], place: str) -> None:
    command = [sys.executable, "-m", "pixsim7_backend", "users", "create-admin", ADMIN_EMAIL, "demo"]
    made = subprocess.run(command, env=environment, cwd=place, capture_output=True, text=True, check=False)  # noqa: S603  # our own command
    if made.returncode:
        raise DemoError(f"`pixsim7 users create-admin` failed: {made.stderr.strip()}")


@contextmanager
def _serve(environment: dict[str, str], place: Path) -> Iterator[str]:
    log = place / "server.log"
    with socket.socket() as listener, log.open("w") as output:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        descriptor = listener.fileno()
        command = [sys.executable, "-m", "uvicorn", "pixsim7_backend.main:app", "--fd", str(descriptor)]
        server = subprocess.Popen(  # noqa: S603  # our own command
            command, env=environment, cwd=place, stdout=output, stderr=output, pass_fds=[descriptor]
        )
        try:
            base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            _wait_until_ready(base_url, server, log)
            yield base_url
        finally:
            _stop(server)


def _wait_until_ready(base_url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    with httpx.Client(base_url=base_url, timeout=START_SECONDS, trust_env=False) as client:
        while time.monotonic() < deadline and server.poll() is None:
            with suppress(httpx.TransportError):
                if client.get("/readyz").is_success:
                    return
            time.sleep(0.05)
    raise DemoError(f"the demo's server did not start:\n{log.read_text(errors='replace')[-2000:]}")


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(15)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
