"""What the text of a module says without being run: its names, and the values that are literals. Pure.

Deliberately timid: whatever might have another value at run time has none here.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
_MAX_LENGTH = 100_000  # of a text or list, so that `b = a + a; c = b + b; ...` cannot fill the memory


class NotLiteralError(ValueError):
    """An expression has no value that its text alone would tell; ``node`` is the part to blame."""

    def __init__(self, node: ast.AST) -> None:
        super().__init__("not a literal")
        self.node = node


class Scope:
    """The names at the top level of a module."""

    def __init__(self, tree: ast.Module) -> None:
        self._bindings: dict[str, list[ast.AST]] = defaultdict(list)
        self._values: dict[str, ast.expr] = {}
        self._origins: dict[str, list[str]] = defaultdict(list)
        self._tree = tree
        self._known: dict[str, Any] = {}
        self.star_imports: list[ast.ImportFrom] = []
        for node in _module_level(tree):
            self._bind(node)
        for declaration in _global_statements(tree):
            for name in declaration.names:
                self._bindings[name].append(declaration)
        for statement in tree.body:
            self._note_value(statement)

    def bindings_of(self, name: str) -> list[ast.AST]:
        """Return every place that binds the name: assignments, imports, definitions, loops, ``global``."""
        return self._bindings.get(name, [])

    def value_of(self, name: str) -> ast.expr | None:
        """Return the expression assigned to the name, if one plain assignment at the top level is all that binds it."""
        value = self._values.get(name)
        if value is None or len(self._bindings[name]) != 1:
            return None
        is_maybe_rebound = any(_start(star) > _start(value) for star in self.star_imports)
        return None if is_maybe_rebound else value

    def dotted_name(self, node: ast.expr) -> str | None:
        """Return the full name that ``PluginManifest``, ``types.PluginManifest`` and the like were imported from."""
        if isinstance(node, ast.Attribute):
            parent = self.dotted_name(node.value)
            return parent and f"{parent}.{node.attr}"
        if not isinstance(node, ast.Name):
            return None
        if not self.bindings_of(node.id):
            modules = [star.module for star in self.star_imports if star.module and not star.level]
            return f"{modules[0]}.{node.id}" if len(self.star_imports) == len(modules) == 1 else None
        origins = self._origins.get(node.id, [])
        is_import = len(origins) == len(self._bindings[node.id])
        return origins[0] if is_import and len(set(origins)) == 1 else None

    def evaluate(self, node: ast.expr) -> Any:
        """Return the value of a literal expression; raise NotLiteralError for any other."""
        try:
            return self._evaluate(node)
        except RecursionError:
            raise NotLiteralError(node) from None

    def _evaluate(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant():
                return node.value
            case ast.Name():
                return self._constant(node)
            case ast.JoinedStr(values=parts):
                return self._within_limit(node, "".join(self._part(part) for part in parts))
            case ast.BinOp(op=ast.Add()):
                return self._sum(node)
            case ast.List(elts=items):
                return self._within_limit(node, list(self._items(items)))
            case ast.Tuple(elts=items):
                return self._within_limit(node, tuple(self._items(items)))
            case _:
                raise NotLiteralError(node)

    def _constant(self, node: ast.Name) -> Any:
        """Return the value of a name that was bound once, further up, and cannot have been changed since."""
        value = self.value_of(node.id)
        if value is None or _end(value) > _start(node):
            raise NotLiteralError(node)
        if node.id not in self._known:
            self._known[node.id] = self._evaluate(value)
        result = self._known[node.id]
        if isinstance(result, list) and any(use < _start(node) for use in self._uses_of(node.id)):
            raise NotLiteralError(node)  # a list that was used before may have grown
        return result

    def _part(self, node: ast.expr) -> str:
        """Return a piece of an f-string."""
        if not isinstance(node, ast.FormattedValue):
            return str(self._evaluate(node))
        value = self._evaluate(node.value)
        if node.conversion != -1 or node.format_spec or not isinstance(value, (str, int)):
            raise NotLiteralError(node.value)
        return str(value)

    def _sum(self, node: ast.BinOp) -> Any:
        left: Any = self._evaluate(node.left)
        right: Any = self._evaluate(node.right)
        if type(left) is not type(right) or type(left) not in (str, list, tuple):
            raise NotLiteralError(node)
        return self._within_limit(node, left + right)

    def _items(self, nodes: list[ast.expr]) -> Iterator[Any]:
        for node in nodes:
            if isinstance(node, ast.Starred):
                value = self._evaluate(node.value)
                if not isinstance(value, (list, tuple)):
                    raise NotLiteralError(node)
                yield from value
            else:
                yield self._evaluate(node)

    @staticmethod
    def _within_limit(node: ast.expr, value: Any) -> Any:
        if len(value) > _MAX_LENGTH:
            raise NotLiteralError(node)
        return value

    def _uses_of(self, name: str) -> Iterator[tuple[int, int]]:
        """Yield every place that reads the name; looked for only where it matters, since this walks the whole tree."""
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load):
                yield _start(node)

    # reading the module

    def _bind(self, node: ast.AST) -> None:
        """Note the names that one node binds."""
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                self._bindings[name].append(node)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                self._bindings[name].append(node)
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                self._bindings[name].append(node)
            case ast.MatchMapping(rest=str(name)):
                self._bindings[name].append(node)
            case ast.Import() | ast.ImportFrom():
                self._bind_imports(node)

    def _bind_imports(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            if isinstance(node, ast.ImportFrom) and alias.name == "*":
                self.star_imports.append(node)
                continue
            root = alias.name.partition(".")[0]
            self._bindings[alias.asname or root].append(node)
            if isinstance(node, ast.Import):
                self._origins[alias.asname or root].append(alias.name if alias.asname else root)
            elif node.module and not node.level:
                self._origins[alias.asname or root].append(f"{node.module}.{alias.name}")

    def _note_value(self, statement: ast.stmt) -> None:
        match statement:
            case ast.Assign(targets=targets, value=value):
                names = [target.id for target in targets if isinstance(target, ast.Name)]
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                names = [name]
            case _:
                return
        self._values.update(dict.fromkeys(names, value))


def _module_level(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield the nodes that run in the module's own scope; of a definition only itself."""
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node, _DEFINITIONS):
            continue
        children = list(ast.iter_child_nodes(node))
        if isinstance(node, ast.AnnAssign) and node.value is None:  # `name: type` alone binds nothing
            children.remove(node.target)
        stack.extend(reversed(children))


def _global_statements(tree: ast.Module) -> Iterator[ast.Global]:
    """Yield the ``global`` statements of all functions, without looking into expressions."""
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Global):
            yield node
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            inner = getattr(node, field, None)
            if isinstance(inner, list):  # the body of a lambda is an expression
                stack.extend(inner)


def _start(node: ast.expr | ast.stmt) -> tuple[int, int]:
    return node.lineno, node.col_offset


def _end(node: ast.expr) -> tuple[int, int]:
    return node.end_lineno or node.lineno, node.end_col_offset or node.col_offset
