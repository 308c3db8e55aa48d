"""What can go wrong with a plugin: one type per cause, whose text names who, what, where and the way out.

``state`` is what a plugin becomes when the error is its reason: ``blocked`` where something outside
stops it, ``failed`` where its own code or manifest is wrong, ``disabled`` where somebody wants it off.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from .states import PluginState


class PluginError(Exception):
    """Base of everything the platform raises or records; ``plugin`` is the id (or folder) concerned.

    Subclasses list their fields as keyword-only constructor arguments; all of them are kept as
    attributes and appear in :meth:`to_json`.
    """

    state: ClassVar[PluginState] = PluginState.FAILED
    plugin: str

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
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


# --- the plugin's own fault ---------------------------------------------------------------------


class InvalidManifestError(PluginError):
    """The manifest is missing, unreadable or malformed; ``problems`` has one line per field.

    ``line`` is where the first problem is, where that is known.
    """

    def __init__(self, *, plugin: str, file: Path, problems: Sequence[str], line: int | None = None) -> None:
        where = f"{file}:{line}" if line else str(file)
        super().__init__(
            f"{where}: {'; '.join(problems)}", plugin=plugin, file=file, problems=tuple(problems), line=line
        )


class MissingManifestError(PluginError):
    """A folder looks like a plugin but has no ``manifest.py``."""

    def __init__(self, *, plugin: str, directory: Path) -> None:
        super().__init__(
            f"{directory} has no manifest.py; add one that defines `manifest = PluginManifest(...)` and `router`",
            plugin=plugin,
            directory=directory,
        )


class PluginFolderError(PluginError):
    """The folder of a plugin has a name under which its code cannot be imported."""

    def __init__(self, *, plugin: str, directory: Path, suggestion: str) -> None:
        super().__init__(
            f"{directory}: {directory.name!r} cannot be imported as a Python package;"
            f" rename the folder to {suggestion!r}",
            plugin=plugin,
            directory=directory,
            suggestion=suggestion,
        )


class EntryPointError(PluginError):
    """An installed package offers a plugin by an entry point that leads nowhere."""

    def __init__(self, *, plugin: str, group: str, value: str, problem: str) -> None:
        super().__init__(
            f"entry point {plugin} = {value!r} (group {group!r}): {problem};"
            " its value must be the dotted name of a package that holds manifest.py",
            plugin=plugin,
            group=group,
            value=value,
            problem=problem,
        )


class PluginLoadError(PluginError):
    """Importing the plugin raised; ``file`` and ``line`` are the last place in its own code."""

    def __init__(self, *, plugin: str, file: Path, line: int | None, cause: BaseException) -> None:
        where = f"{file}:{line}" if line else str(file)
        super().__init__(
            f"{type(cause).__name__}: {cause} ({where})", plugin=plugin, file=file, line=line, cause=repr(cause)
        )
        self.__cause__ = cause


class MissingExportError(PluginError):
    """The plugin does not export what it must, or exports something of the wrong type."""

    def __init__(self, *, plugin: str, file: Path, name: str, expected: str, found: str = "") -> None:
        was = f"is {found}, not" if found else "is missing; export"
        super().__init__(
            f"{file}: `{name}` {was} {expected}",
            plugin=plugin,
            file=file,
            name=name,
            expected=expected,
            found=found,
        )


class UndeclaredImportError(PluginError):
    """The plugin imports another plugin that its manifest does not name."""

    def __init__(self, *, plugin: str, imported: str, file: Path, line: int) -> None:
        super().__init__(
            f"plugin {plugin!r} imports plugin {imported!r} ({file}:{line}) without depending on it;"
            f' add "{imported}" to `dependencies` in its manifest',
            plugin=plugin,
            imported=imported,
            file=file,
            line=line,
        )


class PluginHookError(PluginError):
    """A lifecycle hook of the plugin raised."""

    def __init__(self, *, plugin: str, hook: str, cause: BaseException, where: str = "") -> None:
        at = f" ({where})" if where else ""
        super().__init__(
            f"{hook} of plugin {plugin!r} raised {type(cause).__name__}: {cause}{at}",
            plugin=plugin,
            hook=hook,
            cause=repr(cause),
            where=where,
        )
        self.__cause__ = cause


class HookTimeoutError(PluginError):
    """A lifecycle hook ran longer than it may."""

    def __init__(self, *, plugin: str, hook: str, limit: float, took: float | None = None) -> None:
        how = "was cancelled after" if took is None else f"took {took:.1f} s, more than"
        super().__init__(
            f"{hook} of plugin {plugin!r} {how} {limit:g} s; do slow work in a task that {hook} starts,"
            " or raise `hook_timeout` in the plugin settings",
            plugin=plugin,
            hook=hook,
            limit=limit,
            took=took,
        )


class AsyncHookError(PluginError):
    """``on_load`` is a coroutine function, but loading is synchronous."""

    def __init__(self, *, plugin: str, hook: str) -> None:
        super().__init__(
            f"{hook} of plugin {plugin!r} is async, but plugins are loaded before the event loop serves;"
            f" make it `def {hook}(app)` and move what must be awaited to `async def on_enable()`",
            plugin=plugin,
            hook=hook,
        )


class UnhealthyPluginError(PluginError):
    """The plugin's own ``health()`` said no."""

    def __init__(self, *, plugin: str, answer: str) -> None:
        super().__init__(f"health() of plugin {plugin!r} returned {answer}", plugin=plugin, answer=answer)


