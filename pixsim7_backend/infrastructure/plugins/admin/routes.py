"""The routes by which operators see and change a running app's plugins."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, HTTPException, Path, Query, Request, Response
from fastapi.responses import PlainTextResponse

from pixsim7_backend.infrastructure.plugins._control.commands import Commands, Json, Terms
from pixsim7_backend.infrastructure.plugins._manager import PluginManager

from .problems import MEDIA_TYPE, ProblemRoute
from .schemas import (
    PluginChange,
    PluginConfinement,
    PluginDecision,
    PluginEventsView,
    PluginGrantsTagged,
    PluginLeaks,
    PluginMetricsView,
    PluginPlan,
    PluginProblem,
    PluginSettingsChange,
    PluginSettingsView,
    PluginView,
)
from .versions import AcceptedVersions, etag

_MEANINGS = {
    404: "There is no such plugin.",
    409: "The present state of things forbids it; `error` has the cause, with the names of others whom it concerns.",
    422: "The plugin does not accept these settings; `error` names each of them, with an example that would do.",
    412: "The plugin has changed since `If-Match`; look at it again.",
}


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content = {MEDIA_TYPE: {"schema": PluginProblem.model_json_schema()}}
    return {status: {"description": _MEANINGS[status], "content": content} for status in statuses}


async def _commands(request: Request) -> Commands:
    """Return the commands of the manager that the app has now."""
    manager = getattr(request.app.state, "plugin_manager", None)
    if not isinstance(manager, PluginManager):
        raise HTTPException(503, "the plugins are not there yet; retry when the server has started")
    return Commands(manager)


async def _terms(
    request: Request,
    versions: AcceptedVersions,
    dry_run: Annotated[bool, Query(description="Only say what would happen.")] = False,
) -> Terms:
    return Terms(dry_run=dry_run, versions=versions, by=str(getattr(request.state, "operator", "the admin API")))


TheCommands = Annotated[Commands, Depends(_commands)]
ChangeTerms = Annotated[Terms, Depends(_terms)]
PluginId = Annotated[str, Path(max_length=200, description="In any spelling: `game-stealth`, `game_stealth`.")]


def admin_router(*, guard: Callable[..., Any], prefix: str = "/admin/plugins", tags: Iterable[str] = ()) -> APIRouter:
    """Return the routes; every one of them asks ``guard`` first.

    The app that they are mounted in must have a plugin manager when they are called, not before. They
    belong in front of the plugins' own routes, where the host's routes are anyway. A plugin whose id
    is the name of a route (``plan``, ``events``, ``confinement``, ``leaks``, ``metrics``) is reached by another
    spelling: ``Plan``.

    Args:
        guard: a dependency (a callable for ``Depends``) that raises unless the caller is an operator; what it
            leaves in ``request.state.operator`` names them in the audit.
        prefix: the path of the list; it begins with a slash.
        tags: of the routes, in the API's description.
    """
    router = APIRouter(prefix=prefix, tags=[*tags], dependencies=[Depends(guard)], route_class=ProblemRoute)
    _add_looks(router)
    _add_changes(router)
    return router


def _add_looks(router: APIRouter) -> None:
    text: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
    for path, look, model, name, responses in (
        ("", list_plugins, list[PluginView], "admin_list_plugins", {}),
        ("/plan", read_plan, PluginPlan, "admin_plugin_plan", {}),
        ("/events", list_events, PluginEventsView, "admin_plugin_events", {}),
        ("/confinement", read_confinement, PluginConfinement, "admin_plugin_confinement", {}),
        ("/leaks", list_leaks, PluginLeaks, "admin_plugin_leaks", {}),
        ("/metrics", read_metrics, list[PluginMetricsView], "admin_plugin_metrics", text),
        ("/{plugin_id}", read_plugin, PluginView, "admin_read_plugin", _problems(404)),
        ("/{plugin_id}/grants", read_grants, PluginGrantsTagged, "admin_read_plugin_grants", _problems(404, 409)),
        ("/{plugin_id}/settings", read_settings, PluginSettingsView, "admin_read_plugin_settings", _problems(404)),
    ):
        router.get(path, response_model=model, name=name, responses=responses)(look)


def _add_changes(router: APIRouter) -> None:
    problems = _problems(404, 409, 412)
    for change in (enable, disable, reload, retry):
        name = change.__name__
        router.post(
            f"/{{plugin_id}}/{name}", response_model=PluginChange, name=f"admin_{name}_plugin", responses=problems
        )(change)
    router.put(
        "/{plugin_id}/grants",
        response_model=PluginChange,
        name="admin_decide_plugin_grants",
        responses=problems,
    )(decide_grants)
    router.patch(
        "/{plugin_id}/settings",
        response_model=PluginSettingsChange,
        name="admin_change_plugin_settings",
        responses=problems | _problems(422),
    )(change_settings)


# --- looking --------------------------------------------------------------------------------------


async def list_plugins(commands: TheCommands) -> list[Json]:
    """List all plugins, by id: what each is, what is wanted of it, and why the two differ."""
    return commands.plugins()


async def read_plan(commands: TheCommands) -> Json:
    """Show the load order in force, and who is held back and why."""
    return commands.plan()


async def list_events(
    commands: TheCommands,
    since: Annotated[int, Query(ge=0, le=2**53, description="Only happenings with a higher number.")] = 0,
) -> Json:
    """List who hears which event, which events plugins declare, and what happened to plugins lately."""
    return commands.events(since)


def read_confinement(commands: TheCommands) -> Json:
    """Show how well this machine confines the plugins of strangers, and what is missing; the first time it tries."""
    return commands.confinement()


async def list_leaks(commands: TheCommands) -> Json:
    """List what plugins left behind when they stopped or were replaced."""
    return commands.leaks()


async def read_metrics(
    commands: TheCommands,
    as_text: Annotated[
        Literal["json", "prometheus"], Query(alias="format", description="`prometheus`: as text to scrape.")
    ] = "json",
) -> list[Json] | Response:
    """Show what every plugin has done: requests, errors, latency, time on the event loop, stalls, tasks."""
    if as_text == "prometheus":
        return PlainTextResponse(commands.metrics_text(), media_type="text/plain; version=0.0.4; charset=utf-8")
    return commands.metrics()


async def read_plugin(plugin_id: PluginId, commands: TheCommands, response: Response) -> Json:
    """Show one plugin; its `ETag` can be given back in `If-Match` of a change."""
    return _tagged(commands.plugin(plugin_id), response)


async def read_grants(plugin_id: PluginId, commands: TheCommands, response: Response) -> Json:
    """Show what a confined plugin asks for, and what of it is granted, declined or undecided; 409 for others."""
    return _tagged(commands.grants(plugin_id), response)


async def read_settings(plugin_id: PluginId, commands: TheCommands, response: Response) -> Json:
    """Show a plugin's settings (secrets masked), where each comes from, and their JSON schema for forms."""
    return _tagged(commands.settings(plugin_id), response)


