"""What every test may use."""

from __future__ import annotations

import importlib.util

import pytest

pytest_plugins = ["tests.databases"] if importlib.util.find_spec("tests.databases") else []


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio: FastAPI's thread pool and the task factory are asyncio's."""
    return "asyncio"
