from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import FastAPI, Form
from pydantic import BaseModel

from pixsim7_backend.curl_json import CurlJson

pytestmark = pytest.mark.anyio
FORM = {"content-type": "application/x-www-form-urlencoded"}


class Attempt(BaseModel):
    slot_id: str
    note: str = ""


async def post(path: str, content: Any, headers: dict[str, str]) -> httpx.Response:
    app = FastAPI(strict_content_type=False)

    @app.post("/json")
    async def read_json(attempt: Attempt) -> Attempt:
        return attempt

    @app.post("/form")
    async def read_form(slot_id: Annotated[str, Form()]) -> str:
        return slot_id

    app.add_middleware(CurlJson)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        return await client.post(path, content=content, headers=headers)


@pytest.mark.parametrize(
    "headers",
    [FORM, {}, {"content-type": "application/json"}, {"content-type": f"{FORM['content-type']}; charset=utf-8"}],
)
async def test_json_is_read_whatever_curl_says(headers: dict[str, str]) -> None:
    """`curl -d '{…}'` works with its default content type, without one, and with the right one."""
    response = await post("/json", ' {"slot_id": "purse"}', headers)
    assert (response.status_code, response.json()["slot_id"]) == (200, "purse")


async def test_form_stays_a_form() -> None:
    """A real form is left alone, even one whose value is JSON."""
    response = await post("/form", "slot_id=%7B%22a%22%3A1%7D", FORM)
    assert (response.status_code, response.json()) == (200, '{"a":1}')


async def test_body_in_chunks_arrives_whole() -> None:
    """The chunk that was looked at is not lost."""

    async def chunks() -> AsyncIterator[bytes]:
        yield b'{"slot_id": "purse", '
        yield b'"note": "' + b"x" * 100_000 + b'"}'

    response = await post("/json", chunks(), FORM)
    assert len(response.json()["note"]) == 100_000


async def test_other_types_are_not_touched() -> None:
    """Text that claims to be text is no JSON."""
    response = await post("/json", '{"slot_id": "purse"}', {"content-type": "text/plain"})
    assert response.status_code == 422
