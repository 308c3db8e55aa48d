"""The first questions to a jail, like what its plugin serves, asked before there is an event loop for it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .errors import JailCallError, JailGoneError, JailProtocolError
from .frames import Decoder, Frame, FrameError, Kind, encode

__all__ = ["Greeting", "greet"]

_NUMBER = 0


@dataclass(slots=True)
class Greeting:
    """What the jail answered, and what it said behind that: whoever goes on reading begins with it."""

    answer: dict[str, Any]
    decoder: Decoder
    more: list[Frame] = field(default_factory=list)


def greet(
    connection: socket.socket,
    *,
    limit: float,
    on_log: Callable[[int, str, str], None],
    question: tuple[Any, ...] = ("load",),
    after: Greeting | None = None,
) -> Greeting:
    """Ask one question and wait for the answer; blocks.

    Args:
        connection: to a jail that has just been started.
        limit: seconds.
        on_log: is given each line that the jail writes meanwhile.
        question: the method and its arguments.
        after: the question before.

    Raises:
        JailCallError: the plugin cannot be loaded, and why.
        JailGoneError: the jail ended, or took too long.
        JailProtocolError: it answered something else.
    """
    deadline = time.monotonic() + limit
    decoder, frames = (after.decoder, after.more) if after is not None else (Decoder(), [])
    method, *args = question
    try:
        connection.sendall(encode(Kind.ASK, _NUMBER, method, args))
        while True:
            for position, frame in enumerate(frames):
                if frame.kind is Kind.ANSWER and frame.id == _NUMBER:
                    return Greeting(_answer(frame), decoder, frames[position + 1 :])
                _take(connection, frame, on_log)
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            piece = connection.recv(1 << 16)
            if not piece:
                raise JailGoneError("it ended while it was loading")
            frames = decoder.feed(piece)
    except TimeoutError as error:
        raise JailGoneError(f"it took longer than {limit:g} s to load") from error
    except OSError as error:
        raise JailGoneError(f"it ended while it was loading ({error.strerror})") from error
    except FrameError as error:
        raise JailProtocolError(str(error)) from error


def _answer(frame: Frame) -> dict[str, Any]:
    is_good, value = frame.payload
    if not isinstance(value, dict):
        raise JailProtocolError("what it says of itself is nothing of that kind")
    if not is_good:
        raise JailCallError(value)
    return value


def _take(connection: socket.socket, frame: Frame, on_log: Callable[[int, str, str], None]) -> None:
    if frame.kind is Kind.LOG:
        on_log(*frame.payload)
    elif frame.kind is Kind.CALL:
        wrong = {"type": "TooEarlyError", "text": "while a plugin is loaded, the host answers no calls; use on_enable"}
        connection.sendall(encode(Kind.REPLY, frame.id, False, wrong))
    else:
        raise JailProtocolError(f"it sent a frame of kind {frame.kind.name} before it was loaded")
