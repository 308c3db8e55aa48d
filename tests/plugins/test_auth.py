from __future__ import annotations

import asyncio
import base64
import dataclasses
import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import argon2
import httpx
import jwt
import pytest
from sqlalchemy import event

from tests.plugins.conftest import PASSWORD, Backend, Client

pytestmark = pytest.mark.anyio

ANN: dict[str, Any] = {"email": "ann@example.com", "username": "ann", "password": PASSWORD}
AUTH = "/api/v1/auth"

Tune = Callable[..., None]


@pytest.fixture
def tune(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> Tune:
    """Exchange parts of the running plugin (clock, settings, passwords) for one test."""

    def change(**parts: Any) -> None:
        runtime = dataclasses.replace(backend.app.state.auth, **parts)
        monkeypatch.setitem(backend.app.state._state, "auth", runtime)

    return change


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


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"email": "no address"}, "#/email"),
        ({"email": "ann@example.com\x00"}, "#/email"),
        ({"email": "a" * 2000 + "@example.com"}, "#/email"),
        ({"email": None}, "#/email"),
        ({"username": "an"}, "#/username"),
        ({"username": "a" * 51}, "#/username"),
        ({"username": "ann@example.com"}, "#/username"),
        ({"username": "an\x00n"}, "#/username"),
        ({"username": 7}, "#/username"),
        ({"password": "hunter2"}, "#/password"),
        ({"password": "hunter2" * 40}, "#/password"),
        ({"password": "hunter2\x00hunter2"}, "#/password"),
        ({"password": ["hunter2-hunter2"]}, "#/password"),
        ({"display_name": "\u202eevil"}, "#/display_name"),
        ({"role": "admin"}, "#/role"),
        ({"is_active": True}, "#/is_active"),
    ],
)
async def test_unusable_registrations_are_refused_unechoed(
    backend: Backend, change: dict[str, Any], pointer: str
) -> None:
    """422 names the field and never quotes what was sent; a role cannot be chosen."""
    answer = await backend.post(f"{AUTH}/register", json=ANN | change)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert "hunter2" not in answer.text
    assert PASSWORD not in answer.text
    assert backend.execute("SELECT count(*) FROM users") == [(0,)]


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'"text"', b'{"email": "\\ud800"}', b"{", b"\xff\xfe", b"[" * 5000, b"null"]
)
@pytest.mark.parametrize("path", ["register", "login"])
async def test_other_bodies_are_refused(backend: Backend, path: str, body: bytes) -> None:
    """Whatever is posted, the answer is a problem of the client's, never a 500."""
    answer = await backend.post(f"{AUTH}/{path}", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_missing_field_does_not_quote_the_others(backend: Backend) -> None:
    """The password beside a forgotten field stays out of the answer."""
    for path in ("register", "login"):
        answer = await backend.post(f"{AUTH}/{path}", json={"password": "hunter2-hunter2"})
        assert answer.status_code == 422
        assert "hunter2" not in answer.text


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"username": "other"}, "email"),
        ({"username": "other", "email": "ANN@EXAMPLE.COM"}, "email"),
        ({"username": "other", "email": "\uff41nn@example.com"}, "email"),
        ({"email": "other@example.com"}, "username"),
        ({"email": "other@example.com", "username": "ANN"}, "username"),
        ({"email": "other@example.com", "username": "\uff21nn"}, "username"),
    ],
)
async def test_a_taken_address_or_name_is_409(backend: Backend, change: dict[str, Any], field: str) -> None:
    """In any spelling; the answer says which of the two, and nothing is stored."""
    await backend.post(f"{AUTH}/register", json=ANN)
    answer = await backend.post(f"{AUTH}/register", json=ANN | change)
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["field"] == field
    assert backend.execute("SELECT count(*) FROM users") == [(1,)]


# --- logging in -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        {"email": "ann@example.com"},
        {"email": "  ANN@Example.com "},
        {"username": "ann"},
        {"username": "ANN"},
        {"username": "\uff41\uff4e\uff4e"},
        {"username": "ann@example.com"},
        {"email": "ann"},
    ],
)
async def test_either_name_in_any_spelling_logs_in(backend: Backend, name: dict[str, str]) -> None:
    """Address or username, in either field, in any case or width."""
    await backend.post(f"{AUTH}/register", json=ANN)
    answer = await backend.post(f"{AUTH}/login", json=name | {"password": PASSWORD})
    assert answer.status_code == 200, answer.text
    assert answer.json()["user"]["username"] == "ann"
    assert answer.headers["Cache-Control"] == "no-store"


