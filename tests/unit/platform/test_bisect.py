"""Finding culprits: any one in log n runs, pairs and more, never a run that lacks what is required."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixsim7_backend.infrastructure.plugins._plan.bisect import Ending, Verdict, find_culprits
from pixsim7_backend.infrastructure.plugins._plan.topology import reachable


@st.composite
def orders(draw: st.DrawFn, most: int = 24) -> tuple[list[str], dict[str, list[str]]]:
    """A load order and who requires whom in it."""
    order = [f"p{number:03}" for number in range(draw(st.integers(1, most)))]
    requires = {
        each: draw(st.lists(st.sampled_from(order[:place]), max_size=3, unique=True)) if place else []
        for place, each in enumerate(order)
    }
    return order, requires


class Runs:
    """Bad when all members of one of the bad sets are enabled; complains of incomplete sets."""

    def __init__(self, requires: dict[str, list[str]], bad: list[set[str]], skipped: set[str] = frozenset()) -> None:  # type: ignore[assignment]
        self.requires = requires
        self.bad = bad
        self.skipped = skipped
        self.count = 0

    def __call__(self, enabled: frozenset[str]) -> Verdict:
        self.count += 1
        assert reachable(self.requires, enabled) == enabled, "a run lacks what a plugin requires"
        if any(each <= enabled for each in self.bad):
            return Verdict.BAD
        return Verdict.SKIP if self.skipped & enabled else Verdict.GOOD


@pytest.mark.parametrize("count", [1, 2, 8, 100, 500])
def test_one_culprit_is_found_in_logarithmic_time(count: int) -> None:
    """Whichever of them it is: two runs to begin with, one for each halving, one to make sure."""
    order = [f"p{number:03}" for number in range(count)]
    requires: dict[str, list[str]] = {each: [] for each in order}
    for culprit in order[:: max(1, count // 50)]:
        runs = Runs(requires, [{culprit}])
        finding = find_culprits(order, requires, runs)
        assert (finding.ending, finding.culprits) == (Ending.FOUND, (culprit,))
        assert runs.count == finding.runs <= 3 + math.ceil(math.log2(count)) if count > 1 else 3


@settings(max_examples=150, deadline=None)
@given(orders(), st.data())
def test_what_is_found_is_bad_and_smallest(graph: tuple[list[str], dict[str, list[str]]], data: st.DataObject) -> None:
    """Whatever requires what, and is bad together: what is found is bad, and good without any one of it."""
    order, requires = graph
    sets = st.sets(st.sampled_from(order), min_size=1, max_size=3)
    runs = Runs(requires, data.draw(st.lists(sets, min_size=1, max_size=3)))
    finding = find_culprits(order, requires, runs)
    assert finding.ending is Ending.FOUND
    assert runs.count == finding.runs <= 2 + len(finding.culprits) * (2 + math.ceil(math.log2(len(order) + 1)))
    assert runs(frozenset(reachable(requires, finding.culprits))) is Verdict.BAD
    for culprit in finding.culprits:
        others = [each for each in finding.culprits if each != culprit]
        assert runs(frozenset(reachable(requires, others))) is Verdict.GOOD


@settings(max_examples=100, deadline=None)
@given(orders(), st.data())
def test_runs_that_say_nothing_widen_the_answer_but_never_lose_it(
    graph: tuple[list[str], dict[str, list[str]]], data: st.DataObject
) -> None:
    """Where runs are skipped the culprit is still in its group; where that is one plugin, it is found."""
    order, requires = graph
    culprit = data.draw(st.sampled_from(order))
    runs = Runs(requires, [{culprit}], skipped=set(data.draw(st.lists(st.sampled_from(order), max_size=3))))
    finding = find_culprits(order, requires, runs)
    assert any(culprit in reachable(requires, group) for group in finding.groups)
    assert (finding.ending is Ending.FOUND) == all(len(group) == 1 for group in finding.groups)


def test_plugins_that_stay_on_are_in_every_run() -> None:
    """What cannot be left out is not suspected, and bad on its own it ends the search at once."""
    order, requires = ["b", "c"], {"a": [], "b": ["a"], "c": ["a"]}
    runs = Runs(requires, [{"a", "c"}])
    assert find_culprits(order, requires, runs, always={"a"}).culprits == ("c",)
    finding = find_culprits(order, requires, Runs(requires, [{"a"}]), always={"a"})
    assert (finding.ending, finding.culprits, finding.runs) == (Ending.ALWAYS_BAD, (), 2)


def test_a_good_or_untried_whole_is_said() -> None:
    """When all together are good there is nothing to find; when that cannot be tried nothing is known."""
    order: list[str] = ["a", "b"]
    requires: dict[str, list[str]] = {"a": [], "b": []}
    assert find_culprits(order, requires, Runs(requires, [])).ending is Ending.ALWAYS_GOOD
    assert find_culprits(order, requires, Runs(requires, [], skipped={"a"})).ending is Ending.UNDECIDED
