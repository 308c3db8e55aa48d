"""Reading a manifest from the syntax tree of ``manifest.py``: nothing of the plugin is executed.

Only what has one meaning is read: ``manifest = PluginManifest(...)`` at the top level of the file,
whose fields are literals, sums of literals, or names bound once, further up, to such values.
Everything else is a :class:`DynamicManifest`: valid Python, but only importing it would tell.
"""

from __future__ import annotations

import ast
import stat
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pixsim7_backend.infrastructure.plugins.errors import InvalidManifestError
from pixsim7_backend.infrastructure.plugins.types import PluginManifest, explain_unknown_field

from .literals import NotLiteralError, Scope

__all__ = ["DynamicManifest", "check_complete", "explain_problems", "parse_manifest", "read_manifest"]

#: A manifest with its routes is some kilobytes long; this is far beyond any that somebody wrote.
MAX_BYTES = 2_000_000

_SPREAD = "what `**` adds"
_PLATFORM = "pixsim7_backend.infrastructure.plugins"
_MANIFEST_TYPE = frozenset({f"{_PLATFORM}.PluginManifest", f"{_PLATFORM}.types.PluginManifest"})

#: What a folder's manifest must itself say, with a correct example of each field.
REQUIRED_FIELDS = ("id", "name", "version", "description")
EXAMPLES: Mapping[str, str] = {
    "id": 'id="game-stealth"',
    "name": 'name="Game Stealth"',
    "version": 'version="1.0.0"',
    "description": 'description="Provides stealth mechanics"',
    "author": 'author="Your Name"',
    "prefix": 'prefix="/api/v1"',
    "tags": 'tags=["game-stealth"]',
    "dependencies": 'dependencies=["game-sessions>=1.2,<2"]',
    "after": 'after=["assets"]',
    "conflicts": 'conflicts=["game-thieves"]',
    "requires_db": "requires_db=True",
    "requires_redis": "requires_redis=False",
    "requires_host": 'requires_host=">=1.0,<2"',
    "enabled": "enabled=True",
    "required": "required=False",
    "permissions": 'permissions=["db:read"]',
    "events": 'events=["quest:finished"]',
    "rate_limit": 'rate_limit="100/minute"',
    "replace": 'replace="beside"',
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicManifest:
    """A manifest that must be imported to be known: ``what`` is computed, at ``file``:``line``.

    ``known`` holds the fields that are literals nevertheless.
    """

    file: Path
    line: int
    what: str
    known: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}"


def read_manifest(file: Path, *, plugin: str) -> PluginManifest | DynamicManifest:
    """Read the manifest that ``file`` defines, without running anything.

    Args:
        file: path of a ``manifest.py``.
        plugin: the id or folder to name in errors.

    Raises:
        InvalidManifestError: the file cannot be read, is no Python, defines no manifest or an invalid one.
    """
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # a directory, or a pipe that would never end
            raise InvalidManifestError(plugin=plugin, file=file, problems=["is not a regular file"])
        with file.open("rb") as stream:
            source = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidManifestError(plugin=plugin, file=file, problems=[f"cannot be read: {reason}"]) from error
    return parse_manifest(source, file=file, plugin=plugin)


def parse_manifest(source: bytes, *, file: Path, plugin: str) -> PluginManifest | DynamicManifest:
    """Find and validate the manifest in the text of a ``manifest.py``; like :func:`read_manifest`, but pure."""
    tree = _parse(source, file, plugin)
    scope = Scope(tree)
    definition = _find_definition(scope, file, plugin)
    if isinstance(definition, DynamicManifest):
        return definition
    return _read_call(definition, scope, file, plugin)


def check_complete(manifest: PluginManifest, *, file: Path, plugin: str) -> None:
    """Check that a manifest which had to be imported says itself what a folder's manifest must say.

    Raises:
        InvalidManifestError: it leaves out a field; each one is named with an example.
    """
    missing = [_missing(field) for field in REQUIRED_FIELDS if field not in manifest.model_fields_set]
    if missing:
        raise InvalidManifestError(plugin=plugin, file=file, problems=missing)


def explain_problems(error: ValidationError) -> list[str]:
    """Return one sentence per problem of a manifest: the field, what is wrong and a correct example."""
    return [_explain(problem) for problem in error.errors(include_url=False)]


def _explain(problem: Mapping[str, Any]) -> str:
    path = problem["loc"]
    if not path:
        return str(problem.get("ctx", {}).get("error", problem["msg"]))
    field = str(path[0])
    if problem["type"] == "missing":
        return _missing(field)
    where = f"`{field}`" if len(path) == 1 else f"`{field}[{path[1]}]`"
    if problem["type"] == "value_error":  # written by us, and shows an example already
        return f"{where}: {problem['ctx']['error']}"
    text = problem["msg"].replace("a valid tuple", "a list of strings")
    return f"{where}: {text[:1].lower()}{text[1:]}; write it like `{EXAMPLES.get(field, field)}`"


def _missing(field: str) -> str:
    return f"`{field}` is missing; add `{EXAMPLES[field]}`"


# --- from bytes to the call ---------------------------------------------------------------------


