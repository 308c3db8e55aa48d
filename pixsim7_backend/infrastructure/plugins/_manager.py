"""The manager of one app's plugins: asks the other parts in order, holds no policy of its own."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import anyio.to_thread
from fastapi import FastAPI

from pixsim7_backend import __version__

from . import _hooks
from ._discovery import Discovery
from ._dispatch import PluginRoute, find_conflicts
from ._generation import Generation
from ._graph import make_plan, nearest_name
from ._ledger import LeakReport
from ._ownership import AppKey, running_as_host
from ._plan import Candidate, Plan
from ._registrations import own_state
from ._reporter import Reporter
from ._resources import check_resources
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
        self, app: FastAPI, discovery: Discovery, settings: PluginSettings, *, hooks: _hooks.HookBus, reporter: Reporter
    ) -> None:
        self.app = app
        self.settings = settings
        self._discovery = discovery
        self._hooks = hooks
        self._reporter = reporter
        self._key = AppKey(app.title)
        self._records: dict[str, PluginRecord] = {}
        self._generations: dict[str, Generation] = {}
        self._reports: dict[str, LeakReport] = {}
        self._route = PluginRoute.install(app, self._key)
        self._lock = asyncio.Lock()
        self._release_tasks: Callable[[], None] | None = None
        own_state(app)
        self._plan = self._make_plan(discovery.candidates)

    # --- reading ----------------------------------------------------------------------------------

    def list_plugins(self) -> list[PluginRecord]:
        """Return the records of what is loaded, in load order."""
        return [self._records[each] for each in self._plan.order if self._records[each].is_loaded]

    def iter_records(self) -> Iterator[PluginRecord]:
        """Yield the record of every plugin that was found, by id."""
        yield from (self._records[each] for each in sorted(self._records))

    def find(self, plugin_id: str) -> PluginRecord | None:
        """Return the plugin's record, None when there is no such plugin; any spelling of the id will do."""
        return self._records.get(normalize_plugin_id(plugin_id))

    def get(self, plugin_id: str) -> PluginRecord:
        """Return the plugin's record; raise PluginNotFoundError when there is no such plugin."""
        record = self.find(plugin_id)
        if record is None:
            wanted = normalize_plugin_id(plugin_id)
            raise PluginNotFoundError(plugin=wanted, similar=nearest_name(wanted, self._records))
        return record

    def plan(self) -> Plan:
        """Return what was decided: the load order, what is held back and why."""
        return self._plan

    def find_report(self, plugin_id: str) -> LeakReport | None:
        """Return the leak report of the plugin's last disable, None when there was none."""
        return self._reports.get(normalize_plugin_id(plugin_id))

    # --- loading ----------------------------------------------------------------------------------

    def load_all(self) -> None:
        """Load what the plan says, in its order; whatever cannot be loaded holds back what needs it.

        Raises:
            PluginStartupError: the policy is strict and there is a problem, or a required plugin cannot run.
        """
        with running_as_host(self._key):
            self._reporter.discovered(self._discovery.folders)
            self._learn_manifests()
            for candidate in self._plan.candidates.values():
                self._records[candidate.id] = PluginRecord(
                    id=candidate.id, source=candidate.source, manifest=candidate.manifest, warnings=candidate.warnings
                )
            for warning in (*self._plan.warnings, *(w for c in self._plan.candidates.values() for w in c.warnings)):
                self._reporter.warned(warning)
            for candidate, error in self._plan.rejected:
                self._reporter.held(PluginRecord(id=candidate.id, source=candidate.source).to(error.state, error))
            for plugin_id in self._plan.held:
                self._hold(plugin_id)
            for plugin_id in self._plan.order:
                if plugin_id not in self._plan.held:
                    self._load(plugin_id)
            self._refuse_conflicts()
            self._check_policy()

    def _make_plan(self, candidates: Sequence[Candidate]) -> Plan:
        manifests = [each.manifest for each in candidates if each.manifest and each.manifest.enabled]
        needed = {name for name in ("db", "redis") if any(getattr(each, f"requires_{name}") for each in manifests)}
        return make_plan(
            candidates,
            disabled=self.settings.disabled,
            resource_problems=check_resources(needed, self.settings.resources),
            host_version=__version__,
        )

    def _learn_manifests(self) -> None:
        """Import the trusted plugins whose manifest is not a literal, and plan again with what they say."""
        unknown = [each for each in self._plan.candidates.values() if each.manifest is None and each.error is None]
        learnt: dict[str, Candidate] = {}
        for candidate in unknown:
            if candidate.id in self._plan.held:
                continue
            generation = self._new_generation(candidate)
            try:
                generation.import_code()
            except PluginError as error:
                generation.unload()
                learnt[str(candidate.source)] = replace(candidate, error=error)
            else:
                self._generations[candidate.id] = generation
                learnt[str(candidate.source)] = replace(candidate, manifest=generation.code.manifest)
        if learnt:
            self._plan = self._make_plan([learnt.get(str(c.source), c) for c in self._discovery.candidates])
            for plugin_id in [each for each in self._generations if each in self._plan.held]:
                self._generations.pop(plugin_id).unload()

    def _new_generation(self, candidate: Candidate) -> Generation:
        record = self._records.get(candidate.id)
        number = record.generation + 1 if record else 1
        return Generation(
            self.app, self._key, self.settings, plugin=candidate.id, source=candidate.source, number=number
        )

    def _load(self, plugin_id: str) -> None:
        """Load one plugin; on failure it and what needs it are held back."""
        candidate = self._plan.candidates[plugin_id]
        generation = self._generations.get(plugin_id) or self._new_generation(candidate)
        packages = {each.source.package: each.id for each in self._plan.candidates.values()}
        try:
            generation.load([r.plugin for r in _requirements(candidate)], packages)
        except PluginError as error:
            self._generations.pop(plugin_id, None)
            self._give_up(plugin_id, error)
            return
        self._generations[plugin_id] = generation
        record = self._records[plugin_id]
        self._records[plugin_id] = record.to(
            PluginState.LOADED, manifest=generation.code.manifest, generation=generation.owner.generation
        )
        self._reporter.loaded(self._records[plugin_id])

    def _refuse_conflicts(self) -> None:
        """Give up the plugins whose routes the host or an earlier plugin already serves."""
        mounts = [self._generations[each].mount for each in self._plan.order if self._records[each].is_loaded]
        for conflict in find_conflicts(self.app, mounts):
            if conflict.plugin not in self._plan.held:
                self._give_up(conflict.plugin, conflict)

    def _give_up(self, plugin_id: str, error: PluginError) -> None:
        """Hold back a plugin that turned out not to run, with everything that needs it; undo what was loaded."""
        before = self._plan
        self._plan = before.without(plugin_id, error)
        for each in before.shutdown_order():
            if each in self._plan.held:
                generation = self._generations.pop(each, None)
                if generation is not None:
                    generation.unload()
        for each in before.order:
            if each in self._plan.held:
                self._hold(each)

    def _hold(self, plugin_id: str) -> None:
        reason = self._plan.held[plugin_id]
        self._records[plugin_id] = self._records[plugin_id].to(reason.state, reason)
        self._reporter.held(self._records[plugin_id])

    def _check_policy(self) -> None:
        required = self._plan.required_held
        if required or (self.settings.on_plugin_error == "strict" and self._plan.problems):
            self.close()
            raise PluginStartupError(problems=self._plan.problems, required=required)

    # --- enabling ---------------------------------------------------------------------------------

    async def enable_all(self) -> None:
        """Announce and enable everything that is loaded, in load order, then ``app:startup``.

        Raises:
            PluginStartupError: as :meth:`load_all`; what was enabled is disabled again.
        """
        async with self._change():
            self._attach()
            loaded = [each for each in self._plan.order if self._is_waiting(self._records[each])]
            for plugin_id in loaded:
                await self._hooks.emit(PluginEvents.PLUGIN_LOADED, plugin_id)
            for plugin_id in loaded:
                if plugin_id not in self._plan.held:
                    await self._enable(plugin_id)
            await self._hooks.emit(PluginEvents.APP_STARTUP)
            if self._plan.required_held or (self.settings.on_plugin_error == "strict" and self._plan.problems):
                await self._disable_all()
                self._check_policy()

    @staticmethod
    def _is_waiting(record: PluginRecord) -> bool:
        """Tell whether ``enable_all`` is to enable it: it is loaded, or only the shutdown had disabled it."""
        by_shutdown = isinstance(record.reason, PluginDisabledError) and record.reason.fields["by"] == "shutdown"
        return record.state is PluginState.LOADED or (record.is_loaded and by_shutdown)

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
            self._attach()
            if record.id not in self._generations:
                self._load_late(record)
                await self._hooks.emit(PluginEvents.PLUGIN_LOADED, record.id)
            self._require_dependencies(record.id)
            await self._enable(record.id)
            return self._raise_unless(record.id, PluginState.ENABLED)

    def _load_late(self, record: PluginRecord) -> None:
        """Load a plugin that was held back at the start, if nothing holds it any more."""
        candidates = [
            replace(each, manifest=each.manifest.model_copy(update={"enabled": True}))
            if each.id == record.id and each.manifest
            else each
            for each in self._plan.candidates.values()
        ]
        plan = self._make_plan(candidates)
        if record.id in plan.held:
            raise plan.held[record.id]
        self._plan = _keep_held(plan, self._plan, record.id)
        self._records[record.id] = replace(record, state=PluginState.DISCOVERED, reason=None)
        self._load(record.id)
        self._refuse_conflicts()
        self._raise_unless(record.id, PluginState.LOADED)

    def _require_dependencies(self, plugin_id: str) -> None:
        for needed in self._plan.requires[plugin_id]:
            record = self._records[needed]
            if record.state is not PluginState.ENABLED:
                raise DependencyHeldError(
                    plugin=plugin_id,
                    dependency=needed,
                    dependency_state=record.state,
                    because=str(record.reason or ""),
                )

    def _raise_unless(self, plugin_id: str, state: PluginState) -> PluginRecord:
        record = self._records[plugin_id]
        if record.state is not state and record.reason is not None:
            raise record.reason
        return record

    async def _enable(self, plugin_id: str) -> None:
        generation = self._generations[plugin_id]
        try:
            await self._prepare(generation)
            await generation.enable()
        except PluginError as error:
            self._give_up(plugin_id, error)
            return
        self._records[plugin_id] = self._records[plugin_id].to(PluginState.ENABLED)
        self._publish()
        self._reporter.enabled(self._records[plugin_id])
        await self._hooks.emit(PluginEvents.PLUGIN_ENABLED, plugin_id)

    async def _prepare(self, generation: Generation) -> None:
        """Run the host's own step once for each generation, off the loop."""
        if self.settings.prepare is None or generation.is_prepared:
            return
        step = functools.partial(self.settings.prepare, self._records[generation.plugin], generation.source.path)
        try:
            await anyio.to_thread.run_sync(step)
        except PluginError:
            raise
        except Exception as error:  # the host's own code; whatever it raises concerns this plugin only
            raise PluginHookError(plugin=generation.plugin, hook="prepare", cause=error) from error
        generation.is_prepared = True

    def _publish(self) -> None:
        """Serve the routes of what is enabled, and of nothing else."""
        self._route.publish(
            {
                each: self._generations[each].mount
                for each in self._plan.order
                if self._records[each].state is PluginState.ENABLED
            }
        )

    # --- disabling --------------------------------------------------------------------------------

    async def disable_all(self) -> None:
        """Announce ``app:shutdown``, then disable everything in reverse load order."""
        async with self._change():
            await self._disable_all()
        await self._hooks.settle()
        self._detach()

    async def _disable_all(self) -> None:
        await self._hooks.emit(PluginEvents.APP_SHUTDOWN)
        for plugin_id in self._plan.shutdown_order():
            if self._records[plugin_id].state is PluginState.ENABLED:
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
            *dependants, _ = [
                each
                for each in self._plan.shutdown_order(record.id)
                if self._records[each].state is PluginState.ENABLED
            ]
            if dependants and not cascade:
                raise DependantsEnabledError(plugin=record.id, dependants=dependants)
            for each in dependants:
                await self._disable(each, PluginDisabledError(plugin=each, by=f"the operator, with {record.id!r}"))
            return await self._disable(record.id, PluginDisabledError(plugin=record.id, by="the operator"))

    async def _disable(self, plugin_id: str, reason: PluginError) -> LeakReport:
        generation = self._generations[plugin_id]
        self._records[plugin_id] = self._records[plugin_id].to(reason.state, reason)
        self._publish()
        report, error = await generation.disable()
        self._reports[plugin_id] = report
        if error is not None:
            self._generations.pop(plugin_id).unload()
            self._records[plugin_id] = self._records[plugin_id].to(error.state, error)
        self._reporter.disabled(self._records[plugin_id], report)
        await self._hooks.emit(PluginEvents.PLUGIN_DISABLED, plugin_id)
        return report

    # --- the app ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Leave the app at once: no route, registration or task of a plugin remains. Nothing is awaited.

        Afterwards every plugin that was loaded is disabled for good; another manager may take the app over.
        """
        for plugin_id in self._plan.shutdown_order():
            generation = self._generations.pop(plugin_id, None)
            if generation is not None:
                generation.unload()
                reason = PluginDisabledError(plugin=plugin_id, by="the end of its manager")
                self._records[plugin_id] = replace(self._records[plugin_id], state=reason.state, reason=reason)
        self._route.uninstall()
        self._detach()

    def _attach(self) -> None:
        """Serve on the running loop: its tasks are seen, and threads can announce events on it."""
        if self._release_tasks is None:
            loop = asyncio.get_running_loop()
            self._key.loop = loop
            self._release_tasks = own_tasks(loop)

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
            operation = _Operation()
            token = _operation.set(operation)
            try:
                with running_as_host(self._key):
                    yield
            finally:
                operation.is_over = True
                _operation.reset(token)


def _requirements(candidate: Candidate) -> Sequence[Any]:
    """Return the parsed ``dependencies`` of a candidate."""
    return candidate.manifest.requirements if candidate.manifest else ()


def _keep_held(plan: Plan, before: Plan, wanted: str) -> Plan:
    """Return ``plan`` without what failed on its own before, so that only ``wanted`` gets another chance."""
    for plugin_id, error in before.held.items():
        if plugin_id != wanted and plugin_id not in plan.held:
            plan = plan.without(plugin_id, error)
    return plan
