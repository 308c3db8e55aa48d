"""Runs statements of a jail on PostgreSQL: on connections of the plugin's own role, in transactions of the host's.

What the role was granted is the boundary. Beyond that, every statement goes by the extended protocol, which takes
one at a time; the host stops what takes too long itself, since a role may change its own settings; and whatever
a statement changed of the session is discarded with the transaction.
"""

from __future__ import annotations

import contextlib
import select
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import psycopg
import psycopg.abc
from psycopg import pq, sql
from psycopg.adapt import PyFormat, Transformer
from psycopg.types.string import TextLoader

from pixsim7_backend.infrastructure.plugins._jail.broker import BrokerError

from .executor import Mode, Outcome, Rows, Transaction, refuse
from .limits import DatabaseLimits
from .openness import Access
from .relay import Relay

__all__ = ["PostgresExecutor"]

_CONNECT_TIMEOUT = 5
_PATIENCE = 3.0
"""Seconds for the server to stop a statement; then the connection is cut."""
_LONGEST_ROW = 900_000
_SLACK = 2
"""How much larger than its values a result is on its way, as text with lengths."""
_LOCK_TIMEOUT = "3s"
_CLASSES = (
    psycopg.IntegrityError,
    psycopg.DataError,
    psycopg.NotSupportedError,
    psycopg.InternalError,
    psycopg.ProgrammingError,
)
_TUPLES = frozenset({pq.ExecStatus.TUPLES_OK, pq.ExecStatus.SINGLE_TUPLE})
_SUCCESS = _TUPLES | {pq.ExecStatus.COMMAND_OK, pq.ExecStatus.EMPTY_QUERY}
_AS_TEXT = ("json", "jsonb", "inet", "cidr")
"""What the dialect in the jail reads itself, or has no type for."""

_PRIVILEGES = """
SELECT c.relnamespace::regnamespace::text, c.relname, NULL, p.privilege_type
FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) p WHERE p.grantee = current_user::regrole
UNION ALL
SELECT c.relnamespace::regnamespace::text, c.relname, a.attname, p.privilege_type
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid, pg_catalog.aclexplode(a.attacl) p
WHERE p.grantee = current_user::regrole
UNION ALL
SELECT nspname, nspname, NULL, 'OWNER' FROM pg_catalog.pg_namespace WHERE nspowner = current_user::regrole
"""

_OWN_SIZE = """
WITH own AS MATERIALIZED (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = %s::name)
SELECT (
  (SELECT coalesce(sum(16384 + CASE WHEN c.relkind IN ('r', 'm', 'S')
      THEN pg_catalog.pg_total_relation_size(c.oid::pg_catalog.regclass) ELSE 0 END), 0)
    FROM pg_catalog.pg_class c JOIN own ON own.oid = c.relnamespace)
  + (SELECT count(*) * 4096 FROM pg_catalog.pg_type t JOIN own ON own.oid = t.typnamespace)
  + (SELECT count(*) * 128 FROM pg_catalog.pg_enum e JOIN pg_catalog.pg_type t ON t.oid = e.enumtypid
      JOIN own ON own.oid = t.typnamespace)
  + (SELECT coalesce(sum(1024 + coalesce(pg_catalog.pg_column_size(k.conbin), 0)), 0)
      FROM pg_catalog.pg_constraint k JOIN own ON own.oid = k.connamespace)
  + (SELECT coalesce(sum(pg_catalog.pg_column_size(d.adbin)), 0)
      FROM pg_catalog.pg_attrdef d JOIN pg_catalog.pg_class c ON c.oid = d.adrelid JOIN own ON own.oid = c.relnamespace)
  + (SELECT coalesce(sum(pg_catalog.pg_column_size(d.description)), 0)
      FROM pg_catalog.pg_description d JOIN pg_catalog.pg_class c ON c.oid = d.objoid AND d.classoid = c.tableoid
      JOIN own ON own.oid = c.relnamespace)
)::pg_catalog.int8
"""
"""Rows and indexes, and what a definition takes of the catalogues, which are everybody's."""
_COPYING = frozenset({pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_BOTH})


