"""The settings of plugins: where their values come from, and the ones in force.

A plugin exports ``settings_model``, a pydantic model. Its values are laid over one another: the
model's defaults, ``plugins: {<id>: {...}}`` in ``config.yaml``, ``PLUGIN_<ID>__<FIELD>`` in the
environment, and what an operator stored at run time. Whatever is not valid never takes effect.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pixsim7_backend.merge_patch import MergePatchDepthError, merge_patch

from ._graph import nearest_name
from ._ownership import SettingsCell, current_app, current_owner
from ._settings_schema import DROPPED, Path, SettingsSchema, dotted, merge_layers
from .errors import NoSettingsError, PluginError, PluginSettingsError, SecretStorageError, SettingProblem

__all__ = ["MASK", "Cipher", "SettingsBook", "SettingsSources", "SettingsView", "plugin_settings"]

logger = logging.getLogger("pixsim7.plugins")

M = TypeVar("M", bound=BaseModel)
MASK = "**********"
_SEALED = "$encrypted"
_STORED = "stored settings"


class Cipher(Protocol):
    """Encrypts secrets for storage; ``context`` says whose, and what belongs to one does not open as another."""

    def encrypt(self, text: str, *, context: str) -> str: ...

    def decrypt(self, token: str, *, context: str) -> str:
        """Return the text; raise ValueError when it cannot be had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsSources:
    """What the process was started with."""

    config: Mapping[str, Any] = field(default_factory=dict)
    """The section ``plugins`` of the configuration file, by normalised id."""
    config_file: str = "config.yaml"
    environ: Mapping[str, str] = field(default_factory=dict)
    cipher: Cipher | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsView:
    """A plugin's settings as an operator may see them: secrets are masked."""

    plugin: str
    schema: Mapping[str, Any]
    """JSON schema (2020-12), for forms."""
    values: Mapping[str, Any]
    sources: Mapping[str, str]
    """Where each value comes from, by its path with dots; what is not listed is a default."""
    problems: tuple[str, ...] = ()
    """Why they cannot be used; empty where they can."""

    def to_json(self) -> dict[str, Any]:
        """Return the view as JSON-able values."""
        return {
            "plugin": self.plugin,
            "schema": dict(self.schema),
            "values": dict(self.values),
            "sources": dict(self.sources),
            "problems": list(self.problems),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    values: Mapping[str, Any]
    source: Callable[[Path], str]
    write: Callable[[Path, Any], str]
    """How a value is written there, as a sentence."""


class SettingsBook:
    """Reads the settings of all plugins of one app; ``stored`` gives what an operator stored for one."""

    def __init__(self, sources: SettingsSources, stored: Callable[[str], Mapping[str, Any]]) -> None:
        self._sources = sources
        self._stored = stored
        self._unusable: dict[str, SettingsView] = {}

    def view(self, plugin_id: str, value: BaseModel) -> SettingsView:
        """Return settings in force as an operator may see them."""
        schema = read_schema(plugin_id, type(value))
        layers = self._layers(plugin_id, schema, self._stored(plugin_id))
        return _view(plugin_id, schema, layers, dump(value))

    def find_unusable(self, plugin_id: str) -> SettingsView | None:
        """Return what a plugin could not be started with; None where nothing of the kind is known."""
        return self._unusable.get(plugin_id)

    def resolve(self, plugin_id: str, model: type[M], stored: Mapping[str, Any] | None = None) -> M:
        """Return the settings that are to be in force, validated, or that would be with these stored values.

        Validators are the plugin's code: the caller says whose code runs.

        Raises:
            PluginSettingsError: values are missing or wrong; every one is named with its source and an example.
            SecretStorageError: a stored secret cannot be decrypted.
        """
        schema = read_schema(plugin_id, model)
        is_trial = stored is not None
        kept = self._stored(plugin_id) if stored is None else stored
        layers = self._layers(plugin_id, schema, kept)
        try:
            opened = [*layers[:-1], replace(layers[-1], values=self._open(plugin_id, kept))]
            value = _validate(plugin_id, model, schema, opened)
        except (PluginSettingsError, SecretStorageError) as error:
            if not is_trial:
                self._unusable[plugin_id] = _view(plugin_id, schema, layers, _merged(layers), error)
            raise
        if not is_trial:
            _warn_of_unknown(plugin_id, schema, layers)
            self._unusable.pop(plugin_id, None)
        return value

    def patched(self, plugin_id: str, model: type[BaseModel], patch: Mapping[str, Any]) -> dict[str, Any]:
        """Return the stored settings after a merge patch (RFC 7386), with its secrets encrypted.

        None removes a stored value, so that what the file or the environment says counts again. A
        masked secret means the present one.

        Raises:
            PluginSettingsError: the patch names unknown settings.
            SecretStorageError: it has secrets, and there is no cipher.
        """
        schema = read_schema(plugin_id, model)
        _refuse_unknown(plugin_id, schema, patch)
        sealed = schema.change_secrets(_unmasked(plugin_id, schema, patch), self._sealer(plugin_id))
        try:
            merged: dict[str, Any] = merge_patch(self._stored(plugin_id), sealed)
        except MergePatchDepthError as error:
            raise _patch_error(plugin_id, (), str(error)) from error
        return merged

    # --- layers -----------------------------------------------------------------------------------

    def _layers(self, plugin_id: str, schema: SettingsSchema, stored: Mapping[str, Any]) -> list[_Layer]:
        return [
            self._config_layer(plugin_id, schema),
            self._environment_layer(plugin_id, schema),
            _Layer(
                values=stored,
                source=lambda _: _STORED,
                write=lambda path, example: f"store {dotted(path)} = {_text(example)}, or null to remove it",
            ),
        ]

    def _config_layer(self, plugin_id: str, schema: SettingsSchema) -> _Layer:
        section, file = self._sources.config.get(plugin_id), self._sources.config_file
        if section is not None and not isinstance(section, Mapping):
            problem = f"is {section!r}, not names with values"
            example = f"write it like `plugins: {{{plugin_id}: {{name: value}}}}`"
            where = SettingProblem(field=f"plugins.{plugin_id}", source=file, problem=problem, example=example)
            raise PluginSettingsError(plugin=plugin_id, problems=[where])
        return _Layer(
            values=schema.spell_all(section or {}),
            source=lambda _: file,
            write=lambda path, example: f"write it like `plugins: {_nested((plugin_id, *path), example)}`",
        )

    def _environment_layer(self, plugin_id: str, schema: SettingsSchema) -> _Layer:
        prefix = _prefix(plugin_id)
        values: dict[str, Any] = {}
        names: dict[Path, str] = {}
        for name, text in sorted(self._sources.environ.items()):
            if name.upper().startswith(prefix) and name[len(prefix) :].strip("_") and text:
                names[schema.set_text(values, name[len(prefix) :].split("__"), text)] = name
        return _Layer(
            values=values,
            source=lambda path: _nearest(names, path, prefix),
            write=lambda path, example: f"write it like {_variable(plugin_id, path)}={_text(example)}",
        )

    # --- secrets ----------------------------------------------------------------------------------

    def _sealer(self, plugin_id: str) -> Callable[[Path, Any], Any]:
        cipher = self._sources.cipher

        def seal(path: Path, secret: Any) -> Any:
            instead = f"set {_variable(plugin_id, path)} in the environment instead"
            if cipher is None:
                problem = "there is no cipher, and secrets are never stored in clear"
                way_out = f"{instead}, or pass `cipher=` to init_plugin_manager"
                raise SecretStorageError(plugin=plugin_id, field=dotted(path), problem=problem, way_out=way_out)
            try:
                return {_SEALED: cipher.encrypt(json.dumps(secret), context=f"{plugin_id}:{dotted(path)}")}
            except (ValueError, OSError) as error:
                problem = f"it cannot be encrypted ({error})"
                raise SecretStorageError(
                    plugin=plugin_id, field=dotted(path), problem=problem, way_out=instead
                ) from error

        return seal

    def _open(self, plugin_id: str, stored: Any, path: Path = ()) -> Any:
        """Return stored settings with their secrets decrypted."""
        if isinstance(stored, Mapping) and stored.keys() == {_SEALED}:
            return self._open_one(plugin_id, str(stored[_SEALED]), path)
        if isinstance(stored, Mapping):
            return {name: self._open(plugin_id, each, (*path, name)) for name, each in stored.items()}
        if isinstance(stored, list):
            return [self._open(plugin_id, each, (*path, i)) for i, each in enumerate(stored)]
        return stored

    def _open_one(self, plugin_id: str, token: str, path: Path) -> Any:
        cipher = self._sources.cipher
        try:
            if cipher is None:
                raise ValueError("there is no cipher")  # noqa: TRY301 - one text for all that keeps it shut
            return json.loads(cipher.decrypt(token, context=f"{plugin_id}:{dotted(path)}"))
        except (ValueError, OSError) as error:
            raise SecretStorageError(
                plugin=plugin_id,
                field=dotted(path),
                problem=f"what is stored cannot be decrypted ({error})",
                way_out="bring back the former SECRET_KEY (or key file), or set the secret anew",
            ) from error


def _view(
    plugin_id: str, schema: SettingsSchema, layers: list[_Layer], values: Any, error: PluginError | None = None
) -> SettingsView:
    problems = error.fields.get("problems", (error,)) if error else ()
    return SettingsView(
        plugin=plugin_id,
        schema=schema.json,
        values=schema.change_secrets(values, lambda _, secret: MASK if secret != "" else ""),
        sources={dotted(path): layer.source(path) for layer in layers for path in _leaves(layer.values)},
        problems=tuple(map(str, problems)),
    )


def read_schema(plugin_id: str, model: type[BaseModel]) -> SettingsSchema:
    """Return the JSON schema of a settings model; NoSettingsError where it has types that JSON cannot carry."""
    try:
        return SettingsSchema(model.model_json_schema())
    except Exception as error:  # the plugin's own types make their schemas
        problem = f"has a settings_model without a JSON schema ({error}); use types that JSON can carry"
        raise NoSettingsError(plugin=plugin_id, problem=problem) from error


def dump(value: BaseModel) -> dict[str, Any]:
    """Return settings as JSON-able values."""
    return value.model_dump(mode="json", by_alias=True, fallback=str, warnings=False)


# --- problems -------------------------------------------------------------------------------------


def _merged(layers: list[_Layer]) -> dict[str, Any]:
    return merge_layers([each.values for each in layers])


def _validate(plugin_id: str, model: type[M], schema: SettingsSchema, layers: list[_Layer]) -> M:
    try:
        return model.model_validate(_merged(layers))
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False, include_context=False)
        problems = [_problem(plugin_id, schema, layers, each) for each in found]
    except Exception as error:  # noqa: BLE001 - validators are the plugin's own code
        text = f"validating them raised {type(error).__name__}: {error}"
        problems = [SettingProblem(field="all", source="", problem=text, example="see the plugin's settings_model")]
    raise PluginSettingsError(plugin=plugin_id, problems=problems)


