"""Answers ``db.*`` calls of a jail: opens its transactions, and lets nothing of it wait, grow or stay for long."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pixsim7_backend.community.tables import describe_tables
from pixsim7_backend.db import Database, default_database
from pixsim7_backend.db.urls import data_directory_from_environment
from pixsim7_backend.infrastructure.plugins._grants.permissions import Grants
from pixsim7_backend.infrastructure.plugins._jail.broker import (
    BrokerError,
    CallContext,
    JailIdentity,
    ServiceSession,
)

from .executor import Executor, Mode, Outcome, Transaction, refuse
from .limits import DatabaseLimits
from .openness import Access, Openness, access_of, present_openness
from .own_file import own_file_of
from .postgres_executor import PostgresExecutor
from .roles import login_of, own_schema
from .sqlite_executor import SqliteExecutor
from .statements import check_statement
from .wire import WireError, from_wire, size_of

__all__ = ["DatabaseService"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_PIECE = 256 << 10
"""Bytes of rows in one reply."""


class DatabaseService:
    """The database for community plugins. Paths and passwords of the host stay here.

    Args:
        database: gives the host's database; the process's own by default.
        data_dir: where files with own tables lie, and the passwords of roles; ``DATA_DIR`` by default.
        limits: for each jail.
        openness: gives what is open.
    """

    family = "db"
    inside: str | None = "pixsim7_backend.community.database.inside:install"
    permissions: tuple[str, ...] = ("db:read", "db:write", "db:own")

    def __init__(
        self,
        database: Callable[[], Database] = default_database,
        *,
        data_dir: Path | None = None,
        limits: DatabaseLimits | None = None,
        openness: Callable[[], Openness] = present_openness,
    ) -> None:
        self._database = database
        self._data_dir = data_dir or data_directory_from_environment()
        self._limits = limits or DatabaseLimits()
        self._openness = openness
        self._numbers: defaultdict[str, Iterator[int]] = defaultdict(lambda: itertools.count(1))
        """Of transactions and results by plugin: no session takes a number of another one's for its own."""

    def describe(self, jail: JailIdentity, grants: Grants) -> Mapping[str, Any]:
        """Return the kind of database, and what of it the plugin may use."""
        openness = self._openness()
        access = access_of(grants, openness)
        return {
            "kind": "sqlite" if self._database().is_sqlite else "postgresql",
            "plugin": jail.plugin,
            "transactions": self._limits.transactions,
            "read": access.may_read,
            "write": access.may_write,
            "tables": describe_tables(openness, access.read),
        }

    def open(self, jail: JailIdentity, grants: Grants) -> ServiceSession:
        """Return what answers one jail."""
        access = access_of(grants, self._openness())
        return _Session(self._executor(jail.plugin, access), access, self._limits, self._numbers[jail.plugin])

    def _executor(self, plugin: str, access: Access) -> Executor:
        database = self._database()
        if database.file is not None:
            return SqliteExecutor(database.file, own_file_of(self._data_dir, plugin), access, self._limits)
        url = database.url.render_as_string(hide_password=False)
        login = login_of(url, plugin, self._data_dir)
        return PostgresExecutor(login, own_schema(plugin), access, self._limits)


@dataclass(slots=True, eq=False)
class _Open:
    """A transaction that is open, and what is left to fetch of its results."""

    transaction: Transaction
    mode: Mode
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    results: dict[int, list[list[Any]]] = field(default_factory=dict)
    until: asyncio.TimerHandle | None = None
    idle: asyncio.TimerHandle | None = None
    used_at: float = 0.0
    """On the clock of the event loop."""
    over: str = ""
    """Why it is over; empty while it is not."""

    def touch(self) -> None:
        """Something was done in it."""
        self.used_at = asyncio.get_running_loop().time()


_Method = Callable[..., Awaitable[Any]]
_Result = TypeVar("_Result")


