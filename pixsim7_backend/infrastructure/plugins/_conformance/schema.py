"""What a plugin's part of the OpenAPI document should have. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from .verdicts import Finding, warning

_METHODS = ("get", "post", "put", "patch", "delete", "head", "options", "trace")


def iter_operations(paths: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield method, path and operation."""
    for path, item in paths.items():
        for method in _METHODS:
            if method in item:
                yield method.upper(), path, item[method]


def check_schema(
    paths: Mapping[str, Any], schemas: Collection[str], *, tags: Collection[str], qualifier: str
) -> list[Finding]:
    """Check ids, descriptions, tags and schema names of one plugin's operations."""
    found: list[Finding] = []
    seen: dict[str, str] = {}
    for method, path, operation in iter_operations(paths):
        where, name = f"{method} {path}", str(operation.get("operationId"))
        if name in seen:
            way = "give one of the two another function name, or an `operation_id`"
            found.append(Finding(what=f"operation id {name!r} is that of {seen[name]} too", where=where, way_out=way))
        seen[name] = where
        if not operation.get("description"):
            found.append(warning("has no description", where=where, way_out="give the function a docstring"))
        if not set(tags) & set(operation.get("tags", ())):
            way = f"add one of them: tags=[{min(tags)!r}]"
            found.append(warning(f"has none of the plugin's tags {', '.join(sorted(tags))}", where=where, way_out=way))
    for name in sorted(schemas):
        if not name.startswith(qualifier):
            way = "another plugin's schema of this name would change what clients see"
            found.append(Finding(what=f"schema {name!r} is not qualified with {qualifier!r}", way_out=way))
    return found


def check_shadowed(routes: Iterable[tuple[str, str, str]]) -> list[Finding]:
    """Warn of method and path given twice: only the first is ever asked. ``routes`` are method, path and place."""
    found: list[Finding] = []
    seen: dict[tuple[str, str], str] = {}
    for method, path, place in routes:
        first = seen.setdefault((method, path), place)
        if first != place:
            way = f"change one of the two: {first} answers, {place} is never asked"
            found.append(warning("is defined twice", where=f"{method} {path}", way_out=way))
    return found


def paths_without_input(paths: Mapping[str, Any]) -> list[str]:
    """Return the paths whose GET needs no parameter."""
    return [
        path
        for method, path, operation in iter_operations(paths)
        if method == "GET" and "{" not in path and not any(each.get("required") for each in _parameters(operation))
    ]


def _parameters(operation: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(operation.get("parameters", ()))
