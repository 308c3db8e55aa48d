"""Permissions as manifests write them: what each one covers, and which of them are still undecided."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from pixsim7_backend.infrastructure.plugins.types import check_permission

__all__ = ["Grants", "Permission", "PermissionNotRequestedError", "decide"]

ALL = "all"


@dataclass(frozen=True, slots=True, order=True)
class Permission:
    """One permission: what may be done, and to which items only; no items mean all.

    In events and keys a ``*`` stands for any text.

    >>> Permission.parse("db:read").covers(Permission.parse("db:read:game_npcs"))
    True
    >>> Permission.parse("events:subscribe:session:*").covers(Permission.parse("events:subscribe:session:created"))
    True
    """

    name: str
    """Like ``db:read``; ``net`` for hosts."""
    items: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``"db:read:game_npcs,game_locations"``; raise ValueError, with the way out, when it is none."""
        check_permission(text)
        family, _, rest = text.partition(":")
        if family == "net":
            return cls(family, frozenset({rest}))
        kind, _, items = rest.partition(":")
        return cls(f"{family}:{kind}", frozenset(items.split(",")) if items else frozenset())

    def __str__(self) -> str:
        return ":".join([self.name, *([",".join(sorted(self.items))] if self.items else [])])

    @property
    def family(self) -> str:
        """The part before the first colon."""
        return self.name.partition(":")[0]

    def covers(self, other: Permission) -> bool:
        """Tell whether whoever has this one may do all that ``other`` asks for."""
        if self.name != other.name:
            return False
        return not self.items or (bool(other.items) and all(map(self.has_item, other.items)))

    def has_item(self, item: str) -> bool:
        """Tell whether it is for this item, too."""
        return not self.items or item in self.items or any(_fits(each, item) for each in self.items)

    def overlaps(self, other: Permission) -> bool:
        """Tell whether something is allowed by both."""
        if self.name != other.name:
            return False
        return not other.items or any(map(self.has_item, other.items)) or any(map(other.has_item, self.items))


class PermissionNotRequestedError(ValueError):
    """Somebody grants what the plugin does not ask for; the text says what it asks for."""


@dataclass(frozen=True, slots=True)
class Grants:
    """What the operator decided about one plugin's permissions; what is in neither set is still open."""

    granted: frozenset[Permission] = frozenset()
    declined: frozenset[Permission] = frozenset()

    def has(self, name: str) -> bool:
        """Tell whether the permission of this name is granted, wholly or for some items."""
        return any(each.name == name for each in self.granted)

    def allows(self, name: str, item: str, /) -> bool:
        """Tell whether the permission of this name is granted for one item, like a table."""
        return any(each.name == name and each.has_item(item) for each in self.granted)

    def exceed(self, others: Grants) -> bool:
        """Tell whether something is granted here that the others do not grant."""
        return not all(any(other.covers(each) for other in others.granted) for each in self.granted)

    def undecided(self, requested: Iterable[Permission]) -> tuple[Permission, ...]:
        """Return what of ``requested`` nobody has decided about, in order.

        A request is decided when what was granted or declined had asked for at least as much; one that asks for
        further items than were asked for then is not.
        """
        decided = self.granted | self.declined
        return tuple(sorted(each for each in set(requested) if not _is_decided(each, decided)))

    def to_json(self) -> dict[str, list[str]]:
        """Return both sets as sorted texts."""
        return {"granted": sorted(map(str, self.granted)), "declined": sorted(map(str, self.declined))}

    @classmethod
    def from_json(cls, values: Mapping[str, Iterable[str]]) -> Self:
        """Return the grants that :meth:`to_json` gave; raise ValueError where a text is no permission."""
        granted, declined = (values.get(name, ()) for name in ("granted", "declined"))
        return cls(frozenset(map(Permission.parse, granted)), frozenset(map(Permission.parse, declined)))


def decide(requested: Iterable[Permission], granted: Iterable[str]) -> Grants:
    """Return the operator's decision about all of ``requested``: what is not granted is declined.

    Args:
        requested: what the plugin asks for.
        granted: permissions as texts, narrower ones than requested too; a family like ``"db"`` for all that is
            requested of it; ``"all"``.

    Raises:
        ValueError: a text is no permission.
        PermissionNotRequestedError: the plugin does not ask for that, or not for as much.
    """
    wanted = frozenset(requested)
    given = frozenset(each for text in granted for each in _read(text, wanted))
    return Grants(given, frozenset(_rest(each, given) for each in wanted if not any(g.covers(each) for g in given)))


def _read(text: str, wanted: frozenset[Permission]) -> Iterable[Permission]:
    if text == ALL:
        return wanted
    of_family = [each for each in wanted if each.family == text]
    if of_family:
        return of_family
    permission = Permission.parse(text)
    if not any(each.covers(permission) for each in wanted):
        asked = ", ".join(sorted(map(str, wanted))) or "nothing"
        raise PermissionNotRequestedError(f"the plugin does not ask for {text!r}; it asks for: {asked}")
    return [permission]


def _rest(requested: Permission, given: Iterable[Permission]) -> Permission:
    """Return what of a request was not granted; all of it where that cannot be said item by item."""
    items = {item for each in given if each.name == requested.name for item in each.items}
    return Permission(requested.name, requested.items - items) if requested.items - items else requested


def _is_decided(requested: Permission, decided: frozenset[Permission]) -> bool:
    of_name = [each for each in decided if each.name == requested.name]
    if any(each.covers(requested) for each in of_name):
        return True
    items = frozenset(item for each in of_name for item in each.items)
    return bool(requested.items) and requested.items <= items


def _fits(pattern: str, item: str) -> bool:
    """Tell whether the item is what the pattern says, in time that grows with their length and no faster."""
    first, *others = pattern.split("*")
    if not others or not item.startswith(first):
        return False
    *middle, last = others
    at = len(first)
    for part in middle:
        found = item.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return item.endswith(last) and len(item) - len(last) >= at
