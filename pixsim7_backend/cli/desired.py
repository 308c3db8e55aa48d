"""What the operator wants of the plugins while no server runs: read and written where the next start finds it."""

from __future__ import annotations

import contextlib
import getpass
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pixsim7_backend.cli.db import opened
from pixsim7_backend.cli.plugins import planned
from pixsim7_backend.infrastructure.plugins import DesiredState, StartupJournal, StateStore
from pixsim7_backend.infrastructure.plugins._desired import Decision, read_grants
from pixsim7_backend.infrastructure.plugins._grants.deciding import GrantsView, decided, decided_beside, trusted_error
from pixsim7_backend.infrastructure.plugins._plan.graph import nearest_name
from pixsim7_backend.infrastructure.plugins.errors import (
    DependantsEnabledError,
    PluginNotFoundError,
    StateUnavailableError,
)
from pixsim7_backend.infrastructure.plugins.preview import Candidate, Change, Plan, preview_switch
from pixsim7_backend.settings import Settings


@contextmanager
def opened_store(settings: Settings) -> Iterator[StateStore]:
    """Give the store that a server with these settings uses; errors as :func:`opened`."""
    from pixsim7_backend.plugin_store import DatabaseStateStore

    with opened(settings) as database:
        yield DatabaseStateStore(database, migrates=settings.is_embedded)


def load_desired(settings: Settings, *, migrates: bool = False) -> DesiredState:
    """Return what is stored; an empty state where nothing is. Makes no database.

    With ``migrates`` the tables of an embedded one are brought up to date first, as a start does.

    Raises:
        StateUnavailableError: the database does not answer, or its tables are not up to date.
    """
    from pixsim7_backend.resources import configured

    with configured(settings) as database:
        if database.file is not None and not database.file.exists():
            return DesiredState()
        from pixsim7_backend.plugin_store import DatabaseStateStore  # brings Alembic

        return DatabaseStateStore(database, migrates=migrates and settings.is_embedded).load()


def read_desired(settings: Settings) -> DesiredState:
    """As :func:`load_desired`, but an empty state also where the database does not answer.

    That is the plan's matter: it holds back who requires it.
    """
    with contextlib.suppress(StateUnavailableError):
        return load_desired(settings)
    return DesiredState()


class NextStart:
    """Follows what was installed while no server runs: what is noted of a plugin is what its next start finds."""

    is_live = False

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def refresh(self, plugin_id: str, folder: Path, grant: Collection[str] | None = None) -> None:
        """Give its files the chance that new code has, whatever an earlier start died in; also older ones."""
        StartupJournal(self._settings.starts_dir).forget(plugin_id)
        if grant is not None:
            with opened_store(self._settings) as store:
                state = store.load()
                store.save(self._decide(state, plugin_id, grant), expected_version=state.version)

    def _decide(self, state: DesiredState, plugin_id: str, grant: Collection[str]) -> DesiredState:
        candidate = _confined(planned(self._settings, desired=state), plugin_id)
        grants = decided_beside(plugin_id, candidate.manifest, grant, read_grants(state, plugin_id))
        return Decision.now(plugin_id, grants, by=_by()).kept_in(state)

    def withdraw(self, plugin_id: str, *, cascade: bool) -> None:
        """It does not run."""

    def revoke(self, plugin_id: str) -> None:
        """Forget what was granted to it; errors as :meth:`StateStore.save`."""
        self._change(lambda state: state.without_grants(plugin_id))

    def forget(self, plugin_id: str) -> None:
        """Forget how it was switched and configured; errors as :meth:`StateStore.save`."""
        self._change(lambda state: state.without(plugin_id))

    def _change(self, change: Callable[[DesiredState], DesiredState]) -> None:
        state = load_desired(self._settings, migrates=True)
        if (after := change(state)) is not state:
            with opened_store(self._settings) as store:
                store.save(after, expected_version=state.version)


def decide_offline(plan: Plan, plugin_id: str, grant: Collection[str]) -> Decision:
    """Return the decision about what a confined plugin asks for, made by whoever runs the command.

    Raises:
        PluginNotFoundError: there is no such plugin.
        GrantRefusedError: it does not ask for that, or is not confined.
    """
    candidate = _confined(plan, plugin_id)
    return Decision.now(plugin_id, decided(plugin_id, candidate.manifest, grant), by=_by())


def _confined(plan: Plan, plugin_id: str) -> Candidate:
    candidate = plan.candidates.get(plugin_id)
    if candidate is None:
        raise PluginNotFoundError(plugin=plugin_id, similar=nearest_name(plugin_id, plan.candidates))
    if not candidate.source.is_confined:
        raise trusted_error(plugin_id)
    if candidate.error is not None:
        raise candidate.error
    return candidate


def _by() -> str:
    return f"{f'user {os.geteuid()}' if hasattr(os, 'geteuid') else getpass.getuser()}, offline"


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineSwitch:
    """What switching a plugin means for the next start, and what would be stored."""

    plugin: str
    before: DesiredState
    after: DesiredState
    """What would be stored."""
    plan: Plan
    change: Change

    @property
    def dependants(self) -> list[str]:
        """Who would not start any more, besides the plugin itself."""
        return [each for each in self.change.stop if each != self.plugin]

    def save(self, store: StateStore) -> None:
        """Keep it for the next start; errors as :meth:`StateStore.save`."""
        store.save(self.after, expected_version=self.before.version)

    def to_json(self) -> dict[str, Any]:
        candidate, on = self.plan.candidates[self.plugin], self.after.switched.get(self.plugin)
        view = GrantsView.of(candidate.manifest, read_grants(self.after, self.plugin))
        return {
            "live": False,
            "plugin": {"id": self.plugin, "desired": {"on": on, "by": "operator"}},
            "grants": view.to_json() if candidate.source.is_confined else None,
            "change": self.change.to_json(),
        }


def plan_switch(
    settings: Settings,
    before: DesiredState,
    plugin_id: str,
    *,
    on: bool,
    cascade: bool,
    grant: Collection[str] | None = None,
) -> OfflineSwitch:
    """Return what the next start would do differently; ``grant`` decides about what a confined plugin asks for.

    Raises:
        PluginNotFoundError: there is no such plugin.
        GrantRefusedError: it does not ask for that, or is not confined.
        DependantsEnabledError: others that would start need it, and ``cascade`` is not set.
        PluginError: it could not start although it is switched on.
    """
    now = planned(settings, desired=before)
    after = replace(before, switched={**before.switched, plugin_id: on})
    if grant is not None:
        after = decide_offline(now, plugin_id, grant).kept_in(after)
    then = planned(settings, desired=after)
    change = preview_switch(now, then, plugin_id)
    if on and plugin_id in then.held:
        raise then.held[plugin_id]
    switch = OfflineSwitch(plugin=plugin_id, before=before, after=after, plan=then, change=change)
    if switch.dependants and not cascade:
        raise DependantsEnabledError(plugin=plugin_id, dependants=switch.dependants)
    return switch
