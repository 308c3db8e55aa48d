"""The plugin's own side of its settings."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel

from pixsim7_backend.infrastructure.plugins._ledger.ownership import SettingsCell, current_app, current_owner
from pixsim7_backend.infrastructure.plugins.errors import NoSettingsError

__all__ = ["PluginSettingsReader", "plugin_settings"]

M = TypeVar("M", bound=BaseModel)


class PluginSettingsReader:
    """``plugin_settings()`` gives the settings of the plugin whose code runs, also as ``Depends(plugin_settings)``.

    Each call gives those in force now. A function that other plugins call runs as theirs: there
    ``plugin_settings.of(MySettings)`` gives the ones of that model.
    """

    def __call__(self) -> Any:
        owner = current_owner()
        if owner is None:
            raise NoSettingsError(plugin="", problem="is not running here; call plugin_settings() in a plugin's code")
        return _current(owner.settings, owner.plugin)

    def of(self, model: type[M]) -> M:
        """Return the settings in force of this model, a plugin's ``settings_model``."""
        app = current_app()
        cell = app.settings.get(model) if app else None
        found: M = _current(cell or SettingsCell(), model.__name__)
        return found


def _current(cell: SettingsCell, whose: str) -> Any:
    if cell.current is None:
        problem = "has no settings yet; export `settings_model`, and ask from on_load on, not while importing"
        raise NoSettingsError(plugin=whose, problem=problem)
    return cell.current


plugin_settings = PluginSettingsReader()
