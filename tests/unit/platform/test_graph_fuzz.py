"""Random dependency graphs: the plan never contradicts itself, nor a naive reading of the rules."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pixsim7_backend.infrastructure.plugins._plan.graph import make_plan
from pixsim7_backend.infrastructure.plugins._plan.plan import Candidate, Plan
from pixsim7_backend.infrastructure.plugins._plan.topology import cycles, topological_order, with_soft_edges
from pixsim7_backend.infrastructure.plugins.errors import PluginError, PluginHookError
from pixsim7_backend.infrastructure.plugins.states import PluginState
from pixsim7_backend.infrastructure.plugins.types import Requirement

from .candidates import COMMUNITY, ENTRY_POINT, FIRST_PARTY, broken, candidate

RANGES = ("", "", "", ">=1", ">=1,<3", "==2.*", "!=1.0.0")
VERSIONS = ("0.9", "1.0.0", "2.1", "3.0rc1")
HOST = "1.5"


@dataclass(frozen=True)
class Scenario:
    """The input of one planning."""

    candidates: tuple[Candidate, ...]
    disabled: frozenset[str]
    resources: Mapping[str, str]

    def plan(self, candidates: Iterable[Candidate] | None = None) -> Plan:
        given_candidates = self.candidates if candidates is None else candidates
        return make_plan(given_candidates, disabled=self.disabled, resource_problems=self.resources, host_version=HOST)


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    """Up to 200 plugins with missing, disabled, broken, circular, versioned, soft and hostile relations.

    Only the sizes are drawn one by one: a random source makes the rest, hundreds of times faster.
    """
    size = draw(st.integers(min_value=0, max_value=200))
    edges, soft, hostile, rare = (draw(st.sampled_from([0.0, 0.3, 1.0, 2.0])) for _ in range(4))
    is_layered = draw(st.booleans())
    source = random.Random(draw(st.integers(min_value=0, max_value=2**32)))
    names = [f"p-{number}" for number in range(size)]
    source.shuffle(names)

    def chosen(limit: int, mean: float) -> list[str]:
        count = min(int(source.expovariate(1 / mean)) if mean else 0, 6)
        return [source.choice(names[:limit] or ["gone"]) for _ in range(count)]

    def fields(number: int) -> dict[str, Any]:
        limit = number if is_layered else size
        needed = chosen(limit, edges) + (["gone-1"] if source.random() < 0.02 * rare else [])
        return {
            "version": source.choice(VERSIONS),
            "dependencies": [name + (source.choice(RANGES) if source.random() < 0.2 * rare else "") for name in needed],
            "after": chosen(size, soft),
            "conflicts": [name + source.choice(RANGES) for name in chosen(size, hostile / 4)],
            "enabled": source.random() > 0.03 * rare,
            "requires_db": source.random() < 0.1,
            "requires_host": source.choice(["", ">=1", ">=1", ">=2" if rare else ""]),
            "required": source.random() < 0.1,
        }

    made = tuple(
        broken(name)
        if source.random() < 0.02 * rare
        else candidate(name, source.choice([FIRST_PARTY, FIRST_PARTY, ENTRY_POINT, COMMUNITY]), **fields(number))
        for number, name in enumerate(names)
    )
    disabled = frozenset(name for name in names if source.random() < 0.03 * rare)
    return Scenario(made, disabled, {"db": "no database"} if source.random() < 0.3 else {})


# --- the naive reading of the rules -------------------------------------------------------------


class Oracle:
    """Works out the same answers with the simplest loops there are."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.by_id = {each.id: each for each in scenario.candidates}
        self.held = {each.id for each in scenario.candidates if self._is_held_alone(each)}
        live = {each.id for each in scenario.candidates if not self._is_off_or_broken(each)}
        self.in_circle = {name for name in live if name in self._reached(name, live)}
        self.held |= self.in_circle
        self.spread()
        self.settle_conflicts()
        self.order = self.naive_order()

    def needs(self, name: str) -> list[Requirement]:
        manifest = self.by_id[name].manifest
        return list(manifest.requirements) if manifest else []

    def _is_off_or_broken(self, each: Candidate) -> bool:
        return (
            each.error is not None or each.id in self.scenario.disabled or not (each.manifest and each.manifest.enabled)
        )

    def _is_held_alone(self, each: Candidate) -> bool:
        if self._is_off_or_broken(each):
            return True
        assert each.manifest is not None
        is_host_wrong = each.manifest.requires_host == ">=2"
        is_resource_gone = each.manifest.requires_db and bool(self.scenario.resources)
        return is_host_wrong or is_resource_gone or not all(map(self._is_there, each.manifest.requirements))

    def _is_there(self, requirement: Requirement) -> bool:
        other = self.by_id.get(requirement.plugin)
        return other is not None and (other.manifest is None or requirement.accepts(other.manifest.version))

    def _reached(self, start: str, within: set[str]) -> set[str]:
        found: set[str] = set()
        todo = [start]
        while todo:
            for requirement in self.needs(todo.pop()):
                if requirement.plugin in within and requirement.plugin not in found:
                    found.add(requirement.plugin)
                    todo.append(requirement.plugin)
        return found

    def spread(self) -> None:
        """Hold whoever needs something held, until nothing changes."""
        has_changed = True
        while has_changed:
            more = {n for n in self.by_id if n not in self.held and any(r.plugin in self.held for r in self.needs(n))}
            self.held |= more
            has_changed = bool(more)

    def hostile(self, one: str, other: str) -> bool:
        """One of the two declares a conflict with the other."""
        return any(
            exclusion.plugin == theirs and self._is_there(exclusion)
            for mine, theirs in ((one, other), (other, one))
            if (manifest := self.by_id[mine].manifest)
            for exclusion in manifest.exclusions
        )

    def settle_conflicts(self) -> None:
        """Seat the plugins, most trusted first, then in load order; keep out enemies of those seated."""
        order = self.naive_order()
        rank: dict[str, int] = {}
        for name in order:
            rank[name] = max([int(self.by_id[name].source.rank), *(rank[r.plugin] for r in self.needs(name))])
        seated: list[str] = []
        for name in sorted(order, key=lambda each: (rank[each], order.index(each))):
            is_base_held = any(requirement.plugin in self.held for requirement in self.needs(name))
            if is_base_held or any(self.hostile(name, other) for other in seated if other != name):
                self.held.add(name)
            else:
                seated.append(name)

    def naive_order(self) -> list[str]:
        """Again and again the smallest id of which everything that goes before it has gone."""
        running = sorted(name for name in self.by_id if name not in self.held)
        before = {name: {requirement.plugin for requirement in self.needs(name)} for name in running}
        for name in running:
            manifest = self.by_id[name].manifest
            for other in sorted(set(manifest.after if manifest else ())):
                if other in before and not _leads_to(before, other, name):
                    before[name] = before[name] | {other}
        order: list[str] = []
        while len(order) < len(running):
            order.append(next(n for n in running if n not in order and before[n] <= set(order)))
        return order


