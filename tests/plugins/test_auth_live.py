from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from tests.plugins.conftest import PASSWORD, Backend

pytestmark = pytest.mark.anyio

AUTH = "/api/v1/auth"


async def test_of_parallel_registrations_with_one_address_one_wins(live_backend: Backend) -> None:
    """32 at once with one e-mail address in several spellings: exactly one 201, the rest 409, no 500."""
    clients = [await live_backend.new_client() for _ in range(8)]

    async def register(number: int) -> int:
        email = "ann@example.com" if number % 2 else "ANN@Example.com"
        account = {"email": email, "username": f"ann{number}", "password": PASSWORD}
        return (await clients[number % 8].post(f"{AUTH}/register", json=account)).status_code

    statuses = Counter(await asyncio.gather(*map(register, range(32))))
    assert statuses == {201: 1, 409: 31}
    assert live_backend.execute("SELECT count(*) FROM users") == [(1,)]
