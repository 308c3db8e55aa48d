"""The manager of one app's plugins: asks the other parts in order, holds no policy of its own."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

import anyio.to_thread
from fastapi import FastAPI

from ._change import Change
from ._discovery import Discovery, read_folder
from ._dispatch import PluginRoute
from ._generation import Generation
from ._graph import nearest_name
from ._hooks import HookBus
from ._inventory import Inventory
from ._ledger import LeakReport
from ._modules import put_back, read_files_anew, take_out
from ._ownership import AppKey, running_as_host
from ._plan import Candidate, Plan
from ._registrations import own_state
from ._replacement import Replacement
from ._reporter import Reporter
from ._settings import PluginSettings
from ._tasks import own_tasks
from .errors import (
    DependantsEnabledError,
    MissingManifestError,
    PluginBusyError,
    PluginDisabledError,
    PluginError,
    PluginHookError,
    PluginIdChangedError,
    PluginNotFoundError,
    PluginStartupError,
    ReplacementRefusedError,
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
        self._is_started = False
        self._retiring: set[asyncio.Task[None]] = set()
        self._release_tasks: Callable[[], None] | None = None
        self._route = PluginRoute.install(app, self._key)
        own_state(app)

    # --- reading ----------------------------------------------------------------------------------

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
            plugins = self._plugins
            waiting = [each for each in self.plan().order if each in plugins.generations]
            for plugin_id in waiting:
                await self._hooks.emit(PluginEvents.PLUGIN_LOADED, plugin_id)
            for plugin_id in waiting:
                if plugin_id in self.plan().order and plugins.records[plugin_id].state is not PluginState.ENABLED:
                    await self._enable(plugin_id)
            self._is_started = True
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

    # --- switching --------------------------------------------------------------------------------

    def preview_enable(self, plugin_id: str) -> Change:
        """Return what :meth:`enable` would do; the errors are the same."""
        record = self.get(plugin_id)
        errors = {each: error for each, error in self._plugins.errors.items() if each != record.id}
        plan = self._plugins.make_plan(switched={**self._plugins.switched, record.id: True}, errors=errors)
        if record.id in plan.held:
            raise plan.held[record.id]
        return self._plugins.make_change(plan, asked=record.id)

    async def enable(self, plugin_id: str) -> PluginRecord:
        """Enable one plugin, and with it what was held back only because of it.

        Raises:
            PluginNotFoundError: there is no such plugin.
            PluginDisabledError: ``DISABLED_PLUGINS`` names it.
            PluginError: what stops it; its record holds the same reason.
        """
        async with self._change():
            change = self.preview_enable(plugin_id)
            record = self.get(plugin_id)
            self._plugins.switched[record.id] = True
            self._plugins.errors.pop(record.id, None)
            await self._apply(change)
            return self._plugins.require(record.id, PluginState.ENABLED)

    def preview_disable(self, plugin_id: str) -> Change:
        """Return what :meth:`disable` with ``cascade`` would do."""
        record = self.get(plugin_id)
        plan = self._plugins.make_plan(switched={**self._plugins.switched, record.id: False})
        return self._plugins.make_change(plan, asked=record.id)

    async def disable(self, plugin_id: str, *, cascade: bool = False) -> LeakReport:
        """Disable one plugin, and with ``cascade`` first what needs it; return its leak report.

        Raises:
            PluginNotFoundError: there is no such plugin.
            DependantsEnabledError: enabled plugins need it, and ``cascade`` is not set.
        """
        async with self._change():
            change = self.preview_disable(plugin_id)
            record = self.get(plugin_id)
            dependants = [each for each in change.stop if each != record.id]
            if dependants and not cascade:
                raise DependantsEnabledError(plugin=record.id, dependants=dependants)
            self._plugins.switched[record.id] = False
            await self._apply(change)
            return self._reports.get(record.id, LeakReport(record.id))

    # --- replacing --------------------------------------------------------------------------------

    def preview_reload(self, plugin_id: str) -> Change:
        """Return what :meth:`reload` would do, from what is on disk now; the errors are the same."""
        record = self.get(plugin_id)
        candidate = self._read(record)
        plan = self._plan_with(candidate)
        if record.id in plan.held:
            raise plan.held[record.id]
        return self._plugins.make_change(plan, asked=record.id, replace=self._importers(record.id))

    async def reload(self, plugin_id: str) -> PluginRecord:
        """Replace a plugin's code by what is on disk now, with the plugins that import from it.

        The new generation is built beside the old one; until it is published, and when anything goes
        wrong, the old one serves. Requests under way are answered by the code they began with. A
        plugin that does not run gets another chance.

        Raises:
            PluginNotFoundError: there is no such plugin.
            ReplacementRefusedError: plugins that run could not run beside the new code.
            PluginError: what is wrong with the new code; the old one serves on.
        """
        async with self._change():
            return await self._reload(self.get(plugin_id))

    async def _reload(self, record: PluginRecord) -> PluginRecord:
        change = self.preview_reload(record.id)
        if change.stop:
            why = change.why[change.stop[0]]
            raise ReplacementRefusedError(plugin=record.id, stopped=change.stop, because=why)
        self._plugins.found[record.source.path] = change.plan.candidates[record.id]
        self._plugins.errors.pop(record.id, None)
        if record.state is PluginState.ENABLED:
            await self._replace(change)
        else:
            self._plugins.forget(record.id)
        await self._apply(change)
        return self._plugins.require(record.id, PluginState.ENABLED if self._is_started else PluginState.LOADED)

    async def _replace(self, change: Change) -> None:
        candidates = [change.plan.candidates[each] for each in change.replace]
        if any(each.manifest is not None and each.manifest.replace == "stop-first" for each in candidates):
            await self._replace_stopped(change)
            return
        replacement = Replacement(self.app, self._plugins, candidates, prepare=self._prepare)
        await replacement.build()
        old = replacement.publish()
        self._publish()
        self._retire(old)
        for generation in replacement.built:
            self._reporter.replaced(self._plugins.records[generation.plugin])
            await self._hooks.emit(PluginEvents.PLUGIN_LOADED, generation.plugin)
            await self._hooks.emit(PluginEvents.PLUGIN_ENABLED, generation.plugin)

    async def _replace_stopped(self, change: Change) -> None:
        """Stop the old generations, start the new ones; when that fails, start the old ones again."""
        plugins = self._plugins
        old = [plugins.generations[each] for each in change.replace]
        for generation in reversed(old):
            await self._disable(generation.plugin, PluginDisabledError(plugin=generation.plugin, by="its replacement"))
            plugins.generations.pop(generation.plugin, None)
        stash = {generation.source.package: take_out(generation.source.package) for generation in old}
        for generation in old:
            read_files_anew(generation.source.path)
        for generation in old:
            await self._start(generation.plugin)
        error = next((plugins.errors[each.plugin] for each in old if each.plugin in plugins.errors), None)
        if error is None:
            for generation in old:
                generation.unload()
            return
        for generation in reversed(old):
            if plugins.records[generation.plugin].state is PluginState.ENABLED:
                await self._disable(generation.plugin, PluginDisabledError(plugin=generation.plugin, by="its failure"))
            plugins.forget(generation.plugin)
            plugins.errors.pop(generation.plugin, None)
        for modules in stash.values():
            put_back(modules)
        plugins.adopt(plugins.make_plan())
        for generation in old:
            plugins.generations[generation.plugin] = generation
            plugins.set(generation.plugin, PluginState.LOADED)
            plugins.note_generation(generation.plugin)
            await self._enable(generation.plugin)
        raise error

    def _read(self, record: PluginRecord) -> Candidate:
        """Return what the plugin's folder says now; raise what is wrong with it."""
        candidate = read_folder(record.source)
        if candidate is None:
            raise MissingManifestError(plugin=record.id, directory=record.source.path)
        if candidate.error is not None:
            raise candidate.error
        if candidate.manifest is None:  # computed: what the last import said, until it is imported again
            candidate = replace(candidate, manifest=record.manifest)
        if candidate.id != record.id:
            raise PluginIdChangedError(plugin=record.id, found=candidate.id, directory=record.source.path)
        return candidate

    def _plan_with(self, candidate: Candidate) -> Plan:
        plugins = self._plugins
        errors = {each: error for each, error in plugins.errors.items() if each != candidate.id}
        return plugins.make_plan({**plugins.found, candidate.source.path: candidate}, errors=errors)

    def _importers(self, plugin_id: str) -> set[str]:
        """Return the plugin and those that import from it, directly or through one another."""
        found = {plugin_id}
        for each in self.plan().dependants_of(plugin_id, transitive=True):
            generation = self._plugins.generations.get(each)
            if generation is not None and generation.imported & found:
                found.add(each)
        return found

    def _retire(self, old: Sequence[Generation]) -> None:
        """Let old generations finish what they do, then undo and forget them; nobody waits for that."""
        task = asyncio.create_task(self._retire_all(old), name=f"retiring {old[0].plugin}")
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _retire_all(self, old: Sequence[Generation]) -> None:
        for generation in reversed(old):
            report = await generation.disable()
            generation.unload()
            self._reports[generation.plugin] = report
            self._reporter.retired(self._plugins.records[generation.plugin], report)

    async def settle(self) -> None:
        """Wait until every replaced generation has finished and is forgotten."""
        while self._retiring:
            await asyncio.wait(set(self._retiring))

    # --- carrying out -----------------------------------------------------------------------------

    async def _apply(self, change: Change) -> None:
        """Stop, adopt the plan, start: each in order; what fails to start holds back what needs it."""
        for plugin_id in change.stop:
            await self._disable(plugin_id, change.plan.held.get(plugin_id))
        self._plugins.adopt(change.plan)
        if not self._is_started:
            return
        for plugin_id in change.start:
            await self._start(plugin_id)

    async def _start(self, plugin_id: str) -> None:
        """Load a plugin unless its code is in memory and up to date, and enable it."""
        plugins = self._plugins
        if plugin_id not in self.plan().order:
            return  # something that it needs did not start
        if plugin_id in plugins.generations and plugins.is_stale(plugin_id):
            plugins.forget(plugin_id)
        if plugin_id not in plugins.generations:
            if not plugins.load(plugin_id):
                return
            plugins.refuse_conflicts()
            if plugin_id not in self.plan().order:
                return
            await self._hooks.emit(PluginEvents.PLUGIN_LOADED, plugin_id)
        plugins.set(plugin_id, PluginState.LOADED)
        await self._enable(plugin_id)

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

    # --- stopping ---------------------------------------------------------------------------------

    async def disable_all(self) -> None:
        """Announce ``app:shutdown``, then disable everything in reverse load order."""
        async with self._change():
            await self._disable_all()
        await self._hooks.settle()
        self._detach()

    async def _disable_all(self) -> None:
        await self._hooks.emit(PluginEvents.APP_SHUTDOWN)
        self._is_started = False
        for plugin_id in reversed(self._plugins.ids_in(PluginState.ENABLED)):
            await self._disable(plugin_id, PluginDisabledError(plugin=plugin_id, by="shutdown"))
        await self.settle()

    async def _disable(self, plugin_id: str, reason: PluginError | None) -> LeakReport:
        """Stop one plugin for a reason, or because it is not found any more."""
        record = self._plugins.set(plugin_id, reason.state if reason else PluginState.REMOVED, reason)
        self._publish()
        report = await self._plugins.generations[plugin_id].disable()
        self._reports[plugin_id] = report
        if reason is None or not report.is_clean:
            self._plugins.forget(plugin_id)  # it is gone, or not to be used again as it is now
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
