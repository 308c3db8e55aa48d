from __future__ import annotations

import asyncio
import dataclasses
import importlib
import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from pixsim7_backend.problems import Conflict, TooManyRequests
from tests.plugins.conftest import PASSWORD, Backend, Client

pytestmark = pytest.mark.anyio

USERS = "/api/v1/users"
NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/me"),
        ("PATCH", "/me"),
        ("GET", "/me/usage"),
        ("GET", "/me/preferences"),
        ("PATCH", "/me/preferences"),
        ("GET", "/"),
        ("GET", "/1"),
        ("PATCH", "/1"),
    ],
)
async def test_without_a_token_every_route_is_401(backend: Backend, method: str, path: str) -> None:
    """Even with a body that means nothing: who is asking comes first."""
    answer = await backend.request(method, USERS + path, content=b"nonsense")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"


# --- one's own profile ----------------------------------------------------------------------------


async def test_one_reads_and_changes_the_own_account(user_client: Client) -> None:
    """What is left out stays; null takes the display name away; nothing secret is shown."""
    me = (await user_client.get(f"{USERS}/me")).json()
    assert me == user_client.user
    answer = await user_client.patch(f"{USERS}/me", json={"display_name": "The User"})
    assert answer.status_code == 200
    changed = answer.json()
    assert datetime.fromisoformat(changed["updated_at"]) > datetime.fromisoformat(me["updated_at"])
    assert changed == me | {"display_name": "The User", "updated_at": changed["updated_at"]}
    assert (await user_client.get(f"{USERS}/me")).json() == changed
    assert (await user_client.patch(f"{USERS}/me", json={"display_name": None})).json()["display_name"] is None
    assert not {"password", "password_hash", "email_key"} & set(me)


async def test_a_changed_name_logs_in_and_the_old_one_does_not(backend: Backend, user_client: Client) -> None:
    """Address and username are the new ones everywhere at once."""
    change = {"email": "New@Example.com", "username": "Newname"}
    assert (await user_client.patch(f"{USERS}/me", json=change)).status_code == 200
    for name, status in (("new@example.com", 200), ("newname", 200), ("user", 401), ("user@example.com", 401)):
        login = {"username": name, "password": PASSWORD}
        assert (await backend.post("/api/v1/auth/login", json=login)).status_code == status


async def test_changing_only_the_case_of_a_name_is_no_conflict_with_oneself(user_client: Client) -> None:
    """The name is one's own."""
    answer = await user_client.patch(f"{USERS}/me", json={"username": "USER", "email": "USER@example.com"})
    assert (answer.status_code, answer.json()["username"]) == (200, "USER")


@pytest.mark.parametrize("change", [{"username": "OTHER"}, {"email": "Other@Example.com"}])
async def test_somebody_elses_name_is_409(user_client: Client, other_client: Client, change: dict[str, str]) -> None:
    """And nothing of the change is stored."""
    answer = await user_client.patch(f"{USERS}/me", json=change | {"display_name": "Changed"})
    assert answer.status_code == 409
    assert answer.json()["field"] == next(iter(change))
    assert (await user_client.get(f"{USERS}/me")).json()["display_name"] is None


@pytest.mark.parametrize(
    "change",
    [
        {"role": "admin"},
        {"is_active": False},
        {"id": 1},
        {"password": "something new"},
        {"email": None},
        {"username": None},
        {"username": "a\x00b"},
        {"email": ""},
        {"display_name": ""},
        [],
        None,
    ],
)
async def test_a_user_cannot_make_oneself_anything_else(user_client: Client, change: Any) -> None:
    """Role, activity and ids are not one's own to change; empty and impossible values are 422."""
    assert (await user_client.patch(f"{USERS}/me", json=change)).status_code == 422
    assert (await user_client.get(f"{USERS}/me")).json() == user_client.user


async def test_of_two_who_want_one_name_at_once_one_gets_it(backend: Backend) -> None:
    """The unique index decides: one 200, the rest 409."""
    clients = [await backend.sign_up(f"user{number}") for number in range(6)]
    answers = await asyncio.gather(*(each.patch(f"{USERS}/me", json={"username": "wanted"}) for each in clients))
    assert Counter(answer.status_code for answer in answers) == {200: 1, 409: 5}


