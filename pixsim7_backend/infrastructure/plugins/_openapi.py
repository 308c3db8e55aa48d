"""OpenAPI of an app with plugins: one fragment per plugin, joined as bytes, served with an ETag.

A fragment is built once per mount; its schema names carry the plugin's name, so that enabling one
plugin never renames what another one shows. A change among many plugins costs one fragment.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

logger = logging.getLogger(__name__)

Json = dict[str, Any]
_SCHEMAS = "#/components/schemas/"
#: Keys whose value is data, not OpenAPI: nothing in there is a reference of ours.
_LITERAL = frozenset({"example", "examples", "default", "const", "enum", "value"})
#: Keys whose value maps names of the author's choice, which must not be mistaken for keywords.
_NAMED = frozenset(
    {
        *("properties", "patternProperties", "dependentSchemas", "$defs", "definitions", "schemas", "responses"),
        *("parameters", "requestBodies", "headers", "content", "callbacks", "links", "encoding", "variables"),
    }
)


class Mount(Protocol):
    """What the schema needs of a plugin's mount."""

    plugin_id: str
    openapi_fragment: Any

    @property
    def routes(self) -> list[BaseRoute]: ...


class Published(Protocol):
    """What the schema needs of the plugin route."""

    def host_routes(self) -> list[BaseRoute]: ...

    def list_host(self) -> Sequence[tuple[BaseRoute, str | None]]: ...

    def published(self) -> Iterable[Mount]: ...


# --- one plugin -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Fragment:
    """The part of one plugin as members of JSON objects, and what of it may clash."""

    plugin: str
    paths: Mapping[str, bytes]
    """Path → its member ``"path":{item}``."""
    joined: bytes
    """All these members."""
    schemas: bytes
    security: Mapping[str, Any]
    operation_ids: frozenset[str]
    uses_validation: bool
    digest: bytes


def fragment_of(app: FastAPI, mount: Mount) -> Fragment:
    """Return the fragment of ``mount``, built once; safe to call from any thread."""
    fragment: Fragment | None = mount.openapi_fragment
    if fragment is None:
        fragment = mount.openapi_fragment = _build_fragment(app, mount)
    return fragment


def _build_fragment(app: FastAPI, mount: Mount) -> Fragment:
    document = get_openapi(
        title="-",
        version="-",
        openapi_version=app.openapi_version,
        routes=mount.routes,
        separate_input_output_schemas=app.separate_input_output_schemas,
    )
    components = document.get("components", {})
    prefix = qualifier(mount.plugin_id)
    schemas, names, shared = _qualified_names(components.get("schemas", {}), prefix)
    for tree in (document["paths"], schemas):
        _visit({"properties": tree}, lambda node: _qualify(node, names))
    ids = _operation_ids(document["paths"])
    paths = _members(document["paths"])
    joined, members = b",".join(paths.values()), _dumps(schemas)[1:-1]
    security = components.get("securitySchemes", {})
    digest = hashlib.blake2b(joined + members + _dumps(security), digest_size=16).digest()
    return Fragment(prefix, paths, joined, members, security, ids, shared, digest)


def qualifier(plugin_id: str) -> str:
    """Return what stands before the schema names of a plugin: ``game_stealth__``."""
    return f"{plugin_id.replace('-', '_')}__"


def _qualified_names(schemas: Json, prefix: str) -> tuple[Json, dict[str, str], bool]:
    """Return the schemas under their new names, old → new, and whether the shared ones are used."""
    standard = _validation_schemas()
    own = {name: schema for name, schema in schemas.items() if standard.get(name) != schema}
    names = {name: prefix + name for name in own}
    return {names[name]: schema for name, schema in own.items()}, names, len(own) < len(schemas)


@cache
def _validation_schemas() -> Json:
    """Return FastAPI's two schemas of validation errors, which all plugins share."""
    router = APIRouter()

    @router.get("/")
    def validated(number: int) -> None: ...

    schemas: Json = get_openapi(title="-", version="-", routes=router.routes)["components"]["schemas"]
    return schemas


def _visit(node: Any, change: Callable[[Json], None]) -> None:
    """Call ``change`` for every object of an OpenAPI tree that is neither data nor a map of names."""
    if isinstance(node, list):
        for item in node:
            _visit(item, change)
    elif isinstance(node, dict):
        change(node)
        for key, value in node.items():
            if key in _NAMED and isinstance(value, dict):
                for named in value.values():
                    _visit(named, change)
            elif key not in _LITERAL and isinstance(value, (dict, list)):
                _visit(value, change)


def _operation_ids(paths: Json) -> frozenset[str]:
    """Return the ids of the path operations; callbacks of the app repeat theirs under each of them."""
    operations = [operation for item in paths.values() for operation in item.values() if isinstance(operation, dict)]
    return frozenset(operation["operationId"] for operation in operations if "operationId" in operation)


def _qualify(node: Json, names: Mapping[str, str]) -> None:
    """Qualify the references of one object and drop its repeated tags."""
    reference = node.get("$ref")
    if isinstance(reference, str):
        node["$ref"] = _qualified(reference, names)
    discriminator = node.get("discriminator")
    if isinstance(discriminator, dict) and isinstance(discriminator.get("mapping"), dict):
        mapping = discriminator["mapping"]
        discriminator["mapping"] = {value: _qualified(target, names) for value, target in mapping.items()}
    if "operationId" in node and (tags := node.get("tags")):
        node["tags"] = list(dict.fromkeys(tags))


