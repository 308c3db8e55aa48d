"""Every test of the compatibility suite runs with both variants of the dispatcher."""

from __future__ import annotations

import pytest

from pixsim7_backend.infrastructure.plugins._dispatch import fastapi_internals


@pytest.fixture(params=["fast", "public"], autouse=True)
def variant(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Use FastAPI's private names, or pretend that one of them is gone."""
    name: str = request.param
    if name == "public":
        monkeypatch.setattr(fastapi_internals, "missing", ("_IncludedRouter",))
    return name
