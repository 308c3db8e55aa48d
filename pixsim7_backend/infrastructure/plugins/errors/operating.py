"""What was asked for cannot be done: the caller's, the host's or the operator's matter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pixsim7_backend.infrastructure.plugins.states import PluginState

from .base import PluginError


class PluginNotFoundError(PluginError, LookupError):
    """No plugin has this id."""

    def __init__(self, *, plugin: str, similar: str = "") -> None:
        hint = f"; did you mean {similar!r}?" if similar else ""
        super().__init__(f"no plugin {plugin!r} is installed{hint}", plugin=plugin, similar=similar)


class DependantsEnabledError(PluginError):
    """Other enabled plugins need the one that should be disabled."""

    def __init__(self, *, plugin: str, dependants: Sequence[str]) -> None:
        super().__init__(
            f"plugin {plugin!r} is needed by {', '.join(dependants)}; disable them first, or all at once"
            " (--cascade; the API: cascade=true)",
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


class StateNotHandedOverError(PluginError):
    """The code that serves could not say what its replacement should go on with, so it was not replaced."""

    def __init__(self, *, plugin: str, cause: PluginError) -> None:
        super().__init__(
            f"plugin {plugin!r} was not replaced, since its state would be lost: {cause};"
            f" to lose it, `pixsim7 plugins reload {plugin} --discard-state`",
            plugin=plugin,
            cause=str(cause),
        )
        self.__cause__ = cause


class IllegalTransitionError(PluginError):
    """The state table does not allow this step."""

    def __init__(self, *, plugin: str, current: PluginState, wanted: PluginState) -> None:
        super().__init__(
            f"plugin {plugin!r} is {current} and cannot become {wanted}",
            plugin=plugin,
            current=current,
            wanted=wanted,
        )


class InterruptedChangeError(PluginError):
    """A change was broken off while this plugin was to be started; what it had begun is undone."""

    def __init__(self, *, plugin: str) -> None:
        super().__init__(f"a change was broken off before plugin {plugin!r} ran; enable it again", plugin=plugin)


class PluginBusyError(PluginError):
    """A change was asked for by code that runs inside another change, which would wait for itself."""

    def __init__(self, *, plugin: str) -> None:
        super().__init__(
            "plugins cannot be enabled or disabled from inside a hook or a handler of a lifecycle event;"
            " start a task that does it afterwards",
            plugin=plugin,
        )


class StoppingError(PluginError):
    """The server stops; plugins do not change any more."""

    def __init__(self, *, plugin: str) -> None:
        super().__init__(
            f"plugin {plugin!r} was not changed, since the server stops; ask again when it has started", plugin=plugin
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
