"""What can be asked of a manager at any time; nothing here changes anything."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from ._configuring import Configurator
from ._desired import Desired, Wish, explain, wish_of
from ._dispatch import PluginMount
from ._granting import Granter
from ._grants.deciding import GrantsView, trusted_error, view_json
from ._hooks.bus import HookBus, Subscription
from ._inventory import Inventory
from ._ledger.ledger import LeakReport
from ._ledger.ownership import AppKey
from ._plan.change import Change
from ._plan.graph import nearest_name
from ._plan.plan import Plan
from ._runner import Runner
from ._settings.platform import PluginSettings
from ._settings.plugin import SettingsView
from .errors import PluginError, PluginNotFoundError, ReplacementRefusedError
from .records import PluginRecord
from .states import PluginState
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
    granter: Granter
    """Keeps what is decided about permissions."""

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
            "grants": view_json(self.granter.view(record)),
            "enforcement": self.enforcement_of(record.id),
        }

    def enforcement_of(self, plugin_id: str) -> list[dict[str, Any]]:
        """Return how far the last decision about a confined plugin got where else it is enforced; JSON-able."""
        return [each.to_json() for each in self._plugins.enforcing.of(plugin_id)]

    def grants_of(self, plugin_id: str) -> GrantsView | None:
        """Return what a confined plugin asks for and what was decided; None for one that runs in process."""
        return self.granter.view(self.get(plugin_id))

    def preview_grants(self, plugin_id: str, grant: Collection[str] | None = None) -> GrantsView:
        """Return what would be decided about a confined plugin with this grant; without one what is decided.

        Raises:
            GrantRefusedError: it is not confined, or does not ask for that.
        """
        record = self.get(plugin_id)
        if grant is not None:
            return self.granter.work_out(record, grant).view
        view = self.granter.view(record)
        if view is None:
            raise trusted_error(record.id)
        return view

    def plan(self) -> Plan:
        """Return what was decided: the load order, what is held back and why."""
        return self._plugins.plan

    def mount_of(self, plugin_id: str) -> PluginMount:
        """Return the routes of a plugin that is loaded.

        Raises:
            PluginNotFoundError: there is no such plugin.
            PluginError: it is not loaded, and why.
        """
        record = self.get(plugin_id)
        generation = self._plugins.generations.get(record.id)
        if generation is None:
            raise record.reason or PluginNotFoundError(plugin=record.id)
        return generation.mount

    # --- what a change would do -------------------------------------------------------------------

    def preview_enable(self, plugin_id: str, *, grant: Collection[str] | None = None) -> Change:
        """Return what ``enable`` would do; the errors are the same."""
        if grant is not None:
            return self.preview_grant(plugin_id, grant, switch_on=True)
        record = self.get(plugin_id)
        errors = {each: error for each, error in self._plugins.errors.items() if each != record.id}
        plan = self._plugins.make_plan(switched={**self.desired.state.switched, record.id: True}, errors=errors)
        if record.id in plan.held:
            raise plan.held[record.id]
        return self._plugins.make_change(plan, asked=record.id)

    def preview_disable(self, plugin_id: str) -> Change:
        """Return what ``disable`` with ``cascade`` would do."""
        record = self.get(plugin_id)
        plan = self._plugins.make_plan(switched={**self.desired.state.switched, record.id: False})
        return self._plugins.make_change(plan, asked=record.id)

    def preview_reload(self, plugin_id: str) -> Change:
        """Return what ``reload`` would do, from what is on disk now; the errors are the same."""
        record = self.get(plugin_id)
        importers = self._plugins.importers_of(record.id)
        plan = self._plugins.make_plan_with(*map(self._plugins.read, [record, *map(self.get, importers - {record.id})]))
        if record.id in plan.held:
            raise plan.held[record.id]
        return self._refuse_stopping(self._plugins.make_change(plan, asked=record.id, replace=importers), record.id)

    def preview_grant(self, plugin_id: str, grant: Collection[str], *, switch_on: bool = False) -> Change:
        """Return what ``grant`` would do, or with ``switch_on`` what ``enable`` would; the errors are the same."""
        record = self.get(plugin_id)
        decision = self.granter.work_out(record, grant)
        plan = self._plugins.make_plan_with(
            decision.candidate,
            switched={**self.desired.state.switched, record.id: True} if switch_on else None,
            grants={record.id: decision.grants},
        )
        is_running = record.state is PluginState.ENABLED
        if record.id in plan.held and (switch_on or is_running):
            raise plan.held[record.id]
        change = self._plugins.make_change(plan, asked=record.id, replace=[record.id] if is_running else [])
        return self._refuse_stopping(change, record.id)

    def _refuse_stopping(self, change: Change, plugin_id: str) -> Change:
        if change.stop:
            why = change.why[change.stop[0]]
            raise ReplacementRefusedError(plugin=plugin_id, stopped=change.stop, because=why)
        return change

    # --- what is there ----------------------------------------------------------------------------

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

        Of a plugin that is off and was never imported there is no schema, and all values are masked.

        Raises:
            PluginNotFoundError: there is no such plugin.
            NoSettingsError: it has no settings, or was removed.
        """
        return self._configurator.view(self.get(plugin_id))

    def settings_schema(self, plugin_id: str) -> dict[str, Any]:
        """Return the JSON schema of a plugin's settings, for forms; errors as :meth:`view_settings`."""
        return dict(self.view_settings(plugin_id).schema)
