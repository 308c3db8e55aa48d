"""What an operator can ask of a manager, by whichever way they come: JSON-able answers, typed errors."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pixsim7_backend.infrastructure.plugins._grants.deciding import view_json
from pixsim7_backend.infrastructure.plugins._hooks.bus import describe_handler
from pixsim7_backend.infrastructure.plugins._ledger.ledger import LeakReport
from pixsim7_backend.infrastructure.plugins._manager import PluginManager
from pixsim7_backend.infrastructure.plugins._plan.change import Change
from pixsim7_backend.infrastructure.plugins.errors import (
    DependantsEnabledError,
    NoSettingsError,
    PluginError,
    StateConflictError,
)
from pixsim7_backend.infrastructure.plugins.states import PluginState
from pixsim7_backend.infrastructure.plugins.types import normalize_plugin_id

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """On which terms a change is wanted."""

    dry_run: bool = False
    """Only say what would happen."""
    versions: Collection[int] | None = None
    """Change the plugin only if its record has one of these versions; None: any."""
    by: str = ""
    """Who wants it, for the audit."""


_NO_TERMS = Terms()


class Commands:
    """Answers an operator's questions about one manager's plugins, and carries out their changes.

    All methods raise PluginError: for a change it means that nothing was done, or that what was done is
    undone.
    """

    def __init__(self, manager: PluginManager) -> None:
        self._manager = manager

    # --- looking ----------------------------------------------------------------------------------

    def plugins(self) -> list[Json]:
        """Return all plugins, by id."""
        return [self._manager.describe(record.id) for record in self._manager.iter_records()]

    def plugin(self, plugin_id: str) -> Json:
        """Return one plugin: its record, what is wanted of it, why it is otherwise, and its version."""
        return self._manager.describe(plugin_id)

    def plan(self) -> Json:
        """Return the load order in force, what is held back and why."""
        return self._manager.plan().to_json()

    def events(self, since: int = 0) -> Json:
        """Return who hears and who declares which event, what happened after number ``since``, and the audit."""
        manager = self._manager
        subscriptions = [
            {
                "event": each.event,
                "plugin": each.owner.plugin if each.owner else None,
                "handler": describe_handler(each.handler),
            }
            for each in manager.list_subscriptions()
        ]
        declared = {each.id: list(each.manifest.events) for each in manager.iter_records() if each.manifest}
        return {
            "subscriptions": subscriptions,
            "declared": {plugin_id: events for plugin_id, events in declared.items() if events},
            "happenings": [each.to_json() for each in manager.journal.iter_since(since)],
            "audit": list(map(dict, manager.desired.state.audit)),
        }

    def confinement(self) -> Json:
        """Return how well this machine confines plugins, and how well it must; null where nobody asks."""
        ask, floor = self._manager.settings.confinement, self._manager.settings.community_floor
        report = ask() if ask is not None else None
        return {
            "floor": floor,
            "is_reached": report is None or report.reaches(floor),
            "report": report.to_json() if report else None,
        }

    def leaks(self) -> Json:
        """Return what generations left behind when they stopped, what of their code is still in memory, and why.

        ``stopped`` says of how many plugins a generation has stopped.
        """
        reports = [self._manager.find_report(record.id) for record in self._manager.iter_records()]
        stopped = [report for report in reports if report is not None]
        found = {report.plugin: report for report in stopped if not report.is_clean}
        for code in self._manager.find_leaks():
            known = found.get(code.plugin, LeakReport(code.plugin))
            found[code.plugin] = replace(known, leaks=(*known.leaks, *code.leaks))
        return {"stopped": len(stopped), "leaks": [found[each].to_json() for each in sorted(found)]}

    def metrics(self) -> list[Json]:
        """Return the figures of all plugins, by id."""
        return self._manager.metrics.to_json()

    def metrics_text(self) -> str:
        """Return the same for Prometheus to scrape."""
        return self._manager.metrics.render_prometheus()

    # --- configuring ------------------------------------------------------------------------------

    def settings(self, plugin_id: str) -> Json:
        """Return a plugin's settings with their schema and sources (secrets masked), and the record's version."""
        view = self._manager.view_settings(plugin_id)
        return {**view.to_json(), "record_version": self._manager.version_of(plugin_id)}

    async def change_settings(self, plugin_id: str, patch: Mapping[str, Any], terms: Terms = _NO_TERMS) -> Json:
        """Change a plugin's stored settings by a merge patch (RFC 7386); null removes a stored value."""
        manager = self._manager
        plugin_id = manager.get(plugin_id).id
        version = self._require(plugin_id, terms.versions)
        if terms.dry_run:
            preview = await manager.preview_settings(plugin_id, patch)
            return {"dry_run": True, "starts": preview.starts, "settings": self._known_settings(plugin_id)}
        was_running = manager.get(plugin_id).state is PluginState.ENABLED
        change = manager.change_settings(plugin_id, patch, expected_version=version)
        await self._noted("change_settings", plugin_id, change)
        starts = not was_running and manager.get(plugin_id).state is PluginState.ENABLED
        return {"dry_run": False, "starts": starts, "settings": self._known_settings(plugin_id)}

    def _known_settings(self, plugin_id: str) -> Json | None:
        with suppress(NoSettingsError):
            return self.settings(plugin_id)
        return None

    # --- switching --------------------------------------------------------------------------------

    async def enable(self, plugin_id: str, terms: Terms = _NO_TERMS, *, grant: Collection[str] | None = None) -> Json:
        """Enable a plugin, and with it what was held back only because of it; ``grant`` decides as :meth:`grant`."""
        manager = self._manager
        preview = functools.partial(manager.preview_enable, grant=grant)
        act = functools.partial(manager.enable, grant=grant, by=terms.by)
        return self._with_grants(await self._change("enable", plugin_id, terms, preview, act), grant)

    async def grant(self, plugin_id: str, grant: Collection[str], terms: Terms = _NO_TERMS) -> Json:
        """Decide about all that a confined plugin asks for; what is not in ``grant`` is declined."""
        manager = self._manager
        preview = functools.partial(manager.preview_grant, grant=grant)
        act = functools.partial(manager.grant, grant=grant, by=terms.by)
        return self._with_grants(await self._change("grant", plugin_id, terms, preview, act), grant)

    def _with_grants(self, answer: Json, grant: Collection[str] | None) -> Json:
        """Return the answer with what is, or would be, granted, and how far that got where else it is enforced."""
        manager, plugin_id = self._manager, answer["plugin"]["id"]
        view = manager.preview_grants(plugin_id, grant) if grant is not None else manager.grants_of(plugin_id)
        enforcement = [] if answer["dry_run"] else manager.enforcement_of(plugin_id)
        return {**answer, "grants": view_json(view), "enforcement": enforcement}

    async def follow_grants(self) -> None:
        """Let whoever else enforces grants follow what was decided: somebody has changed what that needs."""
        await self._manager.follow_grants()

    def grants(self, plugin_id: str) -> Json:
        """Return what a confined plugin asks for and what was decided, and its record's version."""
        view = self._manager.preview_grants(plugin_id)
        return {**view.to_json(), "record_version": self._manager.version_of(plugin_id)}

    async def disable(self, plugin_id: str, terms: Terms = _NO_TERMS, *, cascade: bool = False) -> Json:
        """Disable a plugin, and with ``cascade`` first what needs it; the answer has its leak report."""
        manager = self._manager
        act = functools.partial(manager.disable, cascade=cascade)
        answer = await self._change("disable", plugin_id, terms, manager.preview_disable, act)
        if not terms.dry_run:
            report = manager.find_report(plugin_id)
            return {**answer, "report": report.to_json() if report else None}
        plugin_id = answer["plugin"]["id"]
        dependants = [step["id"] for step in answer["change"]["stop"] if step["id"] != plugin_id]
        if dependants and not cascade:
            return {**answer, "refused": DependantsEnabledError(plugin=plugin_id, dependants=dependants).to_json()}
        return answer

    async def reload(self, plugin_id: str, terms: Terms = _NO_TERMS, *, discard_state: bool = False) -> Json:
        """Replace a plugin's code by what is on disk now, with the plugins that import from it."""
        manager = self._manager
        act = functools.partial(manager.reload, discard_state=discard_state)
        return await self._change("reload", plugin_id, terms, manager.preview_reload, act)

    async def retry(self, plugin_id: str, terms: Terms = _NO_TERMS) -> Json:
        """Give a plugin that failed, is blocked or was quarantined another chance; nothing happens to one that runs."""
        manager = self._manager
        return await self._change("retry", plugin_id, terms, self._preview_retry, manager.retry)

    # --- installing -------------------------------------------------------------------------------

    async def refresh(
        self, folder: str, terms: Terms = _NO_TERMS, *, grant: Collection[str] | None = None
    ) -> Json | None:
        """Follow what happened to a plugin's folder; the answer is the plugin in it, None when there is none.

        ``grant`` decides about those of a confined plugin's requests that it names, before it starts.
        """
        now = grant if self._manager.settings.allow_live_changes else None  # else it is refused as a whole
        try:
            async with self._manager.granter.deciding(Path(folder), now, by=terms.by):
                record = await self._manager.refresh(folder)
        except PluginError as error:
            known = self._manager.find(error.plugin)
            if known is not None and known.state is PluginState.ENABLED:
                self._manager.note_reload_error(known.id, error)
            raise
        return self.plugin(record.id) if record else None

    async def withdraw(self, plugin_id: str, *, cascade: bool = False) -> Json:
        """Stop a plugin whose folder is about to go."""
        record = await self._manager.withdraw(plugin_id, cascade=cascade)
        return self.plugin(record.id)

    async def revoke(self, plugin_id: str) -> None:
        """Forget what was granted to a plugin that is gone."""
        await self._manager.desired.revoke(normalize_plugin_id(plugin_id))

    async def forget(self, plugin_id: str) -> None:
        """Forget how a plugin was switched and configured."""
        await self._manager.desired.forget(normalize_plugin_id(plugin_id))

    def _preview_retry(self, plugin_id: str) -> Change:
        if self._manager.get(plugin_id).state is PluginState.ENABLED:
            return Change(plan=self._manager.plan())
        return self._manager.preview_reload(plugin_id)

    async def _change(
        self,
        what: str,
        plugin_id: str,
        terms: Terms,
        preview: Callable[[str], Change],
        act: Callable[..., Awaitable[object]],
    ) -> Json:
        plugin_id = self._manager.get(plugin_id).id
        version = self._require(plugin_id, terms.versions)
        change = Change(plan=self._manager.plan())
        try:
            change = preview(plugin_id)
        except PluginError:
            if terms.dry_run:
                raise  # else whatever stops it now may be over when it is the change's turn
        if not terms.dry_run:
            await self._noted(what, plugin_id, act(plugin_id, expected_version=version))
        return {
            "plugin": self.plugin(plugin_id),
            "change": change.to_json(),
            "dry_run": terms.dry_run,
            "refused": None,
            "report": None,
        }

    def _require(self, plugin_id: str, versions: Collection[int] | None) -> int | None:
        """Return the version that the change must still find when it gets its turn, if any."""
        if versions is None:
            return None
        found = self._manager.version_of(plugin_id)
        if found not in versions:
            raise StateConflictError(plugin=plugin_id, expected=min(versions, default=0), found=found)
        return found

    async def _noted(self, what: str, plugin_id: str, change: Awaitable[object]) -> None:
        """Wait for a change; what refuses it is noted in the journal."""
        try:
            await change
        except PluginError as error:
            self._manager.journal.note("refused", plugin_id, f"{what}: {error}")
            raise
