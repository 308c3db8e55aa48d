"""Values on their way between a jail and the database."""

from __future__ import annotations

import enum
import uuid
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixsim7_backend.community.database.wire import WireError, from_wire, size_of, to_wire

_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**80), 2**80), st.floats(allow_nan=False), st.text(), st.binary(),
    st.datetimes(), st.datetimes(timezones=st.just(UTC)), st.dates(), st.times(), st.timedeltas(), st.uuids(),
    st.decimals(allow_nan=False),
)  # fmt: skip
_ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.binary(max_size=20)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(st.text(max_size=2), st.integers()), inner, max_size=3)
    ),
    max_leaves=20,
)


@given(st.lists(st.one_of(_VALUES, st.lists(_VALUES, max_size=3)), max_size=5))
def test_values_come_back_equal(row: list[Any]) -> None:
    """What is sent is received, of the same type, through MessagePack; and takes no more bytes than was said."""
    sent = [to_wire(value) for value in row]
    packed = msgpack.packb(sent)
    assert len(packed) <= size_of(sent)
    received = [from_wire(value) for value in msgpack.unpackb(packed)]
    assert received == row
    assert list(map(type, received)) == list(map(type, row))


@given(_ANYTHING)
def test_nonsense_is_refused(value: Any) -> None:
    """Whatever a jail sends is a value of a known type, or a WireError: never anything else."""
    try:
        received = from_wire(value)
    except WireError:
        return
    assert isinstance(
        received, (type(None), bool, int, float, str, bytes, datetime, date, time, timedelta, Decimal, uuid.UUID, list)
    )


@pytest.mark.parametrize("tag", list("tdcemnu"))
@given(content=_ANYTHING)
def test_nonsense_behind_a_tag_is_refused(tag: str, content: Any) -> None:
    """A tag says what must follow; anything else is a WireError."""
    try:
        from_wire({tag: content})
    except WireError:
        return
    assert isinstance(content, (str, bytes, list))


def test_other_zones_come_as_utc() -> None:
    """A moment keeps its meaning; of its zone only the offset is sent."""
    berlin = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=1)))
    assert from_wire(to_wire(berlin)) == berlin
    assert from_wire(to_wire(berlin)).tzinfo is UTC


def test_subclasses_go_as_what_they_are() -> None:
    """Members of enumerations and other subclasses are sent as the plain value."""

    class Colour(enum.StrEnum):
        RED = "red"

    class Level(enum.IntEnum):
        HIGH = 3

    assert [to_wire(Colour.RED), to_wire(Level.HIGH), to_wire(bytearray(b"x"))] == ["red", 3, b"x"]
    assert [type(to_wire(each)) for each in (Colour.RED, Level.HIGH)] == [str, int]


def test_objects_are_not_sent() -> None:
    """A value of a type that no column has is refused by name."""
    with pytest.raises(WireError, match=r"of type object cannot be sent"):
        to_wire(object())
