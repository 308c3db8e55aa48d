"""What a plugin claims: its manifest, and the grammar of the names inside it."""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Any, Literal, Self

from packaging.requirements import InvalidRequirement
from packaging.requirements import Requirement as PackagingRequirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

__all__ = ["PluginManifest", "Requirement", "normalize_plugin_id"]

_ID = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_PREFIX = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~\-]+)*")  # no dot segments: clients resolve them away
_EVENT = re.compile(r"[a-z][a-z0-9_-]*:[a-z][a-z0-9_-]*")
_RATE = re.compile(r"(?P<count>[1-9][0-9]{0,8})/(?P<unit>second|minute|hour|day)")
_TABLES = re.compile(r"[a-z_][a-z0-9_]*(?:,[a-z_][a-z0-9_]*)*")
_EVENT_LIST = re.compile(r"[a-z][a-z0-9_:*-]*(?:,[a-z][a-z0-9_:*-]*)*")
_KEYS = re.compile(r"[A-Za-z0-9_:.*-]+(?:,[A-Za-z0-9_:.*-]+)*")
_HOST = re.compile(
    r"(?=.{1,253}$)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*(?::[0-9]{1,5})?"
)

#: permission → the form that its narrowing (what follows the next colon) must have, or None.
_PERMISSIONS: dict[str, re.Pattern[str] | None] = {
    "db:read": _TABLES,
    "db:write": _TABLES,
    "db:own": None,
    "redis:read": _KEYS,
    "redis:write": _KEYS,
    "events:subscribe": _EVENT_LIST,
    "events:emit": _EVENT_LIST,
    "user:read": None,
}


def normalize_plugin_id(name: str) -> str:
    """Return the id that ``name`` means: lower case, hyphens for underscores, no outer blanks.

    The one normaliser: folder names, ``dependencies``, ``DISABLED_PLUGINS`` and the command line
    all go through it, so that ``game_stealth`` and ``game-stealth`` are the same plugin.
    """
    return name.strip().lower().replace("_", "-")


