"""The manager of one app's plugins: asks the other parts in order, holds no policy of its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from ._asking import Asking
from ._configuring import Configurator, SettingsChange
from ._desired import Desired
from ._discovery.sources import Discovery, holds_plugin
from ._dispatch import PluginRoute
from ._granting import Granter
from ._hooks.bus import HookBus
from ._interruption import Turns, to_the_end
from ._inventory import Inventory
from ._journal import Journal
from ._ledger.ledger import LeakReport
from ._ledger.ownership import AppKey, running_as_host
from ._ledger.registrations import own_state
from ._ledger.tasks import own_tasks
from ._limits.limits import PluginLimits
from ._metrics import PluginMetrics
from ._reporter import Reporter
from ._runner import Runner
from ._settings.platform import PluginSettings
from ._settings.plugin import SettingsView
from ._store import StateStore
from ._supervision import Supervision
from .errors import (
    DependantsEnabledError,
    LiveChangesRefusedError,
    PluginDisabledError,
    PluginError,
    PluginStartupError,
    StateConflictError,
    StoppingError,
)
from .events import PluginEvents
from .records import PluginRecord
from .states import PluginState
from .types import normalize_plugin_id


class PluginManager(Asking):
    """Loads, enables and disables the plugins of one app, one change at a time.

    Records are replaced, never changed: what a caller holds stays as it was.
    """

    def __init__(
        self,
        app: FastAPI,
        discovery: Discovery,
        settings: PluginSettings,
        *,
        store: StateStore,
        hooks: HookBus,
        reporter: Reporter,
    ) -> None:
        self.app = app
        self.settings = settings
        self.directories = discovery.directories
        """Where plugins are looked for, beside installed packages."""
        self.reload_errors = {}
        self._hooks = hooks
        self._key = AppKey(app.title)
        self.journal = reporter = Journal(reporter)
        self.desired = Desired(store)
        self._plugins = Inventory(
            app, self._key, settings, discovery=discovery, desired=self.desired, reporter=reporter
        )
        self._turns = Turns()
        self._is_started = False
        self._is_stopping = False
        self._release_tasks: Callable[[], None] | None = None
        self._route = PluginRoute.install(app, self._key)
        self.metrics = PluginMetrics(self._plugins, self._key, hooks)
        self.limits = PluginLimits(settings.limits, self._plugins.records)
        self._configurator = Configurator(self._plugins)
        self._runner = Runner(
            app,
            self._plugins,
            self._route,
            settings,
            metrics=self.metrics,
            limits=self.limits,
            hooks=hooks,
            reporter=reporter,
        )
        self.granter = Granter(self._plugins, self._runner, self.desired, self.journal, settings.jails)
        self._supervision = Supervision(
            self.metrics,
            self._plugins,
            self._runner,
            settings,
            hooks=hooks,
            change=self._change,
            is_started=lambda: self._is_started,
        )
        own_state(app)

    # --- starting ---------------------------------------------------------------------------------

    def load_all(self) -> None:
        """Load what the plan says, in its order; whatever cannot be loaded holds back what needs it.

        Raises:
            PluginStartupError: the policy is strict and there is a problem, or a required plugin cannot run.
        """
        with running_as_host(self._key):
            self._plugins.load_all()
        if self._must_abort():
            self._abort()

    async def enable_all(self) -> None:
        """Announce and enable everything that is loaded, in load order, then ``app:startup``.

        Raises:
            PluginStartupError: as :meth:`load_all`; what was enabled is disabled again.
        """
        async with self._change():
            self._is_stopping = False
            plugins = self._plugins
            waiting = [each for each in self.plan().order if each in plugins.generations]
            with self._supervision.noting_handlers():
                for plugin_id in waiting:
                    await self._hooks.emit(PluginEvents.PLUGIN_LOADED, plugin_id)
                for plugin_id in waiting:
                    if plugin_id in self.plan().order and plugins.records[plugin_id].state is not PluginState.ENABLED:
                        await self._runner.enable(plugin_id)
                self._is_started = True
                await self._hooks.emit(PluginEvents.APP_STARTUP)
            self.settings.startup_journal.finish()
            if self._must_abort():
                await self._disable_all()
                self._abort()

    def _must_abort(self) -> bool:
        is_strict = self.settings.on_plugin_error == "strict"
        return bool(self.plan().required_held or (is_strict and self.plan().problems))

    def _abort(self) -> None:
        plan = self.plan()
        self.close()
        raise PluginStartupError(problems=plan.problems, required=plan.required_held)

    # --- switching --------------------------------------------------------------------------------

    @to_the_end
    async def enable(
        self, plugin_id: str, *, grant: Collection[str] | None = None, by: str = "", expected_version: int | None = None
    ) -> PluginRecord:
        """Enable one plugin, and with it what was held back only because of it; it stays so over restarts.

        ``grant`` decides about all that a confined plugin asks for, as in :meth:`grant`.

        Raises:
            PluginNotFoundError: there is no such plugin.
            GrantNeededError: it asks for what nobody has decided about, and there is no ``grant``.
            PluginDisabledError: ``DISABLED_PLUGINS`` names it.
            StateConflictError: its version is not ``expected_version``, or another process changed something.
            PluginError: what stops it; its record holds the same reason.
        """
        async with self._live_change(plugin_id, expected_version):
            if grant is not None:
                return self._mended((await self._grant(plugin_id, grant, by=by, switch_on=True)).id)
            change, record = self.preview_enable(plugin_id), self.get(plugin_id)
            await self._switch(record.id, on=True)
            self._plugins.errors.pop(record.id, None)
            await self._runner.apply(change, start=self._is_started)
            return self._plugins.require(record.id, PluginState.ENABLED)

    @to_the_end
    async def grant(
        self, plugin_id: str, grant: Collection[str], *, by: str = "", expected_version: int | None = None
    ) -> PluginRecord:
        """Decide about all that a confined plugin asks for: ``grant`` is granted, the rest declined.

        One that runs gets a new jail at once; one that only this held back starts. ``grant`` holds permissions, also
        narrower ones, families like ``"db"``, or alone ``"all"`` or ``"none"``; ``by`` tells the audit who decides.

        Raises:
            GrantRefusedError: it is not confined, or does not ask for that.
            PluginError: as :meth:`reload`; what it may not do any more it cannot do any more then either.
        """
        async with self._live_change(plugin_id, expected_version):
            return await self._grant(plugin_id, grant, by=by)

    async def follow_grants(self) -> None:
        """Let whoever else enforces what was granted follow, where that did not work before."""
        async with self._change():
            await self._runner.follow_grants()

    async def _grant(self, plugin_id: str, grant: Collection[str], *, by: str, switch_on: bool = False) -> PluginRecord:
        change, record = self.preview_grant(plugin_id, grant, switch_on=switch_on), self.get(plugin_id)
        decision = self.granter.work_out(record, grant)
        await self.granter.store(decision, by=by)
        if switch_on:
            await self._switch(record.id, on=True)
        await self.granter.carry_out(decision, change, start=self._is_started)
        return self.get(plugin_id)

    async def _switch(self, plugin_id: str, *, on: bool) -> None:
        await self.desired.switch(plugin_id, on=on)
        self._plugins.records.touch(plugin_id)
        self.settings.checkpoint(f"stored {plugin_id}")

    @to_the_end
    async def disable(
        self, plugin_id: str, *, cascade: bool = False, expected_version: int | None = None
    ) -> LeakReport:
        """Disable one plugin, and with ``cascade`` first what needs it; return its leak report. It stays so.

        Raises:
            PluginNotFoundError: there is no such plugin.
            DependantsEnabledError: enabled plugins need it, and ``cascade`` is not set.
            StateConflictError: as :meth:`enable`.
        """
        async with self._live_change(plugin_id, expected_version):
            change, record = self.preview_disable(plugin_id), self.get(plugin_id)
            dependants = [each for each in change.stop if each != record.id]
            if dependants and not cascade:
                raise DependantsEnabledError(plugin=record.id, dependants=dependants)
            await self._switch(record.id, on=False)
            await self._runner.apply(change, start=self._is_started)
            return self._runner.reports.get(record.id, LeakReport(record.id))

    # --- replacing --------------------------------------------------------------------------------

    @to_the_end
    async def reload(
        self, plugin_id: str, *, expected_version: int | None = None, discard_state: bool = False
    ) -> PluginRecord:
        """Replace a plugin's code by what is on disk now, with the plugins that import from it.

        The new generation is built beside the old one; until it is published, and when anything goes
        wrong, the old one serves. Requests under way are answered by the code they began with. A
        plugin that does not run gets another chance; one that is off is imported anew when it is enabled.

        Raises:
            PluginNotFoundError: there is no such plugin.
            ReplacementRefusedError: plugins that run could not run beside the new code.
            StateNotHandedOverError: its ``on_unload`` fails, and ``discard_state`` is not set.
            PluginError: what is wrong with the new code; the old one serves on.
        """
        async with self._live_change(plugin_id, expected_version):
            record = self.get(plugin_id)
            if record.state is not PluginState.ENABLED:
                self._plugins.let_go_of(record)
            change = self.preview_reload(plugin_id)
            if record.state is PluginState.ENABLED:
                await self._runner.replace(change, stateless=[record.id] if discard_state else [])
            self._plugins.accept(change.plan.candidates[record.id])
            await self._runner.apply(change, start=self._is_started)
            return self._mended(record.id, *change.replace)

    def note_reload_error(self, plugin_id: str, error: PluginError) -> None:
        """Keep why the code on disk is not the code that serves, until it is."""
        self.reload_errors[plugin_id] = error
        if plugin_id in self._plugins.records:
            self._plugins.records.touch(plugin_id)

    def _mended(self, plugin_id: str, *more: str) -> PluginRecord:
        record = self._plugins.require(plugin_id, PluginState.ENABLED)
        for each in (plugin_id, *more):
            self.reload_errors.pop(each, None)
        return record

    async def retry(self, plugin_id: str, *, expected_version: int | None = None) -> PluginRecord:
        """Give a plugin that does not run, but should, another chance; errors as :meth:`reload`."""
        record = self.get(plugin_id)
        if record.state is PluginState.ENABLED:
            return record
        return await self.reload(plugin_id, expected_version=expected_version)

    @to_the_end
    async def refresh(self, folder: str | os.PathLike[str]) -> PluginRecord | None:
        """Follow what happened to a folder of a plugin directory: load it, replace it, or stop what was there.

        Returns the record of the plugin in that folder, None when there is none and was none.

        Raises:
            DependantsEnabledError: it is gone, but enabled plugins need it; it serves on.
            PluginError: as :meth:`reload`, or why a new plugin cannot run.
        """
        path = Path(folder)
        known = next((each for each in self.iter_records() if each.source.path == path), None)
        if known is not None and known.state is not PluginState.REMOVED and holds_plugin(known.source):
            return await self.reload(known.id)
        async with self._live_change(known.id if known else path.name):
            if known is not None and known.state is not PluginState.REMOVED:
                return await self._remove(known)
            return await self._add(path)

    @to_the_end
    async def withdraw(self, plugin_id: str, *, cascade: bool = False) -> PluginRecord:
        """Stop a plugin whose folder is about to go, and treat it as gone until :meth:`refresh` finds it again.

        Raises:
            PluginNotFoundError: there is no such plugin.
            DependantsEnabledError: enabled plugins need it, and ``cascade`` is not set.
        """
        record = self.get(plugin_id)
        async with self._live_change(record.id):
            return await self._remove(self.get(record.id), cascade=cascade)

    async def _remove(self, record: PluginRecord, *, cascade: bool = False) -> PluginRecord:
        found = {path: each for path, each in self._plugins.found.items() if path != record.source.path}
        change = self._plugins.make_change(self._plugins.make_plan(found), asked=record.id)
        dependants = [each for each in change.stop if each != record.id]
        if dependants and not cascade:
            raise DependantsEnabledError(plugin=record.id, dependants=dependants)
        self._plugins.found.pop(record.source.path, None)
        await self._runner.apply(change, start=self._is_started)
        self.metrics.forget(record.id)
        self.limits.forget(record.id)
        if self.settings.jails is not None:
            self.settings.jails.forget(record.id)
        self.reload_errors.pop(record.id, None)
        return self._plugins.mark_removed(record.id)

    async def _add(self, path: Path) -> PluginRecord | None:
        candidate = self._plugins.find(path)
        if candidate is None:
            return None
        self._plugins.found[path] = candidate
        self._plugins.errors.pop(candidate.id, None)
        plan = self._plugins.learn_manifests(self._plugins.make_plan())
        await self._runner.apply(self._plugins.make_change(plan, asked=candidate.id), start=self._is_started)
        return self._mended(candidate.id)

    # --- configuring ------------------------------------------------------------------------------

    async def preview_settings(self, plugin_id: str, patch: Mapping[str, Any]) -> SettingsChange:
        """Return what :meth:`change_settings` would do; the errors are the same."""
        async with self._change():
            return await self._configurator.work_out(self.get(plugin_id), patch)

    @to_the_end
    async def change_settings(
        self, plugin_id: str, patch: Mapping[str, Any], *, expected_version: int | None = None
    ) -> SettingsView:
        """Change a plugin's stored settings by a merge patch (RFC 7386); they are in force at once, and stay so.

        None removes a stored value, so that the configuration counts again. A plugin that only its
        settings held back is started. ``plugin:settings_changed`` follows when they have taken effect.

        Raises:
            PluginNotFoundError: there is no such plugin.
            NoSettingsError: it has no settings, or they are not known since it was never imported.
            PluginSettingsError: the new settings would not be valid; those in force stay.
            SecretStorageError: a secret cannot be stored.
            StateConflictError: as :meth:`enable`.
            PluginError: it was started with them, which failed.
        """
        async with self._live_change(plugin_id, expected_version):
            record = self.get(plugin_id)
            change = await self._configurator.work_out(record, patch)
            if change.is_empty:
                return self.view_settings(record.id)
            await self._configurator.store(change)
            self.settings.checkpoint(f"stored {record.id}")
            await self._configurator.take_effect(change)
            if change.starts:
                plan = self._plugins.make_plan()
                await self._runner.apply(self._plugins.make_change(plan, asked=record.id), start=self._is_started)
                self._plugins.require(record.id, PluginState.ENABLED)
            await self._hooks.emit(PluginEvents.PLUGIN_SETTINGS_CHANGED, record.id)
            return self.view_settings(record.id)

    # --- stopping ---------------------------------------------------------------------------------

    async def disable_all(self) -> None:
        """Announce ``app:shutdown``, then disable everything in reverse load order; changes that wait are refused."""
        self._is_stopping = True
        async with self._change():
            await self._disable_all()
        await self._hooks.settle()
        self._detach()

    async def _disable_all(self) -> None:
        await self._hooks.emit(PluginEvents.APP_SHUTDOWN)
        self._is_started = False
        for plugin_id in reversed(self._plugins.ids_in(PluginState.ENABLED)):
            await self._runner.stop(plugin_id, PluginDisabledError(plugin=plugin_id, by="shutdown"))
        await self._runner.settle()

    async def settle(self) -> None:
        """Wait until replaced generations are forgotten, and what a breaker decided is done."""
        await self._supervision.settle()
        await self._runner.settle()

    # --- the app ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Leave the app at once, so that nothing of a plugin remains and another manager may take over; no waiting."""
        self.settings.startup_journal.finish()
        for plugin_id in self.plan().shutdown_order():
            if self._plugins.forget(plugin_id):
                reason = PluginDisabledError(plugin=plugin_id, by="the end of its manager")
                record = self._plugins.records[plugin_id]
                self._plugins.records[plugin_id] = replace(record, state=reason.state, reason=reason)
        self._route.uninstall()
        self._detach()

    def _attach(self) -> None:
        """Serve on the running loop: its tasks are seen, and threads can announce events on it."""
        if self._release_tasks is None:
            self._key.loop = asyncio.get_running_loop()
            self._release_tasks = own_tasks(self._key.loop)
            self._supervision.start()

    def _detach(self) -> None:
        if self._release_tasks is not None:
            self._supervision.stop()
            self._release_tasks()
            self._release_tasks = None
            self._key.loop = None

    @asynccontextmanager
    async def _live_change(self, plugin_id: str, expected_version: int | None = None) -> AsyncIterator[None]:
        """As :meth:`_change`, for what an operator asks for."""
        if not self.settings.allow_live_changes:
            raise LiveChangesRefusedError(plugin=normalize_plugin_id(plugin_id))
        async with self._change():
            if self._is_stopping:
                raise StoppingError(plugin=normalize_plugin_id(plugin_id))
            if expected_version is not None and (found := self.version_of(plugin_id)) != expected_version:
                raise StateConflictError(plugin=self.get(plugin_id).id, expected=expected_version, found=found)
            yield

    @asynccontextmanager
    async def _change(self) -> AsyncIterator[None]:
        """Let one change happen at a time, as host code; what one that is broken off leaves is mended."""
        async with self._turns.take():
            self._attach()
            with running_as_host(self._key):
                try:
                    yield
                except asyncio.CancelledError:
                    self._runner.mend(is_started=self._is_started)
                    raise
