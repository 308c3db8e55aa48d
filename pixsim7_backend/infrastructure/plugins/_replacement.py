"""Put new code in the place of code that serves: built beside it, published in one step, or not at all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from types import ModuleType

from fastapi import FastAPI

from ._code.modules import forget, modules_of, put_back, read_files_anew, take_out
from ._code.pause import without_collections
from ._dispatch import find_conflicts
from ._generation import Generation
from ._interruption import StillRunningError, off_loop, off_loop_within
from ._inventory import Inventory
from ._ledger.ledger import Stage, find_line
from ._plan.plan import Candidate
from .errors import ImportTimeoutError

#: Seconds; one that takes longer hangs, and holds up every other change.
_LONGEST_IMPORT = 60.0


class Replacement:
    """New generations of some plugins, in load order; the first is the one that changed, the others import from it.

    Whatever goes wrong before :meth:`publish` leaves the generations in service untouched.
    """

    def __init__(
        self,
        app: FastAPI,
        plugins: Inventory,
        candidates: Sequence[Candidate],
        *,
        stateless: Collection[str] = (),
        prepare: Callable[[Generation], Awaitable[None]],
    ) -> None:
        self.built: list[Generation] = []
        self._app = app
        self._plugins = plugins
        self._candidates = candidates
        self._stateless = stateless
        self._prepare = prepare
        self._stage = Stage()
        self._old_modules: dict[str, Mapping[str, ModuleType]] = {}

    async def build(self) -> None:
        """Import, load and enable the new generations with their registrations held back.

        Raises:
            PluginError: what went wrong, by the plugin's own fault or another's; nothing has changed.
        """
        try:
            for candidate in self._candidates:
                self._old_modules[candidate.source.package] = take_out(candidate.source.package)
                read_files_anew(candidate.source.path)
            for candidate in self._candidates:
                await self._build_one(candidate)
            self._check_conflicts()
        except BaseException:
            await self._abandon()
            raise

    async def _build_one(self, candidate: Candidate) -> None:
        old = self._plugins.generations[candidate.id]
        new = self._plugins.new_generation(candidate)
        self._stage.hold(new.owner.ledger)
        self.built.append(new)
        self._plugins.check_imports(candidate, new)
        new.built_on = {**new.built_on, **{each.plugin: each.owner for each in self.built if each is not new}}
        with without_collections():
            await self._import(new)
            new.load(None if candidate.id in self._stateless else old.hand_over())
            await off_loop(new.mount.compile)
        await self._prepare(new)
        await new.enable()

    async def _import(self, new: Generation) -> None:
        try:
            await off_loop_within(_LONGEST_IMPORT, new.get_ready, name=f"importing {new.plugin}")
        except StillRunningError as error:
            where = find_line(error.thread, new.owner.directory)
            raise ImportTimeoutError(plugin=new.plugin, limit=_LONGEST_IMPORT, where=where) from None

    def _check_conflicts(self) -> None:
        mine = {each.plugin: each.mount for each in self.built}
        plugins = self._plugins
        mounts = [
            mine.get(each) or plugins.generations[each].mount
            for each in plugins.plan.order
            if each in mine or each in plugins.generations
        ]
        is_confined = {each.plugin_id: each.is_confined for each in mounts}
        for conflict in find_conflicts(self._app, mounts):
            is_against_mine = conflict.fields["owner"] in {f"plugin {each!r}" for each in mine}
            if conflict.plugin in mine or (is_against_mine and not is_confined[conflict.plugin]):
                raise conflict  # one that is confined makes room instead, once the new code serves

    def publish(self) -> list[Generation]:
        """Make the new generations the ones in service and return the old ones; no step of this waits.

        The routes themselves are published by the caller, in the same breath.
        """
        old = [self._plugins.generations[each.plugin] for each in self.built]
        for generation in old:
            generation.withdraw()
        self._stage.publish()
        for generation in self.built:
            self._plugins.generations[generation.plugin] = generation
            self._plugins.note_generation(generation.plugin)
        for generation in old:
            generation.owner.ledger.undo("port")
        return old

    async def _abandon(self) -> None:
        """Undo what was built, last first, and put the modules of the code in service back."""
        try:
            for generation in reversed(self.built):
                await generation.discard()
        finally:
            for generation in reversed(self.built):
                generation.unload()  # nothing is left to do, unless this was broken off
            for package, modules in self._old_modules.items():
                forget(modules_of(package))
                put_back(modules)
