"""The places that a plugin's settings come from, one layer each: the file, the environment, what is stored.

Pure, but for the texts that it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pixsim7_backend.infrastructure.plugins.errors import PluginSettingsError, SettingProblem

from .schema import Path, SettingsSchema, dotted, merge_layers
from .sealing import SEALED, Cipher
from .spelling import in_file, prefix, text, variable

__all__ = ["Layer", "SettingsSources", "merged", "read_layers", "sources_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsSources:
    """What the process was started with."""

    config: Mapping[str, Any] = field(default_factory=dict)
    """The section ``plugins`` of the configuration file, by normalised id."""
    config_file: str = "config.yaml"
    environ: Mapping[str, str] = field(default_factory=dict)
    are_read: bool = False
    """Somebody else has read them, and said what there is to say of unknown ones."""
    cipher: Cipher | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """What one place says."""

    values: Mapping[str, Any]
    source: Callable[[Path], str]
    """Where a value of this layer is written."""
    write: Callable[[Path, Any], str]
    """How a value is written there, as a sentence."""


def read_layers(
    sources: SettingsSources, plugin_id: str, schema: SettingsSchema, stored: Mapping[str, Any]
) -> list[Layer]:
    """Return the layers of a plugin's settings, those that count more later; ``stored`` is the last.

    Raises:
        PluginSettingsError: its section of the configuration file is none.
    """
    return [
        _config_layer(sources, plugin_id, schema),
        _environment_layer(sources.environ, plugin_id, schema),
        Layer(
            values=stored,
            source=lambda _: "stored settings",
            write=lambda path, example: f"store {dotted(path)} = {text(example)}, or null to remove it",
        ),
    ]


def merged(layers: list[Layer]) -> dict[str, Any]:
    """Return what the layers say together."""
    return merge_layers([each.values for each in layers])


def sources_of(layers: list[Layer]) -> dict[str, str]:
    """Return where each value comes from, by its path with dots."""
    return {dotted(path): layer.source(path) for layer in layers for path in _leaves(layer.values)}


def _config_layer(sources: SettingsSources, plugin_id: str, schema: SettingsSchema) -> Layer:
    section, file = sources.config.get(plugin_id), sources.config_file
    if section is not None and not isinstance(section, Mapping):
        problem = f"is {section!r}, not names with values"
        example = f"write it like `plugins: {{{plugin_id}: {{name: value}}}}`"
        where = SettingProblem(field=f"plugins.{plugin_id}", source=file, problem=problem, example=example)
        raise PluginSettingsError(plugin=plugin_id, problems=[where])
    return Layer(
        values=schema.spell_all(section or {}),
        source=lambda _: file,
        write=lambda path, example: f"write it like `plugins: {in_file((plugin_id, *path), example)}`",
    )


def _environment_layer(environ: Mapping[str, str], plugin_id: str, schema: SettingsSchema) -> Layer:
    start = prefix(plugin_id)
    values: dict[str, Any] = {}
    names: dict[Path, str] = {}
    for name, value in sorted(environ.items()):
        if name.upper().startswith(start) and name[len(start) :].strip("_") and value:
            names[schema.set_text(values, name[len(start) :].split("__"), value)] = name
    return Layer(
        values=values,
        source=lambda path: _nearest(names, path, start),
        write=lambda path, example: f"write it like {variable(plugin_id, path)}={text(example)}",
    )


def _nearest(names: Mapping[Path, str], path: Path, start: str) -> str:
    """Return the variable that set this place, or a part of it."""
    inside = [each for each in names if each[: len(path)] == path or path[: len(each)] == each]
    return f"environment variable {names[inside[0]] if inside else start + '...'}"


def _leaves(values: Any, path: Path = ()) -> list[Path]:
    if isinstance(values, Mapping) and values and SEALED not in values:
        return [leaf for name, each in values.items() for leaf in _leaves(each, (*path, name))]
    return [path] if path else []
