"""The events of the platform and of the game: names, and what their handlers receive."""

from __future__ import annotations

from enum import StrEnum


class PluginEvents(StrEnum):
    """Names of the built-in events; the comment gives the positional payload, all of it JSON-able.

    A plugin may declare further events in the ``events`` field of its manifest.
    """

    # Lifecycle
    PLUGIN_LOADED = "plugin:loaded"  # plugin_id: str
    PLUGIN_ENABLED = "plugin:enabled"  # plugin_id: str
    PLUGIN_DISABLED = "plugin:disabled"  # plugin_id: str
    PLUGIN_SETTINGS_CHANGED = "plugin:settings_changed"  # plugin_id: str, after the new ones took effect

    # Game events
    SESSION_CREATED = "session:created"  # session_id: int
    SESSION_UPDATED = "session:updated"  # session_id: int, changes: dict
    INTERACTION_EXECUTED = "interaction:executed"  # session_id: int, npc_id: int, interaction: str, result: dict
    NPC_SPAWNED = "npc:spawned"  # npc_id: int
    LOCATION_CHANGED = "location:changed"  # npc_id: int, from_location_id: int | None, to_location_id: int | None

    # System
    APP_STARTUP = "app:startup"  # nothing
    APP_SHUTDOWN = "app:shutdown"  # nothing


LIFECYCLE_EVENTS = frozenset(
    {
        PluginEvents.PLUGIN_LOADED,
        PluginEvents.PLUGIN_ENABLED,
        PluginEvents.PLUGIN_DISABLED,
        PluginEvents.PLUGIN_SETTINGS_CHANGED,
        PluginEvents.APP_STARTUP,
        PluginEvents.APP_SHUTDOWN,
    }
)
