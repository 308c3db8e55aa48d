"""Messages between the host's launcher and the zygote: JSON behind a length, with descriptors where need be."""

from __future__ import annotations

import json
import socket
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["receive", "send"]

_LENGTH = 4
_ROOM = socket.CMSG_LEN(8 * array("i").itemsize)


def send(connection: socket.socket, message: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Send a message and duplicates of descriptors; blocks while the other side does not read.

    Raises:
        OSError: there is no other side any more.
    """
    packed = json.dumps(message).encode()
    whole = len(packed).to_bytes(_LENGTH, "big") + packed
    sent = socket.send_fds(connection, [whole], descriptors) if descriptors else 0
    connection.sendall(whole[sent:])


def receive(connection: socket.socket) -> tuple[Any, list[int]] | None:
    """Return the next message and its descriptors, which are not inherited; None when the other side has closed."""
    descriptors: list[int] = []
    length = b""
    while len(length) < _LENGTH:
        # socket.recv_fds forgets its flags: what it returns, every program that the host starts would have.
        piece, ancillary, _, _ = connection.recvmsg(_LENGTH - len(length), _ROOM, socket.MSG_CMSG_CLOEXEC)
        for _, _, packed in ancillary:
            descriptors += memoryview(packed).cast("i")
        if not piece:
            return None
        length += piece
    left = int.from_bytes(length, "big")
    pieces: list[bytes] = []
    while left:
        piece = connection.recv(min(left, 1 << 16))
        if not piece:
            return None
        pieces.append(piece)
        left -= len(piece)
    return json.loads(b"".join(pieces)), descriptors
