"""The settings of a jailed plugin, as the platform sees them: their form, which asks the jail."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pixsim7_backend.infrastructure.plugins._settings.form import RefusedSettingsError, SettingFault
from pixsim7_backend.infrastructure.plugins._settings.schema import SettingsSchema
from pixsim7_backend.infrastructure.plugins.errors import PluginError

from .errors import JailCallError, JailGoneError, JailProtocolError
from .frames import Decoder, FrameError, Kind, encode
from .plain import PlainCopier, plain_line
from .schema import harmless_schema
from .supervisor import JailSupervisor

__all__ = ["JailedForm", "JailedSettings", "parse_verdict", "sendable"]

MAX_FAULTS = 100
MAX_NODES = 5_000
MAX_TEXT = 20_000
_MAX_STEPS = 40
_MAX_NUMBER = 1 << 63


@dataclass(frozen=True, slots=True)
class JailedSettings:
    """Settings that a jail has accepted: what it was sent, secrets in clear, and what it says that they are."""

    sent: Mapping[str, Any] = field(repr=False)
    shown: Mapping[str, Any] = field(repr=False)


class JailedForm:
    """The form of a plugin in a jail.

    Args:
        told: what the jail says can be set.
        supervisor: of the jail.
        find_current: returns the settings in force; None before there are any.
        translate: returns the platform's error for one that occurred in a step of this name.

    Raises:
        JailProtocolError: what it says is no schema.
    """

    def __init__(
        self,
        told: Any,
        supervisor: JailSupervisor,
        *,
        find_current: Callable[[], JailedSettings | None],
        translate: Callable[[str, Exception], PluginError],
    ) -> None:
        self._schema = SettingsSchema(harmless_schema(told))
        self._supervisor = supervisor
        self._find_current = find_current
        self._translate = translate
        self._latest: tuple[Mapping[str, Any], JailedSettings | RefusedSettingsError] | None = None

    @property
    def schema(self) -> SettingsSchema:
        """As :attr:`SettingsForm.schema`."""
        return self._schema

    def validate(self, values: Mapping[str, Any]) -> JailedSettings:
        """As :meth:`SettingsForm.validate`; what is in force, or was the last to be judged, is not asked again."""
        sent = sendable(values)
        current = self._find_current()
        if current is not None and current.sent == sent:
            return current
        if self._latest is None or self._latest[0] != sent:
            try:
                self.note(sent, self._supervisor.ask_from_thread("validate", sent))
            except (JailCallError, JailGoneError, JailProtocolError, TimeoutError) as error:
                raise self._translate("validate settings", error) from error
        assert self._latest is not None
        verdict = self._latest[1]
        if isinstance(verdict, RefusedSettingsError):
            raise RefusedSettingsError(verdict.faults)
        return verdict

    def note(self, sent: Mapping[str, Any], answer: Any) -> None:
        """Remember what the jail says of values.

        Raises:
            JailProtocolError: it says nothing of the kind.
        """
        self._latest = sent, parse_verdict(sent, answer)

    def dump(self, value: JailedSettings) -> Mapping[str, Any]:
        """As :meth:`SettingsForm.dump`."""
        return value.shown

    async def apply(self, value: JailedSettings) -> None:
        """As :meth:`SettingsForm.apply`."""
        try:
            await self._supervisor.configure(value.sent)
        except (JailCallError, JailGoneError, JailProtocolError, TimeoutError) as error:
            raise self._translate("take its new settings", error) from error


def sendable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as a frame can hold them; what JSON has no word for (dates, infinity) is a text.

    Raises:
        RefusedSettingsError: they are too large, or too deep.
    """
    try:
        sent: dict[str, Any] = _sendable(values)
        Decoder().feed(encode(Kind.ASK, 0, "validate", [sent]))
    except (FrameError, RecursionError) as error:
        raise RefusedSettingsError([SettingFault("too_large", (), f"a jail cannot be told them: {error}")]) from None
    return sent


def _sendable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _sendable(each) for name, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_sendable(each) for each in value]
    if value is None or isinstance(value, (str, bool, bytes)):
        return value
    is_number = (isinstance(value, int) and -_MAX_NUMBER <= value < _MAX_NUMBER) or (
        isinstance(value, float) and math.isfinite(value)
    )
    return value if is_number else str(value)


def parse_verdict(sent: Mapping[str, Any], answer: Any) -> JailedSettings | RefusedSettingsError:
    """Return what a jail's answer says of the values that it was sent.

    Raises:
        JailProtocolError: it says nothing of the kind.
    """
    if not isinstance(answer, dict) or ("values" in answer) == ("refused" in answer):
        raise JailProtocolError("what it says of its settings is neither that they will do, nor why not")
    if "values" in answer:
        shown = PlainCopier("what it says that its settings are", nodes=MAX_NODES, text=MAX_TEXT).copy(answer["values"])
        if not isinstance(shown, dict):
            raise JailProtocolError("what it says that its settings are is no object")
        return JailedSettings(sent, shown)
    refused = answer["refused"]
    if not isinstance(refused, list) or not 0 < len(refused) <= MAX_FAULTS:
        raise JailProtocolError(f"it refuses settings for no reason, or for more than {MAX_FAULTS}")
    return RefusedSettingsError([_parse_fault(each) for each in refused])


def _parse_fault(told: Any) -> SettingFault:
    match told:
        case [str() as kind, list() as place, str() as text] if len(place) <= _MAX_STEPS:
            return SettingFault(plain_line(kind, 100), tuple(map(_parse_step, place)), plain_line(text))
    raise JailProtocolError("a reason for which it refuses settings is none")


def _parse_step(step: Any) -> str | int:
    if type(step) is int:
        return step
    if isinstance(step, str):
        return plain_line(step, 200)
    raise JailProtocolError("a setting that it refuses is nowhere")
