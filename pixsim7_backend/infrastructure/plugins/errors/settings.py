"""A plugin's settings are missing, wrong, or cannot be kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pixsim7_backend.infrastructure.plugins.states import PluginState

from .base import PluginError


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingProblem:
    """What is wrong with one setting: ``field`` is its path with dots, ``source`` where its value comes from."""

    field: str
    source: str
    problem: str
    example: str
    """A line that would be right."""

    def __str__(self) -> str:
        where = f" ({self.source})" if self.source else ""
        return f"{self.field}{where}: {self.problem}; {self.example}"


class PluginSettingsError(PluginError):
    """The settings of a plugin do not fit its model: it is not started with them, or keeps those it has."""

    state = PluginState.BLOCKED

    def __init__(self, *, plugin: str, problems: Sequence[SettingProblem]) -> None:
        lines = "; ".join(str(each) for each in problems)
        super().__init__(
            f"settings of plugin {plugin!r}: {lines}",
            plugin=plugin,
            problems=tuple(problems),
            settings=tuple(each.field for each in problems),
        )


class NoSettingsError(PluginError):
    """The plugin has no settings, or they are not known since its code is not loaded."""

    def __init__(self, *, plugin: str, problem: str) -> None:
        super().__init__(f"plugin {plugin!r} {problem}", plugin=plugin, problem=problem)


class SecretStorageError(PluginError):
    """A secret setting cannot be kept encrypted, or what is kept cannot be decrypted."""

    state = PluginState.BLOCKED

    def __init__(self, *, plugin: str, field: str, problem: str, way_out: str) -> None:
        super().__init__(
            f"secret {field!r} of plugin {plugin!r}: {problem}; {way_out}",
            plugin=plugin,
            field=field,
            problem=problem,
            way_out=way_out,
        )
