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
from starlette.routing import BaseRoute

from .claims import Description

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
    description: Description | None

    @property
    def routes(self) -> list[BaseRoute]: ...


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
    document = _document_of(app, mount)
    components = document.get("components", {})
    prefix = qualifier(mount.plugin_id)
    schemas, names, shared = _qualified_names(components.get("schemas", {}), prefix)
    for tree in (document["paths"], schemas):
        _visit({"properties": tree}, lambda node: _qualify(node, names))
    ids = _operation_ids(document["paths"])
    paths = _members(document["paths"])
    joined, members = b",".join(paths.values()), dumps(schemas)[1:-1]
    security = components.get("securitySchemes", {})
    digest = hashlib.blake2b(joined + members + dumps(security), digest_size=16).digest()
    return Fragment(prefix, paths, joined, members, security, ids, shared, digest)


def _document_of(app: FastAPI, mount: Mount) -> Json:
    if mount.description is not None:
        document: Json = json.loads(dumps(mount.description.openapi))  # a copy: names in it are changed
        return document
    return get_openapi(
        title="-",
        version="-",
        openapi_version=app.openapi_version,
        routes=mount.routes,
        separate_input_output_schemas=app.separate_input_output_schemas,
    )


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
        return dumps(head)[:-1] + b"," + self.body + b"}"


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
    digest = hashlib.blake2b(dumps(host), digest_size=16)
    for fragment in fragments:
        distinct.append(_without_clashes(fragment, ids, security))
        ids |= distinct[-1].operation_ids
        security.update(distinct[-1].security)
        digest.update(fragment.digest)
    if any(fragment.uses_validation for fragment in distinct):
        schemas = _validation_schemas() | schemas
    joined = [dumps(schemas)[1:-1], *(fragment.schemas for fragment in distinct)]
    body = _body(_join_paths(_members(paths), distinct), components, [part for part in joined if part], security)
    return Document(head, body, digest.digest())


def _body(paths: bytes, components: Json, schemas: list[bytes], security: Json) -> bytes:
    members = [dumps(components)[1:-1]] if components else []
    if schemas:
        members.append(b'"schemas":{' + b",".join(schemas) + b"}")
    if security:
        members.append(b'"securitySchemes":' + dumps(security))
    body = b'"paths":{' + paths + b"}"
    return body + b',"components":{' + b",".join(members) + b"}" if members else body


def _members(items: Json) -> dict[str, bytes]:
    return {path: dumps({path: item})[1:-1] for path, item in items.items()}


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
    return dumps({path: {**items[0], **items[1]}})[1:-1]


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


def dumps(value: Any) -> bytes:
    """Write JSON as FastAPI's responses do."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
