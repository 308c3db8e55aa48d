"""Many clients at once, against a real server of two processes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from tests.plugins.conftest import PASSWORD, Backend

pytestmark = pytest.mark.anyio

AUTH = "/api/v1/auth"


@pytest.fixture(scope="module")
def live_workers() -> int:
    """Two processes, which share nothing but the database and the secret."""
    return 2


async def at_once(backend: Backend, number: int, send: Callable[[httpx.AsyncClient, int], Awaitable[Any]]) -> list[Any]:
    """Return the results of ``number`` requests sent together over several connections."""
    clients = [await backend.new_client() for _ in range(8)]
    return await asyncio.gather(*(send(clients[index % 8], index) for index in range(number)))


async def test_of_parallel_registrations_with_one_address_one_wins(live_backend: Backend) -> None:
    """16 at once with one e-mail address in several spellings: exactly one 201, the rest 409, no 500."""

    async def register(client: httpx.AsyncClient, number: int) -> int:
        email = "ann@example.com" if number % 2 else "ANN@Example.com"
        account = {"email": email, "username": f"ann{number}", "password": PASSWORD}
        return (await client.post(f"{AUTH}/register", json=account)).status_code

    assert Counter(await at_once(live_backend, 16, register)) == {201: 1, 409: 15}, live_backend.printed
    assert live_backend.execute("SELECT count(*) FROM users") == [(1,)]


async def test_of_parallel_registrations_with_one_name_one_wins(live_backend: Backend) -> None:
    """The same for usernames."""

    async def register(client: httpx.AsyncClient, number: int) -> tuple[int, str]:
        account = {"email": f"a{number}@example.com", "username": "Ann" if number % 2 else "ann", "password": PASSWORD}
        answer = await client.post(f"{AUTH}/register", json=account)
        return answer.status_code, answer.json().get("field", "")

    assert Counter(await at_once(live_backend, 16, register)) == {(201, ""): 1, (409, "username"): 15}, (
        live_backend.printed
    )


async def test_different_people_register_at_once(live_backend: Backend) -> None:
    """Nobody is refused for somebody else's sake."""

    async def register(client: httpx.AsyncClient, number: int) -> int:
        account = {"email": f"a{number}@example.com", "username": f"ann{number}", "password": PASSWORD}
        return (await client.post(f"{AUTH}/register", json=account)).status_code

    assert Counter(await at_once(live_backend, 16, register)) == {201: 16}, live_backend.printed


async def test_parallel_guesses_do_not_slip_through(live_backend: Backend) -> None:
    """Of 24 wrong passwords sent together to two processes exactly ten are weighed, the rest is 429."""
    await live_backend.sign_up("ann")

    async def guess(client: httpx.AsyncClient, number: int) -> int:
        wrong = {"username": "ann", "password": f"wrong password {number}"}
        return (await client.post(f"{AUTH}/login", json=wrong)).status_code

    assert Counter(await at_once(live_backend, 24, guess)) == {401: 10, 429: 14}, live_backend.printed


async def test_a_token_holds_in_every_process_and_is_void_in_every_process(live_backend: Backend) -> None:
    """Both processes sign with one secret, and a logout in one counts in the other at once."""
    client = await live_backend.sign_up("ann")
    bearer = {"Authorization": f"Bearer {client.token}"}

    async def read(other: httpx.AsyncClient, _number: int) -> int:
        return (await other.get(f"{AUTH}/me", headers={**bearer, "Connection": "close"})).status_code

    assert Counter(await at_once(live_backend, 16, read)) == {200: 16}, live_backend.printed
    assert (await client.post(f"{AUTH}/logout")).status_code == 204
    assert Counter(await at_once(live_backend, 16, read)) == {401: 16}, live_backend.printed


async def test_logging_out_and_changing_the_password_at_once_leaves_no_old_login(live_backend: Backend) -> None:
    """While the password changes, logins with the old one either fail or end: none outlives the change."""
    client = await live_backend.sign_up("ann")
    tokens: list[str] = []

    async def race(other: httpx.AsyncClient, number: int) -> int:
        if number == 4:
            change = {"current_password": PASSWORD, "new_password": "another good one"}
            return (await client.post(f"{AUTH}/password", json=change)).status_code
        answer = await other.post(f"{AUTH}/login", json={"username": "ann", "password": PASSWORD})
        if answer.status_code == 200:
            tokens.append(answer.json()["access_token"])
        return answer.status_code

    statuses = Counter(await at_once(live_backend, 9, race))
    assert statuses[204] == 1, (statuses, live_backend.printed)
    assert set(statuses) <= {200, 204, 401}
    for token in tokens:
        answer = await live_backend.get(f"{AUTH}/me", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 401


async def test_of_parallel_logouts_with_one_token_none_fails(live_backend: Backend) -> None:
    """Each is 204 or, coming too late, 401; afterwards the token is void."""
    client = await live_backend.sign_up("ann")

    async def leave(other: httpx.AsyncClient, _number: int) -> int:
        return (await other.post(f"{AUTH}/logout", headers={"Authorization": f"Bearer {client.token}"})).status_code

    statuses = Counter(await at_once(live_backend, 16, leave))
    assert statuses[204] >= 1
    assert set(statuses) <= {204, 401}
    assert (await client.get(f"{AUTH}/me")).status_code == 401
    assert "Traceback" not in live_backend.printed
