"""What the JSON schema of a plugin's settings says of a value: is it secret, how is it written, is it known. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["DROPPED", "Node", "Path", "SettingsSchema", "dotted", "merge_layers"]

Schema = Mapping[str, Any]
Node = tuple[Schema, ...]
"""The schemas that say something about one place, references and alternatives resolved."""
Path = tuple[str | int, ...]
ChangeSecret = Callable[[Path, Any], Any]

DROPPED: Any = object()
"""What a change of secrets returns for a member that shall go."""


@dataclass(slots=True)
class _Known:
    """What was found out about a node, so that large documents ask large schemas once."""

    node: Node
    """Kept, so that no other node gets its id."""
    is_secret: bool
    prefix: int
    """How many of its first items are described one by one."""
    members: dict[str, Node | None] = field(default_factory=dict)
    items: dict[int, Node] = field(default_factory=dict)


class SettingsSchema:
    """The JSON schema of a settings model, asked about places in a document."""

    def __init__(self, schema: Schema) -> None:
        self.json = schema
        self._known: dict[int, _Known] = {}
        self.root: Node = self._nodes([schema])
        self.has_secrets = '"writeOnly": true' in json.dumps(schema)

    def _flatten(self, schema: Schema, seen: set[str]) -> Iterator[Schema]:
        """Yield all that is said of a place; each definition once, however often it is referred to."""
        yield schema
        reference = str(schema.get("$ref", ""))
        if reference and reference not in seen:
            seen.add(reference)
            target = self.json.get("$defs", {}).get(reference.rpartition("/")[2], {})
            yield from self._flatten(target, seen)
        for word in ("anyOf", "oneOf", "allOf"):
            for each in schema.get(word, ()):
                yield from self._flatten(each, seen)

    def _know(self, node: Node) -> _Known:
        known = self._known.get(id(node))
        if known is None:
            is_secret = any(each.get("writeOnly") for each in node)
            prefix = max((len(each.get("prefixItems", ())) for each in node), default=0)
            known = self._known[id(node)] = _Known(node, is_secret, prefix)
        return known

    def member(self, node: Node, name: str) -> Node | None:
        """Return what is said about a member of an object; None where the object has no such member."""
        members = self._know(node).members
        if name not in members:
            members[name] = self._member(node, name)
        return members[name]

    def _member(self, node: Node, name: str) -> Node | None:
        named = [each["properties"][name] for each in node if name in each.get("properties", {})]
        if named:
            return self._nodes(named)
        others = [each.get("additionalProperties") for each in node]
        patterns = [sub for each in node for sub in each.get("patternProperties", {}).values()]
        free = [each for each in others if isinstance(each, Mapping)] + patterns
        is_closed = any("properties" in each for each in node) and not free and not any(others)
        return None if is_closed else self._nodes(free)

    def item(self, node: Node, index: int) -> Node:
        """Return what is said about an item of an array."""
        known = self._know(node)
        place = min(index, known.prefix)
        if place not in known.items:
            known.items[place] = self._item(node, place)
        return known.items[place]

    def _item(self, node: Node, index: int) -> Node:
        found: list[Schema] = []
        for each in node:
            first = each.get("prefixItems", ())
            if index < len(first):
                found.append(first[index])
            elif isinstance(each.get("items"), Mapping):
                found.append(each["items"])
        return self._nodes(found)

    def _nodes(self, schemas: Sequence[Schema]) -> Node:
        seen: set[str] = set()
        return tuple(sub for each in schemas for sub in self._flatten(each, seen))

    def at(self, path: Path) -> Node:
        """Return what is said about a place, an empty node where nothing is; the names of alternatives are skipped."""
        node = self.root
        for step in path:
            below = self.item(node, step) if isinstance(step, int) else self.member(node, step)
            node = below if below is not None else node
        return node if path else self.root

    # --- secrets ----------------------------------------------------------------------------------

    def change_secrets(self, value: Any, change: ChangeSecret) -> Any:
        """Return the document with every secret replaced by what ``change(path, secret)`` returns.

        A member that the schema does not know is taken for a secret where there are any: it may be one
        under another of its names.
        """
        return self._change(value, self.root, (), change)

    def _change(self, value: Any, node: Node | None, path: Path, change: ChangeSecret) -> Any:
        if node is None or self._know(node).is_secret:
            return change(path, value) if value is not None and self.has_secrets else value
        if isinstance(value, Mapping):
            members = (
                (name, self._change(each, self.member(node, name), (*path, name), change))
                for name, each in value.items()
            )
            return {name: each for name, each in members if each is not DROPPED}
        if isinstance(value, list):
            return [self._change(each, self.item(node, i), (*path, i), change) for i, each in enumerate(value)]
        return value

    # --- names and texts ----------------------------------------------------------------------------

    def unknown(self, value: Any) -> list[Path]:
        """Return the places of members that the schema does not know."""
        return list(self._unknown(value, self.root, ()))

    def _unknown(self, value: Any, node: Node, path: Path) -> Iterator[Path]:
        if isinstance(value, Mapping):
            for name, each in value.items():
                below = self.member(node, name)
                if below is None:
                    yield (*path, name)
                else:
                    yield from self._unknown(each, below, (*path, name))
        elif isinstance(value, list):
            for i, each in enumerate(value):
                yield from self._unknown(each, self.item(node, i), (*path, i))

    def names_at(self, path: Path) -> list[str]:
        """Return the members that an object at this place may have by name."""
        return [name for each in self.at(path) for name in each.get("properties", {})]

    def spell(self, node: Node, name: str) -> str:
        """Return the member that is meant by a name in any case, with hyphens or underscores."""
        known: dict[str, str] = {_plain(each): each for schema in node for each in schema.get("properties", {})}
        return known.get(_plain(name), name)

    def spell_all(self, value: Any, node: Node | None = None) -> Any:
        """Return a document as a person wrote it with its members spelt as the schema spells them."""
        node = self.root if node is None else node
        if isinstance(value, Mapping):
            spelt = {self.spell(node, str(name)): each for name, each in value.items()}
            return {name: self.spell_all(each, self.member(node, name) or ()) for name, each in spelt.items()}
        if isinstance(value, list):
            return [self.spell_all(each, self.item(node, i)) for i, each in enumerate(value)]
        return value

    def parse_text(self, node: Node, text: str) -> Any:
        """Return the value of a text from the environment: JSON where no text is wanted, or an array or object is."""
        kinds = {str(each["type"]) for each in node if "type" in each}
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return text
        if isinstance(value, (dict, list)):
            return value if {"object", "array"} & kinds else text
        return text if not kinds or "string" in kinds else value

    def set_text(self, document: dict[str, Any], names: Sequence[str], text: str) -> Path:
        """Put the text of an environment variable where its names lead; return the place."""
        node, here, path = self.root, document, list[str]()
        for number, raw in enumerate(names):
            name = self.spell(node, raw)
            name = name if name != raw else raw.lower()
            path.append(name)
            node = self.member(node, name) or ()
            if number < len(names) - 1:
                below = here.get(name)
                here[name] = here = below if isinstance(below, dict) else {}
        here[path[-1]] = self.parse_text(node, text)
        return tuple(path)

    def example(self, node: Node) -> Any:
        """Return a value that would do."""
        for word in ("examples", "default", "const", "enum"):
            for each in node:
                value = each.get(word)
                value = next(iter(value), None) if word in ("examples", "enum") and value else value
                if value not in (None, "", [], {}, "**********"):
                    return value
        if any(each.get("writeOnly") for each in node):
            return "secret"
        kinds = {str(each.get("type")): each for each in node if each.get("type") not in (None, "null")}
        for kind, schema in kinds.items():
            return _EXAMPLES[kind](schema) if kind in _EXAMPLES else "text"
        return "text"


def _number(schema: Schema) -> Any:
    if "exclusiveMinimum" in schema:
        return schema["exclusiveMinimum"] + 1
    return schema.get("minimum", schema.get("maximum", 1))


_EXAMPLES: dict[str, Callable[[Schema], Any]] = {
    "integer": _number,
    "number": _number,
    "boolean": lambda _: True,
    "array": lambda _: [],
    "object": lambda _: {},
}


def merge_layers(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the documents laid over one another, later ones on top; only objects are merged."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            below = merged.get(name)
            both = isinstance(below, Mapping) and isinstance(value, Mapping)
            merged[name] = merge_layers([below, value]) if both else value  # type: ignore[list-item]
    return merged


def dotted(path: Path) -> str:
    """Return a place as people write it."""
    return ".".join(map(str, path))


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")