def _leads_to(before: Mapping[str, set[str]], start: str, goal: str) -> bool:
    found, todo = {start}, [start]
    while todo:
        new = before[todo.pop()] - found
        found |= new
        todo.extend(new)
    return goal in found


# --- properties ---------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(scenarios())
def test_held_sets_and_order_are_those_of_the_rules(scenario: Scenario) -> None:
    """Exactly the affected subtrees are held, and the rest comes in exactly the order of the rules."""
    plan, oracle = scenario.plan(), Oracle(scenario)
    assert set(plan.held) == oracle.held
    assert list(plan.order) == oracle.order
    assert {member for cycle in plan.cycles for member in cycle} == oracle.in_circle


@settings(max_examples=40, deadline=None)
@given(scenarios())
def test_a_plan_does_not_contradict_itself(scenario: Scenario) -> None:
    """Every id is loaded or held; what is loaded has all it needs before it; every reason names its plugin."""
    plan = scenario.plan()
    assert_consistent(plan, scenario)
    for plugin_id, error in plan.held.items():
        assert error.plugin == plugin_id
        assert str(error)
        if error.state is not PluginState.DISABLED:
            assert error in plan.problems
    for cycle in plan.cycles:
        assert cycle[0] == cycle[-1] == min(cycle)
        assert len(set(cycle)) == len(cycle) - 1
        assert all(needed in plan.requires[each] for each, needed in itertools.pairwise(cycle))


