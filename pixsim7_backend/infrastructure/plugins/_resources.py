"""Resources that plugins may require (a database, Redis): does each one answer, and if not, what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import entry_points

ResourceCheck = Callable[[], str | None]
"""Returns None when the resource is there, else a sentence with the setting to add."""

ENTRY_POINT_GROUP = "pixsim7.resources"


def check_resources(names: Iterable[str], checks: Mapping[str, ResourceCheck] | None) -> dict[str, str]:
    """Return the problem of each named resource that has one.

    ``checks`` are the host's own; a resource it does not name is looked up among the entry points
    that installed distributions offer in the group ``pixsim7.resources``.
    """
    problems: dict[str, str] = {}
    for name in sorted(set(names)):
        problem = _check(name, (checks or {}).get(name))
        if problem:
            problems[name] = problem
    return problems


def _check(name: str, check: ResourceCheck | None) -> str | None:
    if check is None:
        found = entry_points(group=ENTRY_POINT_GROUP, name=name)
        if not found:
            return f"nothing here provides it; pass resources={{{name!r}: check}} to init_plugin_manager"
        check = next(iter(found)).load()
    try:
        return check()
    except Exception as error:  # noqa: BLE001 - a check is the host's code: a broken one means that the resource is not usable
        return f"its check raised {type(error).__name__}: {error}"