class PostgresExecutor:
    """The database for one jail.

    ``conninfo`` logs in as the plugin's role, and ``schema`` is that of its own tables, where it may have any. A role
    that may do more than ``access`` is not used: the database lags behind what was decided.
    """

    def __init__(self, conninfo: str, schema: str, access: Access, limits: DatabaseLimits) -> None:
        self._conninfo = conninfo
        self._own = schema
        self._schema = schema if access.own else None
        self._access = access
        self._limits = limits
        self._idle: list[psycopg.Connection[Any]] = []
        self._mutex = threading.Lock()
        self._is_closed = False

    def begin(self, mode: Mode) -> Transaction:
        """Open a transaction; one for reading cannot be made to write any more."""
        connection = self._take()
        try:
            connection.execute(self._opening(mode))
        except psycopg.Error as error:
            connection.close()
            raise _translate(error) from error
        size = self._own_size(connection) if mode is Mode.WRITE and self._schema else None
        return _Transaction(connection, self, size)

    def close(self) -> None:
        """Close what is idle."""
        with self._mutex:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def give_back(self, connection: psycopg.Connection[Any]) -> None:
        """Take a connection whose transaction is over."""
        try:
            connection.execute("DISCARD ALL")
        except psycopg.Error:
            connection.close()
            return
        with self._mutex:
            if not self._is_closed:
                self._idle.append(connection)
                return
        connection.close()

    def check_size(self, connection: psycopg.Connection[Any], before: int) -> None:
        """Refuse to commit what makes the plugin's own tables too large.

        Raises:
            BrokerError: it does.
        """
        size, allowed = self._own_size(connection), self._limits.own_size
        if size > max(allowed, before):
            raise BrokerError(
                "OperationalError:53100",
                f"the plugin's own tables would have {size:,} bytes; {allowed:,} are allowed: drop or empty some first",
            )

    @property
    def limits(self) -> DatabaseLimits:
        return self._limits

    def too_large(self) -> BrokerError:
        """Return the error for a result that is too large."""
        return refuse(f"a statement may give {self._limits.result_size:,} bytes", "54000")

    def _take(self) -> psycopg.Connection[Any]:
        with self._mutex:
            idle = [self._idle.pop()] if self._idle else []
        if idle and not idle[0].closed:
            return idle[0]
        try:
            connection: psycopg.Connection[Any] = psycopg.connect(
                self._conninfo, autocommit=True, connect_timeout=_CONNECT_TIMEOUT, application_name="pixsim7 jail"
            )
        except psycopg.Error as error:
            raise BrokerError(
                "OperationalError:08001",
                "the host cannot log in to the database for this plugin; `pixsim7 plugins grants apply` prepares that",
            ) from error
        try:
            self._check_role(connection)
        except BaseException:
            connection.close()
            raise
        connection.prepare_threshold = None
        for name in _AS_TEXT:
            connection.adapters.register_loader(name, TextLoader)
        return connection

    def _check_role(self, connection: psycopg.Connection[Any]) -> None:
        """Refuse a role that may do more than was granted.

        Raises:
            BrokerError: it may, with one example.
        """
        for schema, table, column, privilege in connection.execute(_PRIVILEGES):
            is_admitted = self._access.own if schema == self._own else self._access.admits(privilege, table, column)
            if not is_admitted:
                raise refuse(
                    f"this plugin's role in the database still has {privilege} on {table}, which is not granted (any"
                    " more); nothing is done with it before the administrator has run `pixsim7 plugins grants apply`"
                )

    def _opening(self, mode: Mode) -> sql.Composed:
        """Return what begins a transaction: it fixes what a role's own settings could say otherwise."""
        path = [sql.Identifier(self._schema)] if self._schema else []
        path.append(sql.Identifier("public"))
        begin = "READ ONLY" if mode is Mode.READ else "READ WRITE"
        level = "REPEATABLE READ" if mode is Mode.READ else "READ COMMITTED"
        return sql.SQL(
            "BEGIN ISOLATION LEVEL {level} {begin}; SET LOCAL search_path = {path}; SET LOCAL timezone = 'UTC';"
            " SET LOCAL work_mem = {memory}; SET LOCAL statement_timeout = {statement};"
            " SET LOCAL lock_timeout = {lock};"
            " SET LOCAL idle_in_transaction_session_timeout = {idle};"
            " SET LOCAL max_parallel_workers_per_gather = 0; SELECT 1"
        ).format(
            level=sql.SQL(level),
            begin=sql.SQL(begin),
            path=sql.SQL(", ").join(path),
            memory=sql.Literal(f"{self._limits.work_memory // 1024}kB"),
            statement=sql.Literal(f"{int(self._limits.statement_time * 1000) + 500}ms"),
            lock=sql.Literal(_LOCK_TIMEOUT),
            idle=sql.Literal(f"{int(self._limits.idle_time * 2000)}ms"),
        )

    def _own_size(self, connection: psycopg.Connection[Any]) -> int:
        found = connection.execute(_OWN_SIZE, [self._schema]).fetchone()
        assert found is not None
        return int(found[0])