def _problem(plugin_id: str, schema: SettingsSchema, layers: list[_Layer], found: ErrorDetails) -> SettingProblem:
    place, message = found["loc"], found["msg"]
    example = schema.example(schema.at(place)) if place else "..."
    layer = max(reversed(layers), key=lambda each: _depth(each.values, place))
    is_known = _depth(layer.values, place) > 0
    if found["type"] == "missing":
        variable, nested = _variable(plugin_id, place), _nested((plugin_id, *place), example)
        way = f"set {variable}={_text(example)}, or `plugins: {nested}` in config.yaml, or store it"
        return SettingProblem(field=dotted(place), source="", problem="is missing", example=way)
    text = message.removeprefix("Value error, ")
    return SettingProblem(
        field=dotted(place) or "all",
        source=layer.source(place) if is_known else "",
        problem=f"{text[:1].lower()}{text[1:]}",
        example=layer.write(place, example) if is_known else "change one of them",
    )


def _depth(values: Any, place: Path) -> int:
    """Return how many steps of the place a document has; names of alternatives are no steps of documents."""
    depth = 0
    for step in place:
        if isinstance(values, list):
            values = dict(enumerate(values))
        if isinstance(values, Mapping) and step in values:
            values = values[step]
            depth += 1
    return depth


def _refuse_unknown(plugin_id: str, schema: SettingsSchema, patch: Mapping[str, Any]) -> None:
    problems = [
        SettingProblem(
            field=dotted(path), source="", problem="is not a setting of the plugin", example=_hint(schema, path)
        )
        for path in schema.unknown(patch)
    ]
    if problems:
        raise PluginSettingsError(plugin=plugin_id, problems=problems)


