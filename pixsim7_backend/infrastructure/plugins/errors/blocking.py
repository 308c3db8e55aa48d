"""Something outside stops a plugin: a dependency, a conflict, a resource, the platform's version, or a wish."""

from __future__ import annotations

from collections.abc import Sequence

from pixsim7_backend.infrastructure.plugins.states import PluginState

from .base import PluginError


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
