"""Runs statements of a jail on SQLite: connections of their own in the host, fenced in before the first statement.

The plugin's own tables are the connection's main database (an empty one in memory where it may have none), the
game's are attached to it. Everything that could widen the fence, such as a pragma, the fence itself refuses.

The authorizer is not asked for columns that a join compares through USING or NATURAL, so these words are refused.
And whatever a statement says, what it was compiled to opens no table that is not open to the plugin.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pixsim7_backend.db.sqlite import create_file
from pixsim7_backend.infrastructure.plugins._jail.broker import BrokerError

from .executor import READ_ONLY, Mode, Outcome, Rows, Transaction, refuse
from .limits import DatabaseLimits
from .openness import Access
from .sqlite_authorizer import GAME, OWN, TOO_LONG, Authorizer
from .sqlite_pace import LONGEST_PATTERN, Pace, pace_of

__all__ = ["SqliteExecutor"]

_BUSY_TIMEOUT = 3.0
_BETWEEN_LOOKS = 0.005
"""Seconds until the bytes that were written are looked at again."""
_LONGEST_VALUE = 900_000
"""Bytes of one text, blob, or row: what a frame can carry."""
_PAGE = 4096
_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: _LONGEST_VALUE,
    sqlite3.SQLITE_LIMIT_COLUMN: 500,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 200,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 50,
    sqlite3.SQLITE_LIMIT_FUNCTION_ARG: 100,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: LONGEST_PATTERN,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 10,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
_UNSEEN = re.compile(r"\b(?:USING|NATURAL)\b", re.IGNORECASE)
_THREAD_IO = Path("/proc/thread-self/io")
_PRAGMA = re.compile(r"\s*PRAGMA\b", re.IGNORECASE)
_ALTER = re.compile(r"\s*ALTER\s+TABLE\b", re.IGNORECASE)
_INTERNAL = re.compile(r"printf|sqlite_", re.IGNORECASE)
_OWN_SEARCHES = frozenset({"like(2)", "like(3)"})
"""What ALTER TABLE looks for in the schema, which is short; expressions of the plugin's own it does not run."""
_OPENING = frozenset({"OpenRead", "OpenWrite", "ReopenIdx"})
"""Operations of SQLite's machine that open a table or an index: its root page, and the number of its database."""
_GAME_NUMBER = 2
"""After main and temp."""
_ROOTS = f"SELECT rootpage, tbl_name FROM {GAME}.sqlite_master"  # noqa: S608 - the name is ours
_NAMES = f"""
SELECT name FROM {GAME}.sqlite_master UNION SELECT name FROM pragma_module_list
UNION VALUES ('sqlite_master'), ('sqlite_schema'), ('sqlite_temp_master'), ('sqlite_temp_schema')
"""  # noqa: S608 - the name is ours
_LONGEST_SET = 1000
"""Characters to trim; SQLite would look at each of them for each character of a text, without being interrupted."""
_STORABLE = frozenset({type(None), bool, int, float, str, bytes})
_CLASSES = ("IntegrityError", "DataError", "NotSupportedError", "InternalError", "ProgrammingError", "OperationalError")


def _trimming(trim: Callable[[str, str], str]) -> Callable[[Any, Any], Any]:
    def trimmed(value: Any, characters: Any) -> Any:
        if value is None or characters is None:
            return None
        if len(str(characters)) > _LONGEST_SET:
            raise ValueError(characters)
        return trim(str(value), str(characters))

    return trimmed


_TRIMS = {"trim": _trimming(str.strip), "ltrim": _trimming(str.lstrip), "rtrim": _trimming(str.rstrip)}
"""With a set of characters."""


_ANY_PACE = pace_of((), _LONGEST_VALUE)


def _stopped() -> BrokerError:
    return BrokerError(f"OperationalError:{TOO_LONG}", "the statement took too long, or too much disk, and was stopped")


