"""The manager of one app's plugins: asks the other parts in order, holds no policy of its own."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

import anyio.to_thread
from fastapi import FastAPI

from ._discovery import Discovery
from ._dispatch import PluginRoute
from ._generation import Generation
from ._graph import nearest_name
from ._hooks import HookBus
from ._inventory import Inventory
from ._ledger import LeakReport
from ._ownership import AppKey, running_as_host
from ._plan import Plan
from ._registrations import own_state
from ._reporter import Reporter
from ._settings import PluginSettings
from ._tasks import own_tasks
from .errors import (
    DependantsEnabledError,
    DependencyHeldError,
    PluginBusyError,
    PluginDisabledError,
    PluginError,
    PluginHookError,
    PluginNotFoundError,
    PluginStartupError,
)
from .events import PluginEvents
from .records import PluginRecord
from .states import PluginState
from .types import normalize_plugin_id


@dataclass(slots=True, eq=False)
class _Operation:
    """One change under way; code that runs inside it must not wait for another one."""

    is_over: bool = False


_operation: ContextVar[_Operation | None] = ContextVar("pixsim7_operation", default=None)


class PluginManager:
    """Loads, enables and disables the plugins of one app, one change at a time.

    Records are replaced, never changed: what a caller holds stays as it was.
    """

    def __init__(
        self, app: FastAPI, discovery: Discovery, settings: PluginSettings, *, hooks: HookBus, reporter: Reporter
    ) -> None:
        self.app = app
        self.settings = settings
        self._hooks = hooks
        self._reporter = reporter
        self._key = AppKey(app.title)
        self._plugins = Inventory(app, self._key, settings, discovery=discovery, reporter=reporter)
        self._reports: dict[str, LeakReport] = {}
        self._lock = asyncio.Lock()
        self._release_tasks: Callable[[], None] | None = None
        self._route = PluginRoute.install(app, self._key)
        own_state(app)

    # --- reading ----------------------------------------------------------------------------------

    def list_plugins(self) -> list[PluginRecord]:
        """Return the records of what is loaded, in load order."""
        records = self._plugins.records
        return [records[each] for each in self.plan().order if records[each].is_loaded]

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

    def plan(self) -> Plan:
        """Return what was decided: the load order, what is held back and why."""
        return self._plugins.plan

    def find_report(self, plugin_id: str) -> LeakReport | None:
        """Return the leak report of the plugin's last disable, None when there was none."""
        return self._reports.get(normalize_plugin_id(plugin_id))

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
            waiting = [each for each in self.plan().order if _waits_for_start(self._plugins.records[each])]
            for plugin_id in waiting:
                await self._hooks.emit(PluginEvents.PLUGIN_LOADED, plugin_id)
            for plugin_id in waiting:
                if plugin_id not in self.plan().held:
                    await self._enable(plugin_id)
            await self._hooks.emit(PluginEvents.APP_STARTUP)
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

    # --- enabling ---------------------------------------------------------------------------------

    async def enable(self, plugin_id: str) -> PluginRecord:
        """Enable one plugin, loading it first where that is needed; its dependencies must be enabled.

        Raises:
            PluginNotFoundError: there is no such plugin.
            PluginDisabledError: ``DISABLED_PLUGINS`` names it.
            PluginError: what stops it; its record holds the same reason.
        """
        async with self._change():
            record = self.get(plugin_id)
            if record.state is PluginState.ENABLED:
                return record
            if record.id not in self._plugins.generations:
                self._plugins.load_late(record.id)
                await self._hooks.emit(PluginEvents.PLUGIN_LOADED, record.id)
            self._require_dependencies(record.id)
            await self._enable(record.id)
            return self._plugins.require(record.id, PluginState.ENABLED)

    def _require_dependencies(self, plugin_id: str) -> None:
        for needed in self.plan().requires[plugin_id]:
            record = self._plugins.records[needed]
            if record.state is not PluginState.ENABLED:
                why = str(record.reason or "")
                raise DependencyHeldError(
                    plugin=plugin_id, dependency=needed, dependency_state=record.state, because=why
                )

    async def _enable(self, plugin_id: str) -> None:
        generation = self._plugins.generations[plugin_id]
        try:
            await self._prepare(generation)
            await generation.enable()
        except PluginError as error:
            self._plugins.give_up(plugin_id, error)
            return
        record = self._plugins.set(plugin_id, PluginState.ENABLED)
        self._publish()
        self._reporter.enabled(record)
        await self._hooks.emit(PluginEvents.PLUGIN_ENABLED, plugin_id)

    async def _prepare(self, generation: Generation) -> None:
        """Run the host's own step once for each generation, off the loop."""
        if self.settings.prepare is None or generation.is_prepared:
            return
        record = self._plugins.records[generation.plugin]
        try:
            await anyio.to_thread.run_sync(functools.partial(self.settings.prepare, record, generation.source.path))
        except PluginError:
            raise
        except Exception as error:
            raise PluginHookError(plugin=generation.plugin, hook="prepare", cause=error) from error
        generation.is_prepared = True

    def _publish(self) -> None:
        """Serve the routes of what is enabled, and of nothing else."""
        self._route.publish(self._plugins.mounts_of(self._plugins.ids_in(PluginState.ENABLED)))

    # --- disabling --------------------------------------------------------------------------------

    async def disable_all(self) -> None:
        """Announce ``app:shutdown``, then disable everything in reverse load order."""
        async with self._change():
            await self._disable_all()
        await self._hooks.settle()
        self._detach()

    async def _disable_all(self) -> None:
        await self._hooks.emit(PluginEvents.APP_SHUTDOWN)
        for plugin_id in reversed(self._plugins.ids_in(PluginState.ENABLED)):
            await self._disable(plugin_id, PluginDisabledError(plugin=plugin_id, by="shutdown"))

    async def disable(self, plugin_id: str, *, cascade: bool = False) -> LeakReport:
        """Disable one plugin, and with ``cascade`` first what needs it; return its leak report.

        Raises:
            PluginNotFoundError: there is no such plugin.
            DependantsEnabledError: enabled plugins need it, and ``cascade`` is not set.
        """
        async with self._change():
            record = self.get(plugin_id)
            if record.state is not PluginState.ENABLED:
                return self._reports.get(record.id, LeakReport(record.id))
            enabled = set(self._plugins.ids_in(PluginState.ENABLED))
            *dependants, _ = [each for each in self.plan().shutdown_order(record.id) if each in enabled]
            if dependants and not cascade:
                raise DependantsEnabledError(plugin=record.id, dependants=dependants)
            for each in dependants:
                await self._disable(each, PluginDisabledError(plugin=each, by=f"the operator, with {record.id!r}"))
            return await self._disable(record.id, PluginDisabledError(plugin=record.id, by="the operator"))

    async def _disable(self, plugin_id: str, reason: PluginDisabledError) -> LeakReport:
        record = self._plugins.set(plugin_id, PluginState.DISABLED, reason)
        self._publish()
        report, error = await self._plugins.generations[plugin_id].disable()
        self._reports[plugin_id] = report
        if error is not None:
            self._plugins.forget(plugin_id)
            record = self._plugins.set(plugin_id, error.state, error)
        self._reporter.disabled(record, report)
        await self._hooks.emit(PluginEvents.PLUGIN_DISABLED, plugin_id)
        return report

    # --- the app ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Leave the app at once: no route, registration or task of a plugin remains. Nothing is awaited.

        Afterwards every plugin that was loaded is disabled for good; another manager may take the app over.
        """
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

    def _detach(self) -> None:
        if self._release_tasks is not None:
            self._release_tasks()
            self._release_tasks = None
            self._key.loop = None

    @asynccontextmanager
    async def _change(self) -> AsyncIterator[None]:
        """Let one change happen at a time, as host code; one from inside another would wait for itself."""
        outer = _operation.get()
        if outer is not None and not outer.is_over:
            raise PluginBusyError(plugin="")
        async with self._lock:
            self._attach()
            operation = _Operation()
            token = _operation.set(operation)
            try:
                with running_as_host(self._key):
                    yield
            finally:
                operation.is_over = True
                _operation.reset(token)


def _waits_for_start(record: PluginRecord) -> bool:
    """Tell whether ``enable_all`` is to enable it: it is loaded, or only the shutdown had disabled it."""
    by_shutdown = isinstance(record.reason, PluginDisabledError) and record.reason.fields["by"] == "shutdown"
    return record.state is PluginState.LOADED or (record.is_loaded and by_shutdown)
