"""Redis in a jail: the same client, the same answers, on keys of its own; and no way beyond them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from pixsim7_backend import redis as backend_redis
from pixsim7_backend.community.redis import inside
from pixsim7_backend.community.redis.commands import COMMANDS, RedisLimits
from pixsim7_backend.community.redis.service import RedisService
from pixsim7_backend.community.redis.users import apply_redis_grants, prefix_of, remove_redis_user, user_of
from pixsim7_backend.infrastructure.plugins._grants.permissions import Grants
from pixsim7_backend.redis import RedisNotConfiguredError, get_redis, new_async_redis
from tests.integration.community.halves import entered, grants_of
from tests.services import redis_url

PLUGIN = f"quest-stats-{uuid.uuid4().hex[:12]}"  # one for each process that runs tests
USER = f"{PLUGIN}-user"
ALL = ("redis:read", "redis:write")
Enter = Callable[..., Any]


@pytest.fixture
def host() -> Iterator[Any]:
    """The host's own client; what the plugin under test kept is gone afterwards."""
    with Redis.from_url(redis_url()) as client:
        yield client
        for key in client.scan_iter(match=f"{prefix_of(PLUGIN)[:-1]}*"):
            client.delete(key)


@pytest.fixture
def enter(host: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Enter]:
    """Gives what puts a plugin with these grants into a jail, until the test ends; it returns what it calls with."""
    with ExitStack() as stack:
        for name in ("make", "make_async", "client"):
            monkeypatch.setattr(backend_redis._Process, name, None)

        def go(*granted: str, limits: RedisLimits | None = None, has_user: bool = False) -> Any:
            grants = grants_of(*(granted or ALL))
            if has_user:
                apply_redis_grants(redis_url(), PLUGIN, grants, data_dir=tmp_path)
                stack.callback(remove_redis_user, redis_url(), PLUGIN, data_dir=tmp_path)
            service = RedisService(redis_url, data_dir=tmp_path, limits=limits)
            stack.enter_context(entered([service], grants, tmp_path, monkeypatch, inside.install, plugin=PLUGIN))
            return get_redis()

        yield go


def _everything(redis: Any, key: str) -> list[Any]:
    """Use all that plugins may use; return what it gave."""
    return [
        redis.set(f"{key}a", "1", ex=100),
        redis.set(f"{key}a", "2", nx=True),
        redis.set(f"{key}a", "3", xx=True, px=100_000),
        redis.set(f"{key}a", "4", get=True),
        redis.get(f"{key}a"),
        redis.get(f"{key}none"),
        redis.incr(f"{key}n"),
        redis.incrby(f"{key}n", 5),
        redis.decr(f"{key}n", 2),
        redis.expire(f"{key}n", 1000),
        redis.ttl(f"{key}n") in (999, 1000),
        redis.ttl(f"{key}none"),
        redis.exists(f"{key}n", f"{key}none"),
        redis.mset({f"{key}m1": b"\x00\xff", f"{key}m2": 2.5}),
        redis.mget([f"{key}m1", f"{key}m2", f"{key}none"]),
        redis.hset(f"{key}h", mapping={"x": 1, "y": "zwei"}),
        redis.hget(f"{key}h", "x"),
        redis.hgetall(f"{key}h"),
        redis.hincrby(f"{key}h", "x", 3),
        redis.hdel(f"{key}h", "y", "none"),
        redis.hgetall(f"{key}none"),
        redis.hlen(f"{key}h"),
        redis.rpush(f"{key}l", "a", "b", "c"),
        redis.lpush(f"{key}l", "z"),
        redis.lrange(f"{key}l", 0, -1),
        redis.llen(f"{key}l"),
        redis.ltrim(f"{key}l", 1, -1),
        redis.lpop(f"{key}l"),
        redis.rpop(f"{key}l", 2),
        redis.rpop(f"{key}l"),
        redis.sadd(f"{key}s", "a", "b"),
        redis.smembers(f"{key}s"),
        redis.sismember(f"{key}s", "a"),
        redis.srem(f"{key}s", "a", "none"),
        redis.scard(f"{key}s"),
        redis.zadd(f"{key}z", {"ada": 1, "bob": 2.5, "eve": 4}),
        redis.zadd(f"{key}z", {"ada": 3}, xx=True, ch=True),
        redis.zrange(f"{key}z", 0, -1),
        redis.zrange(f"{key}z", 0, 1, desc=True, withscores=True),
        redis.zrange(f"{key}z", "-inf", "(4", byscore=True, offset=0, num=5, withscores=True),
        redis.zscore(f"{key}z", "bob"),
        redis.zscore(f"{key}z", "none"),
        redis.zrem(f"{key}z", "eve"),
        redis.zcard(f"{key}z"),
        redis.getdel(f"{key}a"),
        redis.delete(f"{key}n", f"{key}h", f"{key}none"),
    ]