class _Transaction:
    def __init__(self, connection: psycopg.Connection[Any], executor: PostgresExecutor, size: int | None) -> None:
        self._connection = connection
        self._executor = executor
        self._size = size
        self._is_interrupted = False
        self._most = _SLACK * executor.limits.result_size

    def execute(self, statement: str, rows: Sequence[Sequence[Any]], *, is_many: bool) -> Outcome:
        limits = self._executor.limits
        deadline = time.monotonic() + limits.statement_time
        outcome, changed = Outcome(), 0
        try:
            for row in rows:
                taken = None if is_many else Rows(outcome, limits, _LONGEST_ROW)
                self._run(statement, row, outcome, taken, deadline)
                changed += max(outcome.rowcount, 0)
        except psycopg.Error as error:
            raise _translate(error) from error
        except (UnicodeEncodeError, OverflowError, ValueError) as error:
            raise BrokerError("DataError:22000", str(error)) from error
        if is_many:
            outcome.columns, outcome.rowcount = None, changed
        return outcome

    def stream(self, statement: str, take: Callable[[dict[str, Any]], None]) -> None:
        outcome = Outcome()
        deadline = time.monotonic() + self._executor.limits.statement_time
        try:
            self._run(statement, [], outcome, _Streamed(outcome, take), deadline)
        except psycopg.Error as error:
            raise _translate(error) from error

    def _run(self, statement: str, row: Sequence[Any], outcome: Outcome, taken: _Taker | None, deadline: float) -> None:
        transformer = Transformer(self._connection)
        values = transformer.dump_sequence(row, [PyFormat.AUTO] * len(row))
        pgconn = self._connection.pgconn
        pgconn.send_query_params(
            statement.encode(), values, param_types=transformer.types, param_formats=transformer.formats
        )
        pgconn.set_single_row_mode()
        wrong: Exception | None = None
        is_first = True
        for result in self._results(deadline):
            if result.status not in _SUCCESS:
                wrong = wrong or psycopg.errors.error_from_result(result, encoding="utf-8")
            elif wrong is None:
                try:
                    _take(result, transformer, outcome, taken, is_first=is_first)
                    is_first = False
                except (BrokerError, psycopg.Error) as error:
                    wrong = error
                    self._stop()
        if pgconn.transaction_status == pq.TransactionStatus.IDLE:
            self._connection.close()
            wrong = psycopg.OperationalError("the statement ended the transaction; its connection was cut")
        if wrong is not None:
            raise wrong

    def _results(self, deadline: float) -> Iterator[pq.abc.PGresult]:
        """Give what the server sends; a statement that takes too long is stopped, or else the connection cut."""
        pgconn = self._connection.pgconn
        is_stopped, received = False, 0
        with contextlib.closing(Relay(pgconn)) as relay:
            while True:
                while (is_unsent := pgconn.flush()) or pgconn.is_busy():
                    left = deadline - time.monotonic()
                    if self._is_interrupted or left <= 0:
                        if is_stopped:
                            self._connection.close()
                            raise psycopg.OperationalError("the statement could not be stopped; its connection was cut")
                        is_stopped, self._is_interrupted, deadline = True, False, time.monotonic() + _PATIENCE
                        self._stop()
                        continue
                    if _is_readable(relay, min(left, 0.25), is_unsent=bool(is_unsent)):
                        received += relay.take()
                        if received > self._most:  # of one row: the driver gives none before it has all of it
                            self._connection.close()
                            raise self._executor.too_large()
                result, received = pgconn.get_result(), 0
                if result is None:
                    return
                if result.status in _COPYING:  # it would wait for data, or give the same result for ever
                    self._connection.close()
                    raise refuse("a plugin copies nothing: use SELECT and INSERT; its connection was cut")
                yield result

    def _stop(self) -> None:
        with contextlib.suppress(psycopg.Error):
            self._connection.cancel_safe(timeout=_PATIENCE)

    def savepoint(self, action: str, name: str) -> None:
        words = {"begin": "SAVEPOINT {}", "release": "RELEASE SAVEPOINT {}", "rollback": "ROLLBACK TO SAVEPOINT {}"}
        try:
            self._connection.execute(sql.SQL(words[action]).format(sql.Identifier(name)))
        except psycopg.Error as error:
            raise _translate(error) from error

    def commit(self) -> None:
        try:
            if self._size is not None and self._connection.pgconn.transaction_status == pq.TransactionStatus.INTRANS:
                self._executor.check_size(self._connection, self._size)
            self._connection.execute("COMMIT")
        except psycopg.Error as error:
            self.rollback()
            raise _translate(error) from error
        except BrokerError:
            self.rollback()
            raise
        self._executor.give_back(self._connection)

    def rollback(self) -> None:
        try:
            self._connection.execute("ROLLBACK")
        except psycopg.Error:
            self._connection.close()
        else:
            self._executor.give_back(self._connection)

    def interrupt(self) -> None:
        self._is_interrupted = True