class SqliteExecutor:
    """The database for one jail. ``file`` is the game's, if any; ``own_file`` is made when it is first needed."""

    def __init__(self, file: Path | None, own_file: Path, access: Access, limits: DatabaseLimits) -> None:
        self._file = file
        self._own_file = own_file
        self._access = access
        self._limits = limits
        self._idle: dict[Mode, list[_Connection]] = {Mode.READ: [], Mode.WRITE: []}
        self._mutex = threading.Lock()
        self._is_closed = False

    def begin(self, mode: Mode) -> Transaction:
        """Open a transaction; one that writes is the only writer of what it may write."""
        with self._mutex:
            idle = self._idle[mode]
            connection = idle.pop() if idle else None
        connection = connection or _Connection(self._file, self._own_file, self._access, self._limits, mode)
        try:
            connection.begin()
        except sqlite3.Error as error:
            connection.close()
            raise connection.translate(error) from error
        return _Transaction(connection, self._limits, self._give_back)

    def close(self) -> None:
        """Close what is idle."""
        with self._mutex:
            self._is_closed = True
            idle = [connection for kept in self._idle.values() for connection in kept]
            self._idle = {Mode.READ: [], Mode.WRITE: []}
        for connection in idle:
            connection.close()

    def _give_back(self, connection: _Connection) -> None:
        with self._mutex:
            if not self._is_closed:
                self._idle[connection.mode].append(connection)
                return
        connection.close()


