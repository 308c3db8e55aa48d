"""Frames: what is written is read again, and whatever else comes is refused before it does harm."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixsim7_backend.infrastructure.plugins._jail.frames import (
    MAX_DEPTH,
    MAX_FRAME,
    Decoder,
    Frame,
    FrameError,
    Kind,
    encode,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def framed(value: Any) -> bytes:
    """Return any value as a frame would carry it, whether it is one or not."""
    packed: bytes = msgpack.packb(value)
    return len(packed).to_bytes(4, "big") + packed


@given(st.lists(st.tuples(st.integers(0, 2**63 - 1), st.text(max_size=20), st.lists(VALUES, max_size=3)), max_size=4),
       st.integers(1, 40))  # fmt: skip
def test_what_is_written_is_read_in_pieces_of_any_size(calls: list[tuple[int, str, list[Any]]], size: int) -> None:
    """Pieces need not begin or end where frames do."""
    sent = b"".join(encode(Kind.CALL, number, method, args) for number, method, args in calls)
    decoder = Decoder()
    frames = [frame for start in range(0, len(sent), size) for frame in decoder.feed(sent[start : start + size])]
    assert frames == [Frame(Kind.CALL, number, (method, args)) for number, method, args in calls]


@given(st.binary(max_size=200))
def test_random_bytes_are_frames_or_an_error(content: bytes) -> None:
    """Nothing else can come of a stranger's bytes, and no more is kept than came."""
    decoder = Decoder()
    try:
        frames = decoder.feed(content)
    except FrameError:
        return
    assert all(frame.kind in Kind for frame in frames)


@given(VALUES, st.binary(max_size=8))
def test_random_values_are_frames_or_an_error(value: Any, tail: bytes) -> None:
    """Well-formed MessagePack is no frame yet."""
    try:
        frames = Decoder().feed(framed(value) + tail)
    except FrameError:
        return
    assert len(frames) <= 1 or tail


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (None, "a frame is an array"),
        ([], "a frame is an array"),
        ([99, 1], "no frame of kind 99"),
        ([True, 1, {}], "no frame of kind True"),
        (["3", 1, {}], "no frame of kind '3'"),
        ([3, -1, {}], "kind SEND has a wrong number"),
        ([3, True, {}], "kind SEND has a wrong number"),
        ([3, 1.0, {}], "kind SEND has a wrong number"),
        ([3, 2**63, {}], "kind SEND has a wrong number"),
        ([3, 1], "kind SEND has a wrong payload"),
        ([3, 1, []], "kind SEND has a wrong payload"),
        ([3, 1, {}, []], "kind SEND has a wrong payload"),
        ([3, 1, {}, {}, {}], "kind SEND has a wrong payload"),
        ([2, 1, {}, {}], "kind RECEIVE has a wrong payload"),
        ([5, 1, True], "kind CREDIT has a wrong payload"),
        ([8, 1, 1, None], "kind REPLY has a wrong payload"),
        ([4, 1, "no"], "kind END has a wrong payload"),
        ([4, 1], "kind END has a wrong payload"),
        ([4, 1, None, []], "kind END has a wrong payload"),
        ([4, 1, None, {}, {}, {}], "kind END has a wrong payload"),
        ([8, 1, True, msgpack.ExtType(3, b"x")], "MessagePack"),
        ([8, 1, True, msgpack.Timestamp(1)], "MessagePack"),
    ],
)
def test_what_has_another_shape_is_refused(value: Any, what: str) -> None:
    """Kind, number and payload are checked by their exact types."""
    with pytest.raises(FrameError, match=what):
        Decoder().feed(framed(value))


def test_an_announced_length_is_refused_before_its_bytes_come() -> None:
    """Four bytes that promise four gigabytes take no memory."""
    with pytest.raises(FrameError, match="4,294,967,295 bytes was announced; 1,048,576 are allowed"):
        Decoder().feed(b"\xff\xff\xff\xff")


def test_a_frame_larger_than_the_limit_cannot_be_written() -> None:
    """The limit is the same on both sides."""
    with pytest.raises(FrameError, match="kind SEND has"):
        encode(Kind.SEND, 1, {"body": bytes(MAX_FRAME)})


def test_deep_values_are_refused_without_recursion() -> None:
    """Neither a few levels too many nor thousands of them reach code that would follow them down."""
    value: Any = None
    for _ in range(MAX_DEPTH + 1):
        value = [value]
    with pytest.raises(FrameError, match="more than 32 deep"):
        Decoder().feed(framed([8, 1, True, value]))
    bomb = b"\x94\x08\x01\xc3" + b"\x91" * 100_000 + b"\xc0"
    with pytest.raises(FrameError, match="no MessagePack"):
        Decoder().feed(len(bomb).to_bytes(4, "big") + bomb)


def test_text_must_be_utf8_and_nothing_may_follow() -> None:
    """Bytes that only look like text, and bytes behind the value, are no part of a frame."""
    for packed in (b"\x94\x08\x01\xc3\xa1\xff", msgpack.packb([6, 1]) + b"\xc0"):
        with pytest.raises(FrameError, match="no MessagePack"):
            Decoder().feed(len(packed).to_bytes(4, "big") + packed)


def test_what_messagepack_cannot_say_is_an_error_of_the_writer() -> None:
    """No object is turned into something else on the way, and a number that is too large is not cut."""
    for value in (object(), 2**70, {1, 2}):
        with pytest.raises(FrameError, match="cannot be written"):
            encode(Kind.REPLY, 1, True, value)
