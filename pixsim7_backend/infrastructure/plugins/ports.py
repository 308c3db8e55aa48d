"""Where plugins meet that do not depend on one another: one offers, the other asks whether it is there.

A port is a name and an object; its type is a Protocol that one of the two publishes. Like every
registration it belongs to the ledger of the plugin that provides it and goes when the plugin goes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ._ledger.ownership import AppKey, Owner, current_app, current_owner
from .errors import PortTakenError

__all__ = ["find", "get", "provide"]

#: Host code that runs outside every app provides here, for all apps.
_everywhere = AppKey("everywhere")
_lock = threading.Lock()


def provide(name: str, implementation: Any) -> Callable[[], None]:
    """Offer ``implementation`` under ``name`` in the running app; return the undo.

    A newer generation of the same plugin takes the port over from the older one.

    Raises:
        PortTakenError: another plugin provides this port already.
    """
    owner = current_owner()
    ports = (current_app() or _everywhere).ports
    entry = (owner, implementation)
    with _lock:
        taken = ports.get(name)
        if taken is not None and not _same_plugin(taken[0], owner):
            by = f"plugin {taken[0].plugin!r}" if taken[0] else "the host"
            raise PortTakenError(plugin=owner.plugin if owner else "", port=name, owner=by)

    def publish() -> None:
        with _lock:
            ports[name] = entry

    def withdraw() -> None:
        with _lock:
            if ports.get(name) is entry:
                del ports[name]

    if owner is None:
        publish()
        return withdraw
    if owner.ledger.stage is not None:
        owner.ledger.stage.ports[name] = entry
    owner.ledger.add("port", name, withdraw)
    owner.ledger.when_live(publish)
    return withdraw


def _same_plugin(one: Owner | None, other: Owner | None) -> bool:
    return one is not None and other is not None and one.plugin == other.plugin


def find(name: str) -> Any | None:
    """Return what is provided under ``name`` in the running app, or by the host outside any; else None."""
    app, owner = current_app() or _everywhere, current_owner()
    staged = owner.ledger.stage.ports.get(name) if owner is not None and owner.ledger.stage is not None else None
    entry = staged or app.ports.get(name) or _everywhere.ports.get(name)
    return entry[1] if entry else None


def get(name: str) -> Any:
    """Return what is provided under ``name``; raise LookupError when nobody provides it."""
    implementation = find(name)
    if implementation is None:
        raise LookupError(f"no plugin provides the port {name!r}; enable one that does, or use ports.find")
    return implementation
