"""Grant confined plugins what they ask for, or decline it: worked out before anything is stored."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from ._desired import Desired
from ._generation import JailLoader
from ._grants.permissions import Grants, Permission, decide
from ._inventory import Inventory
from ._journal import Journal
from ._plan.change import Change
from ._plan.plan import Candidate
from ._runner import Runner
from .errors import GrantRefusedError, PluginError
from .records import PluginRecord
from .types import PluginManifest

NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantsView:
    """What a confined plugin asks for, and what was decided about that."""

    requested: tuple[str, ...]
    granted: tuple[str, ...]
    declined: tuple[str, ...]
    undecided: tuple[str, ...]
    """What of ``requested`` nobody has decided about: it does not start before that."""

    @classmethod
    def of(cls, manifest: PluginManifest | None, grants: Grants) -> GrantsView:
        """Return what these grants mean for what the manifest asks for."""
        requested = requested_by(manifest)
        return cls(
            requested=tuple(sorted(map(str, requested))),
            granted=tuple(sorted(map(str, grants.granted))),
            declined=tuple(sorted(map(str, grants.declined))),
            undecided=tuple(map(str, grants.undecided(requested))),
        )

    def to_json(self) -> dict[str, list[str]]:
        """Return the view as JSON-able values."""
        return {name: list(getattr(self, name)) for name in ("requested", "granted", "declined", "undecided")}


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
        decision = await self._desired.grant(change.candidate.id, change.grants, by=by)
        self._journal.note("granted", decision.plugin, str(decision))
        if self._jails is not None:
            await self._jails.regrant(decision.plugin, decision.grants)
        await self._plugins.enforcing.follow(decision.plugin)
        self._plugins.records.touch(decision.plugin)

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


def trusted_error(plugin_id: str) -> GrantRefusedError:
    """Return the refusal to grant something to a plugin that runs in process."""
    problem = "it runs in the server's own process, where it may do everything; leave the grant out"
    return GrantRefusedError(plugin=plugin_id, problem=problem)


def requested_by(manifest: PluginManifest | None) -> frozenset[Permission]:
    """Return what a manifest asks for."""
    return frozenset(map(Permission.parse, manifest.permissions if manifest else ()))


def decided(plugin_id: str, manifest: PluginManifest | None, grant: Collection[str]) -> Grants:
    """Return the decision that grants these texts (see :func:`decide`), or nothing for ``"none"``.

    Raises:
        GrantRefusedError: a text is no permission, or the plugin does not ask for it.
    """
    if NONE in grant and len(set(grant)) > 1:
        raise GrantRefusedError(plugin=plugin_id, problem=f"{NONE!r} stands for no permission at all; grant it alone")
    try:
        return decide(requested_by(manifest), [each for each in grant if each != NONE])
    except ValueError as error:  # also of a permission that is not asked for
        raise GrantRefusedError(plugin=plugin_id, problem=str(error)) from None


def view_json(view: GrantsView | None) -> dict[str, Any] | None:
    """Return a view as JSON-able values; None where there is none."""
    return view.to_json() if view else None
