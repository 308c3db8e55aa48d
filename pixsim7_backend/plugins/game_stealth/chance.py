"""Where the chance of an attempt comes from: the port ``random`` when somebody provides it, else the system."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Annotated, Protocol

from fastapi import Depends

from pixsim7_backend.infrastructure.plugins import ports

__all__ = ["RANDOM_PORT", "RandomSource", "Roll", "get_roll"]

RANDOM_PORT = "random"


class RandomSource(Protocol):
    """What a plugin provides at the port ``random`` to decide the game's chance; ``random.Random(7)`` is one."""

    def random(self) -> float:
        """Return a number in [0, 1)."""


async def get_roll() -> Callable[[], float]:
    """The dependency that draws numbers in [0, 1); override it, or provide the port ``random``."""
    source: RandomSource = ports.find(RANDOM_PORT) or secrets.SystemRandom()
    return source.random


Roll = Annotated[Callable[[], float], Depends(get_roll)]