@pytest.mark.parametrize("has_user", [False, True], ids=["as the host", "as its user"])
def test_answers_are_those_of_the_host_s_own_client(enter: Enter, host: Any, has_user: bool) -> None:
    """Command by command, with every option; also where Redis checks once more."""
    own = f"{prefix_of(PLUGIN)}{uuid.uuid4().hex}:"
    expected = _everything(host, own)
    assert _everything(enter(has_user=has_user), "there:") == expected


def test_the_async_client_answers_as_well(enter: Enter) -> None:
    """It is the same client in its async form."""
    enter()

    async def use() -> list[Any]:
        async with new_async_redis() as redis:
            await redis.set("a", "1")
            await redis.zadd("z", {"ada": 1})
            return [await redis.get("a"), await redis.zrange("z", 0, -1, withscores=True)]

    assert asyncio.run(use()) == [b"1", [(b"ada", 1.0)]]


def test_keys_lie_under_the_plugin_s_prefix(enter: Enter, host: Any) -> None:
    """What it calls ``hits`` is another key for everybody else."""
    enter().set("hits", "7")
    assert host.get(f"{prefix_of(PLUGIN)}hits") == b"7"


@pytest.mark.parametrize("has_user", [False, True], ids=["as the host", "as its user"])
def test_another_plugin_s_keys_are_out_of_reach(enter: Enter, host: Any, has_user: bool) -> None:
    """However its name is written, a key is one of the plugin's own."""
    victim = f"pixsim7:plugin:{PLUGIN}-victim:gold"
    host.set(victim, "1000", ex=60)
    assert host.get(victim) == b"1000", "bare, everybody reads it"
    redis = enter(has_user=has_user)
    for name in (victim, f"../{victim}", f"{{}}{victim}", f"::{victim}", f"{prefix_of(PLUGIN)}{victim}"):
        assert redis.get(name) is None
        redis.set(name, "0")
    assert host.get(victim) == b"1000"


@pytest.mark.parametrize(
    "command",
    [
        ("SCAN", "0"), ("RANDOMKEY",), ("KEYS", "*"), ("AUTH", "default", ""), ("HELLO", "3", "AUTH", "default", ""),
        ("EVAL", "return redis.call('KEYS','*')", "0"), ("FCALL", "f", "0"), ("SELECT", "1"), ("ACL", "WHOAMI"),
        ("CONFIG", "GET", "*"), ("CLIENT", "LIST"), ("SUBSCRIBE", "c"), ("PUBLISH", "c", "m"), ("FLUSHALL",),
        ("DEBUG", "SLEEP", "1"), ("MIGRATE", "127.0.0.1", "1", "k", "0", "1"), ("SORT", "l", "BY", "*"),
        ("OBJECT", "ENCODING", "a"), ("MULTI",), ("RENAME", "a", "b"), ("COPY", "a", "b"), ("RESET",), ("QUIT",),
        ("get\r\nFLUSHALL", "a"), ("GET\r\n", "a"), ("", "a"), ("SMOVE", "a", "b", "c"), ("MONITOR",),
    ],
)  # fmt: skip
def test_other_commands_are_refused(enter: Enter, host: Any, command: tuple[str, ...]) -> None:
    """Those that name keys of others, run scripts, or speak to the server at all; Redis never hears of them."""
    redis = enter()
    before = host.info("commandstats")
    with pytest.raises(ResponseError, match="is none"):
        redis.execute_command(*command)
    if command[0].lower() in ("eval", "randomkey", "keys"):
        stats = f"cmdstat_{command[0].lower()}"
        assert host.info("commandstats").get(stats) == before.get(stats)


