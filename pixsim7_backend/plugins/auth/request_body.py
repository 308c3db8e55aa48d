"""Reading what is posted to /login: JSON, the OAuth2 password form, and JSON under curl's default content type."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from pixsim7_backend.problems import BadRequest, ContentTooLarge

from .schemas import Credentials

_LARGEST = 16_384  # bytes
_FORM = "application/x-www-form-urlencoded"
_FORM_SCHEMA = {
    "type": "object",
    "required": ["username", "password"],
    "properties": {
        "grant_type": {"type": "string", "enum": ["password"]},
        "username": {"type": "string", "description": "username or e-mail address"},
        "password": {"type": "string", "format": "password"},
    },
}

#: For ``openapi_extra``: both ways to say the same.
CREDENTIALS_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": Credentials.model_json_schema()},
            _FORM: {"schema": _FORM_SCHEMA},
        },
    }
}


async def posted_credentials(request: Request) -> Credentials:
    """Return the credentials in the body.

    Raises:
        BadRequest: the body is neither JSON nor a form.
        ContentTooLarge: it is longer than credentials can be.
        RequestValidationError: a field is missing or unacceptable.
    """
    body = await _read(request)
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_form = media_type == _FORM and not body.lstrip().startswith(b"{")
    fields = _form_fields(body) if is_form else _json_fields(body)
    try:
        return Credentials.model_validate(fields)
    except ValidationError as error:
        raise RequestValidationError(
            [{**each, "loc": ("body", *each["loc"])} for each in error.errors(include_input=False, include_url=False)]
        ) from None


PostedCredentials = Annotated[Credentials, Depends(posted_credentials)]


async def _read(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LARGEST:
            raise ContentTooLarge(f"credentials have at most {_LARGEST} bytes")
    return bytes(body)


def _json_fields(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest("the body is neither JSON nor an OAuth2 password form") from None


def _form_fields(body: bytes) -> Mapping[str, str]:
    """Return ``username`` and ``password``; what else OAuth2 clients send (scope, client_id) means nothing here."""
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=20)
    except ValueError:
        raise BadRequest("the body is not a form in UTF-8 of at most 20 fields") from None
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise BadRequest("a field of the form is there twice")
    if fields.get("grant_type") not in (None, "", "password"):
        raise BadRequest("the only grant_type is 'password'")
    return {name: value for name, value in fields.items() if name in ("username", "password")}
