"""How the platform treats plugins in one app: the operator's choices, with their defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pixsim7_backend.infrastructure.plugins._attribution.breaker import BreakerSettings
from pixsim7_backend.infrastructure.plugins._grants.enforcing import Enforcer
from pixsim7_backend.infrastructure.plugins._limits.settings import LimitSettings
from pixsim7_backend.infrastructure.plugins._resources import ResourceCheck
from pixsim7_backend.infrastructure.plugins._startup_journal import StartupJournal
from pixsim7_backend.infrastructure.plugins.records import PluginRecord

from .layers import SettingsSources

if TYPE_CHECKING:
    from pixsim7_backend.infrastructure.plugins._generation import JailLoader
    from pixsim7_backend.infrastructure.plugins._jail.level import ConfinementReport

Prepare = Callable[[PluginRecord, Path], None]
"""The host's own step before a plugin is first enabled (its migrations): record and folder; may raise."""

Checkpoint = Callable[[str], None]
"""Is told where a change has got to, between any two steps of it; a fault test dies there."""


def no_checkpoint(_name: str) -> None:
    """Go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginSettings:
    """All durations are in seconds."""

    disabled: frozenset[str] = frozenset()
    """Ids that the operator wants off, normalised."""
    on_plugin_error: Literal["tolerate", "strict"] = "tolerate"
    """``tolerate``: the app starts without what is wrong. ``strict``: start-up aborts with all problems."""
    resources: Mapping[str, ResourceCheck] = field(default_factory=dict)
    """The host's own checks of ``"db"`` and ``"redis"``."""
    prepare: Prepare | None = None
    sources: SettingsSources = field(default_factory=SettingsSources)
    """Where the plugins' own settings come from."""
    may_change_live: Callable[[], bool] = lambda: True
    """False while several processes serve the same app: a change would reach one of them only."""
    hook_timeout: float = 10.0
    """How long ``on_load``, ``on_enable``, ``on_disable`` and a router's lifespan may take."""
    drain_timeout: float = 10.0
    """How long disabling waits for requests that the plugin is still answering."""
    end_streams: bool = True
    """Whether event streams and WebSockets are told to end at once, or only at ``drain_timeout``."""
    task_timeout: float = 5.0
    """How long disabling waits for the plugin's cancelled tasks."""
    stall_threshold: float | None = 0.25
    """How long the event loop may stand still before it is said who blocks it; None: it is not watched."""
    breaker: BreakerSettings | None = field(default_factory=BreakerSettings)
    """When a plugin is quarantined; None: never."""
    limits: LimitSettings = field(default_factory=LimitSettings)
    """How much clients may ask of which plugin."""
    safe_mode: bool = False
    """Start only what the required first-party plugins need."""
    startup_journal: StartupJournal = field(default_factory=StartupJournal)
    """Remembers the plugin that a start died in."""
    checkpoint: Checkpoint = no_checkpoint
    jails: JailLoader | None = None
    """Loads the code of confined plugins; None: there are none."""
    enforcer: Enforcer | None = None
    """Lets others who enforce grants follow what is decided; None: nobody but the broker does."""
    confinement: Callable[[], ConfinementReport] | None = None
    """Tells how well this machine confines community plugins; None: nobody asks."""
    community_floor: str = "confined"
    """The name of the level of confinement below which no community plugin runs."""

    @property
    def allow_live_changes(self) -> bool:
        """Whether operators may change plugins now."""
        return self.may_change_live()
