"""The states of a plugin and the one table that says which may follow which."""

from __future__ import annotations

from enum import StrEnum


class PluginState(StrEnum):
    """Where a plugin is in its life. ``manifest.enabled`` is a wish; this is the fact."""

    DISCOVERED = "discovered"
    """Found and read; nothing of it was imported."""
    LOADED = "loaded"
    """Imported, ``on_load`` done; it does not serve yet."""
    ENABLED = "enabled"
    """Serving."""
    DISABLED = "disabled"
    """Wanted off: never imported, or everything it had registered is undone."""
    BLOCKED = "blocked"
    """A requirement, resource or policy stops it; it did nothing wrong."""
    FAILED = "failed"
    """Its own code or manifest is wrong, or it was quarantined."""
    REMOVED = "removed"
    """No longer found."""


_S = PluginState
TRANSITIONS: dict[PluginState, frozenset[PluginState]] = {
    _S.DISCOVERED: frozenset({_S.LOADED, _S.DISABLED, _S.BLOCKED, _S.FAILED, _S.REMOVED}),
    _S.LOADED: frozenset({_S.ENABLED, _S.DISABLED, _S.BLOCKED, _S.FAILED, _S.REMOVED}),
    _S.ENABLED: frozenset({_S.DISABLED, _S.BLOCKED, _S.FAILED, _S.REMOVED}),
    _S.DISABLED: frozenset({_S.DISCOVERED, _S.LOADED, _S.ENABLED, _S.BLOCKED, _S.FAILED, _S.REMOVED}),
    _S.BLOCKED: frozenset({_S.DISCOVERED, _S.DISABLED, _S.REMOVED}),
    _S.FAILED: frozenset({_S.DISCOVERED, _S.DISABLED, _S.REMOVED}),
    _S.REMOVED: frozenset({_S.DISCOVERED}),
}


def can_become(current: PluginState, wanted: PluginState) -> bool:
    """Tell whether the table allows the step from ``current`` to ``wanted``."""
    return wanted in TRANSITIONS[current]
