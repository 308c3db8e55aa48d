"""Which other plugins a plugin's source imports, read from the syntax tree without running it."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pixsim7_backend.infrastructure.plugins.errors import UndeclaredImportError
from pixsim7_backend.infrastructure.plugins.records import PluginSource

_BLOCKS = ("body", "handlers", "cases", "orelse", "finalbody")
"""Where a statement keeps those below it, in the order of the text."""


@dataclass(frozen=True, slots=True)
class ImportedPackage:
    """One absolute module name that a file imports, and where."""

    name: str
    file: Path
    line: int


def check_imports(
    plugin: str, source: PluginSource, declared: Collection[str], packages: Mapping[str, str]
) -> frozenset[str]:
    """Return the plugins that this one imports; refuse imports of plugins that its manifest does not name.

    ``packages`` maps the package of every known plugin to its id, ``declared`` are the ids in
    ``dependencies``. Imports under ``if TYPE_CHECKING:`` are free.

    Raises:
        UndeclaredImportError: for the first such import, by file and line.
    """
    found: set[str] = set()
    for imported in iter_imports(source):
        other = _plugin_of(imported.name, packages)
        if other is None or other == plugin:
            continue
        if other not in declared:
            raise UndeclaredImportError(plugin=plugin, imported=other, file=imported.file, line=imported.line)
        found.add(other)
    return frozenset(found)


def iter_imports(source: PluginSource) -> Iterator[ImportedPackage]:
    """Yield what the plugin's files import, in file and line order; files that do not parse yield nothing."""
    for file in sorted(source.path.rglob("*.py")):
        try:
            tree = ast.parse(file.read_bytes(), filename=str(file))
        except (SyntaxError, ValueError, RecursionError, MemoryError, OSError):
            continue  # importing it will say what is wrong, if it is ever imported
        parts = file.relative_to(source.path).with_suffix("").parts
        package = ".".join((source.package, *parts[:-1]))
        for node in _runtime_nodes(tree.body):
            for name in _imported_names(node, package):
                yield ImportedPackage(name, file, node.lineno)


def _runtime_nodes(statements: Iterable[ast.AST]) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the imports among the statements and below them; expressions, most of a tree, hold none."""
    for each in statements:
        if isinstance(each, (ast.Import, ast.ImportFrom)):
            yield each
        elif isinstance(each, ast.If) and _is_type_checking(each.test):
            yield from _runtime_nodes(each.orelse)
        else:
            yield from _runtime_nodes(below for block in _BLOCKS for below in getattr(each, block, ()))


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _imported_names(node: ast.Import | ast.ImportFrom, package: str) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        parent = package.split(".")
        kept = parent[: len(parent) - node.level + 1]
        base = ".".join([*kept, base] if base else kept)
    return [f"{base}.{alias.name}" for alias in node.names]


def _plugin_of(name: str, packages: Mapping[str, str]) -> str | None:
    while name:
        if name in packages:
            return packages[name]
        name = name.rpartition(".")[0]
    return None
