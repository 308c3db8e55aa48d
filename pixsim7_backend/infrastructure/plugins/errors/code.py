"""The plugin's own fault: its folder, manifest, code, hooks or routes are wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .base import PluginError


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


class ImportTimeoutError(PluginError):
    """New code was still being imported after the time that it gets; nothing can end that but itself."""

    def __init__(self, *, plugin: str, limit: float, where: str = "") -> None:
        at = f" at {where}" if where else ""
        super().__init__(
            f"importing plugin {plugin!r} has taken more than {limit:g} s and is left to itself{at};"
            " do slow work in a task that on_enable starts, and restart the server if the import never ends",
            plugin=plugin,
            limit=limit,
            where=where,
        )


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

    def __init__(self, *, plugin: str, hook: str, limit: float, took: float | None = None, where: str = "") -> None:
        how = "was cancelled after" if took is None else f"took {took:.1f} s, more than"
        at = f" ({where})" if where else ""
        super().__init__(
            f"{hook} of plugin {plugin!r} {how} {limit:g} s{at}; do slow work in a task that {hook} starts,"
            " or raise the platform's setting `hook_timeout`",
            plugin=plugin,
            hook=hook,
            limit=limit,
            took=took,
            where=where,
        )


class AsyncHookError(PluginError):
    """``on_load`` is a coroutine function, but loading is synchronous."""

    def __init__(self, *, plugin: str, hook: str, where: str = "") -> None:
        at = f" ({where})" if where else ""
        super().__init__(
            f"{hook} of plugin {plugin!r} is async{at}, but plugins are loaded before the event loop serves;"
            f" make it `def {hook}(app)` and move what must be awaited to `async def on_enable()`",
            plugin=plugin,
            hook=hook,
            where=where,
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
