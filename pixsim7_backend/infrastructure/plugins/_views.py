"""A record as an operator sees it: what is, what is wanted, and why the two differ. Pure."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Protocol

from .records import PluginRecord
from .states import PluginState

Json = dict[str, Any]


class Wish(Protocol):
    """What is wanted of a plugin: ``on``, or None while nobody knows."""

    @property
    def on(self) -> bool | None: ...
    def to_json(self) -> Json: ...


def view_record(record: PluginRecord, wish: Wish) -> Json:
    """Return a record with what is wanted of it (``desired``), ``why`` it is otherwise, and its ``etag``.

    The etag stands for everything else in the view: the same state has the same one, also after a restart.
    """
    view = {**record.to_json(), "desired": wish.to_json(), "why": _why(record, wish.on)}
    return {**view, "etag": digest(view)}


def _why(record: PluginRecord, wanted: bool | None) -> str | None:
    """Return why what runs is not what is wanted; None where it is."""
    runs = record.state is PluginState.ENABLED
    if runs == bool(wanted):
        return None
    if runs:
        return f"plugin {record.id!r} still runs; it stops when the change under way gets to it"
    return str(record.reason) if record.reason else f"plugin {record.id!r} is {record.state}"


def digest(view: Any) -> str:
    """Return a short text that stands for these JSON-able values."""
    text = json.dumps(view, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