async def test_one_name_must_be_given(backend: Backend) -> None:
    """None or both of email and username is 422."""
    for names in ({}, {"email": "ann@example.com", "username": "ann"}):
        answer = await backend.post(f"{AUTH}/login", json=names | {"password": PASSWORD})
        assert answer.status_code == 422


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"content-type": "application/x-www-form-urlencoded"}, "username=ann&password={}"),
        (
            {"content-type": "application/x-www-form-urlencoded; charset=utf-8"},
            "grant_type=password&username=ANN%40example.com&password={}&scope=&client_id=x&client_secret=",
        ),
        ({"content-type": "application/x-www-form-urlencoded"}, '{{"username": "ann", "password": "{}"}}'),
        ({"content-type": "application/x-www-form-urlencoded"}, '  {{"email": "ann@example.com", "password": "{}"}}'),
        ({}, '{{"username": "ann", "password": "{}"}}'),
        ({"content-type": "application/problem+json"}, '{{"username": "ann", "password": "{}"}}'),
        ({"content-type": "text/plain"}, '{{"username": "ann", "password": "{}"}}'),
    ],
)  # fmt: skip
async def test_forms_and_curls_content_type_log_in(backend: Backend, headers: dict[str, str], body: str) -> None:
    """The OAuth2 password form, and JSON whatever the content type says (curl says it is a form)."""
    password = "pass+word&1=%"
    await backend.post(f"{AUTH}/register", json=ANN | {"password": password})
    encoded = "pass%2Bword%261%3D%25" if "{{" not in body else password
    answer = await backend.post(f"{AUTH}/login", content=body.format(encoded), headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["token_type"] == "bearer"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("username=ann", 422),
        ("password=x", 422),
        ("username=ann&username=bob&password=x", 400),
        ("grant_type=client_credentials&username=ann&password=x", 400),
        ("username=%ff&password=x", 400),
        ("username=a%00b&password=x", 422),
        ("&".join(f"f{n}=1" for n in range(100)), 400),
        ("username=ann&password=" + "x" * 129, 422),
        ("username=ann&password=" + "x" * 20_000, 413),
    ],
)
async def test_unusable_forms_are_refused(backend: Backend, body: str, status: int) -> None:
    """Missing, doubled, malformed and endless fields are the client's problem."""
    headers = {"content-type": "application/x-www-form-urlencoded"}
    answer = await backend.post(f"{AUTH}/login", content=body, headers=headers)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


async def test_docs_can_authorize(backend: Backend) -> None:
    """OpenAPI names the password flow, whose URL is the login that takes the form."""
    document = (await backend.get("/openapi.json")).json()
    schemes = document["components"]["securitySchemes"].values()
    flow = next(each["flows"]["password"] for each in schemes if each["type"] == "oauth2")
    await backend.post(f"{AUTH}/register", json=ANN)
    url = httpx.URL(f"{backend.url}/docs").join(flow["tokenUrl"])
    answer = await backend.post(url, data={"grant_type": "password", "username": "ann", "password": PASSWORD})
    assert answer.status_code == 200
    login = document["paths"][f"{AUTH}/login"]["post"]
    assert set(login["requestBody"]["content"]) == {"application/json", "application/x-www-form-urlencoded"}
    assert document["paths"][f"{AUTH}/me"]["get"]["security"]


async def test_a_wrong_password_and_an_unknown_name_look_alike(backend: Backend) -> None:
    """401 with the same words and headers; neither says whether the account exists."""
    await backend.post(f"{AUTH}/register", json=ANN)
    answers = [
        await backend.post(f"{AUTH}/login", json={"username": name, "password": "a wrong password"})
        for name in ("ann", "nobody", "nobody@example.com")
    ]
    assert [answer.status_code for answer in answers] == [401, 401, 401]
    assert {answer.headers["www-authenticate"] for answer in answers} == {"Bearer"}
    bodies = [{**answer.json(), "request_id": ""} for answer in answers]
    assert bodies[0] == bodies[1] == bodies[2]


