"""What is wrong with settings, in words: which one, where it is written, and what would be right."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from pixsim7_backend.infrastructure.plugins._plan.graph import nearest_name
from pixsim7_backend.infrastructure.plugins.errors import PluginSettingsError, SettingProblem
from pixsim7_backend.merge_patch import MAX_DEPTH
from pixsim7_backend.storable import find_json_problem

from .form import RAISED, SettingFault
from .layers import Layer
from .schema import Path, SettingsSchema, dotted
from .spelling import in_file, text, variable

__all__ = ["describe_fault", "patch_error", "refuse_unknown", "refuse_unstorable", "warn_of_unknown"]

logger = logging.getLogger("pixsim7.plugins")

MAX_BYTES = 1 << 20
"""Of a patch, as JSON."""


def describe_fault(plugin_id: str, schema: SettingsSchema, layers: list[Layer], fault: SettingFault) -> SettingProblem:
    """Return what a plugin finds wrong, with the place that says it."""
    if fault.kind == RAISED:
        return SettingProblem(field="all", source="", problem=fault.text, example="see the plugin's settings_model")
    layer = max(reversed(layers), key=lambda each: len(_path(each.values, fault.place)))
    place = _path(layer.values, fault.place)
    is_known, is_missing = bool(place), fault.kind == "missing"
    if is_missing:
        place = (*place, *fault.place[-1:])
    example = schema.example(schema.at(place)) if place else "..."
    if is_missing:
        way = (
            f"set {variable(plugin_id, place)}={text(example)},"
            f" or `plugins: {in_file((plugin_id, *place), example)}` in config.yaml, or store it"
        )
        return SettingProblem(field=dotted(place), source="", problem="is missing", example=way)
    what = fault.text.removeprefix("Value error, ")
    return SettingProblem(
        field=dotted(place) or "all",
        source=layer.source(place) if is_known else "",
        problem=f"{what[:1].lower()}{what[1:]}",
        example=layer.write(place, example) if is_known else "change one of them",
    )


def _path(values: Any, place: Path) -> Path:
    """Return the steps of the place that a document has; names of alternatives are no steps of documents."""
    path: Path = ()
    for step in place:
        if isinstance(values, list):
            values = dict(enumerate(values))
        if isinstance(values, Mapping) and step in values:
            values = values[step]
            path = (*path, step)
    return path


def refuse_unknown(plugin_id: str, schema: SettingsSchema, patch: Mapping[str, Any]) -> None:
    """Raise PluginSettingsError when a patch has members that the schema does not know."""
    problems = [
        SettingProblem(
            field=dotted(path), source="", problem="is not a setting of the plugin", example=_hint(schema, path)
        )
        for path in schema.unknown(patch)
    ]
    if problems:
        raise PluginSettingsError(plugin=plugin_id, problems=problems)


def refuse_unstorable(plugin_id: str, patch: Mapping[str, Any]) -> None:
    """Raise PluginSettingsError when a patch has what not every store can keep, or is too large or too deep."""
    problem = find_json_problem(patch, max_bytes=MAX_BYTES, max_depth=MAX_DEPTH)
    if problem:
        raise patch_error(plugin_id, (), problem)


def warn_of_unknown(plugin_id: str, schema: SettingsSchema, layers: list[Layer]) -> None:
    """Log members of the layers that the schema does not know."""
    for layer in layers:
        for path in schema.unknown(layer.values):
            name, hint = dotted(path), _hint(schema, path)
            logger.warning("Setting %s of plugin %r (%s) is unknown; %s", name, plugin_id, layer.source(path), hint)


def patch_error(plugin_id: str, path: Path, problem: str) -> PluginSettingsError:
    """Return the refusal of a patch."""
    what = SettingProblem(field=dotted(path) or "all", source="", problem=problem, example="correct the patch")
    return PluginSettingsError(plugin=plugin_id, problems=[what])


def _hint(schema: SettingsSchema, path: Path) -> str:
    known = schema.names_at(path[:-1])
    near = nearest_name(str(path[-1]), known)
    return f"did you mean {near!r}?" if near else f"there are {', '.join(sorted(known)) or 'none'}"
