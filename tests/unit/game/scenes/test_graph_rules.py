from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pixsim7_backend.plugins.game_scenes.rules import find_graph_problems, find_unreachable, name_edges


def test_a_sound_graph_has_no_problems() -> None:
    """Loops, several edges between two nodes and a missing entry are all fine."""
    links = [("one", "a", "b"), ("two", "a", "b"), ("three", "b", "b")]
    assert find_graph_problems(["a", "b"], links, "a") == ()
    assert find_graph_problems(["a", "b"], links, None) == ()
    assert find_graph_problems([], [], None) == ()


def test_every_problem_is_named_at_once() -> None:
    """Repeated ids, edges into nowhere and a missing entry are all reported, each with its id."""
    problems = find_graph_problems(["a", "a"], [("e", "a", "x"), ("e", "y", "a")], "z")
    assert problems == (
        "node id 'a' is used more than once",
        "edge id 'e' is used more than once",
        "edge 'e' goes to 'x', which is not a node of this scene",
        "edge 'e' goes from 'y', which is not a node of this scene",
        "entry node 'z' is not a node of this scene",
    )


def test_nodes_that_no_walk_reaches_are_listed_in_their_order() -> None:
    """Direction matters: a node that only leads into the graph is unreachable."""
    links = [("1", "a", "b"), ("2", "c", "b"), ("3", "d", "c"), ("4", "b", "a")]
    assert find_unreachable(["d", "a", "b", "c"], links, "a") == ("d", "c")
    assert find_unreachable(["a", "b"], links, None) == ("a", "b")


def test_edges_without_an_id_are_named_after_their_nodes() -> None:
    """Chosen ids stay, and the names made up avoid them and each other."""
    links = [(None, "a", "b"), ("a--b~2", "a", "b"), (None, "a", "b"), (None, "b", "a"), ("mine", "b", "a")]
    assert name_edges(links) == ("a--b", "a--b~2", "a--b~3", "b--a", "mine")


_ids = st.sampled_from("abcd")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.none() | st.sampled_from(["a--b", "x"]), _ids, _ids), max_size=12))
def test_naming_is_stable_and_adds_no_clash(links: list[tuple[str | None, str, str]]) -> None:
    """Naming the named graph again changes nothing, and made-up names are unique."""
    names = name_edges(links)
    again = name_edges([(name, start, end) for name, (_, start, end) in zip(names, links, strict=True)])
    made_up = [name for name, (chosen, _, _) in zip(names, links, strict=True) if chosen is None]
    chosen_ones = {chosen for chosen, _, _ in links if chosen is not None}
    assert again == names
    assert len(set(made_up) | chosen_ones) == len(made_up) + len(chosen_ones)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(_ids, _ids), max_size=10))
def test_reachable_nodes_are_closed_under_edges(pairs: list[tuple[str, str]]) -> None:
    """No edge leads from a reachable node to an unreachable one, and the entry is reachable."""
    links = [(str(number), start, end) for number, (start, end) in enumerate(pairs)]
    lost = set(find_unreachable(list("abcd"), links, "a"))
    assert "a" not in lost
    assert not [link for link in links if link[1] not in lost and link[2] in lost]
