"""What a plugin says of its settings: their JSON schema, and which values will do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel, ValidationError

from pixsim7_backend.infrastructure.plugins.errors import NoSettingsError

from .schema import Path, SettingsSchema

__all__ = ["RAISED", "ModelForm", "RefusedSettingsError", "SettingFault", "SettingsForm"]

RAISED = "raised"
"""The kind of a fault that is an exception of the plugin's own validators."""


@dataclass(frozen=True, slots=True)
class SettingFault:
    """What is wrong with one value: pydantic's name of it, where in the document, and a sentence."""

    kind: str
    place: Path
    text: str


class RefusedSettingsError(Exception):
    """The values will not do."""

    def __init__(self, faults: Sequence[SettingFault]) -> None:
        super().__init__("; ".join(each.text for each in faults))
        self.faults = tuple(faults)


class SettingsForm(Protocol):
    """The settings of one generation of a plugin, wherever its code runs."""

    @property
    def schema(self) -> SettingsSchema:
        """What can be set.

        Raises:
            NoSettingsError: JSON cannot say it.
        """

    def validate(self, values: Mapping[str, Any]) -> Any:
        """Return the settings that these values are; runs the plugin's validators. May block.

        Raises:
            RefusedSettingsError: they will not do.
            PluginError: the plugin could not be asked.
        """

    def dump(self, value: Any) -> Mapping[str, Any]:
        """Return what :meth:`validate` returned as JSON-able values."""

    async def apply(self, value: Any) -> None:
        """Let the plugin know of settings that are in force from now on.

        Raises:
            PluginError: it could not be told.
        """


class ModelForm:
    """The form of a plugin that runs here: its pydantic model."""

    def __init__(self, plugin: str, model: type[BaseModel]) -> None:
        self._plugin = plugin
        self._model = model

    @property
    def schema(self) -> SettingsSchema:
        """As :attr:`SettingsForm.schema`."""
        try:
            return SettingsSchema(self._model.model_json_schema())
        except Exception as error:  # the plugin's own types make their schemas
            problem = f"has a settings_model without a JSON schema ({error}); use types that JSON can carry"
            raise NoSettingsError(plugin=self._plugin, problem=problem) from error

    def validate(self, values: Mapping[str, Any]) -> BaseModel:
        """As :meth:`SettingsForm.validate`; the caller says whose code runs."""
        try:
            return self._model.model_validate(values)
        except ValidationError as error:
            found = error.errors(include_input=False, include_url=False, include_context=False)
            faults = [SettingFault(each["type"], each["loc"], each["msg"]) for each in found]
        except Exception as error:  # noqa: BLE001 - validators are the plugin's own code
            faults = [SettingFault(RAISED, (), f"validating them raised {type(error).__name__}: {error}")]
        raise RefusedSettingsError(faults)  # out here, where no traceback holds the values

    def dump(self, value: BaseModel) -> dict[str, Any]:
        """As :meth:`SettingsForm.dump`."""
        return value.model_dump(mode="json", by_alias=True, fallback=str, warnings=False)

    async def apply(self, value: BaseModel) -> None:
        """Nothing is to be done: whoever asks reads the settings in force."""
