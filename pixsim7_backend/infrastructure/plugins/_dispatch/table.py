"""The compiled routes of one plugin: a static table and a trie that name candidates, never decide.

The route's own match decides; the table may name too many candidates, never too few.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from starlette.convertors import FloatConvertor, IntegerConvertor, StringConvertor, UUIDConvertor
from starlette.routing import BaseRoute, Match, NoMatchFound
from starlette.types import ASGIApp, Scope

from .paths import PARAMETER

#: Convertors whose values never contain a slash, so that they fill one segment.
_ONE_SEGMENT = (StringConvertor, IntegerConvertor, FloatConvertor, UUIDConvertor)


class Target(NamedTuple):
    """What a request may be handed over to: how it matches, how it runs, what it is called."""

    order: int
    matches: Callable[[Scope], tuple[Match, Scope]]
    run: ASGIApp
    url_path_for: Callable[..., Any]
    name: str | None
    path: str | None
    convertors: dict[str, Any]
    is_mount: bool
    route: BaseRoute
    context: Any


@dataclass(slots=True)
class _Node:
    static: dict[str, _Node]
    parameter: _Node | None
    ends: list[Target]
    """Routes whose path ends here."""
    below: list[Target]
    """Routes that may match anything from here on."""


def _node() -> _Node:
    return _Node({}, None, [], [])


class RouteTable:
    """Finds the targets of one plugin that may serve a path, in registration order."""

    __slots__ = ("_by_name", "_root", "_static", "targets")

    def __init__(self, targets: Iterable[Target]) -> None:
        self.targets = tuple(targets)
        self._root = _node()
        self._by_name: dict[str | None, list[Target]] = {}
        for target in self.targets:
            _insert(self._root, target)
            self._by_name.setdefault(target.name, []).append(target)
        paths = {target.path for target in self.targets if target.path and "{" not in target.path}
        self._static = {path: tuple(_walk(self._root, path)) for path in paths}

    def find(self, path: str) -> Sequence[Target]:
        """Return every target that may match ``path``, in registration order."""
        found = self._static.get(path)
        return _walk(self._root, path) if found is None else found

    def url_path_for(self, name: str, /, **params: Any) -> Any:
        """Return the path of the first route of that name and those parameters.

        Raises:
            NoMatchFound: none of the plugin's routes has this name with these parameters.
        """
        named, open_ended = self._by_name.get(name, ()), self._by_name.get(None, ())
        for target in sorted((*named, *open_ended)) if named and open_ended else named or open_ended:
            try:
                return target.url_path_for(name, **params)
            except NoMatchFound:
                continue
        raise NoMatchFound(name, params)


def _insert(root: _Node, target: Target) -> None:
    if target.path is None:
        root.below.append(target)
        return
    node = root
    for segment in target.path.split("/")[1:]:
        if "{" not in segment:
            node = node.static.setdefault(segment, _node())
        elif _fills_one_segment(segment, target.convertors):
            node.parameter = node.parameter or _node()
            node = node.parameter
        else:
            node.below.append(target)
            return
    (node.below if target.is_mount else node.ends).append(target)


def _fills_one_segment(segment: str, convertors: dict[str, Any]) -> bool:
    found = PARAMETER.fullmatch(segment)
    return found is not None and type(convertors.get(found[1])) in _ONE_SEGMENT


def _walk(root: _Node, path: str) -> list[Target]:
    segments = path.split("/")
    last = len(segments)
    found: list[Target] = []
    open_nodes = [(root, 1)]
    while open_nodes:
        node, depth = open_nodes.pop()
        if node.below:
            found += node.below
        if depth >= last:
            found += node.ends
            continue
        if (child := node.static.get(segments[depth])) is not None:
            open_nodes.append((child, depth + 1))
        if node.parameter is not None:
            open_nodes.append((node.parameter, depth + 1))
    if path.endswith("\n"):  # `$` in Starlette's patterns also matches before a last newline
        found += [target for target in _walk(root, path[:-1]) if target not in found]
    if len(found) > 1:
        found.sort(key=_order)
    return found


def _order(target: Target) -> int:
    return target.order
