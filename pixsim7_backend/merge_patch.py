"""JSON merge patch (RFC 7386), pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["MAX_DEPTH", "MergePatchDepthError", "merge_patch"]

MAX_DEPTH = 64
"""Objects may be nested this deep in a patch."""


class MergePatchDepthError(ValueError):
    """The patch is nested deeper than :data:`MAX_DEPTH`."""

    def __init__(self) -> None:
        super().__init__(f"a merge patch may be nested at most {MAX_DEPTH} levels deep")


def merge_patch(target: Any, patch: Any) -> Any:
    """Return ``target`` changed by ``patch``; neither is modified.

    Members of an object patch replace those of the target, None removes them, objects are merged
    recursively; any other patch replaces the target. Unchanged parts are shared with ``target``.

    Raises:
        MergePatchDepthError: objects in the patch are nested too deeply.
    """
    return _merge(target, patch, MAX_DEPTH)


def _merge(target: Any, patch: Any, levels: int) -> Any:
    if not isinstance(patch, Mapping):
        return patch
    if levels == 0:
        raise MergePatchDepthError
    merged = dict(target) if isinstance(target, Mapping) else {}
    for name, change in patch.items():
        if change is None:
            merged.pop(name, None)
        else:
            merged[name] = _merge(merged.get(name), change, levels - 1)
    return merged