class _Session:
    """The database for one jail process."""

    def __init__(self, executor: Executor, access: Access, limits: DatabaseLimits, numbers: Iterator[int]) -> None:
        self._executor = executor
        self._access = access
        self._limits = limits
        self._open: dict[int, _Open] = {}
        self._ended: dict[int, str] = {}
        self._numbers = numbers
        self._places = asyncio.Semaphore(limits.transactions)
        self._threads = ThreadPoolExecutor(limits.transactions + 2, thread_name_prefix="jail database")
        self._ending: set[asyncio.Task[None]] = set()
        self._methods: Mapping[str, tuple[_Method, tuple[type, ...]]] = {
            "begin": (self._begin, (str,)),
            "first": (self._first, (str, str, list)),
            "execute": (self._execute, (int, str, list)),
            "many": (self._many, (int, str, list)),
            "fetch": (self._fetch, (int, int)),
            "forget": (self._forget, (int, int)),
            "savepoint": (self._savepoint, (int, str, str)),
            "commit": (self._commit, (int,)),
            "rollback": (self._rollback, (int,)),
        }

    async def call(self, method: str, args: Sequence[Any], call: CallContext) -> Any:
        """Answer one call; see the methods for their arguments."""
        work, kinds = self._methods.get(method, (None, ()))
        if work is None or tuple(map(type, args)) != kinds:
            raise BrokerError("InterfaceError", f"the host knows no 'db.{method[:40]}' with such arguments")
        try:
            return await work(call, *args)
        except WireError as error:
            raise BrokerError("DataError:22000", str(error)) from error

    async def close(self) -> None:
        """Undo what is open."""
        for open_ in tuple(self._open.values()):
            open_.transaction.interrupt()
        await asyncio.gather(*(self._end(number, "the plugin was stopped") for number in tuple(self._open)))
        await asyncio.gather(*self._ending, return_exceptions=True)
        await self._in_thread(self._executor.close)
        self._threads.shutdown(wait=False)

    # --- what a jail may call ------------------------------------------------------------------------

    async def _begin(self, _call: CallContext, mode: str) -> int:
        """Open a transaction; return its number."""
        if mode not in tuple(Mode):
            raise refuse("a transaction is for 'read' or 'write'")
        if not (self._access.may_read if mode == Mode.READ else self._access.may_write):
            raise refuse(f"no permission for transactions that {mode} is granted")
        try:
            async with asyncio.timeout(self._limits.statement_time):
                await self._places.acquire()
        except TimeoutError:
            raise BrokerError(
                "OperationalError:53300",
                f"all {self._limits.transactions} transactions of this plugin are open; end them sooner",
            ) from None
        number = next(self._numbers)
        try:
            begin = partial(self._executor.begin, Mode(mode))
            open_ = _Open(await self._in_thread(begin, undo=lambda begun: begun.rollback()), Mode(mode))
        except BaseException:
            self._places.release()
            raise
        self._open[number] = open_
        limits = self._limits
        is_alone = isinstance(self._executor, SqliteExecutor) or bool(self._access.write)
        longest = limits.write_time if open_.mode is Mode.WRITE and is_alone else limits.transaction_time
        open_.until = self._later(longest, number, f"it was open for more than {longest:g} s")
        open_.touch()
        self._end_when_idle(number, open_)
        return number

    async def _first(self, call: CallContext, mode: str, statement: str, row: list[Any]) -> list[Any]:
        """Open a transaction and run its first statement; return both. Where that fails, nothing is left open."""
        number = await self._begin(call, mode)
        try:
            return [number, await self._execute(call, number, statement, row)]
        except BaseException:
            await self._end(number, "its first statement failed")
            raise

    async def _execute(self, call: CallContext, number: int, statement: str, row: list[Any]) -> dict[str, Any]:
        """Run one statement with its parameters; return what came of it, with as many rows as go into a reply."""
        outcome = await self._run(call, number, statement, [row], is_many=False)
        answer: dict[str, Any] = {
            "columns": outcome.columns,
            "rowcount": outcome.rowcount,
            "lastrowid": outcome.lastrowid,
            "rows": [],
            "result": 0,
        }
        if outcome.size <= _PIECE:
            answer["rows"] = outcome.rows
        else:
            result = next(self._numbers)
            outcome.rows.reverse()
            self._open[number].results[result] = outcome.rows
            answer |= {"result": result, "rows": self._piece(self._open[number], result)}
        return answer

    async def _many(self, call: CallContext, number: int, statement: str, rows: list[Any]) -> int:
        """Run one statement with each row of parameters; return how many rows it changed."""
        if len(rows) > self._limits.parameter_rows:
            raise refuse(f"a call may have {self._limits.parameter_rows} rows of parameters", "54000")
        return (await self._run(call, number, statement, rows, is_many=True)).rowcount

    async def _fetch(self, _call: CallContext, number: int, result: int) -> list[Any]:
        """Return the next rows of a result; none are left after an empty list."""
        open_ = self._find(number)
        open_.touch()
        return self._piece(open_, result)

    async def _forget(self, _call: CallContext, number: int, result: int) -> None:
        """The rest of a result is not wanted."""
        if (open_ := self._open.get(number)) is not None:
            open_.results.pop(result, None)

    async def _savepoint(self, _call: CallContext, number: int, action: str, name: str) -> None:
        """``begin``, ``release`` or ``rollback`` a savepoint."""
        if action not in ("begin", "release", "rollback") or not _NAME.fullmatch(name):
            raise refuse("a savepoint is begun, released or rolled back, and its name is a plain identifier")
        open_ = self._find(number)
        async with open_.turn:
            self._check(open_)
            await self._in_thread(partial(open_.transaction.savepoint, action, name))
            open_.touch()

    async def _commit(self, _call: CallContext, number: int) -> None:
        """Keep what was written."""
        open_ = self._find(number)
        async with open_.turn:
            self._check(open_)
            self._close(number, open_, "it was committed")
            await self._in_thread(open_.transaction.commit)

    async def _rollback(self, _call: CallContext, number: int) -> None:
        """Keep nothing; fine for a transaction that is over."""
        await self._end(number, "it was rolled back")

    # --- how -------------------------------------------------------------------------------------------

    async def _run(self, call: CallContext, number: int, statement: str, rows: list[Any], *, is_many: bool) -> Outcome:
        parameters = self._check_statement(statement, rows)
        open_ = self._find(number)
        async with open_.turn:
            self._check(open_)
            call.count("statements", 1)
            try:
                work = partial(open_.transaction.execute, statement, parameters, is_many=is_many)
                outcome = await self._in_thread(work, stop=open_.transaction.interrupt)
            finally:
                open_.touch()
        held = sum(map(len, open_.results.values()))
        call.count("rows", len(outcome.rows))
        call.count("bytes", outcome.size)
        if held + len(outcome.rows) > 2 * self._limits.rows:
            raise refuse("too many results of this transaction are not fetched yet", "54000")
        return outcome

    def _check_statement(self, statement: str, rows: list[Any]) -> list[list[Any]]:
        if any(type(row) is not list for row in rows):
            raise refuse("the parameters of a statement are a list")
        limits = self._limits
        if len(statement) > limits.statement_length or any(len(row) > limits.parameters for row in rows):
            raise refuse(
                f"a statement may have {limits.statement_length:,} characters and {limits.parameters:,} parameters",
                "54000",
            )
        if (reason := check_statement(statement, may_define=self._access.own)) is not None:
            raise refuse(reason)
        return [[from_wire(value) for value in row] for row in rows]

    def _piece(self, open_: _Open, result: int) -> list[list[Any]]:
        left, size = open_.results.get(result) or [], 0
        piece: list[list[Any]] = []
        while left and (not piece or size + size_of(left[-1]) <= _PIECE):
            piece.append(left.pop())
            size += size_of(piece[-1])
        if not left:
            open_.results.pop(result, None)
        return piece

    def _find(self, number: int) -> _Open:
        open_ = self._open.get(number)
        if open_ is None:
            reason = self._ended.get(number, "the host knows no such transaction")
            raise BrokerError("OperationalError:25P03", f"the transaction is over: {reason}")
        return open_

    def _check(self, open_: _Open) -> None:
        """Ask again when the turn has come."""
        if open_.over:
            raise BrokerError("OperationalError:25P03", f"the transaction is over: {open_.over}")

    def _end_when_idle(self, number: int, open_: _Open) -> None:
        """Look again when it may have been idle for too long: one timer, however many statements it runs."""
        loop, idle = asyncio.get_running_loop(), self._limits.idle_time
        left = idle if open_.turn.locked() else open_.used_at + idle - loop.time()
        if left <= 0:
            self._end_soon(number, f"nothing was done in it for {idle:g} s")
        else:
            open_.idle = loop.call_later(left, self._end_when_idle, number, open_)

    def _later(self, seconds: float, number: int, reason: str) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(seconds, self._end_soon, number, reason)

    def _end_soon(self, number: int, reason: str) -> None:
        open_ = self._open.get(number)
        if open_ is None:
            return
        open_.transaction.interrupt()
        task = asyncio.get_running_loop().create_task(self._end(number, reason), name="ending a jail's transaction")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _end(self, number: int, reason: str) -> None:
        open_ = self._open.get(number)
        if open_ is None:
            return
        async with open_.turn:
            if not open_.over:
                self._close(number, open_, reason)
                await self._in_thread(open_.transaction.rollback)

    def _close(self, number: int, open_: _Open, reason: str) -> None:
        open_.over = reason
        open_.results.clear()
        for timer in (open_.until, open_.idle):
            if timer is not None:
                timer.cancel()
        del self._open[number]
        self._ended[number] = reason
        if len(self._ended) > 100:
            del self._ended[next(iter(self._ended))]
        self._places.release()

    async def _in_thread(
        self,
        work: Callable[[], _Result],
        *,
        stop: Callable[[], None] | None = None,
        undo: Callable[[_Result], None] | None = None,
    ) -> _Result:
        """Run what blocks, to its end: even who is cancelled waits for it, since nothing else may run beside it.

        Who is cancelled has it stopped, and what came of it undone.
        """
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def finish() -> None:
            if not done.done():
                done.set_result(None)

        def tell(_running: Future[_Result]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(finish)

        running = self._threads.submit(work)
        running.add_done_callback(tell)
        cancelled: asyncio.CancelledError | None = None
        while not running.done():
            try:
                await done
            except asyncio.CancelledError as error:
                cancelled, done = error, loop.create_future()
                if stop is not None:
                    stop()
        if cancelled is None:
            return running.result()
        if running.exception() is None and undo is not None:
            self._threads.submit(undo, running.result())
        raise cancelled
