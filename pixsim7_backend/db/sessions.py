"""The session of this platform: stores in-place JSON changes, and knows when it may only read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, Delete, Engine, Insert, Select, Update
from sqlalchemy.orm import Session

from .errors import ReadOnlySessionError
from .tracking import mark_changed_json


class PlatformSession(Session):
    """A session whose flush also stores JSON values that were changed in place.

    ``is_read_only``: a flush with changes raises ReadOnlySessionError. ``reader`` gives the engine
    that cannot write; once :attr:`has_answered` is set, plain reads go there, so that a session that
    is used while the response is sent takes no write lock.
    """

    def __init__(
        self, *args: Any, reader: Callable[[], Engine] | None = None, is_read_only: bool = False, **options: Any
    ) -> None:
        super().__init__(*args, expire_on_commit=False, **options)
        self.is_read_only = is_read_only
        self.has_answered = False
        self._reader = reader
        self._has_written = False

    @property
    def has_changes(self) -> bool:
        """True when something waits to be flushed."""
        mark_changed_json(self)
        return bool(self.new or self.deleted) or any(self.is_modified(row) for row in self.dirty)

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
        if not self.has_answered or self._reader is None or self._is_writing(context.get("clause")):
            return super().get_bind(mapper, **context)
        return self._reader()

    def _is_writing(self, clause: Any) -> bool:
        if self._flushing or isinstance(clause, (Insert, Update, Delete)):
            return True
        return isinstance(clause, Select) and clause._for_update_arg is not None