class AppWideRegistrationError(PluginError):
    """``on_load`` tried to add middleware or an exception handler to the whole app."""

    def __init__(self, *, plugin: str, call: str, instead: str) -> None:
        super().__init__(
            f"on_load of plugin {plugin!r} called app.{call}(), which the running app ignores or refuses;"
            f" export {instead} from the plugin instead: it wraps this plugin's routes",
            plugin=plugin,
            call=call,
            instead=instead,
        )


class RouteConflictError(PluginError):
    """A route of the plugin has a method and path that another plugin or the host already serves."""

    def __init__(self, *, plugin: str, method: str, path: str, owner: str, endpoint: str, other: str) -> None:
        super().__init__(
            f"{method} {path} of plugin {plugin!r} ({endpoint}) is already served by {owner} ({other});"
            " change one of the two paths, or disable one of the two",
            plugin=plugin,
            method=method,
            path=path,
            owner=owner,
            endpoint=endpoint,
            other=other,
        )


class DuplicatePluginError(PluginError):
    """Two folders or packages claim the same id."""

    def __init__(self, *, plugin: str, location: str, other: str) -> None:
        super().__init__(
            f"plugin {plugin!r} is found twice: {location} and {other}; remove one, or change its id",
            plugin=plugin,
            location=location,
            other=other,
        )


class HostVersionError(PluginError):
    """The manifest's ``requires_host`` does not admit this version of the platform."""

    state = PluginState.BLOCKED

    def __init__(self, *, plugin: str, required: str, installed: str) -> None:
        super().__init__(
            f"plugin {plugin!r} requires platform {required}, but {installed} is installed;"
            " install a version of the plugin for this platform",
            plugin=plugin,
            required=required,
            installed=installed,
        )


# --- something outside stops it -----------------------------------------------------------------


class MissingDependencyError(PluginError):
    """A dependency is not installed."""

    state = PluginState.BLOCKED

    def __init__(self, *, plugin: str, missing: str, similar: str = "") -> None:
        hint = f"; did you mean {similar!r}?" if similar else ""
        super().__init__(
            f"plugin {plugin!r} requires {missing!r}, which is not installed{hint}",
            plugin=plugin,
            missing=missing,
            similar=similar,
        )


class DependencyVersionError(PluginError):
    """A dependency is installed in a version outside the required range."""

    state = PluginState.BLOCKED

    def __init__(self, *, plugin: str, requirement: str, installed: str, dependency: str) -> None:
        super().__init__(
            f"plugin {plugin!r} requires {requirement!r}, but {dependency!r} is version {installed}",
            plugin=plugin,
            requirement=requirement,
            installed=installed,
            dependency=dependency,
        )


class DependencyHeldError(PluginError):
    """A dependency is installed but disabled, blocked or failed; ``because`` is why."""

    state = PluginState.BLOCKED

    def __init__(self, *, plugin: str, dependency: str, dependency_state: PluginState, because: str) -> None:
        why = f": {because}" if because else ""
        super().__init__(
            f"plugin {plugin!r} requires {dependency!r}, which is {dependency_state}{why}",
            plugin=plugin,
            dependency=dependency,
            dependency_state=dependency_state,
            because=because,
        )


class CircularDependencyError(PluginError):
    """Plugins depend on one another in a circle; ``cycle`` starts and ends with the smallest id."""

    state = PluginState.BLOCKED

    def __init__(self, *, plugin: str, cycle: Sequence[str]) -> None:
        super().__init__(f"Circular dependency detected: {' -> '.join(cycle)}", plugin=plugin, cycle=tuple(cycle))


class PluginConflictError(PluginError):
    """The plugin may not run beside another one that runs."""

    state = PluginState.BLOCKED

    def __init__(self, *, plugin: str, other: str, declared_by: str) -> None:
        super().__init__(
            f"plugin {plugin!r} cannot run beside {other!r} (`conflicts` of {declared_by!r}); disable one of the two",
            plugin=plugin,
            other=other,
            declared_by=declared_by,
        )