def assert_consistent(plan: Plan, scenario: Scenario) -> None:
    """Check what must hold for every plan, also a shrunk one."""
    assert sorted([*plan.order, *plan.held]) == sorted(each.id for each in scenario.candidates)
    place = {plugin_id: number for number, plugin_id in enumerate(plan.order)}
    for plugin_id in plan.order:
        manifest = plan.candidates[plugin_id].manifest
        assert manifest is not None
        assert manifest.enabled
        for requirement in manifest.requirements:
            other = plan.candidates[requirement.plugin].manifest
            assert other is not None
            assert requirement.accepts(other.version)
            assert place[requirement.plugin] < place[plugin_id]
        for exclusion in manifest.exclusions:
            enemy = plan.candidates.get(exclusion.plugin)
            if enemy and enemy.id in place and enemy.id != plugin_id and enemy.manifest:
                assert not exclusion.accepts(enemy.manifest.version)


@settings(max_examples=40, deadline=None)
@given(scenarios(), st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_matter(scenario: Scenario, shuffler: random.Random) -> None:
    """The same candidates in any order give the same plan, word for word."""
    shuffled = list(scenario.candidates)
    shuffler.shuffle(shuffled)
    assert scenario.plan().to_json() == scenario.plan(shuffled).to_json()


@settings(max_examples=40, deadline=None)
@given(scenarios(), st.lists(st.integers(min_value=0, max_value=999), max_size=20, unique=True))
def test_unrelated_plugins_move_nobody(scenario: Scenario, numbers: list[int]) -> None:
    """Plugins that have nothing to do with the others change neither their order nor what is held."""
    strangers = [candidate(f"p-{number}-stranger") for number in numbers]
    before, after = scenario.plan(), scenario.plan([*scenario.candidates, *strangers])
    assert [each for each in after.order if not each.endswith("stranger")] == list(before.order)
    assert set(after.held) == set(before.held)


@settings(max_examples=40, deadline=None)
@given(scenarios(), st.data())
def test_a_load_failure_holds_exactly_its_subtree(scenario: Scenario, data: st.DataObject) -> None:
    """``without`` holds the plugin and all that need it, leaves the rest in order, and stays consistent."""
    plan = scenario.plan()
    for _ in range(min(3, len(plan.order))):
        culprit = data.draw(st.sampled_from(plan.order))
        error: PluginError = PluginHookError(plugin=culprit, hook="on_load", cause=ValueError("no"))
        after = plan.without(culprit, error)
        affected = {culprit}
        for plugin_id in plan.order:
            if affected & set(plan.requires[plugin_id]):
                affected.add(plugin_id)
        assert set(after.held) - set(plan.held) == affected
        assert list(after.order) == [each for each in plan.order if each not in affected]
        assert after.held[culprit] is error
        assert set(plan.shutdown_order(culprit)) == affected
        assert_consistent(after, scenario)
        plan = after
        if not plan.order:
            break


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcdefghij"), st.sets(st.sampled_from("abcdefghij"), max_size=4), max_size=10),
    st.lists(st.tuples(st.sampled_from("abcdefghij"), st.sampled_from("abcdefghij")), max_size=12),
)
def test_soft_edges_never_close_a_circle(edges: dict[str, set[str]], soft: list[tuple[str, str]]) -> None:
    """A circle-free graph stays so, and every edge left out would have closed one."""
    nodes = sorted(edges)
    firm = {node: {each for each in edges[node] if each in edges and each < node} for node in nodes}
    wanted = [(node, before) for node, before in soft if node in edges and before in edges]
    graph, left_out = with_soft_edges(firm, wanted)
    assert len(topological_order(graph)) == len(nodes)
    assert not cycles(graph)
    for node, before in left_out:
        assert _leads_to(graph, before, node)
        assert before not in firm[node]
    assert all(before in graph[node] for node, before in wanted if (node, before) not in left_out)
