from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI

from pixsim7_backend.request_ids import RequestIds, current_request_id

pytestmark = pytest.mark.anyio


async def ask(offered: str | None) -> tuple[str, str]:
    """Return the id in the header of the answer, and the one that the endpoint saw."""
    app = FastAPI()

    @app.get("/")
    def index() -> str | None:
        return current_request_id.get()

    app.add_middleware(RequestIds)
    headers = {b"X-Request-ID": offered.encode("latin-1")} if offered is not None else {}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        response = await client.get("/", headers=headers)
    return response.headers["x-request-id"], response.json()


async def test_id_is_made_where_none_is_offered() -> None:
    """A request without an id gets a random one, also visible inside sync endpoints."""
    first, seen = await ask(None)
    second, _ = await ask(None)
    assert first == seen
    assert first != second
    assert len(first) == 32


async def test_safe_id_of_the_client_is_kept() -> None:
    """An id of letters, digits, dots, hyphens and underscores is taken over."""
    assert await ask("Trace_01.a-b") == ("Trace_01.a-b", "Trace_01.a-b")


@pytest.mark.parametrize("unsafe", ["", "a b", "a\x1b[31m", "a\xe9", "a" * 129, '"}{"'])
async def test_unsafe_id_is_replaced(unsafe: str) -> None:
    """An id that could forge log lines or is endless is replaced by a random one."""
    chosen, _ = await ask(unsafe)
    assert chosen != unsafe
    assert len(chosen) == 32


async def test_id_does_not_outlive_its_request() -> None:
    """After the request the context has no id."""
    await ask("r-1")
    assert current_request_id.get() is None
