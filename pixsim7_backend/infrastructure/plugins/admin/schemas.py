"""What the admin routes answer, for OpenAPI and for those who write clients."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pixsim7_backend.infrastructure.plugins.states import PluginState


class PluginReason(BaseModel):
    """Why something is as it is: the type of the error, its text, and whatever fields it has."""

    model_config = ConfigDict(extra="allow")

    type: str
    message: str


class PluginPlace(BaseModel):
    """Where a plugin was found, and how far that place is trusted."""

    folder: str
    path: str
    rank: str
    is_confined: bool = Field(description="Its code runs in a jail; what it may do there was granted.")


class PluginWish(BaseModel):
    """What is wanted of a plugin: ``on`` (null while nobody knows), and who says so."""

    model_config = ConfigDict(extra="allow")

    on: bool | None
    by: str = Field(examples=["operator", "manifest", "DISABLED_PLUGINS"])


class PluginGrants(BaseModel):
    """What a confined plugin asks for, and what the operator has decided about it."""

    requested: list[str]
    granted: list[str]
    declined: list[str]
    undecided: list[str] = Field(description="What nobody has decided about; it does not start before that.")


class PluginEnforcement(BaseModel):
    """How far a decision about a plugin's permissions got with one who enforces it beside the server."""

    where: str = Field(examples=["PostgreSQL"])
    as_: str = Field(alias="as", description="What the plugin is there.", examples=["role pixsim7_1a2b3c4d_stats"])
    changes: list[str]
    warnings: list[str]
    problem: str | None = Field(description="Why it lags behind the decision; null where it does not.")
    way_out: str | None


class PluginGrantsTagged(PluginGrants):
    """The same, with the version of the record for `If-Match`."""

    record_version: int = Field(description="The `ETag`.")


class PluginDecision(BaseModel):
    """What to grant a confined plugin; everything else that it asks for is declined."""

    model_config = ConfigDict(extra="forbid")

    grant: list[str] = Field(
        description="Permissions, also narrower ones than asked for, families like `db`, or alone `all` or `none`.",
        examples=[["db:read", "user:read"]],
        max_length=1000,
    )


class PluginView(BaseModel):
    """One plugin: what it is now (``state``, ``reason``), what is wanted (``desired``), and ``why`` the two differ."""

    id: str
    name: str
    version: str = Field(description="Of the plugin's code.")
    state: PluginState
    reason: PluginReason | None
    desired: PluginWish
    why: str | None = Field(description="Why what is differs from what is wanted; null where it does not.")
    record_version: int = Field(description="Rises with every change of this record; the `ETag` of one plugin.")
    generation: int = Field(description="How many times its code has been loaded.")
    reload_error: PluginReason | None = Field(
        default=None, description="Why the code on disk is not the code that serves; null where it is."
    )
    grants: PluginGrants | None = Field(description="Null for a plugin that is not confined, which needs none.")
    enforcement: list[PluginEnforcement] = Field(
        default=[], description="How far the last decision about it got where else it is enforced."
    )
    source: PluginPlace
    warnings: list[str]
    manifest: dict[str, Any] | None


class PluginStep(BaseModel):
    """One plugin that a change touches, and why."""

    id: str
    why: str


class PluginChangeSteps(BaseModel):
    """What a change does, in this order: it stops, replaces and starts plugins, each list in its order."""

    stop: list[PluginStep]
    replace: list[PluginStep]
    start: list[PluginStep]
    held: dict[str, str] = Field(description="Who is held back afterwards, and why.")


class PluginLeak(BaseModel):
    """Something of a plugin that is still there after it stopped."""

    model_config = ConfigDict(extra="allow")

    kind: str
    name: str
    why: str


class PluginLeakReport(BaseModel):
    """What was undone when a plugin stopped, and what would not go away."""

    plugin: str
    undone: list[str]
    leaks: list[PluginLeak]


class PluginChange(BaseModel):
    """The answer to a change: the plugin as it is now, and the steps that were (or would be) taken."""

    plugin: PluginView
    change: PluginChangeSteps
    dry_run: bool = Field(description="Nothing was done; the steps are those of the change if it were asked for.")
    refused: PluginReason | None = Field(description="Of a dry run: why the change itself would be refused.")
    grants: PluginGrants | None = Field(
        default=None, description="Of enabling and granting: what is (or would be) granted and declined."
    )
    enforcement: list[PluginEnforcement] = Field(
        default=[], description="Of enabling and granting: how far that got where else it is enforced, like PostgreSQL."
    )
    report: PluginLeakReport | None = Field(description="Of disabling: what was undone, and what was left behind.")


