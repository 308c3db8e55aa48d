"""What makes a set of hotspots a valid one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pixsim7_backend.plugins.game_locations.rules import repeated_hotspots


def test_a_repeated_pair_is_named_once_in_order() -> None:
    """Object and id together are the key: the same id on two objects is fine."""
    assert repeated_hotspots([("door", "a"), ("chest", "a"), ("door", "b")]) == ()
    assert repeated_hotspots([("door", "a"), ("chest", "a"), ("chest", "a"), ("door", "a"), ("door", "a")]) == (
        ("door", "a"),
        ("chest", "a"),
    )


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"))))
def test_nothing_is_repeated_exactly_when_all_keys_differ(keys: list[tuple[str, str]]) -> None:
    """Against the plain reading: as many different keys as keys."""
    assert (repeated_hotspots(keys) == ()) is (len(set(keys)) == len(keys))
