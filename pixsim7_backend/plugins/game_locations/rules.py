"""What makes a set of hotspots a valid one: pure, no HTTP, no database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

__all__ = ["HotspotKey", "repeated_hotspots"]

HotspotKey = tuple[str, str]
"""The object in the scene's picture, and the id of the spot on it."""


def repeated_hotspots(keys: Iterable[HotspotKey]) -> tuple[HotspotKey, ...]:
    """The keys that occur more than once, each once, in order of first appearance.

    A hotspot is found by its object and its id, so a location may hold each pair once.
    """
    return tuple(key for key, times in Counter(keys).items() if times > 1)
