"""Admins who configure the same plugin at once, on both databases."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tests.plugins.conftest import Client

pytestmark = pytest.mark.anyio

STEALTH = "/api/v1/admin/plugins/game-stealth"
FIELD = "standing_lost"
SWITCHES = ("reload", "disable", "enable")


async def change(admin: Client, value: int | None, **headers: str) -> httpx.Response:
    """Store a value of one setting."""
    return await admin.patch(f"{STEALTH}/settings", json={FIELD: value}, headers=headers)


async def settings(admin: Client) -> httpx.Response:
    answer = await admin.get(f"{STEALTH}/settings")
    assert answer.status_code == 200, answer.text
    return answer


async def test_of_changes_to_one_version_one_is_made(admin_client: Client) -> None:
    """Eight forms opened at the same version are sent at once: one is stored, seven are told to look again."""
    seen = (await settings(admin_client)).headers["etag"]
    answers = await asyncio.gather(*(change(admin_client, 20 + i, **{"If-Match": seen}) for i in range(8)))
    assert sorted(each.status_code for each in answers) == [200] + [412] * 7
    [won] = [each for each in answers if each.status_code == 200]
    now = await settings(admin_client)
    assert now.json()["values"][FIELD] == won.json()["settings"]["values"][FIELD]
    assert now.json()["sources"] == {FIELD: "stored settings"}
    assert now.headers["etag"] == won.headers["etag"] != seen
    assert (await change(admin_client, None)).json()["settings"]["sources"] == {}


async def test_changes_beside_reloads_and_switches_are_all_made(admin_client: Client) -> None:
    """They take turns: none is lost or refused, and what is in force in the end is what is stored in the end."""
    begun: list[Any] = []
    for value in range(30, 34):
        begun += [change(admin_client, value), *(admin_client.post(f"{STEALTH}/{what}") for what in SWITCHES)]
    answers = await asyncio.gather(*begun)
    assert [each.status_code for each in answers if each.request.method == "PATCH"] == [200] * 4
    assert {each.status_code for each in answers} <= {200, 409}  # one that is off is not reloaded
    assert (await admin_client.post(f"{STEALTH}/enable")).status_code == 200
    in_force = (await settings(admin_client)).json()["values"][FIELD]
    assert in_force in range(30, 34)
    assert (await admin_client.post(f"{STEALTH}/reload")).status_code == 200  # reads what is stored, anew
    assert (await settings(admin_client)).json()["values"][FIELD] == in_force
    assert (await change(admin_client, None)).json()["settings"]["values"][FIELD] == 10
