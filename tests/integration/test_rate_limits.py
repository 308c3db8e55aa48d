"""Rate limits of the backend: shared through Redis, by user, and without either."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis

from pixsim7_backend.infrastructure.plugins import Rate, RatesUnavailableError
from pixsim7_backend.infrastructure.plugins.testing import write_plugin
from pixsim7_backend.main import create_app
from pixsim7_backend.rate_limits import KEY_PREFIX, RedisRates
from pixsim7_backend.redis import configure_redis, new_async_redis
from pixsim7_backend.settings import Settings
from tests import plain_http
from tests.command_line import SETTING_NAMES
from tests.services import free_port, own_redis, redis_url, wait_until

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]
WHO = """
import os
@router.get("/who")
def who() -> int:
    return os.getpid()
"""


@pytest.fixture
async def redis() -> AsyncIterator[Redis]:
    """A client of the Redis that the tests share."""
    configure_redis(redis_url())
    client = new_async_redis(connections=4, timeout=10)
    try:
        yield client
    finally:
        await client.aclose()
        configure_redis(None)


@pytest.fixture
def plugin() -> str:
    """A plugin whose counts nobody else has."""
    return f"plugin-{uuid.uuid4().hex}"


# --- the counts in Redis --------------------------------------------------------------------------


async def test_redis_lets_through_what_memory_would(redis: Redis, plugin: str) -> None:
    """The whole count at once, then nothing; clients and rates count by themselves."""
    rates, rate = RedisRates(redis), Rate.parse("5/hour")
    verdicts = [await rates.take(plugin, "ada", rate) for _ in range(7)]
    assert [each.is_allowed for each in verdicts] == [True] * 5 + [False] * 2
    assert [each.remaining for each in verdicts] == [4, 3, 2, 1, 0, 0, 0]
    assert [round(each.seconds) for each in verdicts] == [720, 1440, 2160, 2880, 720, 720, 720]
    assert (await rates.take(plugin, "ben", rate)).remaining == 4
    assert (await rates.take(plugin, "ada", Rate.parse("6/hour"))).remaining == 5


async def test_redis_lets_the_next_one_through_when_it_said(redis: Redis, plugin: str) -> None:
    """After the seconds of the verdict there is room for one more."""
    rates, rate = RedisRates(redis), Rate.parse("2/second")
    while (verdict := await rates.take(plugin, "ada", rate)).is_allowed:
        pass
    await asyncio.sleep(verdict.seconds)
    assert (await rates.take(plugin, "ada", rate)).is_allowed


async def test_requests_at_the_same_moment_get_no_more_through(redis: Redis, plugin: str) -> None:
    """One script does it all: of two hundred at once exactly the count gets through."""
    rates, rate = RedisRates(redis), Rate.parse("50/day")
    verdicts = await asyncio.gather(*(rates.take(plugin, "ada", rate) for _ in range(200)))
    assert sum(each.is_allowed for each in verdicts) == 50


async def test_counts_in_redis_expire(redis: Redis, plugin: str) -> None:
    """A client that has its whole quota again takes no memory."""
    await RedisRates(redis).take(plugin, "ada", Rate.parse("60/minute"))
    [key] = [each async for each in redis.scan_iter(f"{KEY_PREFIX}{plugin}:*")]
    assert key.decode() == f"{KEY_PREFIX}{plugin}:60/minute:ada"
    assert 0 < await redis.pttl(key) <= 1_000


async def test_a_clock_of_redis_that_was_set_back_locks_nobody_out(redis: Redis, plugin: str) -> None:
    """A time of arrival that is further ahead than can be is not believed."""
    rate = Rate.parse("60/minute")
    await redis.set(f"{KEY_PREFIX}{plugin}:{rate}:ada", "9" * 20)
    verdict = await RedisRates(redis).take(plugin, "ada", rate)
    assert not verdict.is_allowed
    assert verdict.seconds == pytest.approx(1, abs=0.1)


async def test_redis_that_is_away_is_one_kind_of_error(plugin: str) -> None:
    """Whatever the client library raises."""
    configure_redis(f"redis://127.0.0.1:{free_port()}/0")
    client = new_async_redis(connections=1, timeout=1)
    try:
        with pytest.raises(RatesUnavailableError, match=r"Redis does not answer \(ConnectionError\)"):
            await RedisRates(client).take(plugin, "ada", Rate.parse("60/minute"))
    finally:
        await client.aclose()
        configure_redis(None)


async def test_a_redis_that_stalls_gives_nobody_the_answer_of_another(plugin: str) -> None:
    """What was asked in vain is not answered to whoever asks next."""
    port = free_port()
    with own_redis(port):
        configure_redis(f"redis://127.0.0.1:{port}/0")
        client, admin = new_async_redis(connections=4, timeout=5), new_async_redis()
        rates = RedisRates(client)
        try:
            await rates.take(plugin, "first", Rate.parse("5/day"))
            await admin.client_pause(60_000, all=False)  # what writes waits
            asked = [rates.take(plugin, "ada", Rate(10 + each, 3600)) for each in range(8)]
            failures = await asyncio.gather(*asked, return_exceptions=True)
            assert {type(each) for each in failures} == {RatesUnavailableError}
            await admin.client_unpause()
            asked = [rates.take(plugin, "ben", Rate(10 + each, 3600)) for each in range(8)]
            assert [each.remaining for each in await asyncio.gather(*asked)] == list(range(9, 17))
        finally:
            await client.aclose()
            await admin.aclose()
            configure_redis(None)


# --- the backend ----------------------------------------------------------------------------------


async def test_users_have_limits_of_their_own(tmp_path: Path) -> None:
    """Who is logged in is counted as that user from anywhere, others by their address."""
    write_plugin(tmp_path / "plugins", "asking", WHO)
    settings = Settings(
        data_dir=tmp_path / "data",
        extra_plugins_dirs=(str(tmp_path / "plugins"),),
        rate_limits={"asking": Rate.parse("2/hour")},
        log_format="console",
    )
    app = create_app(settings)
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://backend.test/api/v1") as client,
    ):
        headers = {}
        for name in ("ada", "ben"):
            account = {"email": f"{name}@example.org", "username": name, "password": "correct horse battery"}
            registered = await client.post("/auth/register", json=account)
            headers[name] = {"Authorization": f"Bearer {registered.json()['access_token']}"}
        for sent in ({}, headers["ada"], headers["ben"]):
            answers = [await client.get("/asking/who", headers=sent) for _ in range(3)]
            assert [each.status_code for each in answers] == [200, 200, 429]
        problem = answers[-1]
        assert problem.headers["content-type"] == "application/problem+json"
        assert problem.json()["detail"] == "plugin 'asking' answers 2/hour to one client; try again in 1800 s"
        assert problem.json()["instance"] == "/api/v1/asking/who"


@contextmanager
def workers(place: Path, redis_port: int) -> Iterator[tuple[str, Path]]:
    """Run a server of two processes; yield the address of the plugin ``asking`` and the log."""
    write_plugin(place / "plugins", "asking", WHO, rate_limit="20/hour")
    port, log = free_port(), place / "log.txt"
    kept = {name: value for name, value in os.environ.items() if name not in SETTING_NAMES}
    environment = {
        "REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
        "EXTRA_PLUGINS_DIRS": "plugins",
        "LOG_FORMAT": "console",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "pixsim7_backend", "serve", "--port", str(port), "--workers", "2"]
    with log.open("wb") as output:
        server = subprocess.Popen(command, cwd=place, env=kept | environment, stdout=output, stderr=output)
    try:
        assert wait_until(lambda: log.read_text().count("Application startup complete") == 2, 120), log.read_text()
        yield f"http://127.0.0.1:{port}/api/v1/asking/who", log
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)


def ask(url: str) -> tuple[int, int | None]:
    """Ask over a connection of its own, so that either process may answer; return the status and which did."""
    answer = plain_http.get(url)
    return answer.status_code, answer.json() if answer.status_code == 200 else None


@pytest.mark.timeout(300)  # processes that start on a busy machine
def test_workers_share_a_limit_and_go_on_without_redis(tmp_path: Path) -> None:
    """Two processes let through what one may; when Redis goes each counts for itself, says so once and serves on."""
    port = free_port()
    with own_redis(port) as redis, workers(tmp_path, port) as (url, log):
        shared = [ask(url) for _ in range(100)]
        assert Counter(status for status, _ in shared) == {200: 20, 429: 80}
        redis.kill()
        redis.wait()
        alone = [ask(url) for _ in range(120)]
        passed = Counter(process for status, process in alone if status == 200)
        assert {status for status, _ in alone} <= {200, 429}
        assert all(count <= 20 for count in passed.values())
        assert 20 <= sum(passed.values()) <= 40
        text = log.read_text()
    assert text.count("Rate limits hold for each process by itself, since the shared counts fail: ") == len(passed)
    assert "Traceback" not in text


async def test_limits_for_plugins_that_are_not_there_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A misspelt id is a line in the log, with the nearest one that is there."""
    settings = Settings(
        data_dir=tmp_path / "data", rate_limits={"game-npc": None}, concurrency_limits={"auth": 5}, log_format="console"
    )
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        told = [each.getMessage() for each in caplog.records if each.name == "pixsim7.rate_limits"]
    assert told == ["RATE_LIMITS: no plugin 'game-npc' is installed; did you mean 'game-npcs'?"]
