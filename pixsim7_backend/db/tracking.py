"""Makes in-place changes of JSON columns count, nested ones too.

SQLAlchemy sees only assignments. So each JSON value is written down when it is loaded or stored, and
compared when the session flushes. That is robust where wrapper types are not: whatever reference the
change was made through, it is found. Rows with JSON columns are kept alive until the transaction ends,
or a change made through ``db.get(World, 1).meta["x"] = 1`` would vanish with the unreferenced row.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import JSON, event
from sqlalchemy.orm import InstanceState, Mapper, Session, SessionTransaction
from sqlalchemy.orm.attributes import flag_modified, instance_state
from sqlalchemy.types import TypeDecorator

_SNAPSHOTS = "json_snapshots"
_KEPT = "rows_with_json"

_json_keys: WeakKeyDictionary[Mapper[Any], tuple[str, ...]] = WeakKeyDictionary()


def track_json_columns(base: type) -> None:
    """Watch the JSON columns of all models below ``base``."""
    event.listen(base, "load", _on_load, propagate=True)
    event.listen(base, "refresh", _on_refresh, propagate=True)
    event.listen(base, "after_insert", _on_stored, propagate=True)
    event.listen(base, "after_update", _on_stored, propagate=True)


def mark_changed_json(session: Session) -> None:
    """Flag every JSON column whose value is no longer what was loaded, so that the flush stores it."""
    for row, key in list(_iter_changed(session)):
        flag_modified(row, key)


def _iter_changed(session: Session) -> Iterator[tuple[Any, str]]:
    for state in session.identity_map.all_states():
        snapshots = state.__dict__.get("info", {}).get(_SNAPSHOTS)
        row = state.obj() if snapshots else None
        for key, snapshot in snapshots.items() if row is not None else ():
            # An assignment proves nothing: after `row.meta = row.meta` SQLAlchemy compares the value with itself.
            if key in state.dict and _snapshot(state.dict[key]) != snapshot:
                yield row, key


def _on_load(row: Any, context: Any) -> None:
    _remember(row, None, context.session)


def _on_refresh(row: Any, context: Any, attributes: Iterable[str] | None) -> None:
    _remember(row, attributes, context.session if context else None)  # an ORM UPDATE refreshes without one


def _on_stored(_mapper: Mapper[Any], _connection: Any, row: Any) -> None:
    _remember(row, None, None)


def _remember(row: Any, attributes: Iterable[str] | None, session: Session | None) -> None:
    state: InstanceState[Any] = instance_state(row)
    keys = _keys_of(state.mapper)
    if not keys:
        return
    wanted = keys if attributes is None else [key for key in keys if key in attributes]
    snapshots = state.info.setdefault(_SNAPSHOTS, {})
    snapshots.update({key: _snapshot(state.dict[key]) for key in wanted if key in state.dict})
    if session is not None:
        session.info.setdefault(_KEPT, {})[id(state)] = row


def _keys_of(mapper: Mapper[Any]) -> tuple[str, ...]:
    keys = _json_keys.get(mapper)
    if keys is None:
        keys = tuple(attribute.key for attribute in mapper.column_attrs if _is_json(attribute.columns[0].type))
        _json_keys[mapper] = keys
    return keys


def _is_json(kind: Any) -> bool:
    return isinstance(kind.impl_instance if isinstance(kind, TypeDecorator) else kind, JSON)


def _snapshot(value: Any) -> str | None:
    """Return the value as text; types matter, since 1, 1.0 and true are equal in Python but not in JSON."""
    if value is None:
        return None
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return f"unstorable {id(value)}"  # differs from every stored value: the flush then says what is wrong


@event.listens_for(Session, "before_commit")
def _on_commit(session: Session) -> None:
    mark_changed_json(session)


@event.listens_for(Session, "after_soft_rollback")
def _on_rollback(session: Session, transaction: SessionTransaction) -> None:
    """Undo what was changed in place inside a savepoint: its start flushed, so every difference is newer."""
    if transaction.nested:
        for row, _ in list(_iter_changed(session)):
            session.expire(row)


@event.listens_for(Session, "after_transaction_end")
def _on_end(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session.info.pop(_KEPT, None)