class Requirement(BaseModel):
    """A dependency on another plugin with the range of versions that will do.

    >>> str(Requirement.parse("game_sessions >=1.2,<2"))
    'game-sessions<2,>=1.2'
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    plugin: str
    versions: SpecifierSet = SpecifierSet()

    @classmethod
    def parse(cls, text: str) -> Requirement:
        """Read ``"game-sessions>=1.2,<2"`` (PEP 440 ranges); raise ValueError when it is not one."""
        try:
            parsed = PackagingRequirement(text)
        except InvalidRequirement:
            parsed = None
        if parsed is None or parsed.extras or parsed.url or parsed.marker:
            raise ValueError(
                f"{text!r} is not a plugin id with an optional PEP 440 range;"
                " write it like 'game-sessions' or 'game-sessions>=1.2,<2'"
            )
        return cls(plugin=_check_id(normalize_plugin_id(parsed.name)), versions=parsed.specifier)

    def accepts(self, version: str) -> bool:
        """Tell whether a plugin of this version satisfies the requirement (pre-releases count)."""
        return self.versions.contains(Version(version), prereleases=True)

    def __str__(self) -> str:
        return f"{self.plugin}{self.versions}"


def _check_id(value: str) -> str:
    if not _ID.fullmatch(value):
        raise ValueError(
            f"{value!r} is not a plugin id: lower-case letters, digits and single hyphens,"
            " starting with a letter, like 'game-stealth'"
        )
    return value


def _check_version(value: str) -> str:
    try:
        Version(value)
    except InvalidVersion:
        raise ValueError(f"{value!r} is not a PEP 440 version; write it like '1.0.0'") from None
    return value


def _check_range(value: str) -> str:
    try:
        SpecifierSet(value)
    except InvalidSpecifier:
        raise ValueError(f"{value!r} is not a PEP 440 range; write it like '>=1.0,<2'") from None
    return value


def _check_prefix(value: str) -> str:
    if not _PREFIX.fullmatch(value):
        raise ValueError(
            f"{value!r} is not a path prefix: it starts with '/', has no '/' at the end and"
            " no parameters, like '/api/v1' (or '' for none)"
        )
    return value


def _check_requirement(value: str) -> str:
    Requirement.parse(value)
    return value


def _check_plugin_name(value: str) -> str:
    return _check_id(normalize_plugin_id(value))


def _check_event(value: str) -> str:
    if not _EVENT.fullmatch(value):
        raise ValueError(f"{value!r} is not an event name; write it like 'quest:finished'")
    return value


def check_rate(value: str) -> str:
    """Return the rate; raise ValueError, with a correct example, when it is none."""
    if not _RATE.fullmatch(value):
        raise ValueError(f"{value!r} is not a rate; write it like '100/minute' (second, minute, hour or day)")
    return value


def _check_rate_limit(value: str) -> str:
    return check_rate(value) if value else value


def check_permission(value: str) -> str:
    """Return the permission; raise ValueError, with a correct example, when it is none."""
    if value.startswith("net:"):
        if _HOST.fullmatch(value.removeprefix("net:")):
            return value
        raise ValueError(f"{value!r} does not name a host; write it like 'net:api.example.org'")
    kind, _, narrowing = value.partition(":")[2].partition(":")
    name = f"{value.partition(':')[0]}:{kind}"
    if name not in _PERMISSIONS:
        near = difflib.get_close_matches(name, _PERMISSIONS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(_PERMISSIONS)}, net:<host>"
        raise ValueError(f"unknown permission {value!r}; {hint}")
    form = _PERMISSIONS[name]
    if value != name and (form is None or not form.fullmatch(narrowing)):
        example = f"{name}:game_npcs,game_locations" if form is not None else name
        raise ValueError(f"permission {value!r} is narrowed wrongly; write it like {example!r}")
    return value


class PluginManifest(BaseModel):
    """What a plugin says of itself. Frozen; unknown fields are refused with the nearest known one.

    ``name``, ``version`` and ``description`` may be left out where a manifest is written down in
    passing, as in the guide's snippets; a plugin that is to be loaded from a folder must set them.

    Raises:
        pydantic.ValidationError: a field is missing, unknown or malformed; each message shows a
            correct example.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True, validate_default=False)

    id: Annotated[str, AfterValidator(_check_id)]
    """Unique name in lower case with hyphens; the folder has the same name with underscores."""
    name: str = Field(default="", max_length=120)
    """What people read; the id in title case when left out."""
    version: Annotated[str, AfterValidator(_check_version)] = "0.0.0"
    """PEP 440 version of the plugin."""
    description: str = Field(default="", max_length=2000)
    """One or two sentences on what it adds."""
    author: str = Field(default="", max_length=200)
    """Who wrote it."""
    prefix: Annotated[str, AfterValidator(_check_prefix)] = "/api/v1"
    """Static path put before every route of the plugin."""
    tags: tuple[str, ...] = ()
    """OpenAPI tags of its routes; empty means the id. Merged with those of the router."""
    dependencies: tuple[Annotated[str, AfterValidator(_check_requirement)], ...] = ()
    """Plugins that must be there and go first, each with an optional PEP 440 range."""
    after: tuple[Annotated[str, AfterValidator(_check_plugin_name)], ...] = ()
    """Plugins that go first when they are there."""
    conflicts: tuple[Annotated[str, AfterValidator(_check_requirement)], ...] = ()
    """Plugins (optionally only some versions of them) that this one cannot run beside."""
    requires_db: bool = False
    """True: blocked as long as no database is configured and answers."""
    requires_redis: bool = False
    """True: blocked as long as no Redis is configured and answers."""
    requires_host: Annotated[str, AfterValidator(_check_range)] = ""
    """PEP 440 range of the platform's version."""
    enabled: bool = True
    """A wish: False means that the plugin is not even imported."""
    required: bool = False
    """True: when this plugin cannot run, start-up is aborted (trusted plugins only)."""
    permissions: tuple[Annotated[str, AfterValidator(check_permission)], ...] = ()
    """What a confined plugin asks for; the operator's grant decides."""
    events: tuple[Annotated[str, AfterValidator(_check_event)], ...] = ()
    """Events that the plugin adds to :class:`PluginEvents` and may emit."""
    rate_limit: Annotated[str, AfterValidator(_check_rate_limit)] = ""
    """Requests let through per client, like ``"100/minute"``; empty means no limit."""
    replace: Literal["beside", "stop-first"] = "beside"
    """How a new generation takes over: built beside the old one, or after it has stopped."""

    @model_validator(mode="before")
    @classmethod
    def _suggest_known_field(cls, values: Any) -> Any:
        fields = values if isinstance(values, dict) else {}
        unknown = [explain_unknown_field(str(field)) for field in fields if field not in cls.model_fields]
        if unknown:
            raise ValueError("; ".join(unknown))
        return values

    @model_validator(mode="after")
    def _name_after_id(self) -> Self:
        if not self.name:  # past the frozen front door, so that `model_fields_set` keeps telling what the author set
            self.__dict__["name"] = self.id.replace("-", " ").title()
        return self

    @property
    def requirements(self) -> tuple[Requirement, ...]:
        """The ``dependencies``, parsed."""
        return tuple(Requirement.parse(text) for text in self.dependencies)

    @property
    def exclusions(self) -> tuple[Requirement, ...]:
        """The ``conflicts``, parsed."""
        return tuple(Requirement.parse(text) for text in self.conflicts)


def explain_unknown_field(field: str) -> str:
    """Return the sentence that refuses a field no manifest has, naming the nearest known one."""
    known = PluginManifest.model_fields
    near = difflib.get_close_matches(field, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known fields: {', '.join(known)}"
    return f"unknown field {field!r}; {hint}"
