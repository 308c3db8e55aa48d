"""The bounds of a world's clock. Pure."""

from __future__ import annotations

__all__ = ["MAX_STEP", "MAX_WORLD_TIME"]

MAX_WORLD_TIME = 1e12
"""About 31,700 years; whole seconds and their fractions of a millisecond are still exact in a float."""

MAX_STEP = 1e10
"""The longest single advance, about 317 years."""