async def test_an_unknown_name_costs_the_same_work(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """One Argon2 verification at the same cost, whether the account exists, is deactivated, or does not exist."""
    await backend.post(f"{AUTH}/register", json=ANN)
    await backend.post(f"{AUTH}/register", json=ANN | {"email": "gone@example.com", "username": "gone"})
    backend.execute("UPDATE users SET is_active = FALSE WHERE username = 'gone'")
    work: list[str] = []
    verify = argon2.PasswordHasher.verify

    def counted(hasher: argon2.PasswordHasher, stored: str | bytes, password: str | bytes) -> bool:
        work.append(str(stored).rpartition("$")[0].rpartition("$")[0])
        return verify(hasher, stored, password)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", counted)
    costs = []
    for name in ("ann", "nobody", "gone", "nobody@example.com", "' OR 1=1 --"):
        work.clear()
        answer = await backend.post(f"{AUTH}/login", json={"username": name, "password": "a wrong password"})
        assert answer.status_code == 401
        costs.append(list(work))
    assert costs == [["$argon2id$v=19$m=8,t=1,p=1"]] * 5


@pytest.mark.parametrize(
    "name",
    ["' OR '1'='1", "ann'--", "ann\\", "admin'; DROP TABLE users; --", "%", "_nn", "ann\u0000", "*", "ann OR 1=1",
     "\u2019 or 1=1"],
)  # fmt: skip
async def test_sql_in_a_login_is_only_a_wrong_name(backend: Backend, name: str) -> None:
    """Injection, wildcards and odd quotes find no account and break nothing."""
    await backend.post(f"{AUTH}/register", json=ANN)
    for field in ("username", "email"):
        answer = await backend.post(f"{AUTH}/login", json={field: name, "password": PASSWORD})
        assert answer.status_code in (401, 422)
    answer = await backend.post(f"{AUTH}/login", json={"username": "ann", "password": name})
    assert answer.status_code in (401, 422)
    assert backend.execute("SELECT username FROM users") == [("ann",)]


async def test_after_a_change_of_cost_a_login_renews_the_hash(backend: Backend, tune: Tune) -> None:
    """The stored hash follows the settings at the next login, and the password stays the same."""
    await backend.post(f"{AUTH}/register", json=ANN)
    hashes: Any = type(backend.app.state.auth.passwords)
    cost = dataclasses.replace(backend.app.state.auth.settings.hash_cost, memory_kib=16)
    dearer = hashes(cost, concurrency=2, queue=10)
    tune(passwords=dearer)
    for _ in range(2):
        answer = await backend.post(f"{AUTH}/login", json={"username": "ann", "password": PASSWORD})
        assert answer.status_code == 200
        [(stored,)] = backend.execute("SELECT password_hash FROM users")
        assert stored.startswith("$argon2id$v=19$m=16,t=1,p=1$")


# --- tokens and sessions --------------------------------------------------------------------------


async def test_logging_out_voids_the_presented_token_only(backend: Backend) -> None:
    """At once, and other logins of the same user go on."""
    first, second = await backend.sign_up("ann"), await backend.new_client()
    login = await backend.post(f"{AUTH}/login", json={"username": "ann", "password": PASSWORD})
    second.carry(login.json())
    answer = await first.post(f"{AUTH}/logout")
    assert answer.status_code == 204
    assert answer.content == b""
    assert (await first.get(f"{AUTH}/me")).status_code == 401
    assert (await first.post(f"{AUTH}/logout")).status_code == 401
    assert (await second.get(f"{AUTH}/me")).status_code == 200


async def test_logging_out_everywhere_voids_all_of_ones_own(
    backend: Backend, user_client: Client, other_client: Client
) -> None:
    """Every token of the user is void, nobody else's is."""
    login = await backend.post(f"{AUTH}/login", json={"username": "user", "password": PASSWORD})
    assert (await user_client.post(f"{AUTH}/logout-all")).status_code == 204
    for token in (user_client.token, login.json()["access_token"]):
        answer = await backend.get(f"{AUTH}/me", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 401
    assert (await other_client.get(f"{AUTH}/me")).status_code == 200


async def test_logins_are_listed_page_by_page(backend: Backend, user_client: Client, other_client: Client) -> None:
    """Own ones only, newest first, with the one that asks marked; nothing secret is in the list."""
    for _ in range(4):
        headers = {"User-Agent": "test/1.0\x7f" + "x" * 500}
        login = {"username": "user", "password": PASSWORD}
        assert (await backend.post(f"{AUTH}/login", json=login, headers=headers)).status_code == 200
    first = (await user_client.get(f"{AUTH}/sessions", params={"limit": 3})).json()
    rest = (await user_client.get(f"{AUTH}/sessions", params={"limit": 3, "cursor": first["next_cursor"]})).json()
    assert [first["total"], len(first["items"]), len(rest["items"]), rest["next_cursor"]] == [5, 3, 2, None]
    sessions = first["items"] + rest["items"]
    assert sorted((each["id"] for each in sessions), reverse=True) == [each["id"] for each in sessions]
    assert [each["current"] for each in sessions] == [False, False, False, False, True]
    assert set(sessions[0]) == {"id", "created_at", "expires_at", "address", "user_agent", "current"}
    assert sessions[0]["user_agent"] == "test/1.0" + "x" * 192
    assert sessions[0]["address"] == "127.0.0.1"


async def test_a_login_can_be_ended_by_its_owner_only(user_client: Client, other_client: Client) -> None:
    """404 for somebody else's and for none; one's own token is void at once."""
    [session] = (await user_client.get(f"{AUTH}/sessions")).json()["items"]
    path = f"{AUTH}/sessions/{session['id']}"
    foreign, missing = await other_client.delete(path), await other_client.delete(f"{AUTH}/sessions/{2**31 - 1}")
    assert (foreign.status_code, missing.status_code) == (404, 404)
    assert (await user_client.get(f"{AUTH}/me")).status_code == 200
    assert (await user_client.delete(path)).status_code == 204
    assert (await user_client.get(f"{AUTH}/me")).status_code == 401


@pytest.mark.parametrize("session_id", ["0", "-1", "x", str(2**63), str(10**40), "1;DROP TABLE users"])
async def test_an_impossible_session_id_is_422(user_client: Client, session_id: str) -> None:
    """Ids that no row can have never reach the database."""
    assert (await user_client.delete(f"{AUTH}/sessions/{session_id}")).status_code == 422


async def test_a_user_has_a_limited_number_of_logins(backend: Backend, tune: Tune) -> None:
    """The oldest login ends when there are too many, and expired ones are dropped."""
    client = await backend.sign_up("ann")
    fewer = backend.app.state.auth.settings.model_copy(update={"max_sessions": 3})
    tune(settings=fewer)
    for _ in range(3):
        await backend.post(f"{AUTH}/login", json={"username": "ann", "password": PASSWORD})
    assert backend.execute("SELECT count(*) FROM auth_sessions") == [(3,)]
    assert (await client.get(f"{AUTH}/me")).status_code == 401


async def test_a_token_expires(backend: Backend, user_client: Client, tune: Tune) -> None:
    """In the second that `expires_in` announced, by the server's clock in UTC."""
    lifetime = timedelta(hours=24)
    for later, status in ((lifetime - timedelta(seconds=30), 200), (lifetime + timedelta(seconds=1), 401)):
        clock = shifted_clock(later)
        tune(clock=clock)
        assert (await user_client.get(f"{AUTH}/me")).status_code == status


async def test_a_deactivated_user_is_out_at_once(backend: Backend, user_client: Client) -> None:
    """The next request with a valid token is 401, and logging in with the right password is 403."""
    backend.execute("UPDATE users SET is_active = FALSE")
    assert (await user_client.get(f"{AUTH}/me")).status_code == 401
    right = await backend.post(f"{AUTH}/login", json={"username": "user", "password": PASSWORD})
    wrong = await backend.post(f"{AUTH}/login", json={"username": "user", "password": "a wrong password"})
    assert (right.status_code, wrong.status_code) == (403, 401)


async def test_a_role_counts_from_the_next_request_on(backend: Backend, user_client: Client) -> None:
    """A token does not carry the role that its user had once."""
    assert (await user_client.get("/api/v1/users/")).status_code == 403
    backend.execute("UPDATE users SET role = 'admin'")
    assert (await user_client.get("/api/v1/users/")).status_code == 200
    backend.execute("UPDATE users SET role = 'guest'")
    assert (await user_client.get("/api/v1/users/")).status_code == 403


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", "bearer x.y.z", "Bearer \x7f", "Token t"]
)
async def test_without_a_valid_token_it_is_401(backend: Backend, header: str | None) -> None:
    """A problem with `WWW-Authenticate: Bearer`, whatever else the header says."""
    answer = await backend.get(f"{AUTH}/me", headers={} if header is None else {"Authorization": header})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"


async def test_forged_tokens_are_401(backend: Backend, user_client: Client, other_client: Client) -> None:
    """alg=none, other secrets and algorithms, another's session, and sessions that do not exist."""
    runtime = backend.app.state.auth
    claims = runtime.signer.read(user_client.token, now=datetime.now(UTC))
    head, payload, signature = user_client.token.split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    others_payload = other_client.token.split(".")[1]
    forged = {
        "unsigned": f"{none}.{payload}.",
        "unsigned with a signature": f"{none}.{payload}.{signature}",
        "another payload under the signature": f"{head}.{others_payload}.{signature}",
        "another secret": type(runtime.signer)("another secret").sign(claims),
        "another algorithm": jwt.encode(
            jwt.decode(user_client.token, options={"verify_signature": False}), "x" * 64, "HS512"
        ),
        "somebody else's session": runtime.signer.sign(dataclasses.replace(claims, user_id=other_client.user["id"])),
        "an unknown session": runtime.signer.sign(dataclasses.replace(claims, token_id="0" * 32)),
        "an unknown user": runtime.signer.sign(dataclasses.replace(claims, user_id=10**17)),
        "a session with SQL": runtime.signer.sign(dataclasses.replace(claims, token_id="' OR 1=1 --")),
        "a session with NUL": runtime.signer.sign(dataclasses.replace(claims, token_id="a\x00b")),
        "expired": runtime.signer.sign(
            dataclasses.replace(claims, expires_at=datetime.now(UTC) - timedelta(seconds=5))
        ),
        "endless": "a" * 60_000,
    }
    for what, token in forged.items():
        answer = await backend.get(f"{AUTH}/me", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 401, what
    assert (await user_client.get(f"{AUTH}/me")).status_code == 200


async def test_the_row_decides_how_long_a_token_lives(backend: Backend, user_client: Client) -> None:
    """A rightly signed token whose row is gone or over is void, whatever it says itself."""
    backend.execute("UPDATE auth_sessions SET expires_at = '2001-01-01 00:00:00.000000'")
    assert (await user_client.get(f"{AUTH}/me")).status_code == 401
    assert (await user_client.get(f"{AUTH}/sessions")).status_code == 401


# --- changing the password ------------------------------------------------------------------------


async def test_a_new_password_ends_the_other_logins(backend: Backend, user_client: Client) -> None:
    """The old password and the other tokens are void; the token that asked goes on."""
    login = await backend.post(f"{AUTH}/login", json={"username": "user", "password": PASSWORD})
    change = {"current_password": PASSWORD, "new_password": "another good one"}
    assert (await user_client.post(f"{AUTH}/password", json=change)).status_code == 204
    assert (await user_client.get(f"{AUTH}/me")).status_code == 200
    other = await backend.get(f"{AUTH}/me", headers={"Authorization": f"Bearer {login.json()['access_token']}"})
    assert other.status_code == 401
    old = await backend.post(f"{AUTH}/login", json={"username": "user", "password": PASSWORD})
    new = await backend.post(f"{AUTH}/login", json={"username": "user", "password": "another good one"})
    assert (old.status_code, new.status_code) == (401, 200)


async def test_the_current_password_cannot_be_guessed_with_a_stolen_token(user_client: Client) -> None:
    """403 for a wrong one, 429 after as many as a login allows, and nothing has changed."""
    change = {"current_password": "a wrong password", "new_password": "another good one"}
    statuses = [(await user_client.post(f"{AUTH}/password", json=change)).status_code for _ in range(12)]
    assert statuses == [403] * 10 + [429] * 2
    assert (await user_client.post(f"{AUTH}/password", json=change | {"new_password": "short"})).status_code == 422


# --- limits ---------------------------------------------------------------------------------------


async def fail(client: Client, name: str, times: int) -> list[int]:
    wrong = {"username": name, "password": "a wrong password"}
    return [(await client.post(f"{AUTH}/login", json=wrong)).status_code for _ in range(times)]


async def test_an_account_is_limited_from_all_addresses_together(backend: Backend) -> None:
    """Ten failures, then 429 with Retry-After for everybody, also with the right password, under either name."""
    await backend.post(f"{AUTH}/register", json=ANN)
    here, there = await backend.new_client("203.0.113.1"), await backend.new_client("203.0.113.2")
    assert await fail(here, "ann", 5) + await fail(there, "ANN@example.com", 5) == [401] * 10
    for client, name in ((here, "ann"), (there, "ann"), (backend, "ann@example.com")):
        answer = await client.post(f"{AUTH}/login", json={"username": name, "password": PASSWORD})
        assert answer.status_code == 429
        assert answer.headers["content-type"] == "application/problem+json"
        assert 0 < int(answer.headers["Retry-After"]) <= 300


async def test_others_are_not_locked_out(backend: Backend) -> None:
    """Guessing at one account leaves other accounts, and tokens already given out, alone."""
    ann, bob = await backend.sign_up("ann"), await backend.sign_up("bob")
    assert (await fail(backend, "ann", 11))[-1] == 429
    assert (await ann.get(f"{AUTH}/me")).status_code == 200
    answer = await bob.post(f"{AUTH}/login", json={"username": "bob", "password": PASSWORD})
    assert answer.status_code == 200


async def test_trying_on_does_not_prolong_the_wait(backend: Backend, tune: Tune) -> None:
    """An account is closed for one window at a time, however hard somebody hammers at it."""
    await backend.post(f"{AUTH}/register", json=ANN)
    right = {"username": "ann", "password": PASSWORD}
    await fail(backend, "ann", 10)
    for later in (60, 200, 290):
        tune(clock=shifted_clock(timedelta(seconds=later)))
        assert (await backend.post(f"{AUTH}/login", json=right)).status_code == 429
    tune(clock=shifted_clock(timedelta(seconds=301)))
    assert (await backend.post(f"{AUTH}/login", json=right)).status_code == 200


async def test_unknown_names_are_limited_alike(backend: Backend) -> None:
    """A limit that only existing accounts had would tell which exist; what was typed is not stored readably."""
    assert await fail(backend, "Nobody", 10) == [401] * 10
    assert await fail(backend, "nobody", 1) == [429]
    rows = backend.execute("SELECT key FROM auth_login_attempts")
    assert len(rows) == 2
    assert all(len(key) == 64 and "nobody" not in key for (key,) in rows)


async def test_a_success_starts_the_count_again(backend: Backend) -> None:
    """Nine failures, a login, nine more: nobody is locked out."""
    await backend.post(f"{AUTH}/register", json=ANN)
    for _ in range(2):
        assert await fail(backend, "ann", 9) == [401] * 9
        answer = await backend.post(f"{AUTH}/login", json={"username": "ann", "password": PASSWORD})
        assert answer.status_code == 200


async def test_an_address_is_limited_over_all_accounts(backend: Backend, tune: Tune) -> None:
    """Spraying names from one address (one /64 of IPv6) is limited, and own logins in between do not help."""
    await backend.post(f"{AUTH}/register", json=ANN)
    limited = backend.app.state.auth.settings.model_copy(update={"address_attempts": 5})
    tune(settings=limited)
    sprayers = [await backend.new_client(f"2001:db8:0:1::{number}") for number in range(1, 7)]
    right = {"username": "ann", "password": PASSWORD}
    for number, client in enumerate(sprayers[:5]):
        assert await fail(client, f"name{number}", 1) == [401]
        if number < 4:
            assert (await client.post(f"{AUTH}/login", json=right)).status_code == 200
    assert await fail(sprayers[5], "name9", 1) == [429]
    assert (await sprayers[0].post(f"{AUTH}/login", json=right)).status_code == 429
    elsewhere = await backend.new_client("2001:db8:0:2::1")
    assert (await elsewhere.post(f"{AUTH}/login", json=right)).status_code == 200


async def test_a_full_queue_is_429_and_counts_nowhere(backend: Backend, tune: Tune) -> None:
    """A flood is answered before the database is asked, and does not use up anybody's attempts."""
    await backend.post(f"{AUTH}/register", json=ANN)
    hashing: Any = type(backend.app.state.auth.passwords)
    tune(passwords=hashing(backend.app.state.auth.settings.hash_cost, concurrency=1, queue=0))
    with backend.app.state.auth.passwords.place():
        for path, body in (("login", {"username": "ann", "password": PASSWORD}), ("register", ANN)):
            answer = await backend.post(f"{AUTH}/{path}", json=body)
            assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
    assert backend.execute("SELECT key FROM auth_login_attempts") == []
    assert (await backend.post(f"{AUTH}/login", json={"username": "ann", "password": PASSWORD})).status_code == 200


async def test_logins_that_wait_leave_the_database_to_others(
    backend: Backend, user_client: Client, tune: Tune, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While more logins wait for their hash than may use the database at once, other requests are answered."""
    hashing: Any = type(backend.app.state.auth.passwords)
    slow = hashing(backend.app.state.auth.settings.hash_cost, concurrency=1, queue=100)
    gate, verify_now = threading.Event(), slow.verify_now
    monkeypatch.setattr(slow, "verify_now", lambda *given: gate.wait(60) and verify_now(*given))
    tune(passwords=slow)
    wrong = {"username": "nobody", "password": "a wrong password"}
    logins = [asyncio.create_task(backend.post(f"{AUTH}/login", json=wrong | {"username": f"n{n}"})) for n in range(50)]
    for _ in range(3000):
        if slow._present == 50 and backend.execute("SELECT count(*) FROM auth_login_attempts") == [(51,)]:
            break
        await asyncio.sleep(0.01)
    assert (await user_client.get(f"{AUTH}/me")).status_code == 200
    assert (await user_client.patch("/api/v1/users/me", json={"display_name": "U"})).status_code == 200
    gate.set()
    assert {(await each).status_code for each in logins} == {401}


async def test_who_asks_is_one_query_that_only_reads(backend: Backend, user_client: Client) -> None:
    """Authenticating costs one statement by an indexed column, on the engine that cannot write."""
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        statements.append(statement)

    database = backend.app.state.database
    for engine in (database.engine, database.reading_engine):
        event.listen(engine, "before_cursor_execute", note)
    assert (await user_client.get("/api/v1/users/99")).status_code == 403
    assert [each.split()[0] for each in statements if each.split()[0] in ("SELECT", "INSERT", "UPDATE")] == ["SELECT"]
    for engine in (database.engine, database.reading_engine):
        event.remove(engine, "before_cursor_execute", note)


async def test_old_counters_are_dropped(backend: Backend, tune: Tune) -> None:
    """The table of attempts does not grow for ever."""
    await backend.post(f"{AUTH}/register", json=ANN)
    await fail(backend, "nobody", 1)
    clock = shifted_clock(timedelta(seconds=301))
    tune(clock=clock)
    await backend.post(f"{AUTH}/login", json={"username": "ann", "password": PASSWORD})
    assert len(backend.execute("SELECT key FROM auth_login_attempts")) == 1  # the address's, just taken back


# --- secrets --------------------------------------------------------------------------------------


async def test_no_secret_is_logged_or_answered(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    """Neither password, hash, token nor signing secret shows in any log line or answer, also where things fail."""
    caplog.set_level(logging.DEBUG)
    password = "hunter2-hunter2-hunter2"
    answers = [
        await backend.post(f"{AUTH}/register", json=ANN | {"password": password}),
        await backend.post(f"{AUTH}/register", json=ANN | {"password": password}),
        await backend.post(f"{AUTH}/register", json={"password": password}),
        await backend.post(f"{AUTH}/login", json={"username": password, "password": password}),
        await backend.post(f"{AUTH}/login", data={"username": "ann", "password": password}),
    ]
    assert [answer.status_code for answer in answers] == [201, 409, 422, 401, 200]
    token = answers[4].json()["access_token"]
    bearer = {"Authorization": f"Bearer {token}"}
    answers += [await backend.get(f"{AUTH}/me", headers=bearer), await backend.get(f"{AUTH}/sessions", headers=bearer)]
    answers += [await backend.post(f"{AUTH}/logout", headers=bearer), await backend.get(f"{AUTH}/me", headers=bearer)]
    secret = (backend.settings.data_dir / "secret_key").read_text()
    [(stored,)] = backend.execute("SELECT password_hash FROM users")
    for hidden in (password, stored, secret, "argon2"):
        assert hidden not in caplog.text
        assert not any(hidden in answer.text for answer in answers)
    for hidden in (token, token.split(".")[2]):
        assert hidden not in caplog.text
        assert not any(hidden in answer.text for answer in answers if answer is not answers[4])


def shifted_clock(later: timedelta) -> Callable[[], datetime]:
    return lambda: datetime.now(UTC) + later
