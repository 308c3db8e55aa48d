"""What concerns plugins that run confined: what they may do, how well they are held, what their jail says."""

from __future__ import annotations

from collections.abc import Sequence

from pixsim7_backend.infrastructure.plugins.states import PluginState

from .base import PluginError


class GrantNeededError(PluginError):
    """A community plugin asks for permissions about which the operator has not decided."""

    state = PluginState.BLOCKED

    def __init__(self, *, plugin: str, undecided: Sequence[str], granted: Sequence[str] = ()) -> None:
        options = " ".join(f"--grant {each}" for each in (*granted, *undecided))
        besides = f" besides what it may ({', '.join(granted)})" if granted else ""
        super().__init__(
            f"plugin {plugin!r} asks for {', '.join(undecided)}{besides}, about which nobody has decided;"
            f" pixsim7 plugins enable {plugin} {options} (or --grant none)",
            plugin=plugin,
            undecided=tuple(undecided),
            granted=tuple(granted),
        )


class GrantRefusedError(PluginError):
    """Somebody grants a plugin what it cannot be granted."""

    def __init__(self, *, plugin: str, problem: str) -> None:
        super().__init__(f"plugin {plugin!r} was granted nothing: {problem}", plugin=plugin, problem=problem)


class EventTakenError(PluginError):
    """A community plugin declares an event that is another one's already, and so would speak in its name."""

    state = PluginState.BLOCKED

    def __init__(self, *, plugin: str, event: str, owner: str) -> None:
        super().__init__(
            f"plugin {plugin!r} declares the event {event!r}, which {owner} declares already; its author must give it"
            f' another name, or ask for permissions=["events:emit:{event}"]',
            plugin=plugin,
            event=event,
            owner=owner,
        )


class ConfinementError(PluginError):
    """The machine cannot confine community plugins as well as the settings demand."""

    state = PluginState.BLOCKED

    def __init__(self, *, plugin: str, level: str, floor: str, notes: Sequence[str] = ()) -> None:
        why = f" ({'; '.join(notes)})" if notes else ""
        super().__init__(
            f"plugin {plugin!r} is a community plugin, and this machine reaches only the level {level!r} of"
            f" confinement where {floor!r} is demanded{why};"
            " see `pixsim7 doctor`, or lower COMMUNITY_FLOOR if you trust the plugin",
            plugin=plugin,
            level=level,
            floor=floor,
            notes=tuple(notes),
        )


class JailedPluginError(PluginError):
    """A confined plugin cannot be loaded or enabled; what its jail says is a stranger's text."""

    def __init__(self, *, plugin: str, step: str, problem: str, where: str = "") -> None:
        at = f" (at {where})" if where else ""
        super().__init__(
            f"plugin {plugin!r} could not {step} in its jail{at}: {problem}",
            plugin=plugin,
            step=step,
            problem=problem,
            where=where,
        )


class ShareUsedUpError(PluginError):
    """A confined plugin has used its share of the minute: of database time, say. Until the next, calls are refused.

    Its code sees it where it calls, as an error of the library that it calls with, too. Uncaught it is a 503.
    """

    state = PluginState.BLOCKED

    def __init__(self, *, plugin: str, what: str, allowed: int, retry_after: int) -> None:
        super().__init__(
            f"plugin {plugin!r} has used its {allowed:,} {what} of this minute; try again in {retry_after} s",
            plugin=plugin,
            what=what,
            allowed=allowed,
            retry_after=retry_after,
        )


class TrespassError(PluginError):
    """A community plugin wants to serve paths in the middle of somebody else's."""

    def __init__(self, *, plugin: str, path: str, owner: str, territory: str) -> None:
        super().__init__(
            f"plugin {plugin!r} serves {path}, but what lies below {territory} is {owner}'s;"
            " a community plugin keeps to paths of its own, so give its router another prefix",
            plugin=plugin,
            path=path,
            owner=owner,
            territory=territory,
        )