def _warn_of_unknown(plugin_id: str, schema: SettingsSchema, layers: list[_Layer]) -> None:
    for layer in layers:
        for path in schema.unknown(layer.values):
            name, hint = dotted(path), _hint(schema, path)
            logger.warning("Setting %s of plugin %r (%s) is unknown; %s", name, plugin_id, layer.source(path), hint)


def _hint(schema: SettingsSchema, path: Path) -> str:
    known = schema.names_at(path[:-1])
    near = nearest_name(str(path[-1]), known)
    return f"did you mean {near!r}?" if near else f"there are {', '.join(sorted(known)) or 'none'}"


def _unmasked(plugin_id: str, schema: SettingsSchema, patch: Mapping[str, Any]) -> Any:
    """Return the patch without secrets that were only shown masked and came back."""

    def keep(path: Path, secret: Any) -> Any:
        if secret != MASK:
            return secret
        if any(isinstance(step, int) for step in path):
            raise _patch_error(plugin_id, path, "is masked; write the secrets of a list themselves")
        return DROPPED

    if _mentions_seal(patch):
        raise _patch_error(plugin_id, (), f"{_SEALED!r} is the platform's own name")
    return schema.change_secrets(patch, keep)


def _mentions_seal(value: Any) -> bool:
    if isinstance(value, Mapping):
        return _SEALED in value or any(map(_mentions_seal, value.values()))
    return isinstance(value, list) and any(map(_mentions_seal, value))


