"""What makes a scene graph sound. Pure: ids in, problems and warnings out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

__all__ = ["Link", "find_graph_problems", "find_unreachable", "name_edges"]

Link = tuple[str, str, str]
"""An edge as the rules see it: (edge id, from node, to node)."""


def find_graph_problems(nodes: Sequence[str], links: Sequence[Link], entry: str | None) -> tuple[str, ...]:
    """Say everything that is wrong with the graph: repeated ids, edges into nowhere, an entry that is not there."""
    known = set(nodes)
    return (
        *(f"node id {node!r} is used more than once" for node in _repeated(nodes)),
        *(f"edge id {edge!r} is used more than once" for edge in _repeated(edge for edge, _, _ in links)),
        *_dangling(known, links),
        *([f"entry node {entry!r} is not a node of this scene"] if entry is not None and entry not in known else []),
    )


def _repeated(ids: Iterable[str]) -> list[str]:
    return [name for name, times in Counter(ids).items() if times > 1]


def _dangling(known: set[str], links: Sequence[Link]) -> Iterator[str]:
    for edge, start, end in links:
        for side, node in (("from", start), ("to", end)):
            if node not in known:
                yield f"edge {edge!r} goes {side} {node!r}, which is not a node of this scene"


def find_unreachable(nodes: Sequence[str], links: Sequence[Link], entry: str | None) -> tuple[str, ...]:
    """Return the nodes that no walk from ``entry`` can reach, in their order; all of them without an entry."""
    following: defaultdict[str, list[str]] = defaultdict(list)
    for _, start, end in links:
        following[start].append(end)
    reached: set[str] = set()
    pending = [entry] if entry is not None else []
    while pending:
        node = pending.pop()
        if node not in reached:
            reached.add(node)
            pending.extend(following[node])
    return tuple(node for node in nodes if node not in reached)


def name_edges(links: Sequence[tuple[str | None, str, str]]) -> tuple[str, ...]:
    """Return an id for each edge: the one the author chose, else ``from--to``, numbered from ``~2`` when taken.

    The same graph is named the same every time, so that a session's cooldowns survive a scene that is
    put again.
    """
    taken = {edge for edge, _, _ in links if edge is not None}
    names: list[str] = []
    for chosen, start, end in links:
        name = chosen or _free_name(f"{start}--{end}", taken)
        taken.add(name)
        names.append(name)
    return tuple(names)


def _free_name(base: str, taken: set[str]) -> str:
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}~{number}"
    return name
