"""What can be asked of a manager at any time; nothing here changes anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ._configuring import Configurator
from ._desired import Desired, Wish, explain, wish_of
from ._graph import nearest_name
from ._hooks import HookBus, Subscription
from ._inventory import Inventory
from ._ledger import LeakReport
from ._ownership import AppKey
from ._plan import Plan
from ._plugin_settings import SettingsView
from ._runner import Runner
from ._settings import PluginSettings
from .errors import PluginError, PluginNotFoundError
from .records import PluginRecord
from .types import normalize_plugin_id


class Asking:
    """The reading half of the manager, which builds what it reads from."""

    settings: PluginSettings
    desired: Desired
    reload_errors: dict[str, PluginError]
    """Why the code on disk is not the code that serves, by plugin; what is mended is gone from here."""
    _key: AppKey
    _hooks: HookBus
    _plugins: Inventory
    _runner: Runner
    _configurator: Configurator

    def list_plugins(self) -> list[PluginRecord]:
        """Return the records of what is loaded, in load order."""
        plugins = self._plugins
        order = [*self.plan().order, *sorted(self.plan().held)]
        return [plugins.records[each] for each in order if each in plugins.generations]

    def iter_records(self) -> Iterator[PluginRecord]:
        """Yield the record of every plugin that was found, by id."""
        yield from (self._plugins.records[each] for each in sorted(self._plugins.records))

    def find(self, plugin_id: str) -> PluginRecord | None:
        """Return the plugin's record, None when there is no such plugin; any spelling of the id will do."""
        return self._plugins.records.get(normalize_plugin_id(plugin_id))

    def get(self, plugin_id: str) -> PluginRecord:
        """Return the plugin's record; raise PluginNotFoundError when there is no such plugin."""
        record = self.find(plugin_id)
        if record is None:
            wanted = normalize_plugin_id(plugin_id)
            raise PluginNotFoundError(plugin=wanted, similar=nearest_name(wanted, self._plugins.records))
        return record

    def version_of(self, plugin_id: str) -> int:
        """Return a number that rises whenever the plugin's record, or what is wanted of it, changes."""
        return self._plugins.records.version_of(self.get(plugin_id).id)

    def wish_for(self, plugin_id: str) -> Wish:
        """Return whether the plugin shall be on, and who says so."""
        record = self.get(plugin_id)
        return wish_of(record, self.desired.is_on(record.id), is_off=record.id in self.settings.disabled)

    def describe(self, plugin_id: str) -> dict[str, Any]:
        """Return the record as JSON-able values, with what is wanted, why it is otherwise, and its version."""
        record, wish = self.get(plugin_id), self.wish_for(plugin_id)
        not_live = self.reload_errors.get(record.id)
        why = explain(record, wish, self.desired.is_on(record.id))
        return {
            **record.to_json(),
            "desired": wish.to_json(),
            "why": why,
            "record_version": self.version_of(plugin_id),
            "reload_error": not_live.to_json() if not_live else None,
        }

    def plan(self) -> Plan:
        """Return what was decided: the load order, what is held back and why."""
        return self._plugins.plan

    def find_report(self, plugin_id: str) -> LeakReport | None:
        """Return the leak report of the plugin's last disable, None when there was none."""
        return self._runner.reports.get(normalize_plugin_id(plugin_id))

    def find_leaks(self) -> tuple[LeakReport, ...]:
        """Return what is left of code that was given up, and who keeps it, by plugin.

        Collects garbage and may walk the heap, so it is slow. Code of a generation that still finishes
        its requests is not given up yet.
        """
        return self._key.remains.find()

    def list_subscriptions(self) -> Sequence[Subscription]:
        """Return who hears the events of this app, by event, in the order of being called."""
        found = [each for each in self._hooks.iter_subscriptions() if each.app in (None, self._key)]
        return sorted(found, key=lambda each: each.event)

    def view_settings(self, plugin_id: str) -> SettingsView:
        """Return a plugin's settings, their JSON schema and sources; secrets are masked.

        Raises:
            PluginNotFoundError: there is no such plugin.
            NoSettingsError: it has no settings, or they are not known since it was never imported.
        """
        return self._configurator.view(self.get(plugin_id))

    def settings_schema(self, plugin_id: str) -> dict[str, Any]:
        """Return the JSON schema of a plugin's settings, for forms; errors as :meth:`view_settings`."""
        return dict(self.view_settings(plugin_id).schema)