def _qualified(reference: str, names: Mapping[str, str]) -> str:
    name = reference.removeprefix(_SCHEMAS)
    return reference.removesuffix(name) + names.get(name, name)


# --- the whole document ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Document:
    """The joined document: what stands before the paths (as values), and the rest (as bytes)."""

    head: Json
    body: bytes
    digest: bytes

    def render(self, root_path: str) -> bytes:
        """Return the document, with ``root_path`` as the first server when it is not one yet."""
        head = with_root_path(self.head, root_path)
        return _dumps(head)[:-1] + b"," + self.body + b"}"


def with_root_path(schema: Json, root_path: str) -> Json:
    """Name ``root_path`` as the first server, as FastAPI does, without changing ``schema``."""
    servers = schema.get("servers", [])
    if not root_path or root_path in {server.get("url") for server in servers}:
        return schema
    return {**schema, "servers": [{"url": root_path}, *servers]}


def join(host: Json, fragments: Iterable[Fragment]) -> Document:
    """Join the host's own document with the plugins' fragments."""
    head = dict(host)
    paths, components = head.pop("paths", {}), dict(head.pop("components", {}))
    security, schemas = dict(components.pop("securitySchemes", {})), components.pop("schemas", {})
    ids = set(_operation_ids(paths))
    distinct: list[Fragment] = []
    digest = hashlib.blake2b(_dumps(host), digest_size=16)
    for fragment in fragments:
        distinct.append(_without_clashes(fragment, ids, security))
        ids |= distinct[-1].operation_ids
        security.update(distinct[-1].security)
        digest.update(fragment.digest)
    if any(fragment.uses_validation for fragment in distinct):
        schemas = _validation_schemas() | schemas
    joined = [_dumps(schemas)[1:-1], *(fragment.schemas for fragment in distinct)]
    body = _body(_join_paths(_members(paths), distinct), components, [part for part in joined if part], security)
    return Document(head, body, digest.digest())


def _body(paths: bytes, components: Json, schemas: list[bytes], security: Json) -> bytes:
    members = [_dumps(components)[1:-1]] if components else []
    if schemas:
        members.append(b'"schemas":{' + b",".join(schemas) + b"}")
    if security:
        members.append(b'"securitySchemes":' + _dumps(security))
    body = b'"paths":{' + paths + b"}"
    return body + b',"components":{' + b",".join(members) + b"}" if members else body


def _members(items: Json) -> dict[str, bytes]:
    return {path: _dumps({path: item})[1:-1] for path, item in items.items()}


def _join_paths(host: Mapping[str, bytes], fragments: Sequence[Fragment]) -> bytes:
    """Join the path items; where two share a path (with different methods), they become one."""
    seen = set(host)
    for fragment in fragments:
        if not seen.isdisjoint(fragment.paths):
            break
        seen.update(fragment.paths)
    else:
        parts = (b",".join(host.values()), *(fragment.joined for fragment in fragments))
        return b",".join([part for part in parts if part])
    paths = dict(host)
    for fragment in fragments:
        for path, member in fragment.paths.items():
            paths[path] = _merged(paths[path], member, path) if path in paths else member
    return b",".join(paths.values())


def _merged(one: bytes, other: bytes, path: str) -> bytes:
    items = [json.loads(b"{" + member + b"}")[path] for member in (one, other)]
    return _dumps({path: {**items[0], **items[1]}})[1:-1]


def _without_clashes(fragment: Fragment, ids: set[str], security: Mapping[str, Any]) -> Fragment:
    """Qualify the operation ids and security schemes of ``fragment`` that mean something else already."""
    id_names = {name: fragment.plugin + name for name in ids & fragment.operation_ids}
    scheme_names = {
        name: fragment.plugin + name
        for name, scheme in fragment.security.items()
        if security.get(name, scheme) != scheme
    }
    if not id_names and not scheme_names:
        return fragment
    for name, instead in (id_names | scheme_names).items():
        logger.warning("OpenAPI name %r is taken; plugin %s shows %r", name, fragment.plugin.rstrip("_"), instead)
    items = json.loads(b"{" + fragment.joined + b"}")
    _visit({"properties": items}, lambda node: _rename(node, id_names, scheme_names))
    return Fragment(
        fragment.plugin,
        paths := _members(items),
        b",".join(paths.values()),
        fragment.schemas,
        {scheme_names.get(name, name): scheme for name, scheme in fragment.security.items()},
        frozenset(id_names.get(name, name) for name in fragment.operation_ids),
        fragment.uses_validation,
        fragment.digest,
    )


def _rename(node: Json, id_names: Mapping[str, str], scheme_names: Mapping[str, str]) -> None:
    if isinstance(operation_id := node.get("operationId"), str):
        node["operationId"] = id_names.get(operation_id, operation_id)
    if isinstance(security := node.get("security"), list):
        node["security"] = [
            {scheme_names.get(name, name): scopes for name, scopes in item.items()} for item in security
        ]


def _dumps(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


# --- in the app -----------------------------------------------------------------------------------


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
    content = _dumps(schema)
    return content, f'"{hashlib.blake2b(content, digest_size=16).hexdigest()}"'


def _are_same(one: Sequence[object], other: Sequence[object]) -> bool:
    return len(one) == len(other) and all(left is right for left, right in zip(one, other, strict=True))


def _matches(if_none_match: str, etag: str) -> bool:
    wanted = {value.strip().removeprefix("W/") for value in if_none_match.split(",")}
    return etag in wanted or "*" in wanted
