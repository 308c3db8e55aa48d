"""The settings of plugins: the ones that are to be in force, those that are stored, and how they are shown.

A plugin exports ``settings_model``, a pydantic model; what is known of it here is a form: the model itself, or what
the plugin's jail says of it. Its values are laid over one another: the model's defaults, ``plugins: {<id>: {...}}``
in ``config.yaml``, ``PLUGIN_<ID>__<FIELD>`` in the environment, and what an operator stored at run time. Whatever is
not valid never takes effect.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pixsim7_backend.infrastructure.plugins.errors import PluginError, PluginSettingsError, SecretStorageError

from .form import RefusedSettingsError, SettingsForm
from .layers import Layer, SettingsSources, merged, read_layers, sources_of
from .problems import describe_fault, patch_error, refuse_unknown, refuse_unstorable, warn_of_unknown
from .schema import DROPPED, Path, SettingsSchema
from .sealing import (
    MASK,
    SEALED,
    change_each,
    mask,
    mask_stored,
    mentions_seal,
    merge_stored,
    open_all,
    redactor,
    sealer,
)

__all__ = ["SettingsBook", "SettingsView"]

_ANYTHING = SettingsSchema({})
"""What is known of the settings of code that was not imported."""


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
        """Return the view as JSON-able values; what JSON has no word for (dates, infinity) is a text."""
        return {
            "plugin": self.plugin,
            "schema": _as_json(self.schema),
            "values": _as_json(self.values),
            "sources": dict(self.sources),
            "problems": list(self.problems),
        }


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _as_json(each) for name, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_as_json(each) for each in value]
    is_json = value is None or isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))
    return value if is_json else str(value)


class SettingsBook:
    """Reads the settings of all plugins of one app; ``stored`` gives what an operator stored for one."""

    def __init__(self, sources: SettingsSources, stored: Callable[[str], Mapping[str, Any]]) -> None:
        self._sources = sources
        self._stored = stored
        self._unusable: dict[str, SettingsView] = {}

    # --- looking ----------------------------------------------------------------------------------

    def view(self, plugin_id: str, form: SettingsForm, value: Any) -> SettingsView:
        """Return settings in force, as the form validated them, as an operator may see them."""
        schema = form.schema
        return _view(plugin_id, schema, self._layers(plugin_id, schema, self._stored(plugin_id)), form.dump(value))

    def view_unread(self, plugin_id: str, problem: str) -> SettingsView:
        """Return what is set for code that was not imported; nobody knows what is secret, so all of it is masked.

        What was stored in clear is shown: it was found to be no secret by a model that was read.
        """
        try:
            layers = self._layers(plugin_id, _ANYTHING, self._stored(plugin_id))
        except PluginSettingsError as error:
            return SettingsView(plugin=plugin_id, schema={}, values={}, sources={}, problems=(problem, str(error)))
        shown = [replace(each, values=change_each(each.values, mask)) for each in layers[:-1]]
        shown.append(replace(layers[-1], values=mask_stored(layers[-1].values)))
        return SettingsView(
            plugin=plugin_id, schema={}, values=merged(shown), sources=sources_of(layers), problems=(problem,)
        )

    def find_unusable(self, plugin_id: str) -> SettingsView | None:
        """Return what a plugin could not be started with; None where nothing of the kind is known."""
        return self._unusable.get(plugin_id)

    # --- what is to be in force -------------------------------------------------------------------

    def collect(self, plugin_id: str, form: SettingsForm) -> dict[str, Any]:
        """Return what is set, its secrets in clear; nothing is validated.

        Raises:
            PluginSettingsError: its section of the configuration file is none.
            SecretStorageError: a stored secret cannot be decrypted.
        """
        kept = self._stored(plugin_id)
        return merged(self._open(plugin_id, self._layers(plugin_id, form.schema, kept), kept))

    def resolve(self, plugin_id: str, form: SettingsForm, stored: Mapping[str, Any] | None = None) -> Any:
        """Return the settings that are to be in force, validated, or that would be with these stored values.

        Validators are the plugin's code: the caller says whose code runs.

        Raises:
            PluginSettingsError: values are missing or wrong; every one is named with its source and an example.
            SecretStorageError: a stored secret cannot be decrypted.
            PluginError: the plugin could not be asked.
        """
        schema = form.schema
        is_trial = stored is not None
        kept = self._stored(plugin_id) if stored is None else stored
        layers = self._layers(plugin_id, schema, kept)
        try:
            value = _validate(plugin_id, form, schema, self._open(plugin_id, layers, kept))
        except (PluginSettingsError, SecretStorageError) as error:
            if not is_trial:
                shown = merged([*layers[:-1], replace(layers[-1], values=mask_stored(kept))])
                self._unusable[plugin_id] = _view(plugin_id, schema, layers, shown, error)
            raise
        if not is_trial:
            if not self._sources.are_read:
                warn_of_unknown(plugin_id, schema, layers)
            self._unusable.pop(plugin_id, None)
        return value

    # --- what is to be stored ---------------------------------------------------------------------

    def patched(self, plugin_id: str, form: SettingsForm, patch: Mapping[str, Any]) -> dict[str, Any]:
        """Return the stored settings after a merge patch (RFC 7386), with its secrets encrypted.

        None removes a stored value, so that what the file or the environment says counts again. A
        masked secret means the present one.

        Raises:
            PluginSettingsError: the patch names unknown settings.
            SecretStorageError: it has secrets, and there is no cipher.
        """
        schema = form.schema
        refuse_unstorable(plugin_id, patch)
        refuse_unknown(plugin_id, schema, patch)
        return self._merged(plugin_id, patch, schema.change_secrets)

    def patched_unread(self, plugin_id: str, patch: Mapping[str, Any]) -> dict[str, Any]:
        """As :meth:`patched`, for code that was not imported: every value is encrypted, since any may be a secret."""
        refuse_unstorable(plugin_id, patch)
        return self._merged(plugin_id, patch, change_each)

    def _merged(
        self, plugin_id: str, patch: Mapping[str, Any], change_secrets: Callable[[Any, Callable[[Path, Any], Any]], Any]
    ) -> dict[str, Any]:
        if mentions_seal(patch):
            raise patch_error(plugin_id, (), f"{SEALED!r} is the platform's own name")

        def keep(path: Path, secret: Any) -> Any:
            """Drop a secret that was only shown masked and came back."""
            if secret != MASK:
                return secret
            if any(isinstance(step, int) for step in path):
                raise patch_error(plugin_id, path, "is masked; write the secrets of a list themselves")
            return DROPPED

        sealed = change_secrets(change_secrets(patch, keep), sealer(self._sources.cipher, plugin_id))
        return merge_stored(self._stored(plugin_id), sealed)

    def _open(self, plugin_id: str, layers: list[Layer], stored: Mapping[str, Any]) -> list[Layer]:
        """Return the layers with what is stored decrypted."""
        return [*layers[:-1], replace(layers[-1], values=open_all(self._sources.cipher, plugin_id, stored))]

    def _layers(self, plugin_id: str, schema: SettingsSchema, stored: Mapping[str, Any]) -> list[Layer]:
        return read_layers(self._sources, plugin_id, schema, stored)


def _view(
    plugin_id: str, schema: SettingsSchema, layers: list[Layer], values: Any, error: PluginError | None = None
) -> SettingsView:
    problems = error.fields.get("problems", (error,)) if error else ()
    return SettingsView(
        plugin=plugin_id,
        schema=schema.json,
        values=schema.change_secrets(values, mask),
        sources=sources_of(layers),
        problems=tuple(map(str, problems)),
    )


def _validate(plugin_id: str, form: SettingsForm, schema: SettingsSchema, layers: list[Layer]) -> Any:
    values = merged(layers)
    try:
        return form.validate(values)
    except RefusedSettingsError as error:
        faults = error.faults
    problems = [describe_fault(plugin_id, schema, layers, each) for each in faults]
    redact = redactor(schema, values)
    raise PluginSettingsError(
        plugin=plugin_id, problems=[replace(each, problem=redact(each.problem)) for each in problems]
    )
