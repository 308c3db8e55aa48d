from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
import httpx
import pytest

from tests.plugins.conftest import Backend

pytestmark = pytest.mark.anyio

WORLDS = "/api/v1/game/worlds/"
Answer = TypeVar("Answer")


async def _all_at_once(calls: list[Callable[[], Awaitable[Answer]]]) -> list[Answer]:
    answers: list[Answer] = []

    async def run(call: Callable[[], Awaitable[Answer]]) -> None:
        answers.append(await call())

    async with anyio.create_task_group() as tasks:
        for call in calls:
            tasks.start_soon(run, call)
    return answers


async def test_64_parallel_advances_add_up(live_backend: Backend) -> None:
    """Each of them counts, and each answer shows another time and another version."""
    player = await live_backend.sign_up("player")
    place = f"{WORLDS}{(await player.post(WORLDS, json={'name': 'Avalon'})).json()['id']}"

    async def advance() -> httpx.Response:
        return await player.post(f"{place}/advance", json={"delta_seconds": 1.5})

    answers = await _all_at_once([advance] * 64)
    assert {answer.status_code for answer in answers} == {200}
    assert sorted(answer.json()["world_time"] for answer in answers) == [1.5 * step for step in range(1, 65)]
    assert len({answer.headers["etag"] for answer in answers}) == 64
    assert (await player.get(place)).json()["world_time"] == 96.0


async def test_patches_and_advances_at_once_lose_nothing(live_backend: Backend) -> None:
    """16 patches of different members and 16 advances of one world all take effect."""
    player = await live_backend.sign_up("player")
    place = f"{WORLDS}{(await player.post(WORLDS, json={'name': 'Avalon'})).json()['id']}"

    def patch(number: int) -> Callable[[], Awaitable[httpx.Response]]:
        return lambda: player.patch(place, json={"meta": {"npcs": {str(number): number}}})

    async def advance() -> httpx.Response:
        return await player.post(f"{place}/advance", json={"delta_seconds": 1})

    answers = await _all_at_once([*(patch(number) for number in range(16)), *[advance] * 16])
    assert {answer.status_code for answer in answers} == {200}
    world = (await player.get(place)).json()
    assert world["world_time"] == 16
    assert world["meta"] == {"npcs": {str(number): number for number in range(16)}}
