"""The routes by which operators see and change a running app's plugins."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, HTTPException, Path, Query, Request, Response
from fastapi.responses import PlainTextResponse

from pixsim7_backend.infrastructure.plugins._commands import Commands, Json, Terms
from pixsim7_backend.infrastructure.plugins._manager import PluginManager

from .problems import MEDIA_TYPE, ProblemRoute
from .schemas import (
    PluginChange,
    PluginEventsView,
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
    versions: AcceptedVersions,
    dry_run: Annotated[bool, Query(description="Only say what would happen.")] = False,
) -> Terms:
    return Terms(dry_run=dry_run, versions=versions)


TheCommands = Annotated[Commands, Depends(_commands)]
ChangeTerms = Annotated[Terms, Depends(_terms)]
PluginId = Annotated[str, Path(max_length=200, description="In any spelling: `game-stealth`, `game_stealth`.")]

_looking = APIRouter(route_class=ProblemRoute)
_changing = APIRouter(route_class=ProblemRoute, responses=_problems(404, 409, 412))


def admin_router(*, guard: Callable[..., Any], prefix: str = "/admin/plugins", tags: Iterable[str] = ()) -> APIRouter:
    """Return the routes; every one of them asks ``guard`` first.

    The app that they are mounted in must have a plugin manager when they are called, not before. They
    belong in front of the plugins' own routes, where the host's routes are anyway. A plugin whose id
    is the name of a route (``plan``, ``events``, ``leaks``, ``metrics``) is reached by another spelling: ``Plan``.

    Args:
        guard: a dependency (a callable for ``Depends``) that raises unless the caller is an operator.
        prefix: the path of the list; it begins with a slash.
        tags: of the routes, in the API's description.
    """
    router = APIRouter(dependencies=[Depends(guard)], tags=[*tags])
    router.include_router(_looking, prefix=prefix)
    router.include_router(_changing, prefix=prefix)
    return router


# --- looking --------------------------------------------------------------------------------------


@_looking.get("", response_model=list[PluginView], name="admin_list_plugins")
async def list_plugins(commands: TheCommands) -> list[Json]:
    """List all plugins, by id: what each is, what is wanted of it, and why the two differ."""
    return commands.plugins()


@_looking.get("/plan", response_model=PluginPlan, name="admin_plugin_plan")
async def read_plan(commands: TheCommands) -> Json:
    """Show the load order in force, and who is held back and why."""
    return commands.plan()


@_looking.get("/events", response_model=PluginEventsView, name="admin_plugin_events")
async def list_events(
    commands: TheCommands,
    since: Annotated[int, Query(ge=0, le=2**53, description="Only happenings with a higher number.")] = 0,
) -> Json:
    """List who hears which event, which events plugins declare, and what happened to plugins lately."""
    return commands.events(since)


@_looking.get("/leaks", response_model=PluginLeaks, name="admin_plugin_leaks")
async def list_leaks(commands: TheCommands) -> Json:
    """List what plugins left behind when they stopped or were replaced."""
    return commands.leaks()


@_looking.get(
    "/metrics",
    response_model=list[PluginMetricsView],
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    name="admin_plugin_metrics",
)
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


@_looking.get("/{plugin_id}", response_model=PluginView, responses=_problems(404), name="admin_read_plugin")
async def read_plugin(plugin_id: PluginId, commands: TheCommands, response: Response) -> Json:
    """Show one plugin; its `ETag` can be given back in `If-Match` of a change."""
    return _tagged(commands.plugin(plugin_id), response)


@_looking.get(
    "/{plugin_id}/settings",
    response_model=PluginSettingsView,
    responses=_problems(404),
    name="admin_read_plugin_settings",
)
async def read_settings(plugin_id: PluginId, commands: TheCommands, response: Response) -> Json:
    """Show a plugin's settings (secrets masked), where each comes from, and their JSON schema for forms."""
    return _tagged(commands.settings(plugin_id), response)


# --- changing -------------------------------------------------------------------------------------


@_changing.post("/{plugin_id}/enable", response_model=PluginChange, name="admin_enable_plugin")
async def enable(plugin_id: PluginId, commands: TheCommands, terms: ChangeTerms, response: Response) -> Json:
    """Enable a plugin, and with it what was held back only because of it."""
    return _changed(await commands.enable(plugin_id, terms), response)


@_changing.post("/{plugin_id}/disable", response_model=PluginChange, name="admin_disable_plugin")
async def disable(
    plugin_id: PluginId,
    commands: TheCommands,
    terms: ChangeTerms,
    response: Response,
    cascade: Annotated[bool, Query(description="First disable the plugins that need it.")] = False,
) -> Json:
    """Disable a plugin; 409 with the list when others need it, unless `cascade` is set."""
    return _changed(await commands.disable(plugin_id, terms, cascade=cascade), response)


@_changing.post("/{plugin_id}/reload", response_model=PluginChange, name="admin_reload_plugin")
async def reload(plugin_id: PluginId, commands: TheCommands, terms: ChangeTerms, response: Response) -> Json:
    """Replace a plugin's code by what is on disk now; when that fails the old code serves on."""
    return _changed(await commands.reload(plugin_id, terms), response)


@_changing.post("/{plugin_id}/retry", response_model=PluginChange, name="admin_retry_plugin")
async def retry(plugin_id: PluginId, commands: TheCommands, terms: ChangeTerms, response: Response) -> Json:
    """Give a plugin that failed, is blocked or was quarantined another chance; one that runs is left alone."""
    return _changed(await commands.retry(plugin_id, terms), response)


@_changing.patch(
    "/{plugin_id}/settings",
    response_model=PluginSettingsChange,
    responses=_problems(422),
    name="admin_change_plugin_settings",
)
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
