"""The immutable index of what is published: static path prefix → the mounts that own it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from .mount import PluginMount

Index = dict[str, tuple[PluginMount, ...]]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Which mounts may serve a path. Never changed: a new one takes its place."""

    mounts: Mapping[str, PluginMount] = field(default_factory=dict)
    index: Index = field(default_factory=dict)
    order: dict[PluginMount, int] = field(default_factory=dict)
    depth: int = 0
    """The largest number of slashes in an indexed prefix: how often to look."""
    always: tuple[PluginMount, ...] | None = None
    """Mounts without a static prefix."""

    def candidates(self, path: str) -> Sequence[PluginMount]:
        """Return every mount that may serve ``path``, in registration order; perhaps too many."""
        get = self.index.get
        found: Sequence[PluginMount] | None = self.always
        cut = 0
        for _ in range(self.depth):
            cut = path.find("/", cut + 1)
            owners = get(path if cut < 0 else path[:cut])
            if owners is not None:
                found = owners if found is None else self._merge(found, owners)
            if cut < 0:
                break
        if path[-1:] == "\n":  # `$` in Starlette's patterns also matches before a last newline
            return self._merge(found or (), self.candidates(path[:-1]))
        return found or ()

    def _merge(self, one: Iterable[PluginMount], other: Iterable[PluginMount]) -> Sequence[PluginMount]:
        return sorted({*one, *other}, key=self.order.__getitem__)

    def with_mounts(self, mounts: Mapping[str, PluginMount]) -> Snapshot:
        """Return the snapshot of ``mounts``, reusing what did not change."""
        new = dict(mounts)
        order = dict(zip(new.values(), range(len(new)), strict=True))
        if list(new) != list(self.mounts) and not self._keeps_order(order):
            return _build(new, order, {}, order, 0)
        index = self.index.copy()
        for mount in self.order.keys() - order.keys():
            _drop(index, mount, mount.prefixes)
        return _build(new, order, index, order.keys() - self.order.keys(), self.depth)

    def reindexed(self, mount: PluginMount) -> Snapshot:
        """Return the snapshot with the present prefixes of ``mount``, whose routers were added to."""
        index = self.index.copy()
        _drop(index, mount, tuple(index))
        return _build(self.mounts, self.order, index, [mount], self.depth)

    def _keeps_order(self, order: Mapping[PluginMount, int]) -> bool:
        last = -1
        for mount in self.order:
            position = order.get(mount, last)
            if position < last:
                return False
            last = position
        return True


def _build(
    mounts: Mapping[str, PluginMount],
    order: dict[PluginMount, int],
    index: Index,
    come: Iterable[PluginMount],
    depth: int,
) -> Snapshot:
    """Add the mounts that came to ``index`` (which is consumed) and freeze it."""
    for mount in come:
        for prefix in mount.prefixes:
            owners = index.get(prefix)
            index[prefix] = tuple(sorted((*owners, mount), key=order.__getitem__)) if owners else (mount,)
            depth = max(depth, prefix.count("/"))
    return Snapshot(mounts, index, order, depth, index.get(""))


def _drop(index: Index, mount: PluginMount, prefixes: Iterable[str]) -> None:
    for prefix in prefixes:
        owners = tuple(owner for owner in index[prefix] if owner is not mount)
        if owners:
            index[prefix] = owners
        else:
            del index[prefix]
