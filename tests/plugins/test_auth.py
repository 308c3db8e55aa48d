from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.plugins.conftest import PASSWORD, Backend

pytestmark = pytest.mark.anyio

ANN: dict[str, Any] = {"email": "ann@example.com", "username": "ann", "password": PASSWORD}
AUTH = "/api/v1/auth"


async def test_registering_makes_an_account_and_logs_in(backend: Backend) -> None:
    """201 with the token, its lifetime and the account; the token works at once."""
    before = datetime.now(UTC)
    answer = await backend.post(f"{AUTH}/register", json=ANN | {"display_name": " Ann of Example "})
    assert answer.status_code == 201
    login = answer.json()
    assert login["token_type"] == "bearer"
    assert login["expires_in"] == 24 * 3600
    user = login["user"]
    assert {name: user[name] for name in ("email", "username", "display_name", "role", "is_active")} == {
        "email": "ann@example.com",
        "username": "ann",
        "display_name": "Ann of Example",
        "role": "user",
        "is_active": True,
    }
    assert datetime.fromisoformat(user["created_at"]).utcoffset() == timedelta(0)
    assert before <= datetime.fromisoformat(user["created_at"]) <= datetime.now(UTC)
    me = await backend.get(answer.headers["Location"], headers={"Authorization": f"Bearer {login['access_token']}"})
    assert me.json() == user
    assert answer.headers["Cache-Control"] == "no-store"