@pytest.mark.parametrize(
    "key",
    ["a\r\nFLUSHALL", "a\n", "a*", "a?", "[ab]", "a b", "", "\x00", "ä", "a" * 513, "a\\x", '"a"', "'a'", "a^"],
)
def test_keys_with_newlines_or_globs_are_refused(enter: Enter, key: str) -> None:
    """A key is visible ASCII, and no pattern; wherever a command has one."""
    redis = enter()
    works: list[Callable[[], Any]] = [
        lambda: redis.get(key), lambda: redis.delete("good", key), lambda: redis.mget("good", key),
        lambda: redis.mset({"good": 1, key: 1}), lambda: redis.hset(key, "f", 1),
    ]  # fmt: skip
    for work in works:
        with pytest.raises(ResponseError, match="is no key"):
            work()


@pytest.mark.parametrize(
    "command",
    [
        ("SET", "a", "1", "EX", "1", "IFEQ", "x"), ("SET", "a", "1", "EX"), ("SET", "a", "1", "EX", "1.5"),
        ("ZRANGE", "z", "0", "-1", "BYLEX"), ("ZRANGE", "z", "[a", "-1"), ("EXPIRE", "a", "1", "FOO"), ("GET",),
        ("GET", "a", "b"), ("LPOP", "l", "1000000000"), ("MGET", *(f"k{number}" for number in range(101))),
        ("HINCRBY", "h", "f", "x"), ("SADD", "s", "x" * 20_000), ("SET", "a", "x" * 300_000),
    ],
)  # fmt: skip
def test_other_forms_of_commands_are_refused(enter: Enter, command: tuple[str, ...]) -> None:
    """Options that are not named, numbers that are none, and what is too much."""
    with pytest.raises(ResponseError):
        enter().execute_command(*command)


def test_collections_that_are_too_large_are_not_read(enter: Enter, host: Any) -> None:
    """They are not even asked for; a part of a list is."""
    redis = enter(limits=RedisLimits(items=10))
    host.rpush(f"{prefix_of(PLUGIN)}l", *range(20))
    host.sadd(f"{prefix_of(PLUGIN)}s", *range(20))
    host.hset(f"{prefix_of(PLUGIN)}h", mapping={str(number): number for number in range(20)})
    host.zadd(f"{prefix_of(PLUGIN)}z", {str(number): number for number in range(20)})
    works: list[Callable[[], Any]] = [
        lambda: redis.lrange("l", 0, -1), lambda: redis.smembers("s"), lambda: redis.hgetall("h"),
        lambda: redis.zrange("z", 0, 15), lambda: redis.zrange("z", "-inf", "+inf", byscore=True),
    ]  # fmt: skip
    for work in works:
        with pytest.raises(ResponseError, match="20 items"):
            work()
    assert redis.lrange("l", 2, 4) == [b"2", b"3", b"4"]
    assert redis.zrange("z", -2, -1) == [b"18", b"19"]


def test_a_reply_is_read_up_to_a_size(enter: Enter, host: Any) -> None:
    """The rest is never taken in, and the next command is answered as ever."""
    redis = enter(limits=RedisLimits(reply=10_000))
    host.mset({f"{prefix_of(PLUGIN)}{number}": "x" * 4000 for number in range(9)})
    with pytest.raises(ResponseError, match="more than 10,000 bytes"):
        redis.mget([str(number) for number in range(9)])
    assert redis.get("1") == b"x" * 4000