# --- preferences ----------------------------------------------------------------------------------


@pytest.mark.parametrize("media_type", ["application/merge-patch+json", "application/json", None])
async def test_preferences_are_merged_and_really_stored(user_client: Client, media_type: str | None) -> None:
    """RFC 7386: nested members are merged, null removes, arrays are replaced; the next request sees it."""
    path = f"{USERS}/me/preferences"
    assert (await user_client.get(path)).json() == {}
    steps: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"ui": {"theme": "dark", "z": 1.5}, "t": ["a", "b"]}, {"ui": {"theme": "dark", "z": 1.5}, "t": ["a", "b"]}),
        ({"ui": {"z": None, "font": {"size": 12}}}, {"ui": {"theme": "dark", "font": {"size": 12}}, "t": ["a", "b"]}),
        ({"t": ["c"], "ui": {"font": {"size": 13}}}, {"ui": {"theme": "dark", "font": {"size": 13}}, "t": ["c"]}),
        ({"ui": None}, {"t": ["c"]}),
        ({}, {"t": ["c"]}),
    ]  # fmt: skip
    headers = {"content-type": media_type} if media_type else {}
    for patch, outcome in steps:
        answer = await user_client.patch(path, content=json.dumps(patch), headers=headers)
        assert (answer.status_code, answer.json()) == (200, outcome)
        assert (await user_client.get(path)).json() == outcome


@pytest.mark.parametrize(
    "body",
    [b"[]", b"null", b'"x"', b"{", b'{"a": "\\u0000"}', b'{"a": "\\ud800"}', b'{"a": NaN}', b'{"a": 1e999}',
     b'{"a": ' + b"[" * 30 + b"]" * 30 + b"}", b'{"a": "' + b"x" * 70_000 + b'"}', b'{"a": ' + b"9" * 30 + b"}"],
)  # fmt: skip
async def test_what_cannot_be_stored_as_preferences_is_refused(user_client: Client, body: bytes) -> None:
    """Other JSON, NUL, lone surrogates, infinities, deep and large documents are 4xx, and nothing changes."""
    path = f"{USERS}/me/preferences"
    await user_client.patch(path, json={"kept": True})
    answer = await user_client.patch(path, content=body, headers={"content-type": "application/merge-patch+json"})
    assert answer.status_code in (400, 413, 422)
    assert (await user_client.get(path)).json() == {"kept": True}


async def test_preferences_cannot_grow_without_end(user_client: Client) -> None:
    """Patches that are each small enough are refused when their outcome is not."""
    path = f"{USERS}/me/preferences"
    assert (await user_client.patch(path, json={"a": "x" * 40_000})).status_code == 200
    assert (await user_client.patch(path, json={"b": "x" * 40_000})).status_code == 422
    assert set((await user_client.get(path)).json()) == {"a"}


