"""What confined plugins may use: of the machine, and of a client's time; for all of them, and for single ones. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self

from pixsim7_backend.infrastructure.plugins.types import normalize_plugin_id

from .spec import JailLimits

__all__ = ["Allowance", "Allowances", "HttpLimits"]

_SHOWN_UNITS = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("", 1))
_UNITS = {unit.lower(): factor for unit, factor in _SHOWN_UNITS}
_SIZE = re.compile(r"(\d{1,15})\s*([kmg]ib)?", re.ASCII | re.IGNORECASE)
_COUNT = re.compile(r"\d{1,9}", re.ASCII)
_TIME = re.compile(r"\d{1,9}(\.\d+)?", re.ASCII)
_SIZES = frozenset({"memory", "file_size", "scratch", "request_size", "response_size"})
_TIMES = frozenset({"answer_time", "idle_time", "total_time"})
#: What a jail does not start without.
_LEAST = {"memory": 96 << 20, "open_files": 16, "threads": 4, "file_size": 64 << 10}


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """What one request of a jailed plugin may take. Sizes are in bytes, durations in seconds."""

    request_size: int = 16 << 20
    response_size: int = 64 << 20
    answer_time: float = 30.0
    """Until the body of a request, and then the answer to it, begins."""
    idle_time: float = 60.0
    """Between two pieces of an answer that has begun; a WebSocket is left alone."""
    total_time: float = 3600.0
    """Until an answer is complete, however steadily it drips; a WebSocket is left alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What one confined plugin may use."""

    jail: JailLimits = field(default_factory=JailLimits)
    http: HttpLimits = field(default_factory=HttpLimits)

    def but(self, changes: Mapping[str, Any]) -> Self:
        """Return it with other values of some limits, by their names.

        Raises:
            ValueError: there is no such limit, or the value is none; the text has a correct example.
        """
        read = {_name(name): value for name, value in changes.items()}
        if unknown := sorted(read.keys() - _NAMES.keys()):
            known = ", ".join(name.replace("_", "-") for name in _NAMES)
            raise ValueError(f"{unknown[0]!r} is no limit; there are {known}")
        of_kind: dict[type, dict[str, Any]] = {kind: {} for kind in _KINDS}
        for name, value in read.items():
            of_kind[_NAMES[name]][name] = _read(name, value)
        return replace(
            self, jail=replace(self.jail, **of_kind[JailLimits]), http=replace(self.http, **of_kind[HttpLimits])
        )

    def __str__(self) -> str:
        values = {**asdict(self.jail), **asdict(self.http)}
        return ",".join(f"{name.replace('_', '-')}={_shown(name, values[name])}" for name in _NAMES)


_KINDS = (JailLimits, HttpLimits)
_NAMES: Mapping[str, type] = {each.name: kind for kind in _KINDS for each in fields(kind)}
"""What each limit, by its name, is a part of."""


@dataclass(frozen=True, slots=True)
class Allowances:
    """What each confined plugin may use.

    >>> Allowances.parse("memory=512MiB,census.threads=16").of("census").jail.threads
    16
    """

    common: Allowance = field(default_factory=Allowance)
    plugins: Mapping[str, Allowance] = field(default_factory=dict)
    """Of plugins for which something else is said, by id."""

    def of(self, plugin: str) -> Allowance:
        """Return what the plugin of this id may use."""
        return self.plugins.get(plugin, self.common)

    @classmethod
    def parse(cls, wanted: str | Mapping[str, Any]) -> Self:
        """Return what is written as ``memory=512MiB,census.memory=1GiB``, or as a mapping, over the defaults.

        In a mapping, a plugin's limits are a mapping of its own under its id.

        Raises:
            ValueError: it is nothing of that kind; the text says why.
        """
        changes = wanted if isinstance(wanted, Mapping) else _split(str(wanted))
        common: dict[str, Any] = {}
        single: dict[str, dict[str, Any]] = {}
        for name, value in changes.items():
            plugin, dot, limit = str(name).rpartition(".")
            if isinstance(value, Mapping):
                single.setdefault(normalize_plugin_id(str(name)), {}).update(value)
            elif dot:
                single.setdefault(normalize_plugin_id(plugin), {})[limit] = value
            else:
                common[str(name)] = value
        for_all = Allowance().but(common)
        plugins = {}
        for plugin, values in single.items():
            try:
                plugins[plugin] = for_all.but(values)
            except ValueError as error:
                raise ValueError(f"for plugin {plugin!r}, {error}") from None
        return cls(for_all, plugins)

    def __str__(self) -> str:
        return str(self.common)


def _split(text: str) -> Mapping[str, str]:
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if not all(sign for _, sign, _ in pairs):
        raise ValueError(f"{text!r} is not a list of limits, each with = and its value")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _name(name: object) -> str:
    return str(name).strip().lower().replace("-", "_")


def _read(name: str, value: object) -> float:
    """Return what is written as the value of a limit."""
    text = str(value).strip()
    least: float = _LEAST.get(name, 1)
    found: float | None
    if name in _SIZES:
        found, what = _read_size(text), "a size in bytes, KiB, MiB or GiB, like 256MiB"
    elif name in _TIMES:
        found, what, least = (float(text) if _TIME.fullmatch(text) else None), "a number of seconds", 0.001
    else:
        found, what = (int(text) if _COUNT.fullmatch(text) else None), "a whole number"
    if found is None:
        raise ValueError(f"{name.replace('_', '-')}={text} is not {what}")
    if found < least:
        raise ValueError(f"{name.replace('_', '-')}={text} is too little: at least {_shown(name, least)} is needed")
    return found


def _read_size(text: str) -> int | None:
    found = _SIZE.fullmatch(text)
    return None if found is None else int(found[1]) * _UNITS[(found[2] or "").lower()]


def _shown(name: str, value: float) -> str:
    if name not in _SIZES:
        return f"{value:g}"
    unit, factor = next((unit, factor) for unit, factor in _SHOWN_UNITS if value % factor == 0)
    return f"{value // factor}{unit}"
