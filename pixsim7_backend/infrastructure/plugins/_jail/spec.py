"""What a jail is started with. Pure; goes to the zygote as JSON-able values, and holds no secret of the host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

__all__ = ["JailLimits", "JailSpec"]

_SHARED = 768 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class JailLimits:
    """What one jail may use, of what the kernel counts for it. Sizes are in bytes."""

    memory: int = 256 << 20
    """Data, also what it shares with the zygote; what is beyond is a ``MemoryError``."""
    threads: int = 64
    """The kernel counts them per user, or the host looks and kills."""
    open_files: int = 64
    file_size: int = 16 << 20
    scratch: int = 64 << 20
    """What may lie in its scratch directory; the host looks and kills."""
    scratch_entries: int = 10_000
    """Files and directories there."""

    @property
    def address_space(self) -> int:
        """Addresses: its memory, and what it shares with others, like code."""
        return self.memory + _SHARED


@dataclass(frozen=True, slots=True, kw_only=True)
class JailSpec:
    """One jailed plugin: its code, its place, what it is told."""

    plugin: str
    folder: str
    """The name of its folder, which is that of its package."""
    path: str
    """Its folder, absolute."""
    package: str
    scratch: str = ""
    """The one directory that it may write to; the launcher chooses it."""
    prefix: str = "/api/v1"
    inside: tuple[str, ...] = ()
    """What runs in the jail before the plugin is imported, as ``module:function``; each gets the FastAPI app."""
    services: Mapping[str, Any] = field(default_factory=dict)
    """What the host's services tell their halves in the jail, by family; there it is ``app.state.services``."""
    hook_timeout: float = 10.0
    uid: int | None = None
    """The user that it runs as; None: that of the host."""
    limits: JailLimits = field(default_factory=JailLimits)

    def to_json(self) -> dict[str, Any]:
        """Return the spec as JSON-able values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the spec that :meth:`to_json` gave."""
        return cls(**{**values, "inside": tuple(values["inside"]), "limits": JailLimits(**values["limits"])})