def _patch_error(plugin_id: str, path: Path, problem: str) -> PluginSettingsError:
    what = SettingProblem(field=dotted(path) or "all", source="", problem=problem, example="correct the patch")
    return PluginSettingsError(plugin=plugin_id, problems=[what])


# --- how it is written ------------------------------------------------------------------------------


def _prefix(plugin_id: str) -> str:
    return f"PLUGIN_{plugin_id.upper().replace('-', '_')}__"


def _variable(plugin_id: str, path: Path) -> str:
    return _prefix(plugin_id) + "__".join(str(step).upper() for step in path)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _nested(path: Path, value: Any) -> str:
    return f"{{{path[0]}: {_nested(path[1:], value)}}}" if path else _text(value)


def _nearest(names: Mapping[Path, str], path: Path, prefix: str) -> str:
    """Return the variable that set this place, or a part of it."""
    inside = [each for each in names if each[: len(path)] == path or path[: len(each)] == each]
    return f"environment variable {names[inside[0]] if inside else prefix + '...'}"


def _leaves(values: Any, path: Path = ()) -> list[Path]:
    if isinstance(values, Mapping) and values and _SEALED not in values:
        return [leaf for name, each in values.items() for leaf in _leaves(each, (*path, name))]
    return [path] if path else []


# --- the plugin's own side --------------------------------------------------------------------------


class PluginSettingsReader:
    """``plugin_settings()`` gives the settings of the plugin whose code runs, also as ``Depends(plugin_settings)``.

    Each call gives those in force now. A function that other plugins call runs as theirs: there
    ``plugin_settings.of(MySettings)`` gives the ones of that model.
    """

    def __call__(self) -> Any:
        owner = current_owner()
        if owner is None:
            raise NoSettingsError(plugin="", problem="is not running here; call plugin_settings() in a plugin's code")
        return _current(owner.settings, owner.plugin)

    def of(self, model: type[M]) -> M:
        """Return the settings in force of this model, a plugin's ``settings_model``."""
        app = current_app()
        cell = app.settings.get(model) if app else None
        found: M = _current(cell or SettingsCell(), model.__name__)
        return found


def _current(cell: SettingsCell, whose: str) -> Any:
    if cell.current is None:
        problem = "has no settings yet; export `settings_model`, and ask from on_load on, not while importing"
        raise NoSettingsError(plugin=whose, problem=problem)
    return cell.current


plugin_settings = PluginSettingsReader()