async def test_parallel_patches_are_all_kept(user_client: Client) -> None:
    """Twenty at once, the first ones included: no change is lost."""
    path = f"{USERS}/me/preferences"
    answers = await asyncio.gather(*(user_client.patch(path, json={f"key{n}": n}) for n in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert (await user_client.get(path)).json() == {f"key{n}": n for n in range(20)}


async def test_preferences_are_ones_own(user_client: Client, other_client: Client) -> None:
    """Nobody sees another's."""
    await user_client.patch(f"{USERS}/me/preferences", json={"mine": 1})
    assert (await other_client.get(f"{USERS}/me/preferences")).json() == {}


# --- usage ----------------------------------------------------------------------------------------


@pytest.fixture
def meter(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Give the running plugin's meter with another clock, to the backend too."""

    def at(now: datetime) -> Any:
        changed = dataclasses.replace(backend.app.state.usage_meter, clock=lambda: now)
        monkeypatch.setitem(backend.app.state._state, "usage_meter", changed)
        return changed

    return at


def amounts(**asked: int) -> Any:
    """Return the `Amounts` of the plugin as it is loaded now."""
    return importlib.import_module("pixsim7_backend.plugins.users").Amounts(**asked)


async def test_usage_is_shown_against_the_quotas(
    backend: Backend, user_client: Client, meter: Callable[..., Any]
) -> None:
    """Today's and total amounts, the quotas of the settings, what remains, and when the day ends."""
    at_noon = meter(NOON)
    with backend.database.session() as session:
        at_noon.reserve(session, user_client.user["id"], amounts(jobs=2, assets=1, storage_bytes=1000))
    usage = (await user_client.get(f"{USERS}/me/usage")).json()
    assert usage == {
        "day": "2030-01-01",
        "resets_at": "2030-01-02T00:00:00Z",
        "today": {"jobs": 2, "assets": 1, "storage_bytes": 1000},
        "total": {"jobs": 2, "assets": 1, "storage_bytes": 1000},
        "quotas": {"daily_jobs": 100, "concurrent_jobs": 4, "assets": 10_000, "storage_bytes": 10 * 1024**3},
        "remaining": {"daily_jobs": 98, "assets": 9_999, "storage_bytes": 10 * 1024**3 - 1000},
    }


async def test_who_has_used_nothing_has_a_usage_too(user_client: Client, other_client: Client) -> None:
    """All zero, and reading stores nothing."""
    usage = (await user_client.get(f"{USERS}/me/usage")).json()
    assert usage["today"] == usage["total"] == {"jobs": 0, "assets": 0, "storage_bytes": 0}


async def test_daily_counters_start_again_at_utc_midnight(
    backend: Backend, user_client: Client, meter: Callable[..., Any]
) -> None:
    """A microsecond before midnight the day's jobs are used up; at midnight there is a new day, shown and counted."""
    user_id = user_client.user["id"]
    late = meter(datetime(2030, 1, 1, 23, 59, 59, 999_999, tzinfo=UTC))
    with backend.database.session() as session:
        late.reserve(session, user_id, amounts(jobs=100))
        with pytest.raises(TooManyRequests) as caught:
            late.reserve(session, user_id, amounts(jobs=1))
    assert caught.value.headers == {"Retry-After": "1"}
    assert caught.value.members == {"quota": "daily_jobs", "limit": 100, "used": 100, "asked": 1}
    assert (await user_client.get(f"{USERS}/me/usage")).json()["remaining"]["daily_jobs"] == 0
    next_day = meter(datetime(2030, 1, 2, tzinfo=UTC))
    usage = (await user_client.get(f"{USERS}/me/usage")).json()
    assert (usage["day"], usage["today"]["jobs"], usage["total"]["jobs"]) == ("2030-01-02", 0, 100)
    with backend.database.session() as session:
        assert next_day.reserve(session, user_id, amounts(jobs=1)).today.jobs == 1


async def test_what_is_deleted_is_given_back(backend: Backend, user_client: Client, meter: Callable[..., Any]) -> None:
    """Storage and assets are, jobs are not; a full quota is 409 until something is gone."""
    at_noon, user_id = meter(NOON), user_client.user["id"]
    with backend.database.session() as session:
        at_noon.reserve(session, user_id, amounts(jobs=1, assets=10_000, storage_bytes=500))
        with pytest.raises(Conflict, match="delete something first"):
            at_noon.reserve(session, user_id, amounts(assets=1))
        at_noon.release(session, user_id, amounts(jobs=1, assets=1, storage_bytes=9_999))
        at_noon.reserve(session, user_id, amounts(assets=1))
    total = (await user_client.get(f"{USERS}/me/usage")).json()["total"]
    assert total == {"jobs": 1, "assets": 10_000, "storage_bytes": 0}


async def test_a_rolled_back_reservation_never_was(
    backend: Backend, user_client: Client, meter: Callable[..., Any]
) -> None:
    """The counters are part of the caller's transaction."""
    at_noon = meter(NOON)
    with backend.database.session() as session:
        at_noon.reserve(session, user_client.user["id"], amounts(jobs=1))
        session.rollback()
    assert (await user_client.get(f"{USERS}/me/usage")).json()["total"]["jobs"] == 0


async def test_parallel_reservations_never_exceed_the_quota(
    backend: Backend, user_client: Client, meter: Callable[..., Any]
) -> None:
    """Of 30 at once for ten places exactly ten get one, the first ever row of the user included."""
    at_noon, user_id = meter(NOON), user_client.user["id"]
    scarce = dataclasses.replace(at_noon, defaults=dataclasses.replace(at_noon.defaults, daily_jobs=10))

    def reserve() -> bool:
        try:
            with backend.database.session() as session:
                scarce.reserve(session, user_id, amounts(jobs=1, storage_bytes=7))
        except TooManyRequests:
            return False
        return True

    outcomes = await asyncio.gather(*(asyncio.to_thread(reserve) for _ in range(30)))
    assert Counter(outcomes) == {True: 10, False: 20}
    usage = (await user_client.get(f"{USERS}/me/usage")).json()
    assert usage["total"] == {"jobs": 10, "assets": 0, "storage_bytes": 70}


# --- administering --------------------------------------------------------------------------------


async def test_only_admins_administer(user_client: Client, other_client: Client) -> None:
    """403 for everybody else, for existing and for missing accounts alike."""
    for method, path in (("GET", "/"), ("GET", f"/{other_client.user['id']}"), ("GET", "/99"), ("PATCH", "/1")):
        answer = await user_client.request(method, USERS + path, json={})
        assert answer.status_code == 403, path
        assert answer.headers["content-type"] == "application/problem+json"


async def test_accounts_are_listed_page_by_page(backend: Backend, admin_client: Client) -> None:
    """By id, each once, with the total of the whole list; no page holds a hash."""
    for number in range(5):
        await backend.sign_up(f"user{number}")
    seen: list[dict[str, Any]] = []
    cursor: str | None = None
    while cursor or not seen:
        params = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await admin_client.get(f"{USERS}/", params=params)).json()
        assert page["total"] == 6
        seen += page["items"]
        cursor = page["next_cursor"]
    assert [each["username"] for each in seen] == ["admin", "user0", "user1", "user2", "user3", "user4"]
    assert "argon2" not in json.dumps(seen)


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({"role": "admin"}, ["admin"]),
        ({"role": "guest"}, []),
        ({"is_active": "false"}, ["bob"]),
        ({"is_active": "true", "role": "user"}, ["ann", "user_x"]),
        ({"q": "ANN"}, ["ann"]),
        ({"q": "example.com"}, ["admin", "ann", "bob", "user_x"]),
        ({"q": "_"}, ["user_x"]),
        ({"q": "%"}, []),
        ({"q": "builder"}, ["bob"]),
        ({"q": "'; DROP TABLE users; --"}, []),
    ],
)
async def test_accounts_are_filtered_in_sql(
    backend: Backend, admin_client: Client, filters: dict[str, str], names: list[str]
) -> None:
    """Role, activity and part of a name; the total is that of the filtered list, wildcards mean themselves."""
    for name in ("ann", "bob", "user_x"):
        await backend.sign_up(name)
    backend.execute("UPDATE users SET is_active = FALSE, display_name = 'Bob the Builder' WHERE username = 'bob'")
    page = (await admin_client.get(f"{USERS}/", params=filters | {"limit": "2"})).json()
    assert page["total"] == len(names)
    assert [each["username"] for each in page["items"]] == names[:2]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "cursor=x", "role=king", "is_active=perhaps", "q=%00", "q=" + "x" * 300]
)
async def test_unusable_filters_are_422(admin_client: Client, query: str) -> None:
    """They are told apart from empty results."""
    assert (await admin_client.get(f"{USERS}/?{query}")).status_code == 422


