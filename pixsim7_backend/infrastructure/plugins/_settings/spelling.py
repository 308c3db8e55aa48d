"""How a setting is written in the places where an operator sets it. Pure."""

from __future__ import annotations

import json
from typing import Any

from .schema import Path

__all__ = ["in_file", "prefix", "text", "variable"]


def prefix(plugin_id: str) -> str:
    """Return what the environment variables of a plugin's settings begin with."""
    return f"PLUGIN_{plugin_id.upper().replace('-', '_')}__"


def variable(plugin_id: str, path: Path) -> str:
    """Return the environment variable of a setting."""
    return prefix(plugin_id) + "__".join(str(step).upper() for step in path)


def text(value: Any) -> str:
    """Return a value as it is written in the environment."""
    return value if isinstance(value, str) else json.dumps(value)


def in_file(path: Path, value: Any) -> str:
    """Return a value as it is written in the section ``plugins`` of the configuration file."""
    return f"{{{path[0]}: {in_file(path[1:], value)}}}" if path else text(value)
