"""Hands what a PostgreSQL server sends to its driver in pieces, so that somebody counts before memory is taken.

libpq makes room for a whole row when its length is announced, and one call of it then reads for as long as the server
sends. So it sees the server only for the first piece of an answer; from then on the far end of a socket pair has
its descriptor, into which no more is put than was counted. Bytes stay as they are, encrypted ones too.
"""

from __future__ import annotations

import os
import socket
import sys

import psycopg
from psycopg import pq

__all__ = ["Relay"]

_PIECE = 64 << 10


class Relay:
    """Between the server and the driver while one answer is read. Only the thread that reads uses it."""

    def __init__(self, pgconn: pq.abc.PGconn) -> None:
        self._pgconn = pgconn
        self._descriptor = pgconn.socket
        self._has_read = False
        self._between: tuple[socket.socket, socket.socket] | None = None
        """To the server, and to what the driver takes for it."""

    def fileno(self) -> int:
        """Return the descriptor on which the server is heard."""
        return self._descriptor if self._between is None else self._between[0].fileno()

    def take(self) -> int:
        """Let the driver have what has come; return at least how many bytes that were.

        Raises:
            psycopg.OperationalError: the connection is gone.
        """
        if not self._has_read:
            self._has_read = True
            before = _waiting_bytes(self._descriptor)
            self._pgconn.consume_input()
            return before
        server, near = self._between = self._between or self._step_between()
        try:
            piece = server.recv(_PIECE)
        except BlockingIOError:  # it is the driver's, which never waits
            return 0
        if not piece:
            near.shutdown(socket.SHUT_WR)
            self._pgconn.consume_input()
            raise psycopg.OperationalError("the server has closed the connection")
        near.sendall(piece)  # the pair is empty, and has room for more
        self._pgconn.consume_input()
        while _waiting_bytes(self._descriptor):
            self._pgconn.consume_input()
        return len(piece)

    def close(self) -> None:
        """Let the driver see the server again, unless it has closed its end."""
        if self._between is None:
            return
        server, near = self._between
        with server, near:
            if self._pgconn.status == pq.ConnStatus.OK and self._pgconn.socket == self._descriptor:
                os.dup2(server.fileno(), self._descriptor, inheritable=False)

    def _step_between(self) -> tuple[socket.socket, socket.socket]:
        server = socket.socket(fileno=os.dup(self._descriptor))
        near, far = socket.socketpair()
        with far:
            far.setblocking(False)
            os.dup2(far.fileno(), self._descriptor, inheritable=False)
        return server, near


def _waiting_bytes(descriptor: int) -> int:
    """Return how many bytes have come and are not read."""
    import fcntl  # late: other systems than those that confine plugins may lack it
    import termios

    found = fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4))
    return int.from_bytes(found, sys.byteorder)