async def test_an_admin_changes_roles_activity_and_quotas(
    backend: Backend, admin_client: Client, user_client: Client
) -> None:
    """At once: the new role may, the lowered quota shows, null brings the default back, the deactivated is out."""
    path = f"{USERS}/{user_client.user['id']}"
    change = {"role": "admin", "quotas": {"daily_jobs": 1, "storage_bytes": 0}}
    answer = await admin_client.patch(path, json=change)
    assert answer.status_code == 200
    assert answer.json()["role"] == "admin"
    assert answer.json()["quotas"] == {"daily_jobs": 1, "concurrent_jobs": 4, "assets": 10_000, "storage_bytes": 0}
    assert (await user_client.get(f"{USERS}/")).status_code == 200
    assert (await user_client.get(f"{USERS}/me/usage")).json()["remaining"]["storage_bytes"] == 0
    answer = await admin_client.patch(path, json={"quotas": {"storage_bytes": None}, "role": "guest"})
    assert answer.json()["quotas"]["storage_bytes"] == 10 * 1024**3
    assert (await admin_client.get(path)).json() == answer.json()
    assert (await admin_client.patch(path, json={"is_active": False})).json()["is_active"] is False
    assert (await user_client.get(f"{USERS}/me")).status_code == 401
    assert (await admin_client.patch(path, json={"is_active": True})).status_code == 200
    assert (await user_client.get(f"{USERS}/me")).status_code == 401, "deactivating ended the login for good"
    login = {"username": "user", "password": PASSWORD}
    assert (await backend.post("/api/v1/auth/login", json=login)).status_code == 200


