"""Which plugins make something go wrong, found with few runs. Pure: who asks carries out the runs.

The plugins stand in load order, so that any first so many of them can run: what they require comes
before them. Provided that more plugins never turn a bad run good, the shortest bad beginning of the
order ends in a culprit. A culprit found is kept on, and the shortest beginning that is still bad with
it ends in the next one, until the culprits alone, with what they require, are bad. Each culprit costs
log2 of the number of plugins, so that one among 500 is found with a dozen runs; two plugins that are
bad only together are found as well, as are three. (This is the search for a minimal unsatisfiable
core by bisection; ``git bisect`` knows the first half of it, delta debugging needs more runs for it.)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from .topology import Graph, reachable


class Verdict(StrEnum):
    """What a run says of the plugins that were enabled in it."""

    GOOD = "good"
    BAD = "bad"
    SKIP = "skip"
    """Nothing: it could not be tried."""


class Ending(StrEnum):
    """How a search ended."""

    FOUND = "found"
    ALWAYS_GOOD = "always good"
    """Not even all plugins together are bad."""
    ALWAYS_BAD = "always bad"
    """It is bad without any of the plugins that could be left out."""
    UNDECIDED = "undecided"
    """Too many runs said nothing: each of ``groups`` with several members holds one culprit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a search found. ``groups`` has one entry per culprit: its id, or those that it is one of."""

    ending: Ending
    groups: tuple[tuple[str, ...], ...] = ()
    runs: int = 0

    @property
    def culprits(self) -> tuple[str, ...]:
        """The plugins that are bad together, and good when any of them is left out."""
        return tuple(group[0] for group in self.groups if len(group) == 1)


Try = Callable[[frozenset[str]], Verdict]
"""Runs with exactly these plugins, which never lack what they require."""


def find_culprits(order: Sequence[str], requires: Graph, run: Try, *, always: Collection[str] = frozenset()) -> Finding:
    """Find a smallest set of plugins that makes ``run`` bad.

    Args:
        order: all plugins that can run, each after what it requires.
        requires: what each of them requires, by id.
        run: tells whether a set is good or bad; asked once for each set.
        always: plugins that stay on in every run, with what they require.
    """
    return _Search(order, requires, run, always).find()


@dataclass(slots=True)
class _Search:
    order: Sequence[str]
    requires: Graph
    run: Try
    always: Collection[str]
    known: dict[frozenset[str], Verdict] = field(default_factory=dict)
    groups: list[tuple[str, ...]] = field(default_factory=list)

    def find(self) -> Finding:
        if self._ask(len(self.order)) is not Verdict.BAD:
            return self._end(self._without_answer(len(self.order), Ending.ALWAYS_GOOD))
        beginning = len(self.order)
        while self._ask(0) is not Verdict.BAD:
            good, beginning = self._narrow(beginning)
            self.groups.insert(0, tuple(self.order[good:beginning]))
            beginning = good
        if not self.groups:
            return self._end(Ending.ALWAYS_BAD)
        return self._end(Ending.FOUND if all(len(each) == 1 for each in self.groups) else Ending.UNDECIDED)

    def _without_answer(self, length: int, otherwise: Ending) -> Ending:
        return Ending.UNDECIDED if self._ask(length) is Verdict.SKIP else otherwise

    def _end(self, ending: Ending) -> Finding:
        return Finding(ending=ending, groups=tuple(self.groups), runs=len(self.known))

    def _narrow(self, bad: int) -> tuple[int, int]:
        """Return the longest beginning known not to be bad and the shortest bad one, next to each other if possible."""
        good = 0
        while (middle := self._choose(good, bad)) is not None:
            if self._ask(middle) is Verdict.BAD:
                bad = middle
            else:
                good = middle
        return good, bad

    def _choose(self, good: int, bad: int) -> int | None:
        """Return the length nearest to the middle whose run says something, None when there is none between."""
        between = sorted(range(good + 1, bad), key=lambda length: abs(2 * length - good - bad))
        return next((each for each in between if self._ask(each) is not Verdict.SKIP), None)

    def _ask(self, length: int) -> Verdict:
        """Run with the culprits so far, the first ``length`` plugins, and what all of them require."""
        suspects = (each for group in self.groups for each in group)
        chosen = frozenset(reachable(self.requires, {*self.always, *suspects, *self.order[:length]}))
        if chosen not in self.known:
            self.known[chosen] = self.run(chosen)
        return self.known[chosen]