@pytest.mark.parametrize("has_user", [False, True], ids=["as the host", "as its user"])
def test_grants_are_narrowed_by_keys(enter: Enter, has_user: bool) -> None:
    """A star stands for any text; reading and writing are granted apart, and what does both needs both."""
    redis = enter("redis:read:cache:*,hits", "redis:write:cache:npcs:*", has_user=has_user)
    redis.set("cache:npcs:1", "Ada")
    assert redis.get("cache:npcs:1") == b"Ada"
    assert redis.getdel("cache:npcs:1") == b"Ada"
    assert redis.get("hits") is None
    works: list[Callable[[], Any]] = [
        lambda: redis.get("other"), lambda: redis.set("hits", 1), lambda: redis.incr("hits"),
        lambda: redis.set("cache:worlds", 1), lambda: redis.mget("hits", "other"), lambda: redis.lpop("hits"),
    ]  # fmt: skip
    for work in works:
        with pytest.raises(NoPermissionError, match="is not granted"):
            work()


def test_what_only_writes_returns_nothing(enter: Enter) -> None:
    """Without the permission to read, no option gives away what was there."""
    redis = enter("redis:write")
    redis.set("a", "secret")
    with pytest.raises(NoPermissionError, match="redis:read"):
        redis.set("a", "x", get=True)
    with pytest.raises(NoPermissionError, match="redis:read"):
        redis.getdel("a")


def test_nothing_but_commands_is_offered(enter: Enter) -> None:
    """Pipelines, subscriptions and scripts need a connection; they say so at once."""
    redis = enter()
    for work in (redis.pipeline, redis.pubsub, redis.monitor, lambda: redis.lock("a")):
        with pytest.raises(RedisError, match="one command after the other"):
            work()


def test_errors_of_redis_are_those_of_the_client(enter: Enter) -> None:
    """A wrong type is a ResponseError, as in process."""
    redis = enter()
    redis.set("a", "x")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        redis.lpush("a", 1)
    with pytest.raises(ResponseError, match="not an integer"):
        redis.incr("a")


def _missing() -> str:
    raise RedisNotConfiguredError("set REDIS_URL")


@pytest.mark.parametrize("url", [_missing, str])
def test_without_redis_the_plugin_is_told_as_in_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: Callable[[], str]
) -> None:
    """The same error, with the setting that is missing."""
    for name in ("make", "make_async", "client"):
        monkeypatch.setattr(backend_redis._Process, name, None)
    service = RedisService(url, data_dir=tmp_path)
    with (
        entered([service], grants_of(*ALL), tmp_path, monkeypatch, inside.install),
        pytest.raises(RedisNotConfiguredError, match="REDIS_URL"),
    ):
        get_redis()


