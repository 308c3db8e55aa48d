"""What events may carry between processes."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from datetime import date
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixsim7_backend.infrastructure.plugins._jail.frames import Decoder, Kind, encode
from pixsim7_backend.infrastructure.plugins._jail.services.payload import PayloadError, plain_payload

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
WHOLE = st.integers(-(2**62), 2**62)
PLAIN = st.recursive(
    st.none() | st.booleans() | WHOLE | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


class Colour(StrEnum):
    RED = "red"


class Malicious:
    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return eval, ("1/0",)


@given(st.lists(PLAIN, max_size=3), st.dictionaries(st.sampled_from("abc"), PLAIN, max_size=3))
def test_plain_values_go_and_stay_what_they_are(args: list[Any], kwargs: dict[str, Any]) -> None:
    """As JSON and in a frame, and as a copy: the emitter may change its own afterwards."""
    try:
        plain_args, plain_kwargs, size = plain_payload(args, kwargs)
    except PayloadError as error:
        assert "deep" in str(error)  # noqa: PT017 - only those that are nested too deep
        return
    assert (plain_args, plain_kwargs) == (args, kwargs)
    assert len(json.dumps([args, kwargs], ensure_ascii=False)) <= 8 * size + 100
    (frame,) = Decoder().feed(encode(Kind.ASK, 1, "event", ["a:b", plain_args, plain_kwargs]))
    assert frame.payload[1] == ["a:b", args, kwargs]
    assert all(mine is not theirs for mine, theirs in zip(plain_args, args, strict=True) if isinstance(theirs, dict))


def test_what_json_makes_of_values_is_made_of_them() -> None:
    """Tuples become lists, and members of text enumerations texts."""
    args, _, _ = plain_payload([(1, Colour.RED)], {})
    assert args == [[1, "red"]]
    assert type(args[0][1]) is str


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"bytes", "a bytes, which JSON does not know"), (date(2026, 1, 1), "a date"), ({1}, "a set"),
        (object(), "a object"),
        ({1: 2}, "a int as a key"), (float("nan"), "nan"), (2**63, "64 bits"), ("\ud800", "half a character"),
        ("x" * 70_000, "larger than 65,536 bytes"), ([0] * 9_000, "larger than"), (pickle.dumps({}), "a bytes"),
    ],
)  # fmt: skip
def test_other_values_are_refused(value: Any, why: str) -> None:
    """Objects, what only looks like JSON, and what is too much; wherever it lies."""
    for args, kwargs in (([value], {}), ([[value]], {}), ([], {"a": {"b": value}})):
        with pytest.raises(PayloadError, match=why):
            plain_payload(args, kwargs)


def test_endless_values_are_refused() -> None:
    """One that holds itself is nested too deep."""
    value: list[Any] = []
    value.append(value)
    with pytest.raises(PayloadError, match="deep"):
        plain_payload([value], {})


def test_attack_pickle() -> None:
    """An object that runs code when it is unpickled cannot be said, and as bytes it is nothing that events carry."""
    packed = pickle.dumps(Malicious())
    with pytest.raises(ZeroDivisionError):
        pickle.loads(packed)  # noqa: S301 - bare, it runs
    for value in (Malicious(), packed):
        with pytest.raises(PayloadError):
            plain_payload([value], {})
    (frame,) = Decoder().feed(encode(Kind.CALL, 1, "redis.execute", [packed]))
    assert frame.payload[1] == [packed], "bytes stay bytes, and nobody loads them"
