"""Directed graphs of names: components, cycles, order. Pure; knows nothing of plugins.

A graph maps each node to the nodes that go before it; every such node is a key as well.
All answers depend on the names only, never on the order in which nodes or edges were given.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Iterable, Mapping

Graph = Mapping[str, Collection[str]]
Edge = tuple[str, str]
"""(node, the node that goes before it)"""


def reachable(graph: Graph, starts: Iterable[str]) -> set[str]:
    """Return ``starts`` and everything that can be reached from them."""
    found = set(starts)
    queue = deque(found)
    while queue:
        new = set(graph[queue.popleft()]) - found
        found |= new
        queue.extend(new)
    return found


def reversed_graph(graph: Graph) -> dict[str, list[str]]:
    """Return the graph with every edge turned round; neighbours are sorted."""
    turned: dict[str, list[str]] = {node: [] for node in graph}
    for node in sorted(graph):
        for before in graph[node]:
            turned[before].append(node)
    return turned


def knots(graph: Graph) -> list[set[str]]:
    """Return the strongly connected components that hold a cycle, by their smallest name (Kosaraju)."""
    turned = reversed_graph(graph)
    component: dict[str, str] = {}
    members: dict[str, set[str]] = {}
    for root in reversed(_finished_order(graph)):
        stack = [root]
        while stack:
            node = stack.pop()
            if node not in component:
                component[node] = root
                members.setdefault(root, set()).add(node)
                stack.extend(turned[node])
    return sorted((m for r, m in members.items() if len(m) > 1 or r in graph[r]), key=min)


def _finished_order(graph: Graph) -> list[str]:
    """Return the nodes in the order in which a depth-first walk leaves them."""
    seen: set[str] = set()
    order: list[str] = []
    for root in graph:
        stack = [(root, False)]
        while stack:
            node, is_finished = stack.pop()
            if is_finished:
                order.append(node)
            elif node not in seen:
                seen.add(node)
                stack.append((node, True))
                stack.extend((before, False) for before in graph[node])
    return order


def cycles(graph: Graph) -> list[tuple[str, ...]]:
    """Return cycles that together name every node of every knot, each closed and from its smallest name.

    For every node not yet named, smallest first, the shortest cycle through it is taken.
    """
    found: list[tuple[str, ...]] = []
    for knot in knots(graph):
        unnamed = set(knot)
        for node in sorted(knot):
            if node in unnamed:
                cycle = _shortest_cycle(graph, node, knot)
                unnamed.difference_update(cycle)
                found.append(_from_smallest(cycle))
    return found


def _shortest_cycle(graph: Graph, start: str, within: set[str]) -> list[str]:
    """Return the nodes of the shortest cycle through ``start``, from it on; ties go to smaller names."""
    came_from: dict[str, str] = {}
    queue = deque([start])
    while start not in came_from:
        node = queue.popleft()
        for before in sorted(graph[node]):
            if before in within and before not in came_from:
                came_from[before] = node
                queue.append(before)
    path = [came_from[start]]
    while path[-1] != start:
        path.append(came_from[path[-1]])
    return path[::-1]


def _from_smallest(cycle: list[str]) -> tuple[str, ...]:
    first = cycle.index(min(cycle))
    return (*cycle[first:], *cycle[: first + 1])


def topological_order(graph: Graph, last: Collection[str] = ()) -> list[str]:
    """Return all nodes, each after what goes before it; of several that could go next, the smallest name.

    Those in ``last`` go when none of the others can.

    Raises:
        ValueError: the graph has a cycle.
    """
    after = reversed_graph({node: set(befores) for node, befores in graph.items()})
    waiting = {node: len(set(befores)) for node, befores in graph.items()}
    ready = [(node in last, node) for node, count in waiting.items() if not count]
    heapq.heapify(ready)
    order: list[str] = []
    while ready:
        _, node = heapq.heappop(ready)
        order.append(node)
        for follower in after[node]:
            waiting[follower] -= 1
            if not waiting[follower]:
                heapq.heappush(ready, (follower in last, follower))
    if len(order) < len(graph):
        raise ValueError(f"the graph has cycles: {cycles(graph)}")
    return order


def with_soft_edges(firm: Graph, soft: Iterable[Edge]) -> tuple[dict[str, set[str]], list[Edge]]:
    """Add the soft edges to an acyclic graph, smallest first, but those that would close a cycle.

    Returns:
        the graph, and the edges left out.
    """
    edges = sorted(set(soft))
    both = {node: set(befores) for node, befores in firm.items()}
    for node, before in edges:
        both[node].add(before)
    knot_of = {node: number for number, knot in enumerate(knots(both)) for node in knot}
    doubtful = [(n, b) for n, b in edges if b not in firm[n] and n in knot_of and knot_of[n] == knot_of.get(b)]
    for node, before in doubtful:
        both[node].discard(before)
    left_out = []
    for node, before in doubtful:
        if node in reachable(both, [before]):
            left_out.append((node, before))
        else:
            both[node].add(before)
    return both, left_out
