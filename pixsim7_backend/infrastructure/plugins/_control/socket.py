"""The control socket as a file: made for its owner only, one server at a time, and asked by :func:`request`."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import stat
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pixsim7_backend.infrastructure.plugins.errors import ControlSocketError, NoServerError, ServerRunsError

if os.name == "posix":
    import fcntl

logger = logging.getLogger("pixsim7.plugins")

SOCKET_NAME = "control.sock"
"""File name of the control socket, which is made in the directory of the server's data."""
_LONGEST_PATH = 103
"""Bytes that every system takes for the path of a Unix socket (Linux takes 107)."""
_NOT_YOURS = "may be used by its owner and root only; ask as the user that runs the server"


def is_supported() -> bool:
    """Tell whether this system has Unix sockets."""
    return hasattr(socket, "AF_UNIX") and os.name == "posix"


def peer_uid(connection: Any) -> int | None:
    """Return the user at the other end; None where the system does not tell, and the file's mode must do."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
    return int(struct.unpack("iII", credentials)[1])


# --- the file -------------------------------------------------------------------------------------


@contextlib.contextmanager
def only_server(path: Path) -> Iterator[None]:
    """Hold the place of the server at ``path``; the kernel gives it up for a process that dies."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _require_private(path)
        descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ControlSocketError(path=path, problem=f"cannot be made ({error.strerror})") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ServerRunsError(path=path) from None
        yield
    finally:
        os.close(descriptor)


def _require_private(path: Path) -> None:
    """Close the socket's directory to others; refuse one that is not ours to close."""
    found = path.parent.stat()
    if found.st_uid not in (os.geteuid(), 0):
        raise ControlSocketError(
            path=path,
            problem=f"its directory belongs to user {found.st_uid}, who could replace it; use one of your own",
        )
    if stat.S_IMODE(found.st_mode) & 0o077 and found.st_uid == os.geteuid():
        path.parent.chmod(0o700)


@contextlib.contextmanager
def bound_socket(path: Path) -> Iterator[socket.socket]:
    """Bind a socket that only its owner may connect to; on the way out its file goes with it."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ControlSocketError(path=path, problem="is something else than a socket; move it away")
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short(path) as address:
            listener.bind(address)
        path.chmod(0o600)  # nobody can have connected: it does not listen yet
        listener.setblocking(False)
        made = path.lstat()
    except OSError as error:
        listener.close()
        raise ControlSocketError(path=path, problem=f"cannot be made ({error.strerror or error})") from error
    try:
        yield listener
    finally:
        listener.close()
        with contextlib.suppress(FileNotFoundError):
            if path.lstat().st_ino == made.st_ino:
                path.unlink()


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """Give an address for ``path`` that fits into the few bytes that systems have for it."""
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        short = f"/proc/self/fd/{directory}/{path.name}"
        if not Path(f"/proc/self/fd/{directory}").exists():
            problem = (
                f"its path is longer than the {_LONGEST_PATH} bytes that a socket's may have; use a shorter DATA_DIR"
            )
            raise ControlSocketError(path=path, problem=problem)
        yield short
    finally:
        os.close(directory)


# --- the client -----------------------------------------------------------------------------------


def has_server(path: str | os.PathLike[str]) -> bool:
    """Tell whether a server listens at ``path``; raise ControlSocketError when the caller may not know."""
    path = Path(path).absolute()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection, _short(path) as address:
            connection.settimeout(5)
            connection.connect(address)
    except PermissionError:
        raise ControlSocketError(path=path, problem=_NOT_YOURS) from None
    except OSError:
        return False
    return True


def request(path: str | os.PathLike[str], message: Mapping[str, Any], *, timeout: float = 120.0) -> dict[str, Any]:
    """Send one request to the server at ``path`` and return the whole answer. Blocks.

    Args:
        path: the control socket.
        message: the request; see ``_control.Request``.
        timeout: seconds for each wait.

    Raises:
        NoServerError: no server listens there.
        ControlSocketError: it may not be used, or does not answer as one of ours.
    """
    path = Path(path).absolute()
    try:
        line = _exchange(path, json.dumps(message).encode() + b"\n", timeout)
        reply = json.loads(line)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        raise NoServerError(path=path) from None
    except PermissionError:
        raise ControlSocketError(path=path, problem=_NOT_YOURS) from None
    except TimeoutError:
        problem = f"no answer within {timeout:g} s; look at the server's log"
        raise ControlSocketError(path=path, problem=problem) from None
    except (OSError, ValueError) as error:
        raise ControlSocketError(path=path, problem=f"the server broke off ({error}); look at its log") from error
    if not isinstance(reply, dict) or "ok" not in reply:
        raise ControlSocketError(path=path, problem="what listens there is not a server of ours")
    return reply


def _exchange(path: Path, line: bytes, timeout: float) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        with _short(path) as address:
            connection.connect(address)
        server = peer_uid(connection)
        if server is not None and os.geteuid() != 0 and server not in (os.geteuid(), 0):
            raise ControlSocketError(path=path, problem=f"user {server} listens there, who is neither you nor root")
        connection.sendall(line)
        with connection.makefile("rb") as stream:
            return stream.readline()
