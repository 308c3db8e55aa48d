"""A jailed plugin as the rest of the platform sees it: code like any other's, whose every part asks the jail.

Its routes pass requests on, its hooks are questions. So the manager brings it up and down, replaces and drains it
like a plugin in process, and knows nothing of jails.
"""

from __future__ import annotations

import functools
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
from pixsim7_backend.infrastructure.plugins._generation import ReadSettings
from pixsim7_backend.infrastructure.plugins._settings.form import RefusedSettingsError
from pixsim7_backend.infrastructure.plugins.errors import JailedPluginError, PluginError
from pixsim7_backend.infrastructure.plugins.types import PluginManifest

from .errors import JailCallError, JailGoneError, JailProtocolError
from .openapi import harmless_document
from .plain import plain_line
from .settings import JailedForm, JailedSettings, sendable
from .supervisor import JailSupervisor

__all__ = ["load_jailed"]

logger = logging.getLogger("pixsim7.plugins.jail")

_MAX_ROUTES = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class _JailedCode(PluginCode):
    """Code that stands for a jail's."""

    said: Description
    form: JailedForm | None
    figures: Callable[[], ConfinedFigures]

    @property
    def settings(self) -> JailedForm | None:
        return self.form

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
    find_current: Callable[[], JailedSettings | None],
    read_settings: ReadSettings,
    on_up: Callable[[], None],
    read_figures: Callable[[], ConfinedFigures],
) -> PluginCode:
    """Let the jail load the plugin; return code that stands for it. Blocks.

    Where its settings are wrong, that code serves nothing, and its settings say what is wrong.

    Args:
        supervisor: of its jail.
        manifest: what the host read of it.
        application: answers its requests.
        find_current: returns its settings in force; None before there are any.
        read_settings: returns what is set of a form.
        on_up: is called when it has been enabled, as the plugin.
        read_figures: returns what it uses.

    Raises:
        JailedPluginError: the plugin cannot be loaded, or its jail says what cannot be.
    """
    loading = _Loading(supervisor, manifest.id, find_current, read_settings)
    try:
        answer = supervisor.load(loading.settle)
        loading.take(answer)
        said = _describe(answer, manifest.prefix) if loading.is_done else Description((), {})
        routes = list(_make_routes(said.claims, manifest.prefix, application))
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
    return _JailedCode(
        manifest=manifest,
        routers=(router,),
        on_enable=on_enable,
        on_disable=on_disable,
        said=said,
        form=loading.form,
        figures=read_figures,
    )


class _Loading:
    """The settings of a plugin while it is loaded."""

    def __init__(
        self,
        supervisor: JailSupervisor,
        plugin: str,
        find_current: Callable[[], JailedSettings | None],
        read_settings: ReadSettings,
    ) -> None:
        self.form: JailedForm | None = None
        self.is_done = False
        """It was loaded: its settings, if it has any, were not refused."""
        self._supervisor = supervisor
        self._plugin = plugin
        self._find_current = find_current
        self._read_settings = read_settings
        self._sent: Mapping[str, Any] | None = None

    def settle(self, told: Any) -> Mapping[str, Any] | None:
        """Return the settings of a plugin that has said what can be set; None: they cannot be read, or sent."""
        translate = functools.partial(_translated, self._plugin)
        self.form = JailedForm(told, self._supervisor, find_current=self._find_current, translate=translate)
        try:
            self._sent = sendable(self._read_settings(self.form))
        except (PluginError, RefusedSettingsError):  # said when they are to be put in force
            return None
        return self._sent

    def take(self, answer: Mapping[str, Any]) -> None:
        """Take note of what came of it."""
        if self.form is not None and self._sent is not None:
            verdict = {name: answer[name] for name in ("values", "refused") if name in answer}
            self.form.note(self._sent, verdict)
            self.is_done = "values" in verdict
        else:
            self.is_done = self.form is None


def _describe(answer: Mapping[str, Any], prefix: str) -> Description:
    claims = _parse_routes(answer.get("routes"), prefix)
    document = harmless_document(answer.get("openapi"), {_shown(each.path) for each in claims})
    return Description(tuple(claims), document)


def _translated(plugin: str, step: str, error: Exception) -> JailedPluginError:
    said: Mapping[str, Any] = error.said if isinstance(error, JailCallError) else {}
    file, line = said.get("file"), said.get("line")
    where = f"{file}:{line}" if isinstance(file, str) and isinstance(line, int) else ""
    return JailedPluginError(plugin=plugin, step=step, problem=plain_line(str(error)), where=plain_line(where))


def _parse_routes(routes: Any, prefix: str) -> list[RouteClaim]:
    if not isinstance(routes, list) or len(routes) > _MAX_ROUTES:
        raise JailProtocolError(f"it serves more than {_MAX_ROUTES} routes, or none that could be read")
    found = []
    for each in routes:
        if not (isinstance(each, list) and len(each) == 3 and all(isinstance(part, str) for part in each)):
            raise JailProtocolError("a route that it serves is none")
        method, path, name = each
        if not path.startswith(f"{prefix}/") or len(path) > 1000 or not path.isprintable():
            raise JailProtocolError(f"it serves {plain_line(path, 100)!r}, which is not below its prefix {prefix!r}")
        found.append(RouteClaim(plain_line(method, 20), shape_of(path), path, plain_line(name, 200)))
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
