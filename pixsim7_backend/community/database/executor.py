"""What executes the statements of a jail in the host: a connection of the host's own for each transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from pixsim7_backend.infrastructure.plugins._jail.broker import BrokerError

from .limits import DatabaseLimits
from .wire import WireError, size_of, to_wire

__all__ = ["READ_ONLY", "REFUSED", "Executor", "Mode", "Outcome", "Rows", "Transaction", "refuse"]

READ_ONLY = "25006"
"""A reading session was asked to write."""
REFUSED = "42501"
"""What is not open or not granted was asked for. Both are codes of the SQL standard, used on SQLite too."""


class Mode(StrEnum):
    """What a transaction is for."""

    READ = "read"
    WRITE = "write"


@dataclass(slots=True)
class Outcome:
    """What came of a statement. ``columns`` is None where it gives no rows."""

    columns: list[list[Any]] | None = None
    rows: list[list[Any]] = field(default_factory=list)
    size: int = 0
    rowcount: int = -1
    lastrowid: int | None = None


class Transaction(Protocol):
    """One transaction, begun. Its methods block, and are called one after the other; ``interrupt`` at any time."""

    def execute(self, statement: str, rows: Sequence[Sequence[Any]], *, is_many: bool) -> Outcome:
        """Run one statement, with each row of parameters; of many the rows that come are dropped."""

    def stream(self, statement: str, take: Callable[[dict[str, Any]], None]) -> None:
        """Run a statement of the host's own, and give its rows by column as they come, however many there are."""

    def savepoint(self, action: str, name: str) -> None:
        """``begin``, ``release`` or ``rollback`` a savepoint."""

    def commit(self) -> None:
        """Keep what was written."""

    def rollback(self) -> None:
        """Keep nothing; never fails: a connection that cannot is closed."""

    def interrupt(self) -> None:
        """Stop the statement that runs; from another thread."""


class Executor(Protocol):
    """The database for one jail."""

    def begin(self, mode: Mode) -> Transaction:
        """Open a transaction; blocks."""

    def close(self) -> None:
        """Close what is idle; all transactions are over."""


class Rows:
    """Takes the rows of one statement, as far as they may be."""

    def __init__(self, outcome: Outcome, limits: DatabaseLimits, most: int) -> None:
        self._outcome = outcome
        self._limits = limits
        self._most = most

    def add(self, row: Sequence[Any]) -> None:
        """Take one row.

        Raises:
            BrokerError: it is one too many, too large, or has a value that cannot be sent.
        """
        outcome = self._outcome
        if len(outcome.rows) >= self._limits.rows:
            raise refuse(f"a statement may give {self._limits.rows:,} rows; use LIMIT, and ask again for more", "54000")
        try:
            sent = [to_wire(value) for value in row]
        except WireError as error:
            raise BrokerError("NotSupportedError", str(error)) from error
        size = size_of(sent)
        outcome.size += size
        if size > self._most or outcome.size > self._limits.result_size:
            raise refuse(
                f"a statement may give {self._limits.result_size:,} bytes, and {self._most:,} of them in one row",
                "54000",
            )
        outcome.rows.append(sent)


def refuse(text: str, code: str = REFUSED) -> BrokerError:
    """Return the error for what is not allowed; the driver in the jail makes its own class of it."""
    return BrokerError(f"ProgrammingError:{code}", text)