@pytest.mark.parametrize(
    "change",
    [{"role": "king"}, {"role": None}, {"is_active": None}, {"is_active": "no"}, {"is_active": 0}, {"quotas": None},
     {"email": "x@example.com"}, {"password": "something new"}, {"quotas": {"daily_jobs": -1}},
     {"quotas": {"daily_jobs": 2**60}}, {"quotas": {"daily_jobs": "5"}}, {"quotas": {"daily_jobs": 1.5}},
     {"quotas": {"unknown": 1}}, []],
)  # fmt: skip
async def test_unusable_changes_are_422(admin_client: Client, user_client: Client, change: Any) -> None:
    """Admins set roles, activity and quotas only, and only to values that exist."""
    path = f"{USERS}/{user_client.user['id']}"
    before = (await admin_client.get(path)).json()
    assert (await admin_client.patch(path, json=change)).status_code == 422
    assert (await admin_client.get(path)).json() == before


@pytest.mark.parametrize(
    ("user_id", "status"), [("99", 404), (str(2**31 - 1), 404), ("0", 422), (str(2**80), 422), ("x", 422)]
)
async def test_a_missing_account_is_404(admin_client: Client, user_id: str, status: int) -> None:
    """An id that cannot be is 422."""
    assert (await admin_client.get(f"{USERS}/{user_id}")).status_code == status
    assert (await admin_client.patch(f"{USERS}/{user_id}", json={"quotas": {"assets": 1}})).status_code == status


@pytest.mark.parametrize("change", [{"role": "user"}, {"is_active": False}, {"role": "guest", "is_active": False}])
async def test_the_last_active_admin_stays(backend: Backend, admin_client: Client, change: dict[str, Any]) -> None:
    """409, and nothing of the change is stored; with another active admin it is fine, not with an inactive one."""
    path = f"{USERS}/{admin_client.user['id']}"
    assert (await admin_client.patch(path, json=change | {"quotas": {"assets": 7}})).status_code == 409
    me = (await admin_client.get(path)).json()
    assert (me["role"], me["is_active"], me["quotas"]["assets"]) == ("admin", True, 10_000)
    assert (await admin_client.patch(path, json={"role": "admin", "is_active": True})).status_code == 200
    second = await backend.sign_up("second", role="admin")
    backend.execute("UPDATE users SET is_active = FALSE WHERE username = 'second'")
    assert (await admin_client.patch(path, json=change)).status_code == 409
    backend.execute("UPDATE users SET is_active = TRUE WHERE username = 'second'")
    assert (await admin_client.patch(path, json=change)).status_code == 200
    assert (await second.get(f"{USERS}/")).status_code == 200


async def test_admins_who_demote_each_other_at_once_leave_one(backend: Backend) -> None:
    """Each of four demotes the next: whoever comes last is refused, so that somebody may still administer."""
    admins = [await backend.sign_up(f"admin{number}", role="admin") for number in range(4)]
    targets = [each.user["id"] for each in admins[1:] + admins[:1]]
    answers = await asyncio.gather(
        *(each.patch(f"{USERS}/{target}", json={"role": "user"}) for each, target in zip(admins, targets, strict=True))
    )
    assert {answer.status_code for answer in answers} <= {200, 403, 409}
    [(left,)] = backend.execute("SELECT count(*) FROM users WHERE role = 'admin'")
    assert left >= 1
