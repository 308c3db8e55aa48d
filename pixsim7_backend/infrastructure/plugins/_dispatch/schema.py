"""Serves the OpenAPI document of an app with plugins in place of FastAPI's own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Protocol

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from pixsim7_backend.infrastructure.plugins._dispatch.openapi import (
    Document,
    Fragment,
    Json,
    Mount,
    dumps,
    fragment_of,
    join,
    with_root_path,
)


class Published(Protocol):
    """What the schema needs of the plugin route."""

    def host_routes(self) -> list[BaseRoute]: ...

    def list_host(self) -> Sequence[tuple[BaseRoute, str | None]]: ...

    def published(self) -> Iterable[Mount]: ...


class OpenApi:
    """Serves the joined document in place of FastAPI's, unless the host made its own.

    ``app.openapi()`` still returns a dict; once it was handed out, that dict is the document (its
    changes are served) until the next publish. A host that replaced ``app.openapi`` keeps its own.
    """

    def __init__(self, app: FastAPI, published: Published) -> None:
        self._app = app
        self._published = published
        self._ours = self.schema
        self._host: tuple[list[BaseRoute], list[str | None], Json] | None = None
        self._joined: tuple[Json, tuple[Fragment, ...], Document] | None = None
        self._rendered: tuple[Document, str, bytes, str] | None = None
        self._handed_out: tuple[Document, Json] | None = None
        self._replaced: tuple[BaseRoute, BaseRoute] | None = None

    def install(self) -> None:
        """Take the place of FastAPI's ``app.openapi`` and of the route at ``openapi_url``."""
        app = self._app
        if "openapi" not in vars(app) and type(app).openapi is FastAPI.openapi:
            app.openapi = self._ours  # type: ignore[method-assign]
        routes = app.router.routes
        for index, route in enumerate(routes):
            if isinstance(route, Route) and route.path == app.openapi_url and not route.include_in_schema:
                ours = Route(route.path, self._serve, name=route.name, include_in_schema=False)
                self._replaced = (route, ours)
                routes[index] = ours
                break

    def uninstall(self) -> None:
        """Give ``app.openapi`` and the route at ``openapi_url`` back to FastAPI."""
        app = self._app
        if vars(app).get("openapi") is self._ours:
            del app.openapi
        for index, route in enumerate(app.router.routes):
            if self._replaced is not None and route is self._replaced[1]:
                app.router.routes[index] = self._replaced[0]
        self.forget()

    def forget(self) -> None:
        """Drop what the host may have remembered of the document: what is published has changed."""
        self._app.openapi_schema = None

    def schema(self) -> Json:
        """Return the OpenAPI document of the app and its plugins as a dict."""
        document = self.document()
        schema = self._find_handed_out(document)
        if schema is None:
            schema = self._app.openapi_schema = json.loads(document.render(""))
            self._handed_out = (document, schema)
        return schema

    def document(self) -> Document:
        """Return the joined document of what is published now; safe to call from any thread."""
        host = self._host_part()
        fragments = tuple(fragment_of(self._app, mount) for mount in self._published.published())
        joined = self._joined
        if joined is None or joined[0] is not host or not _are_same(joined[1], fragments):
            joined = self._joined = (host, fragments, join(host, fragments))
        return joined[2]

    def _find_handed_out(self, document: Document) -> Json | None:
        handed_out = self._handed_out
        if handed_out and handed_out[0] is document and handed_out[1] is self._app.openapi_schema:
            return handed_out[1]
        return None

    def _host_part(self) -> Json:
        """Return the document of the host's own routes, built again only when these changed."""
        listed = self._published.list_host()
        routes, paths = [route for route, _ in listed], [path for _, path in listed]
        known = self._host
        if known is None or known[1] != paths or not _are_same(known[0], routes):
            known = self._host = (routes, paths, self._build_host_part())
        return known[2]

    def _build_host_part(self) -> Json:
        app = self._app
        return get_openapi(
            title=app.title,
            version=app.version,
            openapi_version=app.openapi_version,
            summary=app.summary,
            description=app.description,
            terms_of_service=app.terms_of_service,
            contact=app.contact,
            license_info=app.license_info,
            routes=self._published.host_routes(),
            webhooks=app.webhooks.routes,
            tags=app.openapi_tags,
            servers=app.servers,
            separate_input_output_schemas=app.separate_input_output_schemas,
            external_docs=app.openapi_external_docs,
        )

    async def _serve(self, request: Request) -> Response:
        root_path = request.scope.get("root_path", "").rstrip("/")
        if not self._app.root_path_in_servers:
            root_path = ""
        content, etag = await self._content(root_path)
        if _matches(request.headers.get("if-none-match", ""), etag):
            return Response(status_code=304, headers={"ETag": etag})
        return Response(content, media_type="application/json", headers={"ETag": etag})

    async def _content(self, root_path: str) -> tuple[bytes, str]:
        if vars(self._app).get("openapi") is not self._ours:
            return _tagged(with_root_path(self._app.openapi(), root_path))
        document = await run_in_threadpool(self.document)
        if (schema := self._find_handed_out(document)) is not None:
            return _tagged(with_root_path(schema, root_path))
        rendered = self._rendered
        if rendered is None or rendered[0] is not document or rendered[1] != root_path:
            etag = hashlib.blake2b(document.digest + root_path.encode(), digest_size=16).hexdigest()
            rendered = self._rendered = (document, root_path, document.render(root_path), f'"{etag}"')
        return rendered[2:]


def _tagged(schema: Json) -> tuple[bytes, str]:
    content = dumps(schema)
    return content, f'"{hashlib.blake2b(content, digest_size=16).hexdigest()}"'


def _are_same(one: Sequence[object], other: Sequence[object]) -> bool:
    return len(one) == len(other) and all(left is right for left, right in zip(one, other, strict=True))


def _matches(if_none_match: str, etag: str) -> bool:
    wanted = {value.strip().removeprefix("W/") for value in if_none_match.split(",")}
    return etag in wanted or "*" in wanted
