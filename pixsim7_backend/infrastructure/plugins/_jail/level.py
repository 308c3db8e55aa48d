"""How well a jail is confined: on a machine as it was probed, or in one jail as it came out. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Self

__all__ = ["ConfinementLevel", "ConfinementReport"]


class ConfinementLevel(IntEnum):
    """What stands between a plugin and the machine; each level has what the ones below it have."""

    NONE = 0
    """Nothing: the plugin is a process as any other."""
    LIMITS = 1
    """Its memory, files and sizes are bounded."""
    LANDLOCK = 2
    """The kernel also denies it the files that are not its own."""
    CONFINED = 3
    """The kernel also answers only the system calls that a plugin needs. Community plugins run from here on."""
    NAMESPACED = 4
    """It also has a file tree and a network of its own: what it may not use, it cannot even see."""

    @property
    def summary(self) -> str:
        """What the level holds, in a few words."""
        return _SUMMARIES[self]


_SUMMARIES: Mapping[ConfinementLevel, str] = {
    ConfinementLevel.NONE: "nothing confines plugins here",
    ConfinementLevel.LIMITS: "resource limits only",
    ConfinementLevel.LANDLOCK: "resource limits and Landlock, no filter of system calls",
    ConfinementLevel.CONFINED: "resource limits, Landlock and a filter of system calls",
    ConfinementLevel.NAMESPACED: "resource limits, Landlock, a filter of system calls and namespaces",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfinementReport:
    """Which parts of the confinement there are."""

    level: ConfinementLevel
    landlock_abi: int = 0
    """The version of Landlock that the kernel speaks; 0: none."""
    seccomp: bool = False
    own_uid: bool = False
    """Each jail runs as a user of its own, who owns nothing else."""
    namespaces: tuple[str, ...] = ()
    cgroup: bool = False
    """Each jail is in a control group of its own."""
    notes: tuple[str, ...] = ()
    """What is missing, why, and what would give it, for people."""

    def reaches(self, floor: str) -> bool:
        """Tell whether plugins are held at least as well as the level of this name says."""
        return self.level >= ConfinementLevel[floor.upper()]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON-able values, the level by its name."""
        return {
            "level": self.level.name.lower(),
            "landlock_abi": self.landlock_abi,
            "seccomp": self.seccomp,
            "own_uid": self.own_uid,
            "namespaces": list(self.namespaces),
            "cgroup": self.cgroup,
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the report that :meth:`to_json` gave."""
        return cls(
            level=ConfinementLevel[values["level"].upper()],
            landlock_abi=values["landlock_abi"],
            seccomp=values["seccomp"],
            own_uid=values["own_uid"],
            namespaces=tuple(values["namespaces"]),
            cgroup=values["cgroup"],
            notes=tuple(values["notes"]),
        )

    def __str__(self) -> str:
        parts = [f"{self.level.name.lower()}: {self.level.summary}"]
        if self.landlock_abi:
            parts.append(f"Landlock ABI {self.landlock_abi}")
        parts.append("own user per plugin" if self.own_uid else "the host's own user")
        if self.namespaces:
            parts.append(f"namespaces: {', '.join(self.namespaces)}")
        if self.cgroup:
            parts.append("own control group per plugin")
        return "\n".join(["; ".join(parts), *(f"- {note}" for note in self.notes)])
