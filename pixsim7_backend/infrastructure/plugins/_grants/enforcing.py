"""Others who enforce what was granted, beside the broker: the roles of a database, say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from .permissions import Grants

__all__ = ["Enforcement", "Enforcer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Enforcement:
    """How far a decision about one plugin has got with one who enforces it, too."""

    where: str
    """Like ``PostgreSQL``."""
    role: str
    """What the plugin is there, like ``role pixsim7_stats``."""
    changes: tuple[str, ...] = ()
    """What was changed, or would be."""
    warnings: tuple[str, ...] = ()
    problem: str = ""
    """Why it lags behind the decision; empty where it does not."""
    way_out: str = ""
    """What makes it follow."""

    def __str__(self) -> str:
        if self.problem:
            return f"{self.where} lags behind the decision: {self.problem}; {self.way_out}"
        return f"{self.where} follows with {self.role}"

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-able values; ``problem`` and ``way_out`` are null where it does not lag behind."""
        return {
            "where": self.where,
            "as": self.role,
            "changes": list(self.changes),
            "warnings": list(self.warnings),
            "problem": self.problem or None,
            "way_out": self.way_out or None,
        }


class Enforcer(Protocol):
    """Lets them know; may block."""

    def enforce(self, plugin: str, grants: Grants) -> tuple[Enforcement, ...]:
        """Let exactly this count for a plugin; what does not work is told in what it returns, never raised.

        Asked whenever it might have changed: doing it again must be cheap.
        """
