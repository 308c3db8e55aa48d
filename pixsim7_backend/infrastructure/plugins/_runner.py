"""Brings plugins up and down and swaps them: the steps of a change, carried out in order."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from fastapi import FastAPI

from ._code.modules import put_back, read_files_anew, take_out
from ._dispatch import PluginMount, PluginRoute
from ._generation import Generation
from ._hooks.bus import HookBus
from ._interruption import off_loop
from ._inventory import Inventory
from ._ledger.ledger import LeakReport
from ._limits.limits import PluginLimits
from ._metrics import PluginMetrics
from ._plan.change import Change
from ._plan.plan import Candidate
from ._replacement import Replacement
from ._reporter import Reporter
from ._settings.platform import PluginSettings
from .errors import InterruptedChangeError, PluginDisabledError, PluginError, PluginHookError
from .events import PluginEvents
from .records import PluginRecord
from .states import PluginState


class Runner:
    """Carries out changes of one app's plugins; one at a time, which its caller sees to.

    ``reports`` holds the leak report of each plugin's last generation that stopped.
    """

    def __init__(
        self,
        app: FastAPI,
        plugins: Inventory,
        route: PluginRoute,
        settings: PluginSettings,
        *,
        metrics: PluginMetrics,
        limits: PluginLimits,
        hooks: HookBus,
        reporter: Reporter,
    ) -> None:
        self.reports: dict[str, LeakReport] = {}
        self.stand_ins: dict[str, PluginMount] = {}
        """What answers for plugins as long as they do not serve themselves."""
        self._metrics = metrics
        self._limits = limits
        self._app = app
        self._plugins = plugins
        self._route = route
        self._settings = settings
        self._hooks = hooks
        self._reporter = reporter
        self._retiring: set[asyncio.Task[None]] = set()

    async def apply(self, change: Change, *, start: bool = True) -> None:
        """Stop, adopt the plan, start: each in order; what fails to start holds back what needs it."""
        for plugin_id in change.stop:
            await self.stop(plugin_id, change.plan.held.get(plugin_id))
        self._plugins.adopt(change.plan)
        self._reached("adopted")
        for plugin_id in change.start if start else ():
            await self.start(plugin_id)
        await self.follow_grants()

    async def follow_grants(self) -> None:
        """Let others who enforce grants follow them anew: tables may have come, or be open to less than before."""
        enforcing = self._plugins.enforcing
        for plugin_id, record in list(self._plugins.records.items()):
            if record.source.is_confined and (record.state is PluginState.ENABLED or enforcing.of(plugin_id)):
                await enforcing.follow(plugin_id)

    def _reached(self, step: str, plugin_id: str = "") -> None:
        self._settings.checkpoint(f"{step} {plugin_id}".rstrip())

    # --- up ---------------------------------------------------------------------------------------

    async def start(self, plugin_id: str, state: Any = None) -> None:
        """Load a plugin unless its code is in memory and up to date, and enable it; failing is its record's matter.

        ``state`` is what the generation before handed over.
        """
        plugins = self._plugins
        if plugin_id not in plugins.plan.order:
            return  # something that it needs did not start
        if plugin_id in plugins.generations and plugins.is_stale(plugin_id):
            plugins.forget(plugin_id)
        if plugin_id not in plugins.generations:
            self._reached("loading", plugin_id)
            if not await self._start_jail(plugin_id) or not plugins.load(plugin_id, state):
                return
            self._reached("loaded", plugin_id)
            await self._refuse_conflicts()
            if plugin_id not in plugins.plan.order:
                return
            await self._hooks.emit(PluginEvents.PLUGIN_LOADED, plugin_id)
        plugins.set(plugin_id, PluginState.LOADED)
        await self.enable(plugin_id)

    async def _start_jail(self, plugin_id: str) -> bool:
        """Let the jail of a confined plugin start before the plugin is loaded: that takes a while, off the loop."""
        candidate = self._plugins.plan.candidates[plugin_id]
        if not candidate.source.is_confined:
            return True
        generation = self._plugins.new_generation(candidate)
        try:
            await off_loop(generation.get_ready)
        except PluginError as error:
            self._plugins.give_up(plugin_id, error)
            return False
        except BaseException:
            generation.unload()
            raise
        self._plugins.generations[plugin_id] = generation
        return True

    async def _refuse_conflicts(self) -> None:
        """Give up what others have a better right to the routes of, also what runs: a confined plugin was first."""
        for plugin_id in self._plugins.refuse_conflicts():
            await self.stop(plugin_id, self._plugins.plan.held[plugin_id])

    async def enable(self, plugin_id: str, state: Any = None) -> None:
        """Enable a plugin that is loaded; when that fails, give it up with what needs it.

        ``state`` is for code that was disabled, as its ``on_load`` runs again.
        """
        generation = self._plugins.generations[plugin_id]
        self._reached("enabling", plugin_id)
        try:
            with self._settings.startup_journal.at(plugin_id, "enabled"):
                await self._prepare(generation)
                self._reached("prepared", plugin_id)
                await generation.enable(state)
        except PluginError as error:
            self._plugins.give_up(plugin_id, error)
            return
        self._settings.startup_journal.forget(plugin_id)
        self._reached("up", plugin_id)
        record = self._plugins.set(plugin_id, PluginState.ENABLED)
        self.publish()
        self._reporter.enabled(record)
        await self._hooks.emit(PluginEvents.PLUGIN_ENABLED, plugin_id)

    async def _prepare(self, generation: Generation) -> None:
        """Run the host's own step once for each generation, off the loop; it runs code, so never a stranger's.

        For one that is confined, what it was granted is in force first wherever else that is enforced, and its jail
        has judged its settings.
        """
        if generation.source.is_confined:
            await self._plugins.enforcing.follow(generation.plugin)
            if not generation.is_set_up:
                await off_loop(generation.judge_settings)
            return
        if self._settings.prepare is None or generation.is_prepared:
            return
        record = self._plugins.records[generation.plugin]
        try:
            await off_loop(functools.partial(self._settings.prepare, record, generation.source.path))
        except PluginError:
            raise
        except Exception as error:  # the host's own code; what it raises concerns this plugin only
            raise PluginHookError(plugin=generation.plugin, hook="prepare", cause=error) from error
        generation.is_prepared = True

    def publish(self) -> None:
        """Serve the routes of what is enabled, and what stands in for others."""
        mounts = self._plugins.mounts_of(self._plugins.ids_in(PluginState.ENABLED))
        self._metrics.watch(mounts)
        self._limits.guard(mounts)
        self._route.publish(mounts | {each: it for each, it in self.stand_ins.items() if each not in mounts})

    # --- down -------------------------------------------------------------------------------------

    async def stop(self, plugin_id: str, reason: PluginError | None) -> None:
        """Stop one plugin for a reason, or because it is not found any more."""
        record = self._plugins.set(plugin_id, reason.state if reason else PluginState.REMOVED, reason)
        report = await self._take_down(plugin_id)
        if reason is None or not report.is_clean:
            self._plugins.forget(plugin_id)  # it is gone, or not to be used again as it is now
        await self._announce_stop(record, report)

    async def _take_down(self, plugin_id: str) -> LeakReport:
        self.publish()
        self._reached("unpublished", plugin_id)
        report = self.reports[plugin_id] = await self._plugins.generations[plugin_id].disable()
        self._reached("down", plugin_id)
        return report

    async def _announce_stop(self, record: PluginRecord, report: LeakReport) -> None:
        self._reporter.disabled(record, report)
        await self._hooks.emit(PluginEvents.PLUGIN_DISABLED, record.id)

    def mend(self, *, is_started: bool) -> None:
        """Make what runs and what is recorded agree after a change was broken off, at once.

        What was to stop is stopped, without waiting for anything; what was to start and did not is given up.
        """
        plugins = self._plugins
        for plugin_id, generation in list(plugins.generations.items()):
            if not generation.is_settled:
                plugins.forget(plugin_id)
        for plugin_id in plugins.make_plan().order:
            record = plugins.records.get(plugin_id)
            state = record.state if record else PluginState.DISCOVERED
            is_lost = state is PluginState.LOADED and plugin_id not in plugins.generations
            if is_lost or (is_started and state is not PluginState.ENABLED):
                plugins.errors[plugin_id] = InterruptedChangeError(plugin=plugin_id)
        plan = plugins.make_plan()
        for plugin_id in reversed(plugins.ids_in(PluginState.ENABLED)):
            if plugin_id not in plan.order:
                reason = plan.held.get(plugin_id)
                plugins.set(plugin_id, reason.state if reason else PluginState.REMOVED, reason)
                plugins.forget(plugin_id)
        plugins.adopt(plan)
        self.publish()

    async def settle(self) -> None:
        """Wait until every replaced generation has finished and is forgotten."""
        while self._retiring:
            await asyncio.wait(set(self._retiring))

    # --- over -------------------------------------------------------------------------------------

    async def replace(self, change: Change, *, stateless: Collection[str] = ()) -> None:
        """Put the code on disk in the place of the code that serves, as ``change.replace`` says.

        The old code of those in ``stateless`` is not asked for its state.

        Raises:
            PluginError: what is wrong with the new code; the old one serves.
        """
        candidates = [change.plan.candidates[each] for each in change.replace]
        if any(each.manifest is not None and each.manifest.replace == "stop-first" for each in candidates):
            await self._replace_stopped(change, stateless)
            return
        replacement = Replacement(self._app, self._plugins, candidates, stateless=stateless, prepare=self._prepare)
        await replacement.build()
        self._reached("built", change.replace[0])
        old = replacement.publish()
        self.publish()
        for candidate in candidates:
            self._plugins.accept(candidate)
        self._reached("replaced", change.replace[0])
        self._retire(old)
        await self._refuse_conflicts()
        await self.follow_grants()
        for generation in replacement.built:
            self._reporter.replaced(self._plugins.records[generation.plugin])
            await self._hooks.emit(PluginEvents.PLUGIN_LOADED, generation.plugin)
            await self._hooks.emit(PluginEvents.PLUGIN_ENABLED, generation.plugin)

    def _retire(self, old: Sequence[Generation]) -> None:
        """Let old generations finish what they do, then undo and forget them; nobody waits for that."""
        task = asyncio.create_task(self._retire_all(old), name=f"retiring {old[0].plugin}")
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _retire_all(self, old: Sequence[Generation]) -> None:
        try:
            for generation in reversed(old):
                report = await generation.disable()
                self._reached("retired", generation.plugin)
                generation.unload()
                self.reports[generation.plugin] = report
                self._reporter.retired(self._plugins.records[generation.plugin], report)
        finally:
            for generation in old:
                generation.unload()  # nothing is left to do, unless the loop ends

    async def _replace_stopped(self, change: Change, stateless: Collection[str]) -> None:
        """Stop the old generations, start the new ones; when that fails, start the old ones again."""
        old = [self._plugins.generations[each] for each in change.replace]
        try:
            await self._start_instead(old, change, stateless)
        finally:
            for generation in old:
                if self._plugins.generations.get(generation.plugin) is not generation:
                    generation.unload()

    async def _start_instead(self, old: Sequence[Generation], change: Change, stateless: Collection[str]) -> None:
        plugins = self._plugins
        known = [plugins.plan.candidates[each.plugin] for each in old]
        for generation in reversed(old):
            reason = PluginDisabledError(plugin=generation.plugin, by="its replacement")
            record = plugins.set(generation.plugin, reason.state, reason)
            await self._announce_stop(record, await self._take_down(generation.plugin))
            plugins.generations.pop(generation.plugin, None)
        self._reached("stopped", old[0].plugin)
        stash = [take_out(generation.source.package) for generation in old]
        states: dict[str, Any] = {}
        error: PluginError | None
        try:
            states |= {each.plugin: each.hand_over() for each in old if each.plugin not in stateless}
        except PluginError as refusal:
            error = refusal
        else:
            error = await self._start_new([change.plan.candidates[each.plugin] for each in old], states)
        if error is None:
            return
        await self._give_back(known)
        for modules in stash:
            put_back(modules)
        for generation in old:
            await self._start_again(generation, states.get(generation.plugin))
        raise error

    async def _start_new(self, candidates: Sequence[Candidate], states: Mapping[str, Any]) -> PluginError | None:
        """Start what is on disk with the states that were handed over; return why that failed."""
        plugins = self._plugins
        for candidate in candidates:
            read_files_anew(candidate.source.path)
            plugins.accept(candidate)
        plugins.adopt(plugins.make_plan())
        for candidate in candidates:
            await self.start(candidate.id, states.get(candidate.id))
        return next((plugins.errors[each.id] for each in candidates if each.id in plugins.errors), None)

    async def _give_back(self, known: Sequence[Candidate]) -> None:
        """Take down the new generations, as far as they came; what their folders held before is what counts again."""
        plugins = self._plugins
        for candidate in reversed(known):
            if plugins.records[candidate.id].state is PluginState.ENABLED:
                await self.stop(candidate.id, PluginDisabledError(plugin=candidate.id, by="its failure"))
            plugins.forget(candidate.id)
            plugins.accept(candidate)
        plugins.adopt(plugins.make_plan())

    async def _start_again(self, generation: Generation, state: Any) -> None:
        plugins = self._plugins
        plugins.generations[generation.plugin] = generation
        plugins.set(generation.plugin, PluginState.LOADED)
        plugins.note_generation(generation.plugin)
        await self.enable(generation.plugin, state)
