"""What a plugin's text shows without being run: events that it emits, calls that block the event loop. Pure."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pixsim7_backend.infrastructure.plugins._plan.plan import Candidate
from pixsim7_backend.infrastructure.plugins.events import PluginEvents

from .verdicts import Finding, warning

Trees = Mapping[str, ast.Module]
"""Syntax trees by file name, as it is shown."""

_EMITTERS = {"emit": 0, "emit_after_commit": 1}
_BLOCKING = frozenset(
    {
        *("time.sleep", "subprocess.run", "subprocess.call", "subprocess.check_call", "subprocess.check_output"),
        *("os.system", "os.popen", "urllib.request.urlopen", "socket.create_connection", "shutil.copytree"),
        *(f"requests.{method}" for method in ("get", "post", "put", "patch", "delete", "head", "request")),
        *(f"httpx.{method}" for method in ("get", "post", "put", "patch", "delete", "head", "request")),
    }
)
_ANNOUNCING = ".emit_after_commit"
_SYNC_SESSIONS = {"DbSession": "AsyncDbSession", "ReadOnlyDb": "AsyncReadOnlyDb"}


def check_manifest(candidate: Candidate) -> list[Finding]:
    """Check what discovery found: a literal, complete manifest that fits its folder and has a version."""
    if candidate.error is not None:
        return [Finding(what=str(candidate.error))]
    where = str(candidate.source.manifest_file)
    if candidate.manifest is None:
        way = "write the fields as literals: then nothing of the plugin has to run to know it"
        return [Finding(what="the manifest cannot be read without running the plugin", where=where, way_out=way)]
    found = [Finding(what=each) for each in candidate.warnings]
    if candidate.manifest.version == "0.0.0":
        found.append(warning("the version is 0.0.0", where=where, way_out='count from version="0.1.0"'))
    return found


# --- events ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Emission:
    """One place where an event is emitted; ``event`` is None where only running it would tell which."""

    event: str | None
    where: str


def check_events(trees: Trees, declared: Iterable[str]) -> list[Finding]:
    """Check that what is emitted is one of PluginEvents or declared, and that what is declared is emitted."""
    events, emissions = set(declared), list(iter_emissions(trees))
    known = events | {str(event) for event in PluginEvents}
    found = []
    for each in emissions:
        if each.event is None:
            way = "name it with a literal, or a constant of the same file"
            found.append(warning("an event is emitted whose name only running it tells", where=each.where, way_out=way))
        elif each.event not in known:
            way = f'add "{each.event}" to `events` in the manifest'
            found.append(Finding(what=f"event {each.event!r} is not declared", where=each.where, way_out=way))
    if not any(each.event is None for each in emissions):
        silent = sorted(events - {each.event for each in emissions})
        way = "emit it, or take it out of `events`"
        found += [warning(f"event {event!r} is declared but never emitted", way_out=way) for event in silent]
    return found


def iter_emissions(trees: Trees) -> Iterator[Emission]:
    """Yield the calls of ``plugin_hooks.emit`` and ``emit_after_commit``."""
    for file, tree in trees.items():
        constants = _constants(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                place = _EMITTERS.get(node.func.attr)
                if place is None or len(node.args) <= place or not _dotted(node.func.value).endswith("plugin_hooks"):
                    continue
                yield Emission(_event(node.args[place], constants), f"{file}:{node.lineno}")


def _constants(tree: ast.Module) -> dict[str, str]:
    return {
        target.id: statement.value.value
        for statement in tree.body
        if isinstance(statement, ast.Assign)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }


def _event(node: ast.expr, constants: Mapping[str, str]) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.Name):
        return constants.get(node.id)
    if isinstance(node, ast.Attribute) and _dotted(node.value).endswith("PluginEvents"):
        event = PluginEvents.__members__.get(node.attr)
        return str(event) if event is not None else None
    return None


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


# --- the event loop -------------------------------------------------------------------------------


def check_blocking(trees: Trees) -> list[Finding]:
    """Warn of calls and sessions inside ``async def`` that hold up everybody else's requests."""
    return [
        finding
        for file, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.AsyncFunctionDef)
        for finding in (*_blocking_calls(node, file, _imported(tree)), *_sync_sessions(node, file))
    ]


def _imported(tree: ast.Module) -> dict[str, str]:
    """Return what each imported name stands for: ``sleep`` → ``time.sleep``."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
    return names


def _blocking_calls(function: ast.AsyncFunctionDef, file: str, imported: Mapping[str, str]) -> Iterator[Finding]:
    for node in _own_nodes(function):
        if not isinstance(node, ast.Call):
            continue
        first, _, rest = _dotted(node.func).partition(".")
        name = imported.get(first, first) + (f".{rest}" if rest else "")
        if name in _BLOCKING:
            what = f"{name}() inside `async def {function.name}` blocks the event loop"
            way = f"make it `def {function.name}`, which runs in a thread, or await `anyio.to_thread.run_sync(...)`"
            yield warning(what, where=f"{file}:{node.lineno}", way_out=way)


def _sync_sessions(function: ast.AsyncFunctionDef, file: str) -> Iterator[Finding]:
    """Warn of the first use of a synchronous session that is not awaited, which a hand-over to a thread would be."""
    for argument in (*function.args.args, *function.args.kwonlyargs):
        name = _dotted(argument.annotation).rpartition(".")[2] if argument.annotation else ""
        call = next(_calls_on_loop(function, argument.arg), None) if name in _SYNC_SESSIONS else None
        if call is not None:
            what = f"`async def {function.name}` uses a synchronous session ({name}), which blocks the event loop"
            way = f"make it `def {function.name}`, or take {_SYNC_SESSIONS[name]}"
            yield warning(what, where=f"{file}:{call.lineno}", way_out=way)


def _calls_on_loop(function: ast.AsyncFunctionDef, session: str) -> Iterator[ast.Call]:
    awaited = {id(node.value) for node in _own_nodes(function) if isinstance(node, ast.Await)}
    for node in _own_nodes(function):
        if isinstance(node, ast.Call) and id(node) not in awaited and not _dotted(node.func).endswith(_ANNOUNCING):
            arguments = (*node.args, *(keyword.value for keyword in node.keywords))
            names = {each.id for each in arguments if isinstance(each, ast.Name)} | {
                _dotted(node.func).partition(".")[0]
            }
            if session in names:
                yield node


def _own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a function that run as part of it, not those of functions inside it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield child
            yield from _own_nodes(child)
