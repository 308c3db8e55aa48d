"""What went wrong in the jail, in words for the host."""

from __future__ import annotations

from typing import Any

from pixsim7_backend.infrastructure.plugins._attribution.figures import find_place
from pixsim7_backend.infrastructure.plugins.errors import PluginError

_LONGEST = 2000


def describe_error(error: BaseException, directory: str = "") -> dict[str, Any]:
    """Return type, text, file and line of an error; of a PluginError all its fields."""
    if isinstance(error, PluginError):
        return error.to_json()
    file, line = find_place(error.__traceback__, directory) or ("", 0)
    return {"type": type(error).__name__, "message": str(error)[:_LONGEST], "file": file, "line": line}