def _parse(source: bytes, file: Path, plugin: str) -> ast.Module:
    """Parse any bytes at all; whatever is wrong with them is an InvalidManifestError."""
    if len(source) > MAX_BYTES:
        problem = f"is larger than {MAX_BYTES:,} bytes; keep only the manifest and the routes in it"
        raise InvalidManifestError(plugin=plugin, file=file, problems=[problem])
    if b"\0" in source:
        line = source[: source.index(b"\0")].count(b"\n") + 1
        raise InvalidManifestError(plugin=plugin, file=file, line=line, problems=["contains a NUL byte; it is no text"])
    try:
        with warnings.catch_warnings():  # the import will show them, once
            warnings.simplefilter("ignore")
            return ast.parse(source, filename=str(file))
    except SyntaxError as error:
        raise InvalidManifestError(
            plugin=plugin, file=file, line=error.lineno, problems=[f"syntax error: {error.msg}"]
        ) from error
    except (RecursionError, MemoryError):
        raise InvalidManifestError(plugin=plugin, file=file, problems=["is nested too deeply to be read"]) from None
    except (ValueError, LookupError, SystemError) as error:  # codecs raise what they like
        raise InvalidManifestError(plugin=plugin, file=file, problems=[f"cannot be decoded: {error}"]) from error


def _find_definition(scope: Scope, file: Path, plugin: str) -> ast.Call | DynamicManifest:
    """Return the call that makes the manifest, or why it cannot be told apart from the text."""
    bindings = scope.bindings_of("manifest")
    if not bindings:
        if scope.star_imports:
            return _dynamic(file, scope.star_imports[-1], "`manifest` may come from `import *`")
        fields = ", ".join(EXAMPLES[field] for field in REQUIRED_FIELDS)
        problem = f"does not define `manifest`; add `manifest = PluginManifest({fields})`"
        raise InvalidManifestError(plugin=plugin, file=file, problems=[problem])
    value = scope.value_of("manifest")
    if value is None:
        return _dynamic(file, bindings[-1], "`manifest` is not assigned exactly once, at the top level")
    if isinstance(value, ast.Constant):
        raise InvalidManifestError(
            plugin=plugin,
            file=file,
            line=value.lineno,
            problems=[f"`manifest` is {value.value!r}, not a PluginManifest"],
        )
    if not isinstance(value, ast.Call) or scope.dotted_name(value.func) not in _MANIFEST_TYPE:
        return _dynamic(file, value, f"`manifest` is not written as `PluginManifest(...)` imported from {_PLATFORM}")
    return value


def _dynamic(file: Path, node: ast.AST, what: str, known: Mapping[str, Any] | None = None) -> DynamicManifest:
    return DynamicManifest(file=file, line=getattr(node, "lineno", 1), what=what, known=known or {})


# --- from the call to the manifest --------------------------------------------------------------


def _read_call(call: ast.Call, scope: Scope, file: Path, plugin: str) -> PluginManifest | DynamicManifest:
    """Evaluate and validate the fields of the call; report all problems at once, in the order of the file."""
    fields = _Fields(call, scope)
    manifest = fields.validate()
    if fields.problems:
        ordered = sorted(fields.problems)
        raise InvalidManifestError(
            plugin=fields.find_id() or plugin,
            file=file,
            line=ordered[0][0],
            problems=[f"{text} (line {line})" for line, text in ordered],
        )
    if fields.computed:
        field, node = fields.computed[0]
        return _dynamic(file, node, f"{field} is computed", fields.values)
    assert manifest is not None, "a manifest without problems is a manifest"
    return manifest


class _Fields:
    """The fields of one call: their values, where each was written, and what is wrong with them."""

    def __init__(self, call: ast.Call, scope: Scope) -> None:
        self.call = call
        self.scope = scope
        self.values: dict[str, Any] = {}
        self.nodes: dict[str, ast.expr] = {}
        self.problems: list[tuple[int, str]] = []
        self.computed: list[tuple[str, ast.AST]] = []
        for argument in call.args:
            self.problems.append((argument.lineno, "PluginManifest takes named fields only, like `id=...`"))
        for keyword in call.keywords:
            self._read(keyword)

    def _read(self, keyword: ast.keyword) -> None:
        field = keyword.arg
        if field is None:
            self.computed.append((_SPREAD, keyword.value))
        elif field in self.nodes:
            self.problems.append((keyword.lineno, f"`{field}` is given twice"))
        elif field not in PluginManifest.model_fields:
            self.problems.append((keyword.lineno, explain_unknown_field(field)))
        else:
            self.nodes[field] = keyword.value
            try:
                self.values[field] = self.scope.evaluate(keyword.value)
            except NotLiteralError as error:
                self.computed.append((f"`{field}`", error.node))

    def validate(self) -> PluginManifest | None:
        """Return the manifest, or None and add to ``problems``; what is computed is not judged."""
        manifest, wrong = None, set()
        try:
            manifest = PluginManifest.model_validate(self.values)
        except ValidationError as error:
            for problem in error.errors(include_url=False):
                field = str(next(iter(problem["loc"]), ""))
                wrong.add(field)
                if field in self.values:
                    self.problems.append((self._line(problem["loc"]), _explain(problem)))
        is_all_seen = all(field != _SPREAD for field, _ in self.computed)
        for field in REQUIRED_FIELDS if is_all_seen else ():
            if field not in self.nodes:
                self.problems.append((self.call.lineno, _missing(field)))
        self.values = {field: value for field, value in self.values.items() if field not in wrong}
        return manifest

    def find_id(self) -> str | None:
        """Return the id, if it is a valid one."""
        value = self.values.get("id")
        return value.strip() if isinstance(value, str) else None

    def _line(self, path: Sequence[int | str]) -> int:
        """Return the line of a field, or of the item in it that a problem is about."""
        node = self.nodes[str(path[0])]
        if isinstance(node, (ast.List, ast.Tuple)) and len(path) > 1 and isinstance(path[1], int):
            has_stars = any(isinstance(item, ast.Starred) for item in node.elts)
            return node.lineno if has_stars else node.elts[path[1]].lineno
        return node.lineno
