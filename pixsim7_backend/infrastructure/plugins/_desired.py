"""The operator's wishes as this process knows them: read once, stored before anything is done about them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from ._grants.permissions import Grants
from ._interruption import off_loop
from ._store import DesiredState, StateStore
from .errors import StateConflictError, StateUnavailableError
from .records import PluginRecord
from .states import PluginState
from .types import check_permission

logger = logging.getLogger("pixsim7.plugins")
audit = logging.getLogger("pixsim7.audit")

_DECISIONS = ("granted", "declined")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What somebody wants of one plugin: ``on`` (None while nobody knows) and ``by`` whom."""

    on: bool | None
    by: str
    """``"DISABLED_PLUGINS"``, ``"operator"`` or ``"manifest"``; the first that says something counts."""

    def to_json(self) -> dict[str, Any]:
        return {"on": self.on, "by": self.by}


def wish_of(record: PluginRecord, switched: bool | None, *, is_off: bool) -> Wish:
    """Return what is wanted of a plugin: ``DISABLED_PLUGINS`` wins, then the operator, then the manifest."""
    if is_off:
        return Wish(on=False, by="DISABLED_PLUGINS")
    if switched is not None:
        return Wish(on=switched, by="operator")
    return Wish(on=record.manifest.enabled if record.manifest else None, by="manifest")


def explain(record: PluginRecord, wish: Wish, switched: bool | None) -> str | None:
    """Return why what runs is not what is wanted, or whose wish was overruled; None where all agree."""
    runs = record.state is PluginState.ENABLED
    if wish.by == "DISABLED_PLUGINS" and switched:
        return f"the operator switched {record.id!r} on, but DISABLED_PLUGINS names it and wins; remove it there"
    if runs == wish.on or (wish.on is False and record.state in (PluginState.DISABLED, PluginState.DISCOVERED)):
        return None
    if record.reason is not None:
        return str(record.reason)
    return "the change is under way" if wish.on else "it was switched off elsewhere; the next start follows"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What somebody decided about the permissions of a plugin, and when."""

    plugin: str
    grants: Grants
    by: str
    at: datetime

    @classmethod
    def now(cls, plugin_id: str, grants: Grants, *, by: str) -> Decision:
        return cls(plugin=plugin_id, grants=grants, by=by or "unknown", at=datetime.now(UTC))

    def kept_in(self, state: DesiredState) -> DesiredState:
        """Return the state with the decision in force and in the audit."""
        grants = {**state.grants, self.plugin: self.grants.to_json()}
        return replace(state, grants=grants, audit=(*state.audit, self.to_json()))

    def to_json(self) -> dict[str, Any]:
        return {"at": self.at.isoformat(), "by": self.by, "plugin": self.plugin, **self.grants.to_json()}

    def log(self) -> None:
        """Write it down where decisions are audited."""
        audit.info("%s", self)

    def __str__(self) -> str:
        granted, declined = (", ".join(texts) or "nothing" for texts in self.grants.to_json().values())
        return f"{self.by} grants {self.plugin}: {granted}; declines: {declined}"


def read_grants(state: DesiredState, plugin_id: str) -> Grants:
    """Return what was granted to a plugin and what declined; what is no permission any more counts as undecided."""
    kept = state.grants.get(plugin_id, {})
    return Grants.from_json({name: list(filter(_is_permission, kept.get(name, ()))) for name in _DECISIONS})


def _is_permission(text: Any) -> bool:
    try:
        return bool(check_permission(text))
    except (ValueError, AttributeError):
        return False


class Desired:
    """The desired state, and the one way to change it.

    Where the store cannot be reached at start, nothing is switched or configured, and every change is
    refused until the next start, unless the store comes back empty.
    """

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self._trouble: StateUnavailableError | None = None
        self.state = self._load()

    def _load(self) -> DesiredState:
        try:
            return self._store.load()
        except StateUnavailableError as error:
            self._trouble = error
            logger.error(  # noqa: TRY400 - the text is for the operator; a traceback would bury it
                "Starting with what the manifests wish, and without stored settings; changes are refused until the"
                " next start: %s",
                error,
            )
            return DesiredState()

    def is_on(self, plugin_id: str) -> bool | None:
        """Return what the operator switched, None where nothing was."""
        return self.state.switched.get(plugin_id)

    def stored(self, plugin_id: str) -> Mapping[str, Any]:
        """Return the stored settings of a plugin."""
        return self.state.settings.get(plugin_id, {})

    def grants(self, plugin_id: str) -> Grants:
        """Return what was granted to a plugin and what declined."""
        return read_grants(self.state, plugin_id)

    async def switch(self, plugin_id: str, *, on: bool) -> None:
        """Store that a plugin shall be on or off; errors as :meth:`StateStore.save`."""
        if self.is_on(plugin_id) is not on:
            await self._change(lambda state: replace(state, switched={**state.switched, plugin_id: on}))

    async def configure(self, plugin_id: str, values: Mapping[str, Any]) -> None:
        """Store a plugin's settings, replacing those stored before; errors as :meth:`StateStore.save`."""
        others = {each: kept for each, kept in self.state.settings.items() if each != plugin_id}
        settings = {**others, plugin_id: values} if values else others
        await self._change(lambda state: replace(state, settings=settings))

    async def grant(self, plugin_id: str, grants: Grants, *, by: str) -> Decision:
        """Store what a plugin may do and what not, for good who decided so; errors as :meth:`StateStore.save`."""
        decision = Decision.now(plugin_id, grants, by=by)
        await self._change(decision.kept_in)
        decision.log()
        return decision

    async def revoke(self, plugin_id: str) -> None:
        """Drop what was decided about a plugin's permissions; errors as :meth:`StateStore.save`."""
        if self.state.without_grants(plugin_id) is not self.state:
            await self._change(lambda state: state.without_grants(plugin_id))

    async def forget(self, plugin_id: str) -> None:
        """Drop what is stored for a plugin; errors as :meth:`StateStore.save`."""
        if self.state.without(plugin_id) is not self.state:
            await self._change(lambda state: state.without(plugin_id))

    def _look_again(self) -> None:
        """Go on where the store is back and never held anything: then the start was right. Else raise the trouble."""
        assert self._trouble is not None
        try:
            is_empty = self._store.load() == DesiredState()
        except StateUnavailableError as error:
            self._trouble = error
            raise
        if not is_empty:
            raise self._trouble
        self._trouble = None

    async def _change(self, change: Callable[[DesiredState], DesiredState]) -> None:
        """Store what ``change`` makes of the state; another process's change in between is a conflict.

        After a conflict the state is what the other process stored, so that the next attempt builds on it.
        """
        if self._trouble is not None:
            await off_loop(self._look_again)
        await off_loop(lambda: self._save(change(self.state)))

    def _save(self, state: DesiredState) -> None:
        try:
            self.state = self._store.save(state, expected_version=self.state.version)
        except StateConflictError:
            self.state = self._store.load()
            raise
