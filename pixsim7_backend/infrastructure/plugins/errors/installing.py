"""What can go wrong when a plugin is installed, upgraded, rolled back or removed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pixsim7_backend.infrastructure.plugins.states import PluginState

from .base import PluginError

_SHOWN = 160


class MemberRefusedError(PluginError):
    """One member of what should be installed is refused, so all of it is; nothing was put in place."""

    def __init__(self, *, source: str, member: str, reason: str) -> None:
        name = member if len(member) <= _SHOWN else member[:_SHOWN] + "…"
        super().__init__(f"{source}: {name!a} {reason}", plugin="", source=source, member=member, reason=reason)


class ArchiveRefusedError(PluginError):
    """An archive, folder or checkout is refused as a whole; nothing was put in place."""

    def __init__(self, *, source: str, reason: str) -> None:
        super().__init__(f"{source} {reason}", plugin="", source=source, reason=reason)


class AlreadyInstalledError(PluginError):
    """A plugin of this id is there already."""

    def __init__(self, *, plugin: str, installed: str, offered: str, directory: Path) -> None:
        super().__init__(
            f"plugin {plugin!r} is already installed in version {installed or 'unknown'} ({directory});"
            f" add `--upgrade` to replace it by version {offered}",
            plugin=plugin,
            installed=installed,
            offered=offered,
            directory=directory,
        )


class InstalledElsewhereError(PluginError):
    """A plugin of this id is there already, in another plugin directory than the one to install into."""

    def __init__(self, *, plugin: str, directory: Path, into: Path) -> None:
        super().__init__(
            f"plugin {plugin!r} is already installed in {directory}; remove it there, or install into"
            f" {directory.parent} instead of {into}",
            plugin=plugin,
            directory=directory,
            into=into,
        )


class IdTakenError(PluginError):
    """The id is that of one of the backend's own plugins, which nothing that is added may replace."""

    def __init__(self, *, plugin: str, directory: Path) -> None:
        super().__init__(
            f"plugin {plugin!r} comes with the backend ({directory}) and is not replaced; give yours another id",
            plugin=plugin,
            directory=directory,
        )


class FolderTakenError(PluginError):
    """The folder in which the plugin belongs holds something else."""

    def __init__(self, *, plugin: str, directory: Path) -> None:
        super().__init__(
            f"plugin {plugin!r} belongs in {directory}, which holds something else; move that away first",
            plugin=plugin,
            directory=directory,
        )


class InstallRefusedError(PluginError):
    """The plugin in its new version would stop others that run now."""

    state = PluginState.BLOCKED

    def __init__(self, *, plugin: str, stopped: Sequence[str], because: str) -> None:
        super().__init__(
            f"plugin {plugin!r} was not installed, since {', '.join(stopped)} would stop: {because};"
            " disable what would stop first, if that is what you want",
            plugin=plugin,
            stopped=tuple(stopped),
            because=because,
        )


class TablesAheadError(PluginError):
    """The plugin's tables were migrated by a newer version than the one that should be installed."""

    state = PluginState.BLOCKED

    def __init__(self, *, plugin: str, version: str, revision: str) -> None:
        super().__init__(
            f"version {version} of plugin {plugin!r} was not installed: its tables stand at revision {revision!r},"
            " which that version does not know; stay with one that does, or give its rows up:"
            f" `pixsim7 plugins remove {plugin} --data drop`, then add version {version}",
            plugin=plugin,
            version=version,
            revision=revision,
        )


class RolledBackError(PluginError):
    """The new code did not start on the live server; the files are what they were before."""

    def __init__(self, *, plugin: str, version: str, cause: PluginError) -> None:
        super().__init__(
            f"version {version} of plugin {plugin!r} was taken back, since it did not start: {cause}",
            plugin=plugin,
            version=version,
            cause=cause.to_json()["type"],
            because=str(cause),
        )
        self.__cause__ = cause


class NoFormerVersionError(PluginError):
    """There is no former version to roll back to."""

    def __init__(self, *, plugin: str) -> None:
        super().__init__(f"no former version of plugin {plugin!r} is kept; nothing was changed", plugin=plugin)


class DependantsInstalledError(PluginError):
    """Other plugins need the one that should be removed."""

    def __init__(self, *, plugin: str, dependants: Sequence[str]) -> None:
        super().__init__(
            f"plugin {plugin!r} is needed by {', '.join(dependants)}; remove them first, or add `--cascade`:"
            " then they stop, and stay installed",
            plugin=plugin,
            dependants=tuple(dependants),
        )


class NotRemovableError(PluginError):
    """The plugin was not put there by ``pixsim7 plugins add`` and belongs to something larger."""

    def __init__(self, *, plugin: str, owner: str) -> None:
        super().__init__(
            f"plugin {plugin!r} belongs to {owner}; switch it off with `pixsim7 plugins disable {plugin}` instead",
            plugin=plugin,
            owner=owner,
        )


class InstallBusyError(PluginError):
    """Somebody else installs or removes plugins in the same directory at this moment."""

    def __init__(self, *, directory: Path) -> None:
        super().__init__(
            f"another command is installing or removing plugins in {directory}; try again when it has finished",
            plugin="",
            directory=directory,
        )
