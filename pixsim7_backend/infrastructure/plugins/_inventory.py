"""The plugins of one app: what was found, decided and switched, what each one is now, and its code in memory.

Everything here is synchronous. A plugin that turns out not to run is given up: it and whatever needs
it are held back, and what they had registered is undone.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI

from ._code.loader import PluginCode
from ._code.modules import read_files_anew
from ._desired import Desired
from ._discovery.sources import Discovery
from ._dispatch import PluginMount, find_conflicts
from ._enforcing import Enforcing
from ._generation import CodeLoader, Generation
from ._grants.permissions import Grants
from ._ledger.ownership import AppKey, Owner
from ._plan.change import Change, make_change
from ._plan.plan import Candidate, Plan
from ._plan.safe_mode import held_in_safe_mode
from ._planning import CommunityPolicy, plan_here
from ._records import Records
from ._reporter import Reporter
from ._settings.platform import PluginSettings
from ._settings.plugin import SettingsBook
from .errors import MissingManifestError, PluginError, PluginIdChangedError
from .records import PluginRecord
from .states import PluginState, can_become

_NO_GRANTS: Mapping[str, Grants] = MappingProxyType({})


class Inventory:
    """Plan, records and generations by id, changed together.

    ``found`` is every candidate by its folder, ``errors`` what went wrong with its present code,
    ``desired`` what the operator wants; from these three the plan follows. ``records`` has
    every plugin that was found, ``generations`` those whose code is in memory.
    """

    def __init__(
        self,
        app: FastAPI,
        key: AppKey,
        settings: PluginSettings,
        *,
        discovery: Discovery,
        desired: Desired,
        reporter: Reporter,
    ) -> None:
        self._app = app
        self._key = key
        self._settings = settings
        self._discovery = discovery
        self._reporter = reporter
        self.found: dict[Path, Candidate] = {each.source.path: each for each in discovery.candidates}
        self.errors: dict[str, PluginError] = {}
        self.desired = desired
        self.enforcing = Enforcing(settings.enforcer, desired)
        self.book = SettingsBook(settings.sources, desired.stored)
        self.records = Records(start=time.time_ns() // 1_000_000)
        self.plan = self.make_plan()
        self.generations: dict[str, Generation] = {}

    def ids_in(self, state: PluginState) -> list[str]:
        """Return the plugins in this state, in load order."""
        return [each for each in self.plan.order if self.records[each].state is state]

    def mounts_of(self, plugin_ids: Iterable[str]) -> dict[str, PluginMount]:
        return {each: self.generations[each].mount for each in plugin_ids}

    def set(self, plugin_id: str, state: PluginState, reason: PluginError | None = None) -> PluginRecord:
        """Move a plugin to another state, through ``discovered`` where it starts anew; return its new record.

        Raises:
            IllegalTransitionError: the state table does not allow it.
        """
        record = self.records[plugin_id]
        if record.state is state:
            record = replace(record, reason=reason)
        else:
            if not can_become(record.state, state) and can_become(record.state, PluginState.DISCOVERED):
                record = record.to(PluginState.DISCOVERED)
            record = record.to(state, reason)
        self.records[plugin_id] = record
        return record

    def require(self, plugin_id: str, state: PluginState) -> PluginRecord:
        """Return the record of a plugin in this state; raise the reason why it is in another one."""
        record = self.records[plugin_id]
        if record.state is not state and record.reason is not None:
            raise record.reason
        return record

    # --- deciding ---------------------------------------------------------------------------------

    def make_plan(
        self,
        found: Mapping[Path, Candidate] | None = None,
        *,
        switched: Mapping[str, bool] | None = None,
        errors: Mapping[str, PluginError] | None = None,
        grants: Mapping[str, Grants] = _NO_GRANTS,
    ) -> Plan:
        """Return the plan for what is found, switched, granted and known to be wrong, or for what might be."""
        wrong = self.errors if errors is None else errors
        candidates = (self.found if found is None else found).values()
        return plan_here(
            [replace(each, error=each.error or wrong.get(each.id)) for each in candidates],
            disabled=self._settings.disabled,
            switched=self.desired.state.switched if switched is None else switched,
            resources=self._settings.resources,
            policy=CommunityPolicy(
                grants=lambda each: grants.get(each) or self.desired.grants(each),
                confinement=self._settings.confinement,
                floor=self._settings.community_floor,
                running=self._running(),
            ),
        )

    def _running(self) -> frozenset[str]:
        return frozenset(each for each, record in self.records.items() if record.state is PluginState.ENABLED)

    def make_change(self, plan: Plan, *, asked: str = "", replace: Collection[str] = ()) -> Change:
        """Return the steps from what runs now to ``plan``."""
        return make_change(self.records, self.plan, plan, asked=asked, replace=replace)

    def adopt(self, plan: Plan) -> None:
        """Take a plan over; plugins that it holds back and that do not run get its reasons, new ones a record."""
        self.plan = plan
        for candidate in plan.candidates.values():
            record = self.records.get(candidate.id)
            if record is None or record.state is PluginState.REMOVED:
                self.records[candidate.id] = _new_record(candidate, record.generation if record else 0)
            elif record.state is not PluginState.ENABLED:
                self.records[candidate.id] = replace(
                    record, manifest=candidate.manifest, source=candidate.source, warnings=candidate.warnings
                )
        for plugin_id, reason in plan.held.items():
            record = self.records[plugin_id]
            if record.state is not PluginState.ENABLED and (record.state, str(record.reason)) != (
                reason.state,
                str(reason),
            ):
                self._reporter.held(self.set(plugin_id, reason.state, reason))

    # --- what is on disk now ------------------------------------------------------------------------

    def read(self, record: PluginRecord) -> Candidate:
        """Return what a plugin's folder says now; raise what is wrong with it."""
        candidate = self._discovery.read(record.source)
        if candidate is None:
            raise MissingManifestError(plugin=record.id, directory=record.source.path)
        if candidate.error is not None:
            raise candidate.error
        if candidate.id != record.id:
            raise PluginIdChangedError(plugin=record.id, found=candidate.id, directory=record.source.path)
        if candidate.manifest is None:  # computed: what the last import said, until it is imported again
            candidate = replace(candidate, manifest=record.manifest)
        return candidate

    def make_plan_with(
        self,
        *candidates: Candidate,
        switched: Mapping[str, bool] | None = None,
        grants: Mapping[str, Grants] = _NO_GRANTS,
    ) -> Plan:
        """Return the plan for what is found, with these candidates in their folders and nothing known against them."""
        ids = {each.id for each in candidates}
        errors = {each: error for each, error in self.errors.items() if each not in ids}
        found = {**self.found, **{each.source.path: each for each in candidates}}
        return self.make_plan(found, switched=switched, errors=errors, grants=grants)

    def find(self, folder: Path) -> Candidate | None:
        """Return what a folder of a plugin directory holds now, None when that is no plugin."""
        return self._discovery.find(folder)

    def accept(self, candidate: Candidate) -> None:
        """Take a candidate for what its folder holds, with nothing known against it."""
        self.found[candidate.source.path] = candidate
        self.errors.pop(candidate.id, None)

    def let_go_of(self, record: PluginRecord) -> None:
        """Let a plugin that does not run be imported anew when it starts, even if something else holds it back now.

        Raises:
            PluginError: what is wrong in its folder.
        """
        self.forget(record.id)
        read_files_anew(record.source.path)
        candidate = self.read(record)
        plan = self.make_plan_with(candidate)
        if candidate.id in plan.held and set(self.ids_in(PluginState.ENABLED)) <= set(plan.order):
            self.accept(candidate)
            self.adopt(plan)

    def importers_of(self, plugin_id: str) -> frozenset[str]:
        """Return the plugin and those that import from it, directly or through one another."""
        found = {plugin_id}
        for each in self.plan.dependants_of(plugin_id, transitive=True):
            generation = self.generations.get(each)
            if generation is not None and generation.imported & found:
                found.add(each)
        return frozenset(found)

    def mark_removed(self, plugin_id: str) -> PluginRecord:
        """Note that a plugin is not found any more, and forget its code."""
        self.forget(plugin_id)
        self.errors.pop(plugin_id, None)
        return self.set(plugin_id, PluginState.REMOVED)

    # --- loading ----------------------------------------------------------------------------------

    def load_all(self) -> None:
        """Load what the plan says, in its order; whatever cannot be loaded holds back what needs it."""
        self._reporter.discovered(self._discovery.folders)
        self._hold_what_is_unsafe()
        self.plan = self.learn_manifests(self.plan)
        for warning in self.plan.iter_warnings():
            self._reporter.warned(warning)
        for candidate, error in self.plan.rejected:
            self._reporter.held(_new_record(candidate).to(error.state, error))
        self.adopt(self.plan)
        while waiting := self.ids_in(PluginState.DISCOVERED):
            self.load(waiting[0])
        self.refuse_conflicts()

    def _hold_what_is_unsafe(self) -> None:
        """Hold back what an earlier start died in and, in safe mode, all that is not required."""
        folders = {each.id: each.source.path for each in self.plan.candidates.values()}
        self.errors |= self._settings.startup_journal.begin(folders)
        if self._settings.safe_mode:
            self.errors |= held_in_safe_mode(self.plan)
        if self.errors:
            self.plan = self.make_plan()

    def learn_manifests(self, plan: Plan) -> Plan:
        """Import the trusted plugins whose manifest is not a literal; return the plan with what they say."""
        unknown = [
            each
            for each in plan.candidates.values()
            if each.manifest is None and each.error is None and each.id not in plan.held
        ]
        if not unknown:
            return plan
        for candidate in unknown:
            self.found[candidate.source.path] = self._learn_manifest(candidate)
        learnt = self.make_plan()
        for candidate in unknown:
            if candidate.id in learnt.held:
                self.forget(candidate.id)
        return learnt

    def _learn_manifest(self, candidate: Candidate) -> Candidate:
        generation = self.new_generation(candidate)
        try:
            with self._settings.startup_journal.at(candidate.id, "loaded"):
                generation.import_code()
        except PluginError as error:
            generation.unload()
            return replace(candidate, error=error)
        self.generations[candidate.id] = generation
        return replace(candidate, manifest=generation.code.manifest)

    def import_code(self, plugin_id: str) -> Generation:
        """Import a plugin before it is loaded, which goes on from there; raise what holds it back."""
        if plugin_id in self.plan.held:
            raise self.plan.held[plugin_id]
        generation = self.new_generation(self.plan.candidates[plugin_id])
        generation.import_code()
        self.generations[plugin_id] = generation
        return generation

    def new_generation(self, candidate: Candidate) -> Generation:
        """Return the next generation of a plugin, with nothing of it imported yet."""
        record = self.records.get(candidate.id)
        number = record.generation + 1 if record else 1
        return Generation(
            self._app,
            self._key,
            self._settings,
            book=self.book,
            plugin=candidate.id,
            source=candidate.source,
            number=number,
            load_code=self._jail_of(candidate) if candidate.source.is_confined else None,
        )

    def _jail_of(self, candidate: Candidate) -> CodeLoader:
        """Return what lets a jail load the plugin, with what is granted and set when that happens."""
        jails = self._settings.jails
        assert jails is not None, "a host that finds confined plugins has jails"

        def load(owner: Owner) -> PluginCode:
            read_settings = functools.partial(self.book.collect, candidate.id)
            return jails.load(candidate, owner, self.desired.grants(candidate.id), read_settings)

        return load

    def check_imports(self, candidate: Candidate, generation: Generation) -> None:
        """Refuse imports of plugins that the manifest does not name, and note on whose code it builds."""
        requirements = candidate.manifest.requirements if candidate.manifest else ()
        declared = [requirement.plugin for requirement in requirements]
        packages = {each.source.package: each.id for each in self.plan.candidates.values()}
        generation.check_imports(declared, packages)
        generation.built_on = {each: self.generations[each].owner for each in declared if each in self.generations}

    def load(self, plugin_id: str, state: Any = None) -> bool:
        """Load one plugin; on failure it and what needs it are held back. Tell whether it is loaded.

        ``state`` is what the generation before handed over.
        """
        candidate = self.plan.candidates[plugin_id]
        generation = self.generations.get(plugin_id) or self.new_generation(candidate)
        try:
            self.check_imports(candidate, generation)
            with self._settings.startup_journal.at(plugin_id, "loaded"):
                generation.load(state)
        except PluginError as error:
            generation.unload()
            self.generations.pop(plugin_id, None)
            self.give_up(plugin_id, error)
            return False
        self.generations[plugin_id] = generation
        self.set(plugin_id, PluginState.LOADED)
        self.note_generation(plugin_id)
        self._reporter.loaded(self.records[plugin_id])
        return True

    def note_generation(self, plugin_id: str) -> None:
        """Let the record say what the generation in memory is."""
        generation = self.generations[plugin_id]
        self.records[plugin_id] = replace(
            self.records[plugin_id],
            manifest=generation.code.manifest,
            source=generation.source,
            generation=generation.owner.generation,
        )

    def is_stale(self, plugin_id: str) -> bool:
        """Tell whether the code in memory was built on code of a dependency that has been replaced since."""
        built_on = self.generations[plugin_id].built_on
        return any(
            each not in self.generations or self.generations[each].owner is not owner
            for each, owner in built_on.items()
        )

    def refuse_conflicts(self) -> tuple[str, ...]:
        """Give up the plugins whose routes the host or another plugin has a better right to.

        Returns those of them that run, and what needs them, in the order in which they are to be stopped.
        """
        before = self.plan
        loaded = self.mounts_of(each for each in self.plan.order if each in self.generations)
        for conflict in find_conflicts(self._app, list(loaded.values())):
            if conflict.plugin not in self.plan.held:
                self.give_up(conflict.plugin, conflict)
        return make_change(self.records, before, self.plan).stop

    # --- giving up --------------------------------------------------------------------------------

    def give_up(self, plugin_id: str, error: PluginError) -> None:
        """Hold back a plugin that turned out not to run, with everything that needs it; undo what they registered."""
        before = self.plan
        self.errors[plugin_id] = error
        plan = self.make_plan()
        for each in before.shutdown_order():
            if each in plan.held and self.records[each].state is not PluginState.ENABLED:
                self.forget(each)
        self.adopt(plan)

    def forget(self, plugin_id: str) -> bool:
        """Undo and drop the plugin's code, if it is in memory; tell whether it was."""
        generation = self.generations.pop(plugin_id, None)
        if generation is not None:
            generation.unload()
        return generation is not None


def _new_record(candidate: Candidate, generation: int = 0) -> PluginRecord:
    return PluginRecord(
        id=candidate.id,
        source=candidate.source,
        manifest=candidate.manifest,
        warnings=candidate.warnings,
        generation=generation,
    )
