"""A jailed plugin as the rest of the platform sees it: code like any other's, whose every part asks the jail.

Its routes pass requests on, its hooks are questions. So the manager brings it up and down, replaces and drains it
like a plugin in process, and knows nothing of jails.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.types import ASGIApp

from pixsim7_backend.infrastructure.plugins._attribution.figures import ConfinedFigures
from pixsim7_backend.infrastructure.plugins._code.loader import PluginCode
from pixsim7_backend.infrastructure.plugins._dispatch.claims import Description, RouteClaim
from pixsim7_backend.infrastructure.plugins._dispatch.paths import PARAMETER, shape_of
from pixsim7_backend.infrastructure.plugins.errors import JailedPluginError
from pixsim7_backend.infrastructure.plugins.types import PluginManifest

from .errors import JailCallError, JailGoneError, JailProtocolError
from .openapi import harmless_document
from .supervisor import JailSupervisor

__all__ = ["load_jailed"]

logger = logging.getLogger("pixsim7.plugins.jail")

_MAX_ROUTES = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class _JailedCode(PluginCode):
    """Code that stands for a jail's."""

    said: Description
    figures: Callable[[], ConfinedFigures]

    @property
    def description(self) -> Description:
        return self.said

    def read_figures(self) -> ConfinedFigures:
        return self.figures()


def load_jailed(
    supervisor: JailSupervisor,
    manifest: PluginManifest,
    application: ASGIApp,
    *,
    on_up: Callable[[], None],
    read_figures: Callable[[], ConfinedFigures],
) -> PluginCode:
    """Let the jail load the plugin; return code that stands for it. Blocks.

    Args:
        supervisor: of its jail.
        manifest: what the host read of it.
        application: answers its requests.
        on_up: is called when it has been enabled, as the plugin.
        read_figures: returns what it uses.

    Raises:
        JailedPluginError: the plugin cannot be loaded, or its jail says what cannot be.
    """
    try:
        answer = supervisor.load()
        claims = _parse_routes(answer.get("routes"), manifest.prefix)
        document = harmless_document(answer.get("openapi"), {_shown(each.path) for each in claims})
        routes = list(_make_routes(claims, manifest.prefix, application))
    except (JailCallError, JailGoneError, JailProtocolError) as error:
        supervisor.discard()
        raise _translated(manifest.id, "load", error) from error

    async def on_enable() -> None:
        try:
            await supervisor.start()
        except (JailCallError, JailGoneError, JailProtocolError, TimeoutError) as error:
            raise _translated(manifest.id, "enable", error) from error
        on_up()

    async def on_disable() -> None:
        report = await supervisor.stop()
        for leak in (report or {}).get("leaks", ()):
            logger.warning("Plugin %s left behind in its jail: %.200r", manifest.id, leak)

    router = APIRouter()
    router.routes.extend(routes)
    said = Description(tuple(claims), document)
    return _JailedCode(
        manifest=manifest,
        routers=(router,),
        on_enable=on_enable,
        on_disable=on_disable,
        said=said,
        figures=read_figures,
    )


def _translated(plugin: str, step: str, error: Exception) -> JailedPluginError:
    said: Mapping[str, Any] = error.said if isinstance(error, JailCallError) else {}
    file, line = said.get("file"), said.get("line")
    where = f"{file}:{line}" if isinstance(file, str) and isinstance(line, int) else ""
    return JailedPluginError(plugin=plugin, step=step, problem=_plain(str(error)), where=_plain(where))


def _plain(text: str) -> str:
    """Return a stranger's text on one line."""
    return "".join(each if each.isprintable() else " " for each in text)[:2000]


def _parse_routes(routes: Any, prefix: str) -> list[RouteClaim]:
    if not isinstance(routes, list) or len(routes) > _MAX_ROUTES:
        raise JailProtocolError(f"it serves more than {_MAX_ROUTES} routes, or none that could be read")
    found = []
    for each in routes:
        if not (isinstance(each, list) and len(each) == 3 and all(isinstance(part, str) for part in each)):
            raise JailProtocolError("a route that it serves is none")
        method, path, name = each
        if not path.startswith(f"{prefix}/") or len(path) > 1000 or not path.isprintable():
            raise JailProtocolError(f"it serves {_plain(path)[:100]!r}, which is not below its prefix {prefix!r}")
        found.append(RouteClaim(_plain(method)[:20], shape_of(path), path, _plain(name)[:200]))
    return found


def _shown(path: str) -> str:
    """Return a path as OpenAPI writes it: without convertors."""
    return PARAMETER.sub(lambda found: f"{{{found[1]}}}", path)


def _make_routes(claims: Iterable[RouteClaim], prefix: str, application: ASGIApp) -> Iterator[BaseRoute]:
    """Yield a route for each path, whatever the method: which ones there are, the jail says."""
    seen: set[tuple[str, str]] = set()
    for claim in claims:
        kind, path = claim.method if claim.method in _KINDS else "HTTP", claim.path.removeprefix(prefix)
        if (kind, path) in seen:
            continue
        seen.add((kind, path))
        try:
            yield _KINDS[kind](path, application)
        except (ValueError, AssertionError) as error:
            raise JailProtocolError(f"it serves {claim.path[:100]!r}, which is no path: {error}") from error


_KINDS: Mapping[str, Callable[[str, ASGIApp], BaseRoute]] = {
    "HTTP": lambda path, application: Route(path, application, include_in_schema=False),
    "WEBSOCKET": WebSocketRoute,
    "MOUNT": Mount,
}
