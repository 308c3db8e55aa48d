"""The plugins of one app: what was decided, what each one is now, and the code that is in memory.

Everything here is synchronous. A plugin that turns out not to run is given up: it and whatever needs
it are held back, and what they had registered is undone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from fastapi import FastAPI

from ._discovery import Discovery
from ._dispatch import PluginMount, find_conflicts
from ._generation import Generation
from ._ownership import AppKey
from ._plan import Candidate, Plan
from ._planning import plan_here
from ._reporter import Reporter
from ._settings import PluginSettings
from .errors import PluginError
from .records import PluginRecord
from .states import PluginState


class Inventory:
    """Plan, records and generations by id, changed together.

    ``records`` has every plugin that was found, ``generations`` those whose code is in memory.
    """

    def __init__(
        self, app: FastAPI, key: AppKey, settings: PluginSettings, *, discovery: Discovery, reporter: Reporter
    ) -> None:
        self._app = app
        self._key = key
        self._settings = settings
        self._discovery = discovery
        self._reporter = reporter
        self.plan = self._make_plan(discovery.candidates)
        self.records: dict[str, PluginRecord] = {}
        self.generations: dict[str, Generation] = {}

    def ids_in(self, state: PluginState) -> list[str]:
        """Return the plugins in this state, in load order."""
        return [each for each in self.plan.order if self.records[each].state is state]

    def mounts_of(self, plugin_ids: Iterable[str]) -> dict[str, PluginMount]:
        return {each: self.generations[each].mount for each in plugin_ids}

    def set(self, plugin_id: str, state: PluginState, reason: PluginError | None = None) -> PluginRecord:
        """Move a plugin to another state and return its new record.

        Raises:
            IllegalTransitionError: the state table does not allow it.
        """
        record = self.records[plugin_id].to(state, reason)
        self.records[plugin_id] = record
        return record

    # --- loading ----------------------------------------------------------------------------------

    def load_all(self) -> None:
        """Load what the plan says, in its order; whatever cannot be loaded holds back what needs it."""
        self._reporter.discovered(self._discovery.folders)
        self._learn_manifests()
        self._open_records()
        for plugin_id in self.plan.held:
            self._hold(plugin_id)
        for plugin_id in self.plan.order:
            if plugin_id not in self.plan.held:
                self._load(plugin_id)
        self._refuse_conflicts()

    def load_late(self, plugin_id: str) -> None:
        """Load one plugin that was held back before, if nothing holds it any more.

        That its manifest says ``enabled=False`` does not count: somebody asks for it.

        Raises:
            PluginError: what holds it back, or went wrong; in the latter case its record says the same.
        """
        candidates = [_wanted(each) if each.id == plugin_id else each for each in self.plan.candidates.values()]
        plan = self._make_plan(candidates)
        if plugin_id in plan.held:
            raise plan.held[plugin_id]
        self.plan = _still_without(plan, self.plan.held, but=plugin_id)
        self.records[plugin_id] = replace(self.records[plugin_id], state=PluginState.DISCOVERED, reason=None)
        self._load(plugin_id)
        self._refuse_conflicts()
        self.require(plugin_id, PluginState.LOADED)

    def require(self, plugin_id: str, state: PluginState) -> PluginRecord:
        """Return the record of a plugin in this state; raise the reason why it is in another one."""
        record = self.records[plugin_id]
        if record.state is not state and record.reason is not None:
            raise record.reason
        return record

    def _make_plan(self, candidates: Iterable[Candidate]) -> Plan:
        return plan_here(candidates, disabled=self._settings.disabled, resources=self._settings.resources)

    def _learn_manifests(self) -> None:
        """Import the trusted plugins whose manifest is not a literal, and plan again with what they say."""
        unknown = [
            each
            for each in self.plan.candidates.values()
            if each.manifest is None and each.error is None and each.id not in self.plan.held
        ]
        if not unknown:
            return
        learnt = {each.source: self._learn_manifest(each) for each in unknown}
        self.plan = self._make_plan(learnt.get(each.source, each) for each in self._discovery.candidates)
        for plugin_id in [each for each in self.generations if each in self.plan.held]:
            self.generations.pop(plugin_id).unload()

    def _learn_manifest(self, candidate: Candidate) -> Candidate:
        generation = self._new_generation(candidate)
        try:
            generation.import_code()
        except PluginError as error:
            generation.unload()
            return replace(candidate, error=error)
        self.generations[candidate.id] = generation
        return replace(candidate, manifest=generation.code.manifest)

    def _open_records(self) -> None:
        for warning in self.plan.iter_warnings():
            self._reporter.warned(warning)
        for candidate, error in self.plan.rejected:
            self._reporter.held(_new_record(candidate).to(error.state, error))
        for candidate in self.plan.candidates.values():
            self.records[candidate.id] = _new_record(candidate)

    def _new_generation(self, candidate: Candidate) -> Generation:
        record = self.records.get(candidate.id)
        number = record.generation + 1 if record else 1
        return Generation(
            self._app, self._key, self._settings, plugin=candidate.id, source=candidate.source, number=number
        )

    def _load(self, plugin_id: str) -> None:
        """Load one plugin; on failure it and what needs it are held back."""
        candidate = self.plan.candidates[plugin_id]
        generation = self.generations.get(plugin_id) or self._new_generation(candidate)
        requirements = candidate.manifest.requirements if candidate.manifest else ()
        packages = {each.source.package: each.id for each in self.plan.candidates.values()}
        try:
            generation.load([requirement.plugin for requirement in requirements], packages)
        except PluginError as error:
            self.generations.pop(plugin_id, None)
            self.give_up(plugin_id, error)
            return
        self.generations[plugin_id] = generation
        self.records[plugin_id] = self.records[plugin_id].to(
            PluginState.LOADED, manifest=generation.code.manifest, generation=generation.owner.generation
        )
        self._reporter.loaded(self.records[plugin_id])

    def _refuse_conflicts(self) -> None:
        """Give up the plugins whose routes the host or an earlier plugin already serves."""
        loaded = self.mounts_of(each for each in self.plan.order if self.records[each].is_loaded)
        for conflict in find_conflicts(self._app, list(loaded.values())):
            if conflict.plugin not in self.plan.held:
                self.give_up(conflict.plugin, conflict)

    # --- giving up --------------------------------------------------------------------------------

    def give_up(self, plugin_id: str, error: PluginError) -> None:
        """Hold back a plugin that turned out not to run, with everything that needs it; undo what they registered."""
        before = self.plan
        self.plan = before.without(plugin_id, error)
        for each in before.shutdown_order():
            if each in self.plan.held:
                self.forget(each)
        for each in before.order:
            if each in self.plan.held:
                self._hold(each)

    def forget(self, plugin_id: str) -> bool:
        """Undo and drop the plugin's code, if it is in memory; tell whether it was."""
        generation = self.generations.pop(plugin_id, None)
        if generation is not None:
            generation.unload()
        return generation is not None

    def _hold(self, plugin_id: str) -> None:
        reason = self.plan.held[plugin_id]
        self._reporter.held(self.set(plugin_id, reason.state, reason))


def _new_record(candidate: Candidate) -> PluginRecord:
    return PluginRecord(
        id=candidate.id, source=candidate.source, manifest=candidate.manifest, warnings=candidate.warnings
    )


def _wanted(candidate: Candidate) -> Candidate:
    if candidate.manifest is None:
        return candidate
    return replace(candidate, manifest=candidate.manifest.model_copy(update={"enabled": True}))


def _still_without(plan: Plan, held: Mapping[str, PluginError], *, but: str) -> Plan:
    """Return ``plan`` without what was held before, so that one plugin gets another chance and no other one."""
    for plugin_id, error in held.items():
        if plugin_id != but and plugin_id not in plan.held:
            plan = plan.without(plugin_id, error)
    return plan
