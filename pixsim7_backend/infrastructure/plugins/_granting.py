"""Grant confined plugins what they ask for, or decline it: worked out before anything is stored."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from ._desired import Desired
from ._generation import JailLoader
from ._grants.deciding import GrantsView, decided, decided_beside, trusted_error
from ._grants.permissions import Grants
from ._inventory import Inventory
from ._journal import Journal
from ._plan.change import Change
from ._plan.plan import Candidate
from ._runner import Runner
from .errors import PluginError
from .records import PluginRecord
from .states import PluginState


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantChange:
    """A decision about everything that a plugin asks for, before it is stored."""

    candidate: Candidate
    """The plugin as its folder is now: that is what was decided about."""
    grants: Grants
    takes_away: bool
    """Something that it may do now it may not do any more."""

    @property
    def view(self) -> GrantsView:
        return GrantsView.of(self.candidate.manifest, self.grants)


class Granter:
    """Works out decisions about the permissions of one app's plugins, keeps them and lets them take effect."""

    def __init__(
        self, plugins: Inventory, runner: Runner, desired: Desired, journal: Journal, jails: JailLoader | None
    ) -> None:
        self._plugins = plugins
        self._runner = runner
        self._desired = desired
        self._journal = journal
        self._jails = jails

    def view(self, record: PluginRecord) -> GrantsView | None:
        """Return what a plugin asks for and what was decided; None for one that runs in process, and may do all."""
        if not record.source.is_confined:
            return None
        return GrantsView.of(record.manifest, self._desired.grants(record.id))

    def work_out(self, record: PluginRecord, grant: Collection[str]) -> GrantChange:
        """Return the decision that grants ``grant`` and declines the rest of what the plugin asks for.

        Raises:
            GrantRefusedError: it runs in process, or does not ask for that.
            PluginError: what is wrong in its folder.
        """
        if not record.source.is_confined:
            raise trusted_error(record.id)
        candidate = self._plugins.read(record)
        before = self._desired.grants(record.id)
        grants = decided(record.id, candidate.manifest, grant)
        return GrantChange(candidate=candidate, grants=grants, takes_away=before.exceed(grants))

    async def store(self, change: GrantChange, *, by: str) -> None:
        """Keep a decision, and let it count at once for what runs; errors as :meth:`StateStore.save`."""
        await self._keep(change.candidate.id, change.grants, by=by)

    async def _keep(self, plugin_id: str, grants: Grants, *, by: str) -> None:
        decision = await self._desired.grant(plugin_id, grants, by=by)
        self._journal.note("granted", decision.plugin, str(decision))
        if self._jails is not None:
            await self._jails.regrant(decision.plugin, decision.grants)
        await self._plugins.enforcing.follow(decision.plugin)
        self._plugins.records.touch(decision.plugin)

    @asynccontextmanager
    async def deciding(self, folder: Path, grant: Collection[str] | None, *, by: str) -> AsyncIterator[None]:
        """Decide about what ``grant`` names for the plugin that has come into a folder, before it starts there.

        Where it does not start although the plan says that it would, what was decided before counts again.

        Raises:
            GrantRefusedError: it is not confined, or does not ask for that.
        """
        candidate = self._plugins.find(folder) if grant is not None else None
        if candidate is None or grant is None:
            yield
            return
        if not candidate.source.is_confined:
            raise trusted_error(candidate.id)
        before = self._desired.grants(candidate.id)
        await self._keep(candidate.id, decided_beside(candidate.id, candidate.manifest, grant, before), by=by)
        would_run = candidate.id in self._plugins.make_plan_with(candidate).order
        try:
            yield
        except PluginError as error:
            if would_run or error.state is PluginState.FAILED:
                await self._keep(candidate.id, before, by=f"{by} (taken back: it did not start)")
                if before == Grants():
                    await self._desired.revoke(candidate.id)
            raise

    async def carry_out(self, decision: GrantChange, change: Change, *, start: bool) -> None:
        """Let a decision that is stored take effect: in a new jail of one that runs, else when it starts.

        Raises:
            PluginError: it could not be replaced. Its old jail goes on only if that may do no more than was decided.
        """
        plugins, plugin_id = self._plugins, decision.candidate.id
        if not change.replace:
            plugins.forget(plugin_id)  # its code is off, in a jail of before
        try:
            if change.replace:
                await self._runner.replace(change)
        except PluginError as error:
            if decision.takes_away:
                plugins.errors[plugin_id] = error
                await self._runner.apply(plugins.make_change(plugins.make_plan(), asked=plugin_id), start=start)
            raise
        plugins.accept(decision.candidate)
        await self._runner.apply(change, start=start)
