"""What a jail may take of the database."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DatabaseLimits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseLimits:
    """Bounds for one jail, kept by the host. Sizes are in bytes, durations in seconds."""

    transactions: int = 8
    """Open at once; further ones wait."""
    statement_time: float = 5.0
    idle_time: float = 10.0
    """Between two statements of a transaction."""
    transaction_time: float = 30.0
    write_time: float = 4.0
    """A whole transaction that may keep the host's own writers waiting, who do that for 5 seconds.

    On SQLite, where there is one lock for all, and on PostgreSQL where it may lock rows of the game.
    """
    rows: int = 50_000
    """Of one statement."""
    result_size: int = 8 << 20
    """Of one statement."""
    statement_length: int = 100_000
    parameters: int = 2_000
    """Of one row."""
    parameter_rows: int = 200
    """Of one call."""
    temporary_size: int = 128 << 20
    """What one statement may write to disk, for sorting say."""
    own_size: int = 64 << 20
    """Of the plugin's own tables."""
    work_memory: int = 4 << 20
    """PostgreSQL: what sorting may take before it goes to disk."""
