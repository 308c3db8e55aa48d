"""The operator's settings for plugins: the environment, else ``config.yaml`` in the working directory.

The file may be YAML (``disabled_plugins: [experimental-feature]``, in any case, with hyphens or
underscores), may hold the guide's own line ``DISABLED_PLUGINS=experimental-feature,beta-api``, or both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from pixsim7_backend.infrastructure.plugins.errors import ConfigurationError
from pixsim7_backend.infrastructure.plugins.types import normalize_plugin_id

__all__ = ["PluginConfig", "read_config", "read_config_file"]

_ASSIGNMENT = re.compile(r"(?P<key>[A-Za-z_][A-Za-z0-9_-]*)[ \t]*=[ \t]*(?P<value>.*)")
_COMMENT = re.compile(r"(?:^|\s+)#.*$")
_EXAMPLE = "write it like DISABLED_PLUGINS: experimental-feature,beta-api"


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginConfig:
    """What the operator set; an empty value or None where nothing is set."""

    disabled_plugins: frozenset[str] = frozenset()
    """Normalised ids."""
    on_plugin_error: Literal["tolerate", "strict"] | None = None
    redis_url: str = ""
    data_dir: str = ""
    plugins: Mapping[str, Any] = field(default_factory=dict)
    """The section of each plugin's own settings, by normalised id."""
    file: str = "config.yaml"


def read_config(environ: Mapping[str, str], directory: Path) -> PluginConfig:
    """Read ``DISABLED_PLUGINS``, ``ON_PLUGIN_ERROR``, ``REDIS_URL`` and ``DATA_DIR``.

    Args:
        environ: the environment variables; each one that is set, even to nothing, wins over the file.
        directory: where ``config.yaml`` may lie; ``PIXSIM7_CONFIG`` names another file, which must exist.

    Raises:
        ConfigurationError: the file or a value cannot be used.
    """
    named = environ.get("PIXSIM7_CONFIG", "").strip()
    file = directory / (named or "config.yaml")
    if named and not file.exists():
        raise ConfigurationError(source=str(file), problem="does not exist; correct PIXSIM7_CONFIG, or unset it")
    sources = (
        (str(file), read_config_file(file)),
        ("environment", {**{_key(k): v for k, v in environ.items()}, **environ}),
    )
    found = {key: (value, source) for source, values in sources for key, value in values.items()}
    return PluginConfig(
        disabled_plugins=_names(*found.get("DISABLED_PLUGINS", (None, ""))),
        on_plugin_error=_policy(*found.get("ON_PLUGIN_ERROR", (None, ""))),
        redis_url=_text("REDIS_URL", *found.get("REDIS_URL", (None, ""))),
        data_dir=_text("DATA_DIR", *found.get("DATA_DIR", (None, ""))),
        plugins=_sections(sources[0][1].get("PLUGINS"), str(file)),
        file=file.name if file.parent == directory else str(file),
    )


def read_config_file(file: Path) -> dict[str, Any]:
    """Return the values of a configuration file by their names in capitals with underscores; {} without a file.

    Raises:
        ConfigurationError: it cannot be read, is malformed, or is YAML and PyYAML is not installed.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise ConfigurationError(source=str(file), problem=f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigurationError(source=str(file), line=line, problem="is not UTF-8; save it as UTF-8") from error
    assignments, rest = _split_assignments(text)
    is_empty = all(not line.strip() or line.lstrip().startswith("#") for line in rest.splitlines())
    values = {} if is_empty else _yaml_values(rest, file)
    return {**{_key(key): value for key, value in values.items()}, **assignments}


def _split_assignments(text: str) -> tuple[dict[str, str], str]:
    """Take the ``KEY=value`` lines out of the text; the rest keeps its line numbers."""
    assignments: dict[str, str] = {}
    rest = []
    for line in text.split("\n"):
        match = _ASSIGNMENT.fullmatch(line.rstrip("\r"))
        if match:
            assignments[_key(match["key"])] = _COMMENT.sub("", match["value"]).strip().strip("\"'")
        rest.append("" if match else line)
    return assignments, "\n".join(rest)


def _yaml_values(text: str, file: Path) -> dict[Any, Any]:
    try:
        import yaml  # only those who write a YAML file need it
    except ModuleNotFoundError as error:
        problem = "reading YAML needs PyYAML: run `pip install pyyaml`, or write lines like DISABLED_PLUGINS=beta-api"
        raise ConfigurationError(source=str(file), problem=problem) from error
    try:
        content = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigurationError(
            source=str(file), line=mark.line + 1 if mark else None, problem=f"is not valid YAML: {error.problem}"
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = f"is not valid YAML: {' '.join(str(error).split())}"
        raise ConfigurationError(source=str(file), problem=problem) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise ConfigurationError(source=str(file), problem=f"holds a {kind}, not names with values; {_EXAMPLE}")
    return content


def _key(name: object) -> str:
    return str(name).strip().upper().replace("-", "_")


def _names(value: Any, source: str) -> frozenset[str]:
    """Return ids from ``"a, b"``, ``["a", "b"]`` or nothing."""
    if value is None:
        return frozenset()
    items = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str) for item in items):
        raise ConfigurationError(source=source, problem=f"DISABLED_PLUGINS is {value!r}, not names; {_EXAMPLE}")
    names = (name for item in items for name in re.split(r"[,\s]+", item))
    return frozenset(normalize_plugin_id(name) for name in names if name)


def _policy(value: Any, source: str) -> Literal["tolerate", "strict"] | None:
    policy = _text("ON_PLUGIN_ERROR", value, source).lower()
    if policy not in ("", "tolerate", "strict"):
        problem = f"ON_PLUGIN_ERROR is {value!r}; it is either 'tolerate' or 'strict'"
        raise ConfigurationError(source=source, problem=problem)
    return cast(Literal["tolerate", "strict"], policy) if policy else None


def _sections(value: Any, source: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        problem = f"`plugins` is {value!r}; write it like `plugins: {{game-quests: {{reward: 3}}}}`"
        raise ConfigurationError(source=source, problem=problem)
    return {normalize_plugin_id(str(plugin)): section for plugin, section in value.items()}


def _text(name: str, value: Any, source: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ConfigurationError(source=source, problem=f"{name} is {value!r}, not a text")
    return value.strip()