class _Connection:
    """A connection behind its fence."""

    def __init__(self, file: Path | None, own_file: Path, access: Access, limits: DatabaseLimits, mode: Mode) -> None:
        self.mode = mode
        self.deadline = float("inf")
        self._schema: list[Any] = []
        self._roots: frozenset[int] = frozenset()
        self._written: int | None = None
        self._next_look = 0.0
        self._pace: Pace | None = None
        self._temporary_size = limits.temporary_size
        self._readable = access.read
        is_reader = mode is Mode.READ
        self._authorizer = Authorizer(access.read, access.write, own=access.own, is_reader=is_reader)
        if access.own:
            create_file(own_file)
        self.driver = sqlite3.connect(
            _uri(own_file, is_reader=is_reader) if access.own else ":memory:",
            uri=True,
            timeout=_BUSY_TIMEOUT,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=0,  # a statement that was compiled for the host must not be found by the plugin
        )
        try:
            self._fence(file, access, limits, is_reader=is_reader)
        except BaseException:
            self.driver.close()
            raise

    def _fence(self, file: Path | None, access: Access, limits: DatabaseLimits, *, is_reader: bool) -> None:
        driver = self.driver
        driver.execute(
            f"ATTACH DATABASE ? AS {GAME}",
            [_uri(file, is_reader=is_reader or not access.write) if file is not None else ":memory:"],
        )
        driver.execute("PRAGMA foreign_keys=ON")
        driver.execute("PRAGMA trusted_schema=OFF")
        driver.execute("PRAGMA synchronous=FULL")
        driver.execute(f"PRAGMA {OWN}.max_page_count={limits.own_size // _PAGE}")
        if is_reader:
            driver.execute("PRAGMA query_only=ON")
        for limit, value in _LIMITS.items():
            driver.setlimit(limit, value)
        driver.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, limits.statement_length)
        driver.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, limits.parameters)
        driver.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 1)
        driver.execute("SELECT 1 FROM json_each('[]'), json_tree('[]')")  # these make themselves on first use
        for name, trim in _TRIMS.items():
            driver.create_function(name, 2, trim, deterministic=True)
        driver.set_authorizer(self._authorizer)
        self._authorizer.is_host = False

    def _is_too_much(self) -> bool:
        """Tell SQLite whether to stop: asked in the midst of a statement, in the thread that runs it."""
        now = time.monotonic()
        if now > self.deadline:
            return True
        if now < self._next_look:
            return False
        self._next_look = now + _BETWEEN_LOOKS
        written = _written_bytes()
        if self._written is None:
            self._written = written
        return written - self._written > self._temporary_size

    def _keep_to(self, pace: Pace) -> None:
        """Bound values, and look at the clock, as the statement wants it that runs next."""
        if pace != self._pace:
            self.driver.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, pace.longest)
            self.driver.set_progress_handler(self._is_too_much, pace.operations)
            self._pace = pace

    def go_on(self) -> None:
        """Raise what the clock raises, between two rows that a statement is run with."""
        if self._is_too_much():
            raise _stopped()

    def begin(self) -> None:
        """Begin a transaction, and look which tables there are now."""
        self.run_as_host("BEGIN IMMEDIATE" if self.mode is Mode.WRITE else "BEGIN")
        schema = self.run_as_host(f"PRAGMA {GAME}.schema_version")
        if schema != self._schema:
            self._authorizer.closed = frozenset(name.lower() for (name,) in self.run_as_host(_NAMES))
            self._roots = frozenset(root for root, table in self.run_as_host(_ROOTS) if table in self._readable)
            self._schema = schema

    def check(self, statement: str, row: Sequence[Any]) -> None:
        """Look at what the statement is compiled to, and give it the pace that follows from that.

        Raises:
            BrokerError: it joins in a way that the authorizer does not see, or opens what is closed.
        """
        if _UNSEEN.search(statement):
            raise refuse("joins with USING or NATURAL are not possible here; write the condition with ON")
        if _PRAGMA.match(statement):  # of the few that pass none reads rows, and they cannot be explained
            return
        program = []
        for _, operation, _, root, database, operand, *_ in self._explain(statement, row):
            if operation in _OPENING and database == _GAME_NUMBER and root not in self._roots:
                raise refuse("the statement uses a table that is not open to this plugin")
            is_own_search = self._authorizer.is_altering and operand in _OWN_SEARCHES
            program.append((operation, "" if is_own_search else str(operand)))
        self._keep_to(pace_of(program, _LONGEST_VALUE))

    def _explain(self, statement: str, row: Sequence[Any]) -> list[Any]:
        self.driver.text_factory = _readable_text  # bytes of the statement may be among it
        try:
            return self.driver.execute(f"EXPLAIN {statement}", row).fetchall()
        finally:
            self.driver.text_factory = str

    def run_as_host(self, statement: str) -> list[Any]:
        """Run a statement that plugins may not."""
        self._authorizer.is_host, self.deadline = True, float("inf")
        self._authorizer.deadline = float("inf")
        self._keep_to(_ANY_PACE)
        try:
            return self.driver.execute(statement).fetchall()
        finally:
            self._authorizer.is_host = False

    def translate(self, error: sqlite3.Error) -> BrokerError:
        """Return the error for the jail: the class it has there, its code, and what SQLite says."""
        denied, self._authorizer.denied = self._authorizer.denied, None
        if denied is not None and denied[0] == TOO_LONG:
            return BrokerError(f"OperationalError:{TOO_LONG}", denied[1])
        if denied is not None and not isinstance(error, sqlite3.IntegrityError):
            return refuse(denied[1], denied[0])
        name = str(getattr(error, "sqlite_errorname", None) or "")
        if name.startswith("SQLITE_READONLY"):
            return refuse("this session can only read", READ_ONLY)
        if name == "SQLITE_INTERRUPT":
            return _stopped()
        if self._pace != _ANY_PACE and self._pace is not None and str(error) == "string or blob too big":
            problem = f"{error}: this statement may use values of {self._pace.longest:,} bytes"
            return BrokerError(f"DataError:{name}", problem)
        kind = next((each for each in _CLASSES if type(error).__name__ == each), "OperationalError")
        return BrokerError(f"{kind}:{name}", str(error))

    def start(self, statement: str, seconds: float) -> None:
        """A statement of the plugin begins, and may take so long."""
        self._authorizer.denied = None
        self._authorizer.is_altering = bool(_ALTER.match(statement)) and not _INTERNAL.search(statement)
        self._written, self._next_look = None, 0.0
        self._keep_to(_ANY_PACE)
        self.deadline = self._authorizer.deadline = time.monotonic() + seconds

    def close(self) -> None:
        self.driver.close()


