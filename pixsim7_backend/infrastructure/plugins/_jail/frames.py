"""What goes over the one socket between the host and a jail. Pure: bytes in, frames out.

On the wire a frame is four bytes of length, big-endian, and so many bytes of MessagePack: an array of
its kind, a number (of a stream, a call or a question) and what its kind needs. MessagePack knows no
objects: nothing that is received can run code, as a pickle could.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Any, NamedTuple

import msgpack

__all__ = ["MAX_DEPTH", "MAX_FRAME", "Decoder", "Frame", "FrameError", "Kind", "encode"]

MAX_FRAME = 1 << 20
"""Bytes that a frame may have, its length not counted."""
MAX_DEPTH = 32
"""How deep the values of calls, questions and what comes of them may lie in one another."""
_MAX_NUMBER = (1 << 63) - 1
_LENGTH = 4


class Kind(IntEnum):
    """What a frame says; in parentheses who sends it, and what stands behind its number."""

    REQUEST = 1
    """(host) A request or WebSocket begins on a new stream: its scope, and its first message if that is there."""
    RECEIVE = 2
    """(host) The next ASGI message that the application of a stream receives."""
    SEND = 3
    """(jail) The next ASGI message that the application of a stream sends, or the next two."""
    END = 4
    """(jail) The application of a stream is done: None, or what it raised; and up to two messages before that."""
    CREDIT = 5
    """(both) So many more bytes of body may be sent on a stream."""
    CANCEL = 6
    """(host) Nobody waits for the stream any more."""
    CALL = 7
    """(jail) Something is wanted of the host: method and arguments. The jail counts its calls."""
    REPLY = 8
    """(host) What came of a call: whether it succeeded, and its value or what was wrong."""
    ASK = 9
    """(host) Something is wanted of the jail: method and arguments. The host counts its questions."""
    ANSWER = 10
    """(jail) What came of a question, as in a reply."""
    LOG = 11
    """(jail) A line for the log: level, logger and text. Its number is 0."""


class Frame(NamedTuple):
    """One frame: what it says, of which stream, call or question, and what its kind needs."""

    kind: Kind
    id: int
    payload: tuple[Any, ...] = ()


class FrameError(Exception):
    """The other side sent something that is no frame."""


_MAPPING, _NUMBER, _TEXT, _LIST, _FLAG = (frozenset({kind}) for kind in (dict, int, str, list, bool))
#: The exact types of each kind's payload, so that a bool is no number; None is any.
_SHAPES: Mapping[Kind, tuple[frozenset[type] | None, ...]] = {
    Kind.REQUEST: (_MAPPING, _MAPPING),
    Kind.RECEIVE: (_MAPPING,),
    Kind.SEND: (_MAPPING, _MAPPING),
    Kind.END: (_MAPPING | {type(None)}, _MAPPING, _MAPPING),
    Kind.CREDIT: (_NUMBER,),
    Kind.CANCEL: (),
    Kind.CALL: (_TEXT, _LIST),
    Kind.REPLY: (_FLAG, None),
    Kind.ASK: (_TEXT, _LIST),
    Kind.ANSWER: (_FLAG, None),
    Kind.LOG: (_NUMBER, _TEXT, _TEXT),
}


#: How many values must be there, where not all that are listed.
_LEAST: Mapping[Kind, int] = {Kind.REQUEST: 1, Kind.SEND: 1, Kind.END: 1}


def encode(kind: Kind, number: int, *payload: Any) -> bytes:
    """Return the bytes of a frame.

    Raises:
        FrameError: it is too large, or holds what MessagePack cannot say.
    """
    try:
        packed: bytes = msgpack.packb((int(kind), number, *payload), use_bin_type=True)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise FrameError(f"a frame of kind {kind.name} cannot be written: {error}") from error
    if len(packed) > MAX_FRAME:
        raise FrameError(f"a frame of kind {kind.name} has {len(packed):,} bytes; {MAX_FRAME:,} are allowed")
    return len(packed).to_bytes(_LENGTH, "big") + packed


class Decoder:
    """Turns bytes, in pieces as they come, into frames.

    It never holds more than one frame and the last piece: a length above ``limit`` is refused before
    its bytes are waited for. After an error it is of no use.
    """

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self._limit = limit
        self._buffer = bytearray()

    def feed(self, piece: bytes | bytearray | memoryview) -> list[Frame]:
        """Take bytes in; return the frames that are complete with them.

        Raises:
            FrameError: they are no frames.
        """
        buffer = self._buffer
        if buffer:
            buffer += piece
            piece = buffer
        frames: list[Frame] = []
        start, end = 0, len(piece)
        while end - start >= _LENGTH:
            body = start + _LENGTH
            length = int.from_bytes(piece[start:body], "big")
            if length > self._limit:
                raise FrameError(f"a frame of {length:,} bytes was announced; {self._limit:,} are allowed")
            if end - body < length:
                break
            start = body + length
            frames.append(_parse(piece[body:start]))
        if piece is buffer:
            del buffer[:start]
        elif start < end:
            buffer += piece[start:]
        return frames


def _parse(packed: bytes | bytearray | memoryview) -> Frame:
    size = len(packed)
    try:
        value = msgpack.unpackb(
            packed, raw=False, strict_map_key=False, ext_hook=_refuse_extension, max_str_len=size, max_bin_len=size,
            max_array_len=size, max_map_len=size, max_ext_len=0,
        )  # fmt: skip
    except FrameError:
        raise
    except Exception as error:
        raise FrameError(f"a frame is no MessagePack: {error}") from error
    return _check(value)


def _refuse_extension(code: int, _packed: bytes) -> Any:
    raise FrameError(f"a frame holds an extension type ({code})")


def _check(value: object) -> Frame:
    if not isinstance(value, list) or len(value) < 2:
        raise FrameError("a frame is an array of a kind, a number and what its kind needs")
    code, number = value[:2]
    payload = tuple(value[2:])
    kind = _KINDS.get(code) if type(code) is int else None
    if kind is None:
        raise FrameError(f"there is no frame of kind {code!r}")
    if type(number) is not int or not 0 <= number <= _MAX_NUMBER:
        raise FrameError(f"a frame of kind {kind.name} has a wrong number")
    if not _fits(payload, _SHAPES[kind], _LEAST.get(kind)):
        raise FrameError(f"a frame of kind {kind.name} has a wrong payload")
    if kind not in _FLAT and _depth_exceeds(payload, MAX_DEPTH):
        raise FrameError(f"the values of a frame lie more than {MAX_DEPTH} deep in one another")
    return Frame(kind, number, payload)


def _fits(payload: tuple[Any, ...], shape: tuple[frozenset[type] | None, ...], least: int | None) -> bool:
    """Tell whether the values are of these exact types, None stands for any, and so many; the last may be missing."""
    count = len(payload)
    if count != len(shape) and (least is None or not least <= count <= len(shape)):
        return False
    for value, kinds in zip(payload, shape, strict=False):
        if kinds is not None and type(value) not in kinds:
            return False
    return True


_KINDS: Mapping[int, Kind] = {int(kind): kind for kind in Kind}
#: Kinds of which only named members are read, however deep the others are.
_FLAT = frozenset({Kind.REQUEST, Kind.RECEIVE, Kind.SEND})


def _depth_exceeds(values: Iterable[Any], limit: int) -> bool:
    """Tell whether containers lie deeper than ``limit``, without recursion: a stranger chose the depth."""
    level = [each for each in values if isinstance(each, (list, dict))]
    depth = 0
    while level:
        depth += 1
        if depth > limit:
            return True
        inner: list[Any] = []
        for each in level:
            for value in each if isinstance(each, list) else each.values():
                if isinstance(value, (list, dict)):
                    inner.append(value)  # noqa: PERF401 - a comprehension over both kinds would hide the point
        level = inner
    return False