# --- changing -------------------------------------------------------------------------------------


async def enable(
    plugin_id: PluginId,
    commands: TheCommands,
    terms: ChangeTerms,
    response: Response,
    grant: Annotated[
        list[str] | None,
        Query(description="Permission to grant, may be repeated; decides about all that a confined plugin asks for."),
    ] = None,
) -> Json:
    """Enable a plugin, and with it what was held back only because of it."""
    return _changed(await commands.enable(plugin_id, terms, grant=grant), response)


async def disable(
    plugin_id: PluginId,
    commands: TheCommands,
    terms: ChangeTerms,
    response: Response,
    cascade: Annotated[bool, Query(description="First disable the plugins that need it.")] = False,
) -> Json:
    """Disable a plugin; 409 with the list when others need it, unless `cascade` is set."""
    return _changed(await commands.disable(plugin_id, terms, cascade=cascade), response)


async def reload(
    plugin_id: PluginId,
    commands: TheCommands,
    terms: ChangeTerms,
    response: Response,
    discard_state: Annotated[bool, Query(description="Do not ask the old code for its state, and lose it.")] = False,
) -> Json:
    """Replace a plugin's code by what is on disk now; when that fails the old code serves on."""
    return _changed(await commands.reload(plugin_id, terms, discard_state=discard_state), response)


async def retry(plugin_id: PluginId, commands: TheCommands, terms: ChangeTerms, response: Response) -> Json:
    """Give a plugin that failed, is blocked or was quarantined another chance; one that runs is left alone."""
    return _changed(await commands.retry(plugin_id, terms), response)


async def decide_grants(
    plugin_id: PluginId, commands: TheCommands, terms: ChangeTerms, response: Response, decision: PluginDecision
) -> Json:
    """Decide about all that a confined plugin asks for: what is not granted is declined. If it runs, it follows."""
    return _changed(await commands.grant(plugin_id, decision.grant, terms), response)


async def change_settings(
    plugin_id: PluginId,
    commands: TheCommands,
    terms: ChangeTerms,
    response: Response,
    patch: Annotated[dict[str, Any], Body(description="JSON merge patch (RFC 7386): null removes a stored value.")],
) -> Json:
    """Change a plugin's stored settings; 422 when the plugin would not accept them, and those in force stay."""
    answer = await commands.change_settings(plugin_id, patch, terms)
    response.headers["ETag"] = etag(commands.plugin(plugin_id)["record_version"])
    return answer


def _changed(answer: Json, response: Response) -> Json:
    _tagged(answer["plugin"], response)
    return answer


def _tagged(view: Json, response: Response) -> Json:
    response.headers["ETag"] = etag(view["record_version"])
    return view
