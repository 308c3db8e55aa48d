"""What is said of Redis."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from pixsim7_backend.redis import (
    RedisNotConfiguredError,
    check_redis,
    close_redis,
    configure_redis,
    get_redis,
    new_async_redis,
)

URL = "redis://127.0.0.1:6379/0"
UNSET = "set REDIS_URL, e.g. redis://127.0.0.1:6379/0"


@pytest.fixture(autouse=True)
def _nothing_configured(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("REDIS_URL", raising=False)
    yield
    configure_redis(None)


def test_without_a_setting_the_setting_is_named() -> None:
    """Nothing is tried when nothing is configured."""
    assert check_redis() == UNSET
    assert check_redis("") == UNSET
    with pytest.raises(RedisNotConfiguredError, match="set REDIS_URL"):
        get_redis()


@pytest.mark.parametrize("url", ["http://:secret@127.0.0.1/", "secret", "redis://:secret@127.0.0.1:port/0"])
def test_a_malformed_url_is_told_without_its_password(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text shows how to write it and keeps the secret."""
    monkeypatch.setenv("REDIS_URL", url)
    problem = check_redis()
    assert problem is not None
    assert problem.endswith("is not a Redis URL; write it like redis://127.0.0.1:6379/0")
    assert "secret" not in problem


def test_a_server_that_is_away_is_told_without_its_password() -> None:
    """The sentence names the place, the reason and the setting."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert check_redis(f"redis://:secret@127.0.0.1:{port}/0") == (
        f"Redis at redis://:***@127.0.0.1:{port}/0 does not answer (ConnectionError); start it, or correct REDIS_URL"
    )


async def _ask_async() -> bool:
    client = new_async_redis()
    try:
        return bool(await client.ping())
    finally:
        await client.aclose()


@pytest.mark.anyio
async def test_a_server_that_answers_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both clients talk to it, wherever the setting comes from."""
    if check_redis(URL):
        pytest.skip("no Redis on this machine")
    configure_redis(URL)
    assert check_redis() is None
    assert get_redis() is get_redis()
    assert get_redis().ping()
    close_redis()
    configure_redis(None)
    monkeypatch.setenv("REDIS_URL", URL)
    assert await _ask_async()


def test_the_library_is_imported_only_when_needed() -> None:
    """Who has no Redis pays nothing for it."""
    code = "import sys, pixsim7_backend.redis; sys.exit('redis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