def _is_readable(relay: Relay, seconds: float, *, is_unsent: bool) -> bool:
    """Wait until the server has sent something, or takes what is still to be sent; tell whether it has sent."""
    poll = select.poll()  # unlike select.select, it takes descriptors of any number
    poll.register(relay, select.POLLIN | (select.POLLOUT if is_unsent else 0))
    return any(events & ~select.POLLOUT for _, events in poll.poll(seconds * 1000))


class _Taker(Protocol):
    def add(self, row: Sequence[Any]) -> None: ...


class _Streamed:
    """Gives rows on, and keeps none."""

    def __init__(self, outcome: Outcome, take: Callable[[dict[str, Any]], None]) -> None:
        self._outcome = outcome
        self._take = take

    def add(self, row: Sequence[Any]) -> None:
        names = (name for name, _ in self._outcome.columns or ())
        self._take(dict(zip(names, row, strict=True)))


def _take(
    result: pq.abc.PGresult,
    transformer: psycopg.abc.Transformer,
    outcome: Outcome,
    taken: _Taker | None,
    *,
    is_first: bool,
) -> None:
    """Take a piece of the result: a row, or its end with the number of rows."""
    if result.status in _TUPLES:
        transformer.set_pgresult(result, set_loaders=is_first)
        if outcome.columns is None:
            outcome.columns = [
                [(result.fname(column) or b"").decode(), result.ftype(column)] for column in range(result.nfields)
            ]
        if taken is not None:
            for position in range(result.ntuples):
                taken.add(transformer.load_row(position, tuple) or ())
    if result.status is not pq.ExecStatus.SINGLE_TUPLE:
        outcome.rowcount = result.command_tuples if result.command_tuples is not None else -1


def _translate(error: Exception) -> BrokerError:
    """Return the error for the jail: the class it has there, its code, and what the server says in one sentence."""
    if not isinstance(error, psycopg.Error):
        raise error
    code = error.sqlstate or ""
    if code == "57014":
        return BrokerError(f"OperationalError:{code}", "the statement took too long and was stopped")
    if code in ("42501", "25006"):
        return refuse(_sentence(error), code)
    kind = next((each.__name__ for each in _CLASSES if isinstance(error, each)), "OperationalError")
    return BrokerError(f"{kind}:{code}", _sentence(error))


def _sentence(error: psycopg.Error) -> str:
    return error.diag.message_primary or (str(error).splitlines() or ["the database failed"])[0]
