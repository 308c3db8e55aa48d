"""The session of this platform: stores in-place JSON changes, and takes no write lock once the answer is on its way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, Delete, Engine, Insert, Result, Select, TextClause, Update, event
from sqlalchemy.orm import ORMExecuteState, Session, SessionTransaction

from .errors import ReadOnlySessionError
from .sqlite import is_event_loop_thread
from .tracking import mark_changed_json


class PlatformSession(Session):
    """A session whose flush also stores JSON values that were changed in place.

    ``is_read_only``: a flush with changes raises ReadOnlySessionError. ``reader`` gives the engine
    that cannot write; see :meth:`answer` for when it is used.
    """

    def __init__(
        self, *args: Any, reader: Callable[[], Engine] | None = None, is_read_only: bool = False, **options: Any
    ) -> None:
        super().__init__(*args, expire_on_commit=False, **options)
        self.is_read_only = is_read_only
        self.has_answered = False
        self.began_on_event_loop = False
        self._reader = reader
        self._reading_depth = 0
        self._is_writing = False

    @property
    def has_changes(self) -> bool:
        """True when something waits to be flushed."""
        mark_changed_json(self)
        return bool(self.new or self.deleted) or any(self.is_modified(row) for row in self.dirty)

    @property
    def has_uncommitted_writes(self) -> bool:
        """True when a commit would store something."""
        return self._is_writing or self.has_changes

    def answer(self) -> None:
        """From now on the response is being sent, by a client that may be slow.

        Plain reads use the reading engine and give their connection back at once; only results that
        are streamed (``yield_per``) keep it. Writing still works, but must be committed by who writes.
        """
        self.has_answered = True

    def flush(self, objects: Sequence[Any] | None = None) -> None:
        """Write what has changed; see :meth:`sqlalchemy.orm.Session.flush`.

        Raises:
            ReadOnlySessionError: the session is read-only and something has changed.
        """
        mark_changed_json(self)
        if self.is_read_only and self.has_changes:
            raise ReadOnlySessionError("flush changed objects")
        super().flush(objects)

    def get_bind(self, mapper: Any = None, **context: Any) -> Engine | Connection:
        """Return where to run: the usual engine, or for plain reads after the answer the reading one."""
        needs_writer = self._is_writing or self._flushing or _is_write(context.get("clause"))
        if self.has_answered and self._reader is not None and not needs_writer:
            return self._reader()
        return super().get_bind(mapper, **context)

    def read_and_release(self, state: ORMExecuteState) -> Result[Any] | None:
        """Run a read after the answer and give its connection back; None: leave it to the usual way."""
        if not self._is_releasing(state):
            return None
        self._reading_depth += 1
        try:
            result: Result[Any] = state.invoke_statement()
            if getattr(result, "_unique_filter_state", None) is not None:
                return result  # the caller must call unique() on it before anything is fetched
            frozen = result.freeze()
        finally:
            self._reading_depth -= 1
        if not self._reading_depth and not self.has_uncommitted_writes:
            self.commit()
        return frozen()

    def _is_releasing(self, state: ORMExecuteState) -> bool:
        is_streamed = {"yield_per", "stream_results"} & set(state.execution_options)
        is_plain_read = state.is_select and not _is_write(state.statement)
        return self.has_answered and not is_streamed and (is_plain_read or isinstance(state.statement, TextClause))


def _is_write(clause: Any) -> bool:
    if isinstance(clause, Select):
        return clause._for_update_arg is not None
    return isinstance(clause, (Insert, Update, Delete))


@event.listens_for(PlatformSession, "do_orm_execute")
def _on_execute(state: ORMExecuteState) -> Result[Any] | None:
    session = state.session
    assert isinstance(session, PlatformSession)
    return session.read_and_release(state)


@event.listens_for(PlatformSession, "after_begin")
def _on_begin(session: PlatformSession, _transaction: SessionTransaction, connection: Connection) -> None:
    session.began_on_event_loop = is_event_loop_thread()
    session._is_writing = not session.is_read_only and connection.engine is session.bind


@event.listens_for(PlatformSession, "after_transaction_end")
def _on_end(session: PlatformSession, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session._is_writing = session.began_on_event_loop = False