class ResourceMissingError(PluginError):
    """The plugin needs a resource that is not configured or does not answer."""

    state = PluginState.BLOCKED

    def __init__(self, *, plugin: str, resource: str, problem: str) -> None:
        super().__init__(
            f"plugin {plugin!r} requires {resource}: {problem}", plugin=plugin, resource=resource, problem=problem
        )


class PluginDisabledError(PluginError):
    """Somebody wants the plugin off; ``by`` says who: the manifest or ``DISABLED_PLUGINS``."""

    state = PluginState.DISABLED

    def __init__(self, *, plugin: str, by: str) -> None:
        way = (
            "set `enabled=True` in its manifest"
            if by == "manifest"
            else "remove it from DISABLED_PLUGINS"
            if by == "DISABLED_PLUGINS"
            else "enable it"
        )
        super().__init__(f"plugin {plugin!r} is disabled by {by}; to use it, {way}", plugin=plugin, by=by)


# --- the caller's fault -------------------------------------------------------------------------


class PluginNotFoundError(PluginError, LookupError):
    """No plugin has this id."""

    def __init__(self, *, plugin: str, similar: str = "") -> None:
        hint = f"; did you mean {similar!r}?" if similar else ""
        super().__init__(f"no plugin {plugin!r} is installed{hint}", plugin=plugin, similar=similar)


class DependantsEnabledError(PluginError):
    """Other enabled plugins need the one that should be disabled."""

    def __init__(self, *, plugin: str, dependants: Sequence[str]) -> None:
        super().__init__(
            f"plugin {plugin!r} is needed by {', '.join(dependants)}; disable them first, or disable with cascade",
            plugin=plugin,
            dependants=tuple(dependants),
        )


class PluginIdChangedError(PluginError):
    """A plugin's folder holds a plugin of another id now."""

    def __init__(self, *, plugin: str, found: str, directory: Path) -> None:
        super().__init__(
            f"{directory} held plugin {plugin!r} and now says that it is {found!r};"
            " put a new plugin into a folder of its own, or restore the id",
            plugin=plugin,
            found=found,
            directory=directory,
        )


class ReplacementRefusedError(PluginError):
    """New code was built, but putting it in place would hold back plugins that run; the old code serves on."""

    state = PluginState.BLOCKED

    def __init__(self, *, plugin: str, stopped: Sequence[str], because: str) -> None:
        super().__init__(
            f"plugin {plugin!r} was not replaced, since {', '.join(stopped)} would stop: {because}",
            plugin=plugin,
            stopped=tuple(stopped),
            because=because,
        )


class IllegalTransitionError(PluginError):
    """The state table does not allow this step."""

    def __init__(self, *, plugin: str, current: PluginState, wanted: PluginState) -> None:
        super().__init__(
            f"plugin {plugin!r} is {current} and cannot become {wanted}",
            plugin=plugin,
            current=current,
            wanted=wanted,
        )


class PluginBusyError(PluginError):
    """A change was asked for by code that runs inside another change, which would wait for itself."""

    def __init__(self, *, plugin: str) -> None:
        super().__init__(
            "plugins cannot be enabled or disabled from inside a hook or a handler of a lifecycle event;"
            " start a task that does it afterwards",
            plugin=plugin,
        )


class PluginDirectoryError(PluginError):
    """The directory to search for plugins does not exist."""

    def __init__(self, *, directory: str, searched: Sequence[Path]) -> None:
        places = ", ".join(str(path) for path in searched)
        super().__init__(
            f"plugin directory {directory!r} does not exist (looked for {places}); create it, or correct the path",
            plugin="",
            directory=directory,
            searched=tuple(searched),
        )


class ConfigurationError(PluginError):
    """A setting, or the configuration file that holds it, cannot be used."""

    def __init__(self, *, source: str, problem: str, line: int | None = None) -> None:
        where = f"{source}:{line}" if line else source
        super().__init__(f"{where}: {problem}", plugin="", source=source, problem=problem, line=line)


class PluginStartupError(PluginError):
    """Start-up was aborted: the policy is strict, or a required plugin cannot run. Lists every problem."""

    def __init__(self, *, problems: Sequence[PluginError], required: Sequence[str] = ()) -> None:
        why = f"required plugins cannot run ({', '.join(required)})" if required else "on_plugin_error is 'strict'"
        lines = "".join(f"\n  - {problem.plugin}: {problem}" for problem in problems)
        super().__init__(
            f"start-up aborted, {why}:{lines}", plugin="", problems=tuple(problems), required=tuple(required)
        )


class PortTakenError(PluginError):
    """Another plugin already provides this port."""

    def __init__(self, *, plugin: str, port: str, owner: str) -> None:
        super().__init__(
            f"port {port!r} is already provided by {owner}; only one plugin may provide a port",
            plugin=plugin,
            port=port,
            owner=owner,
        )
