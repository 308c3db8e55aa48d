"""Whose paths are whose: confined plugins keep out of the middle of somebody else's. Pure.

What lies below a directory of paths belongs to the one who serves that directory: with ``/auth/login`` goes
``/auth/evil``. A directory is the path above a single route, or the route's own where more routes lie below it; never
the prefix that its owner shares with others, like ``/api/v1``, so that neighbours there are free.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

from .claims import RouteClaim
from .paths import shortest, static_prefix

__all__ = ["RESERVED", "Territories", "directories_of"]

RESERVED = (
    "/api/v1/admin", "/admin", "/docs", "/redoc", "/openapi.json", "/healthz", "/readyz", "/metrics", "/.well-known",
    "/favicon.ico", "/robots.txt",
)  # fmt: skip
"""What people and programs take for the host's, whether it serves something there now or not."""

_OPEN = frozenset({"MOUNT", "FRONTEND"})
_EVERYTHING = "/"


class Territories:
    """Directories of paths, and who serves them."""

    def __init__(self) -> None:
        self._owners: dict[str, str] = {}
        self._above: dict[str, str] = {}
        """Each path above a territory, and one territory below it."""

    def add(self, owner: str, claims: Iterable[RouteClaim], *, prefix: str = "") -> None:
        """Note whose these routes are; ``prefix`` is what their owner shares with others."""
        self.reserve(owner, directories_of(claims, prefix=prefix))

    def reserve(self, owner: str, directories: Iterable[str]) -> None:
        """Note whose these directories are, whatever is served there."""
        for directory in directories:
            self._owners.setdefault(directory, owner)
            for above in _and_above(directory):
                self._above.setdefault(above, directory)

    def find(self, claim: RouteClaim) -> tuple[str, str] | None:
        """Return whose territory a route would lie in, or could answer for, and which; None where it is free.

        A route with a parameter, or a mount, could answer for whatever is below its static start.
        """
        if claim.method == "HOST":  # which answers for all paths of that host
            return next(((owner, _EVERYTHING) for owner in self._owners.values()), None)
        start = _plain(static_prefix(claim.path))
        territory = next((each for each in _and_above(start) if each in self._owners), None)
        if territory is None and is_open(claim):
            territory = self._above.get(start)
        return (self._owners[territory], territory) if territory is not None else None


def directories_of(claims: Iterable[RouteClaim], *, prefix: str = "") -> tuple[str, ...]:
    """Return the directories that routes make their owner's, none of them below another."""
    claims = [claim for claim in claims if claim.method != "HOST"]
    starts = {_plain(static_prefix(claim.path)) for claim in claims}
    inner = {_plain(static_prefix(claim.path)) for claim in claims if is_open(claim)}
    inner |= {above for start in starts for above in _and_above(start) if above != start}
    found = (start if start in inner else _home(start, prefix) for start in starts)
    return shortest(each for each in found if _is_deeper(each, prefix))


def is_open(claim: RouteClaim) -> bool:
    """Tell whether a route answers for more than one path."""
    return claim.method in _OPEN or "{" in claim.path


def _home(path: str, prefix: str) -> str:
    above = path.rpartition("/")[0]
    return above if _is_deeper(above, prefix) else path


def _is_deeper(path: str, prefix: str) -> bool:
    return len(path) > len(prefix) and path.startswith(f"{prefix}/")


def _and_above(path: str) -> Iterable[str]:
    yield path
    while path:
        path = path.rpartition("/")[0]
        yield path


def _plain(path: str) -> str:
    """Return a path as a proxy that tidies up would: no ``//``, no dots, no slash at its end."""
    tidy = posixpath.normpath(f"/{path.lstrip('/')}")
    return "" if tidy == "/" else tidy