@pytest.mark.parametrize("option", ["protocol=3", "decode_responses=yes"])
def test_a_url_that_changes_how_replies_are_read_is_refused(
    host: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    """They would be read without limits; the plugin is told what the operator has to take out."""
    for name in ("make", "make_async", "client"):
        monkeypatch.setattr(backend_redis._Process, name, None)
    service = RedisService(lambda: f"{redis_url()}?{option}", data_dir=tmp_path)
    with (
        entered([service], grants_of(*ALL), tmp_path, monkeypatch, inside.install, plugin=PLUGIN),
        pytest.raises(RedisConnectionError, match="take them out"),
    ):
        get_redis().get("a")


# --- the user ------------------------------------------------------------------------------------------


@pytest.fixture
def user(host: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Gives a client that is logged in as the plugin's user."""
    with ExitStack() as stack:

        def log_in(*granted: str) -> Any:
            url = redis_url()
            apply_redis_grants(url, USER, grants_of(*granted), data_dir=tmp_path)
            stack.callback(remove_redis_user, url, USER, data_dir=tmp_path)
            (secret,) = (tmp_path / "community-roles").iterdir()
            client: Any = Redis.from_url(url)
            db = int(client.connection_pool.connection_kwargs.get("db") or 0)
            client.connection_pool.connection_kwargs |= {
                "username": user_of(USER, db), "password": secret.read_text()
            }  # fmt: skip
            return stack.enter_context(client)

        yield log_in


def test_its_user_may_do_no_more_than_the_broker_lets_through(user: Callable[..., Any], host: Any) -> None:
    """Named commands, on the plugin's own keys: Redis refuses all others itself."""
    redis = user(*ALL)
    prefix = prefix_of(USER)
    assert redis.set(f"{prefix}a", 1) is True
    assert redis.get(f"{prefix}a") == b"1"
    allowed = set(host.acl_getuser(user_of(USER, 0))["commands"])
    assert allowed == {f"+{name.lower()}" for name in COMMANDS}
    for command in (
        "scan 0",
        "randomkey",
        "keys *",
        "eval x 0",
        "config get *",
        "acl whoami",
        "publish a b",
        "flushall",
    ):
        with pytest.raises(NoPermissionError):
            redis.execute_command(*command.split())
    for key in ("other", "pixsim7:plugin:victim:a", f"pixsim7:plugin:{USER}-2:a"):
        with pytest.raises(NoPermissionError):
            redis.get(key)


def test_its_user_is_narrowed_as_the_grants_are(user: Callable[..., Any]) -> None:
    """Reading and writing are patterns of their own."""
    redis = user("redis:read:cache:*", "redis:write:hits")
    prefix = prefix_of(USER)
    assert redis.get(f"{prefix}cache:a") is None
    assert redis.set(f"{prefix}hits", 1) is True
    works: list[Callable[[], Any]] = [lambda: redis.get(f"{prefix}hits"), lambda: redis.set(f"{prefix}cache:a", 1)]
    for work in works:
        with pytest.raises(NoPermissionError):
            work()


def test_applying_takes_back_what_somebody_added(user: Callable[..., Any], host: Any, tmp_path: Path) -> None:
    """Also passwords; twice is as good as once, and without grants there is no user."""
    user(*ALL)
    name = user_of(USER, 0)
    host.execute_command("ACL", "SETUSER", name, "+@all", "~*", "&*", "nopass")
    once = apply_redis_grants(redis_url(), USER, grants_of("redis:read"), data_dir=tmp_path)
    listed = next(line for line in host.acl_list() if f" {name} " in line)
    twice = apply_redis_grants(redis_url(), USER, grants_of("redis:read"), data_dir=tmp_path)
    assert once == twice
    assert listed == next(line for line in host.acl_list() if f" {name} " in line)
    assert "nopass" not in listed
    assert "+@all" not in listed
    assert "+set" not in listed
    assert f"%R~{prefix_of(USER)}*" in listed
    apply_redis_grants(redis_url(), USER, Grants(), data_dir=tmp_path)
    assert name not in host.acl_users()


def test_a_dry_run_changes_nothing(host: Any, tmp_path: Path) -> None:
    """It says what the user could do, makes none, and keeps no password."""
    would = apply_redis_grants(redis_url(), f"{PLUGIN}-dry", grants_of("redis:read:a"), data_dir=tmp_path, dry_run=True)
    assert f"%R~{prefix_of(f'{PLUGIN}-dry')}a" in would.rules
    assert would.user not in host.acl_users()
    assert list(tmp_path.iterdir()) == []


def test_a_user_that_redis_forgot_stops_nobody(enter: Enter, host: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The host's own login is used, which the log says, and the broker checks as before."""
    redis = enter("redis:read", "redis:write:a", has_user=True)
    host.execute_command("ACL", "DELUSER", user_of(PLUGIN, 0))
    assert redis.set("a", 1) is True
    with pytest.raises(NoPermissionError):
        redis.set("b", 1)
    assert "pixsim7 plugins grants apply" in caplog.text
