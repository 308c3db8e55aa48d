"""Change a plugin's settings while it runs: what would be in force is known to be right before anything is stored."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from ._generation import Generation
from ._grants.permissions import Permission
from ._interruption import off_loop
from ._inventory import Inventory
from ._ledger.ownership import Entry, running_as
from ._settings.plugin import SettingsView
from .errors import (
    ConfinementError,
    NoSettingsError,
    PluginError,
    PluginSettingsError,
    SecretStorageError,
)
from .records import PluginRecord
from .states import PluginState


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsChange:
    """What a change of settings does, as a value that can be shown before it is done."""

    plugin: str
    stored: Mapping[str, Any]
    """What will be stored, its secrets encrypted."""
    value: Any = field(repr=False)
    """What will be in force; None while the plugin is off and nobody can tell."""
    is_empty: bool
    """Nothing that is stored changes."""
    starts: bool
    """The plugin was held back by its settings, and may start now."""

    def to_json(self) -> dict[str, Any]:
        """Return the change as JSON-able values, without the settings themselves."""
        return {"plugin": self.plugin, "is_empty": self.is_empty, "starts": self.starts}


class Configurator:
    """Works out changes of settings for the plugins of one app."""

    def __init__(self, plugins: Inventory) -> None:
        self._plugins = plugins

    def view(self, record: PluginRecord) -> SettingsView:
        """Return a plugin's settings as an operator may see them; masked where its code was not imported.

        Raises:
            NoSettingsError: it has none, or it was removed.
        """
        generation, book = self._plugins.generations.get(record.id), self._plugins.book
        current = generation.owner.settings.current if generation is not None else None
        form = generation.code.settings if generation is not None and current is not None else None
        if generation is not None and form is not None:
            with running_as(generation.owner, Entry.HOOK):
                return book.view(record.id, form, current)
        unusable = book.find_unusable(record.id)
        if unusable is not None and record.state is not PluginState.DISABLED:
            return unusable
        if generation is not None or record.state is PluginState.REMOVED:
            raise self._no_settings(record)
        return book.view_unread(
            record.id,
            f"the plugin is {record.state}, and its code, which says what can be set, is not imported:"
            " values are masked, and are checked when it is enabled",
        )

    async def work_out(self, record: PluginRecord, patch: Mapping[str, Any]) -> SettingsChange:
        """Return the change that ``patch`` makes; nothing is changed by that.

        The code of a plugin that is off, or may not run before something is decided, is not imported for it: then
        the values are checked when it is enabled, and kept like secrets until it is known which are.

        Raises:
            NoSettingsError: the plugin has no settings, or was removed.
            PluginSettingsError: the new settings would not be valid.
            SecretStorageError: a secret cannot be stored.
            PluginError: its code had to be imported to know its settings, which failed.
        """
        if self._is_unread(record):
            return self._change(record, patch, self._plugins.book.patched_unread(record.id, patch), None)
        async with self._imported(record) as generation:
            form = generation.code.settings
            if form is None:
                raise self._no_settings(record)
            with running_as(generation.owner, Entry.HOOK):
                stored = self._plugins.book.patched(record.id, form, patch)
                resolve = functools.partial(self._plugins.book.resolve, record.id, form, stored)
                value = await off_loop(resolve) if generation.source.is_confined else resolve()
        return self._change(record, patch, stored, value)

    def _is_unread(self, record: PluginRecord) -> bool:
        """Tell whether the plugin's code shall not be imported to know its settings."""
        if record.id in self._plugins.generations:
            return False
        return record.state is PluginState.DISABLED or self._may_not_run(record)

    def _may_not_run(self, record: PluginRecord) -> bool:
        """Tell whether it is a stranger's about which somebody has to decide before any of it runs."""
        if not record.source.is_confined or record.manifest is None:
            return False
        requested = map(Permission.parse, record.manifest.permissions)
        is_undecided = bool(self._plugins.desired.grants(record.id).undecided(requested))
        return is_undecided or isinstance(record.reason, ConfinementError)

    def _change(
        self, record: PluginRecord, patch: Mapping[str, Any], stored: Mapping[str, Any], value: Any
    ) -> SettingsChange:
        return SettingsChange(
            plugin=record.id,
            stored=stored,
            value=value,
            is_empty=not patch or stored == self._plugins.desired.stored(record.id),
            starts=self._is_held_by_settings(record),
        )

    @asynccontextmanager
    async def _imported(self, record: PluginRecord) -> AsyncIterator[Generation]:
        """Give the plugin's code: that in memory, else one that is imported for this and forgotten again."""
        generation = self._plugins.generations.get(record.id)
        if generation is not None:
            yield generation
            return
        if record.state is PluginState.REMOVED:
            raise self._no_settings(record)
        generation = self._plugins.new_generation(self._plugins.plan.candidates[record.id])
        try:
            await off_loop(generation.import_code)
            yield generation
        finally:
            generation.unload()

    async def store(self, change: SettingsChange) -> None:
        """Store a change; errors as :meth:`StateStore.save`."""
        await self._plugins.desired.configure(change.plugin, change.stored)
        self._plugins.records.touch(change.plugin)

    async def take_effect(self, change: SettingsChange) -> None:
        """Put new settings in force, and look at them anew, for the views; a plugin that they held back may start.

        Raises:
            PluginError: the plugin could not be told; it has them when it starts the next time.
        """
        generation = self._plugins.generations.get(change.plugin)
        if generation is not None:
            if generation.source.is_confined:
                await off_loop(generation.judge_settings)
            generation.configure()
            form = generation.code.settings
            if form is not None:
                await form.apply(generation.owner.settings.current)
        elif change.starts:
            self._plugins.errors.pop(change.plugin, None)

    def _is_held_by_settings(self, record: PluginRecord) -> bool:
        error: PluginError | None = self._plugins.errors.get(record.id)
        return isinstance(error, (PluginSettingsError, SecretStorageError))

    def _no_settings(self, record: PluginRecord) -> NoSettingsError:
        if record.id in self._plugins.generations:
            problem = "has no settings; it exports no `settings_model`"
        else:
            problem = f"is {record.state}, so it has no settings any more"
        return NoSettingsError(plugin=record.id, problem=problem)
