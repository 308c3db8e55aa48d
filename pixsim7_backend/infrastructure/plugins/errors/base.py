"""What can go wrong with a plugin: one type per cause, whose text names who, what, where and the way out.

``state`` is what a plugin becomes when the error is its reason: ``blocked`` where something outside
stops it, ``failed`` where its own code or manifest is wrong, ``disabled`` where somebody wants it off.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pixsim7_backend.infrastructure.plugins.states import PluginState


class PluginError(Exception):
    """Base of everything the platform raises or records; ``plugin`` is the id (or folder) concerned.

    Subclasses list their fields as keyword-only constructor arguments; all of them are kept as
    attributes and appear in :meth:`to_json`.
    """

    state: ClassVar[PluginState] = PluginState.FAILED
    plugin: str

    def __init__(self, message: str, **fields: Any) -> None:
        Exception.__init__(self, message)  # also where the error is one of a library's at the same time
        self.fields = fields
        for name, value in fields.items():
            setattr(self, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), str(self), self.fields)

    def to_json(self) -> dict[str, Any]:
        """Return the error as JSON-able values: its type, its text and its fields."""
        return {
            "type": type(self).__name__,
            "message": str(self),
            **{name: _jsonable(value) for name, value in self.fields.items()},
        }


def _rebuild(kind: type[PluginError], message: str, fields: dict[str, Any]) -> PluginError:
    error = kind.__new__(kind)
    PluginError.__init__(error, message, **fields)
    return error


def _jsonable(value: Any) -> Any:
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_jsonable(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
