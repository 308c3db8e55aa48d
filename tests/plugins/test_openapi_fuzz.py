"""Whatever a client sends that fits the OpenAPI document, or nearly does: no answer is a server error.

``FUZZ_EXAMPLES`` sets how many requests of each kind every operation gets.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from sqlalchemy import text

from pixsim7_backend.db import Database
from tests.plugins.conftest import PASSWORD

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "2"))
ACCOUNT = {"email": "fuzz@example.com", "username": "fuzz", "password": PASSWORD}

#: One of each thing, so that path parameters can name something that exists.
SEEDS: list[tuple[str, dict[str, Any]]] = [
    ("/api/v1/game/worlds", {"name": "Fuzz"}),
    ("/api/v1/game/locations", {"name": "Market", "x": 0, "y": 0}),
    ("/api/v1/game/npcs", {"name": "Guard", "home_location_id": 1}),
]


def test_no_request_makes_a_server_error(
    live_server: tuple[str, Path], beside_backend: Database, wipe: Callable[[], None]
) -> None:
    """Every operation, with valid and with broken input, for things that exist and things that do not."""
    url, log = live_server
    wipe()
    with httpx.Client(base_url=url, trust_env=False) as client:
        token = _admin_token(client, beside_backend)
        for path, body in SEEDS:
            client.post(path, json=body, headers={"Authorization": f"Bearer {token}"})
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    tried = 0
    with requests.Session() as session:
        session.trust_env = False
        for found in schema.get_all_operations():
            assert isinstance(found, Ok), found
            operation = found.ok()
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                for path_parameters in _choices(operation.path):
                    if mode is GenerationMode.NEGATIVE and path_parameters:
                        continue
                    strategy = operation.as_strategy(mode, path_parameters=path_parameters)
                    token = _login(url) if "/auth/" in operation.path else token
                    tried += _fuzz(strategy, session, {"Authorization": f"Bearer {token}"})
    assert tried > 100
    assert "Traceback" not in log.read_text()


def _fuzz(strategy: Any, session: requests.Session, headers: dict[str, str]) -> int:
    count = 0

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize="FUZZ_EXAMPLES" not in os.environ,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy)
    def run(case: Case[Any]) -> None:
        nonlocal count
        count += 1
        response = case.call(session=session, headers=headers, timeout=30)
        case.validate_response(response, checks=[not_a_server_error])

    with suppress(Unsatisfiable):  # an operation without input has no broken input
        run()
    return count


def _choices(path: str) -> list[dict[str, Any] | None]:
    names = [part.strip("{}") for part in path.split("/") if part.startswith("{")]
    return [None, dict.fromkeys(names, 1)] if names else [None]


def _admin_token(client: httpx.Client, database: Database) -> str:
    answer = client.post("/api/v1/auth/register", json=ACCOUNT)
    assert answer.status_code == 201, answer.text
    with database.session() as session:
        session.execute(text("UPDATE users SET role = 'admin'"))
    token: str = answer.json()["access_token"]
    return token


def _login(url: str) -> str:
    with httpx.Client(base_url=url, trust_env=False) as client:
        answer = client.post("/api/v1/auth/login", json={"username": "fuzz", "password": PASSWORD})
        assert answer.status_code == 200, answer.text
        token: str = answer.json()["access_token"]
        return token