class _Transaction:
    def __init__(
        self, connection: _Connection, limits: DatabaseLimits, give_back: Callable[[_Connection], None]
    ) -> None:
        self._connection = connection
        self._limits = limits
        self._give_back = give_back

    def execute(self, statement: str, rows: Sequence[Sequence[Any]], *, is_many: bool) -> Outcome:
        connection = self._connection
        connection.start(statement, self._limits.statement_time)
        for row in rows:
            _check_storable(row)
        try:
            return self._run(statement, rows, is_many=is_many)
        except sqlite3.Error as error:
            raise connection.translate(error) from error
        except (OverflowError, UnicodeEncodeError, ValueError) as error:
            raise BrokerError("DataError:22000", str(error)) from error

    def stream(self, statement: str, take: Callable[[dict[str, Any]], None]) -> None:
        connection, driver = self._connection, self._connection.driver
        connection.start(statement, self._limits.statement_time)
        driver.text_factory = _text_or_bytes
        try:
            with contextlib.closing(driver.execute(statement)) as cursor:
                names = [name for name, *_ in cursor.description]
                for row in cursor:
                    take(dict(zip(names, row, strict=True)))
        except sqlite3.Error as error:
            raise connection.translate(error) from error
        finally:
            driver.text_factory = str

    def _run(self, statement: str, rows: Sequence[Sequence[Any]], *, is_many: bool) -> Outcome:
        cursor = self._connection.driver.cursor()
        outcome = Outcome()
        changed = 0
        if rows:
            self._connection.check(statement, rows[0])
        with contextlib.closing(cursor):
            for number, row in enumerate(rows):
                if number:
                    self._connection.go_on()
                cursor.execute(statement, row)
                if is_many:
                    cursor.fetchall()
                changed += max(cursor.rowcount, 0)
            outcome.lastrowid = cursor.lastrowid
            if cursor.description is not None and not is_many:
                outcome.columns = [[name, None] for name, *_ in cursor.description]
                taken = Rows(outcome, self._limits, _LONGEST_VALUE)
                for found in cursor:
                    taken.add(found)
            outcome.rowcount = changed if is_many else cursor.rowcount
        return outcome

    def savepoint(self, action: str, name: str) -> None:
        words = {"begin": "SAVEPOINT", "release": "RELEASE", "rollback": "ROLLBACK TO"}
        try:
            self._connection.run_as_host(f'{words[action]} "{name}"')
        except sqlite3.Error as error:
            raise self._connection.translate(error) from error

    def commit(self) -> None:
        try:
            self._connection.run_as_host("COMMIT")
        except sqlite3.Error as error:
            translated = self._connection.translate(error)
            self.rollback()
            raise translated from error
        self._give_back(self._connection)

    def rollback(self) -> None:
        try:
            if self._connection.driver.in_transaction:  # some errors have rolled back already
                self._connection.run_as_host("ROLLBACK")
        except sqlite3.Error:
            self._connection.close()
        else:
            self._give_back(self._connection)

    def interrupt(self) -> None:
        self._connection.deadline = 0.0


def _text_or_bytes(value: bytes) -> str | bytes:
    """Return a text; its bytes where it is none: SQLite takes any for a text."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _readable_text(content: bytes) -> str:
    return content.decode(errors="replace")


def _written_bytes() -> int:
    """Return how many bytes this thread has written; 0 where the kernel does not tell."""
    try:
        text = _THREAD_IO.read_text(encoding="ascii")
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("wchar:")), 0)


def _check_storable(row: Sequence[Any]) -> None:
    for value in row:
        if type(value) not in _STORABLE:
            raise BrokerError(
                "NotSupportedError", f"SQLite stores no {type(value).__name__}; let a column type convert it"
            )


def _uri(file: Path, *, is_reader: bool) -> str:
    return f"{file.absolute().as_uri()}?mode={'ro' if is_reader else 'rw'}"
