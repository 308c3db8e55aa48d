"""What the operator wants of the plugins while no server runs: read and written where the next start finds it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from pixsim7_backend.cli.db import opened
from pixsim7_backend.cli.plugins import planned, plugin_directories
from pixsim7_backend.infrastructure.plugins import DesiredState, StateStore
from pixsim7_backend.infrastructure.plugins.errors import DependantsEnabledError, StateUnavailableError
from pixsim7_backend.infrastructure.plugins.preview import Change, Plan, preview_switch
from pixsim7_backend.settings import Settings


@contextmanager
def opened_store(settings: Settings) -> Iterator[StateStore]:
    """Give the store that a server with these settings uses; errors as :func:`opened`."""
    from pixsim7_backend.plugin_store import DatabaseStateStore

    with opened(settings) as database:
        yield DatabaseStateStore(database, migrates=settings.is_embedded)


def read_desired(settings: Settings) -> DesiredState:
    """Return what is stored; an empty state where nothing is, or where the database does not answer.

    Makes no database. One that does not answer is the plan's matter: it holds back who requires it.
    """
    from pixsim7_backend.plugin_store import DatabaseStateStore
    from pixsim7_backend.resources import configured

    with configured(settings) as database:
        if database.file is not None and not database.file.exists():
            return DesiredState()
        with contextlib.suppress(StateUnavailableError):
            return DatabaseStateStore(database).load()
        return DesiredState()


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineSwitch:
    """What switching a plugin means for the next start, and what would be stored."""

    plugin: str
    on: bool
    before: DesiredState
    plan: Plan
    change: Change

    @property
    def dependants(self) -> list[str]:
        """Who would not start any more, besides the plugin itself."""
        return [each for each in self.change.stop if each != self.plugin]

    def save(self, store: StateStore) -> None:
        """Keep it for the next start; errors as :meth:`StateStore.save`."""
        after = replace(self.before, switched={**self.before.switched, self.plugin: self.on})
        store.save(after, expected_version=self.before.version)

    def to_json(self) -> dict[str, Any]:
        return {
            "live": False,
            "plugin": {"id": self.plugin, "desired": {"on": self.on, "by": "operator"}},
            "change": self.change.to_json(),
        }


def plan_switch(settings: Settings, before: DesiredState, plugin_id: str, *, on: bool, cascade: bool) -> OfflineSwitch:
    """Return what the next start would do differently.

    Raises:
        PluginNotFoundError: there is no such plugin.
        DependantsEnabledError: others that would start need it, and ``cascade`` is not set.
        PluginError: it could not start although it is switched on.
    """
    directories = plugin_directories(settings)
    now = planned(settings, directories, switched=before.switched)
    then = planned(settings, directories, switched={**before.switched, plugin_id: on})
    change = preview_switch(now, then, plugin_id)
    if on and plugin_id in then.held:
        raise then.held[plugin_id]
    switch = OfflineSwitch(plugin=plugin_id, on=on, before=before, plan=then, change=change)
    if switch.dependants and not cascade:
        raise DependantsEnabledError(plugin=plugin_id, dependants=switch.dependants)
    return switch
