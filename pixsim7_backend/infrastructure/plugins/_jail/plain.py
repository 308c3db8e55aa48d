"""Copies of what a jail says, fit to be shown by the host: bounded, of plain text, leading nowhere. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from .errors import JailProtocolError

__all__ = ["PlainCopier", "plain_line"]

MAX_DEPTH = 48
_NOWHERE = re.compile(r"(?!)")
#: Texts that pages show as Markdown, in which HTML would be HTML.
_PROSE = frozenset({"description", "summary", "title"})
_REFERENCES = frozenset({"$ref", "$dynamicRef", "$recursiveRef", "$id", "$schema"})


class PlainCopier:
    """Copies one tree of JSON values, and counts.

    Args:
        what: the tree, for texts, like ``"its OpenAPI document"``.
        nodes: objects, lists and values that it may have.
        text: characters of one text.
        references: what its references may be; by default it may have none.
    """

    def __init__(self, what: str, *, nodes: int, text: int, references: re.Pattern[str] = _NOWHERE) -> None:
        self._what = what
        self._nodes_left = nodes
        self._text = text
        self._references = references

    def copy(self, value: Any, depth: int = 0) -> Any:
        """Return the tree with texts of nothing but printable characters, lines and tabs, and no markup in prose.

        Raises:
            JailProtocolError: it is too large, holds what JSON cannot say, or a reference leads elsewhere.
        """
        self._nodes_left -= 1
        if self._nodes_left < 0 or depth > MAX_DEPTH:
            raise JailProtocolError(f"{self._what} is too large")
        for kind, change in _CHANGES.items():
            if isinstance(value, kind):
                return change(self, value, depth + 1)
        if value is None or isinstance(value, (bool, int, float)):
            return value
        raise JailProtocolError(f"{self._what} holds what JSON cannot say")

    def text(self, value: str, _depth: int) -> str:
        if len(value) > self._text:
            raise JailProtocolError(f"a text of {self._what} is too long")
        return "".join(each for each in value if each.isprintable() or each in "\n\t")

    def list(self, values: list[Any], depth: int) -> list[Any]:
        return [self.copy(value, depth) for value in values]

    def object(self, values: dict[Any, Any], depth: int) -> dict[str, Any]:
        copied: dict[str, Any] = {}
        for key, value in values.items():
            if not isinstance(key, str):
                raise JailProtocolError(f"{self._what} has a name that is no text")
            if key in _REFERENCES and isinstance(value, str) and not self._references.fullmatch(value):
                raise JailProtocolError(f"a reference of {self._what} leads elsewhere")
            name = self.text(key, depth)
            copied[name] = self.copy(value, depth)
            if key in _PROSE and isinstance(value, str):
                copied[name] = copied[name].replace("<", "&lt;")
        return copied


_CHANGES: Mapping[type, Callable[[PlainCopier, Any, int], Any]] = {
    str: PlainCopier.text,
    list: PlainCopier.list,
    dict: PlainCopier.object,
}


def plain_line(text: str, most: int = 2000) -> str:
    """Return a stranger's text on one line."""
    return "".join(each if each.isprintable() else " " for each in text[:most])