class PluginPlan(BaseModel):
    """The load order in force, and who is held back and why."""

    order: list[str]
    held: dict[str, PluginReason]
    problems: list[PluginReason]
    rejected: list[dict[str, Any]]
    requires: dict[str, list[str]]
    cycles: list[list[str]]
    warnings: list[str]


class PluginSubscription(BaseModel):
    """One handler of one event; ``plugin`` is null for the host's own."""

    event: str
    plugin: str | None
    handler: str


class PluginHappening(BaseModel):
    """Something that happened to a plugin."""

    number: int
    at: datetime
    kind: str
    plugin: str | None
    text: str


class PluginAudited(BaseModel):
    """A decision about the permissions of a plugin: who made it, and when."""

    at: datetime
    by: str
    plugin: str
    granted: list[str]
    declined: list[str]


class PluginEventsView(BaseModel):
    """Who hears what, what plugins declare, what happened lately and who granted what (oldest first)."""

    subscriptions: list[PluginSubscription]
    declared: dict[str, list[str]]
    happenings: list[PluginHappening]
    audit: list[PluginAudited]


class PluginConfinement(BaseModel):
    """How well this machine confines plugins: below ``floor`` those of strangers are blocked."""

    floor: str = Field(examples=["confined"])
    is_reached: bool
    report: dict[str, Any] | None = Field(description="`level`, its parts, and under `notes` what is missing and why.")


class PluginLeaks(BaseModel):
    """What stopped plugins left behind; ``stopped`` of them were looked at."""

    stopped: int
    leaks: list[PluginLeakReport]


class PluginSettingsView(BaseModel):
    """A plugin's settings. Secrets are masked; giving the mask back in a patch leaves them as they are."""

    model_config = ConfigDict(populate_by_name=True)

    plugin: str
    schema_: dict[str, Any] = Field(alias="schema", description="JSON schema, for forms.")
    values: dict[str, Any]
    sources: dict[str, str] = Field(description="Where values come from, by dotted path; else they are defaults.")
    problems: list[str] = Field(description="Why they cannot be used; empty where they can.")
    record_version: int = Field(description="The `ETag`.")


class PluginSettingsChange(BaseModel):
    """The answer to a change of settings."""

    dry_run: bool = Field(description="Nothing was changed; it would have been accepted.")
    starts: bool = Field(description="The plugin, held back by its settings before, starts with the new ones.")
    settings: PluginSettingsView | None = Field(description="As they are now; null while its code is not loaded.")


class PluginLatency(BaseModel):
    """How long answers took to begin, in seconds; ``counts`` has one more entry than ``bounds``, for all above."""

    bounds: list[float]
    counts: list[int]
    sum: float
    mean: float
    p50: float | None
    p95: float | None


class PluginConfinedFigures(BaseModel):
    """What a confined plugin uses: of the machine in a process of its own, and of the server by its calls."""

    phase: str = Field(description="Of its process.", examples=["up", "starting", "idle", "off", "given up"])
    starts: int
    crashes: int
    cpu_seconds: float | None = Field(description="Of its present process, as the rest; null where there is none.")
    memory_bytes: int | None = Field(description="What it shares with others included.")
    threads: int | None
    scratch_bytes: int | None = Field(description="Of its scratch directory, when the server last looked.")
    calls: dict[str, int] = Field(examples=[{"db.calls": 3, "db.statements": 2, "db.rows": 20, "db.milliseconds": 4}])
    calls_this_minute: dict[str, int]
    calls_per_minute: dict[str, int] = Field(description="How much of it is allowed in a minute.")
    calls_refused: dict[str, int] = Field(description="By the limit that they were beyond.")


class PluginMetricsView(BaseModel):
    """What one plugin has done since it was first served."""

    model_config = ConfigDict(extra="allow")

    plugin: str
    requests: int
    errors: int
    answers: dict[str, int] = Field(examples=[{"2xx": 12, "5xx": 1}])
    refused: dict[str, int] = Field(
        description="Requests beyond a limit, which did not reach it.", examples=[{"rate": 3}]
    )
    unanswered: int
    websockets: int
    in_flight: int
    latency: PluginLatency
    loop_seconds: float = Field(description="Time on the event loop for requests.")
    stalls: int
    stalled_seconds: float = Field(description="How long it blocked the event loop.")
    handler_failures: int
    handler_timeouts: int
    tasks: int
    subscriptions: int
    memory_bytes: int | None = Field(description="Null unless tracemalloc runs.")
    confined: PluginConfinedFigures | None = Field(description="Null where its code runs in the server's process.")


class PluginProblem(BaseModel):
    """An error as a problem (RFC 9457); ``error`` has the fields of its cause."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    plugin: str = Field(description="Whom it concerns; empty where nobody in particular.")
    error: dict[str, Any] = Field(description="The cause: `type`, `message` and further fields.")
