from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixsim7_backend.plugins.auth.tokens import InvalidTokenError, TokenClaims, TokenSigner, derive_key, new_token_id

SECRET = "unit-test-secret-8f1c0d7e5b3a49c2"
NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
CLAIMS = TokenClaims(user_id=7, token_id="a-token-id", issued_at=NOW, expires_at=NOW + timedelta(hours=1))
KEY = derive_key(SECRET, "access token")
PAYLOAD: dict[str, Any] = {"iss": "pixsim7", "sub": "7", "jti": "a-token-id", "iat": 1893499200, "exp": 1893502800}


def segment(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def refused(token: str, now: datetime = NOW) -> None:
    with pytest.raises(InvalidTokenError):
        TokenSigner(SECRET).read(token, now=now)


def test_what_was_signed_is_read_back() -> None:
    """Signing and reading are inverse, and the token itself says HS256."""
    token = TokenSigner(SECRET).sign(CLAIMS)
    assert TokenSigner(SECRET).read(token, now=NOW) == CLAIMS
    assert jwt.get_unverified_header(token)["alg"] == "HS256"


def test_a_token_ends_at_the_second_it_names() -> None:
    """Expiry is compared with the clock that is handed in, in UTC."""
    token = TokenSigner(SECRET).sign(CLAIMS)
    TokenSigner(SECRET).read(token, now=CLAIMS.expires_at - timedelta(seconds=1))
    refused(token, CLAIMS.expires_at)
    refused(token, CLAIMS.expires_at + timedelta(days=3000))


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", ""])
def test_unsigned_tokens_are_refused(algorithm: str) -> None:
    """The token does not choose the algorithm: `none` in any spelling is refused, with and without a signature."""
    head = segment({"alg": algorithm, "typ": "JWT"})
    signature = TokenSigner(SECRET).sign(CLAIMS).rpartition(".")[2]
    refused(f"{head}.{segment(PAYLOAD)}.")
    refused(f"{head}.{segment(PAYLOAD)}.{signature}")


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_other_algorithms_with_the_right_key_are_refused(algorithm: str) -> None:
    """HS256 is pinned."""
    refused(jwt.encode(PAYLOAD, KEY + KEY, algorithm=algorithm))


def test_other_secrets_are_refused() -> None:
    """Neither another secret, nor the bare secret, nor a key for another purpose signs our tokens."""
    refused(TokenSigner(SECRET + "x").sign(CLAIMS))
    refused(jwt.encode(PAYLOAD, SECRET, algorithm="HS256"))
    refused(jwt.encode(PAYLOAD, derive_key(SECRET, "login attempts"), algorithm="HS256"))


@pytest.mark.parametrize("claim", ["iss", "sub", "jti", "iat", "exp"])
def test_every_claim_is_required(claim: str) -> None:
    """A rightly signed token that lacks a claim is refused."""
    refused(jwt.encode({name: value for name, value in PAYLOAD.items() if name != claim}, KEY, algorithm="HS256"))


@pytest.mark.parametrize(
    "change",
    [{"iss": "other"}, {"iss": ["pixsim7"]}, {"sub": 7}, {"sub": "-7"}, {"sub": "7 OR 1=1"}, {"sub": "\u0667"},
     {"sub": "9" * 40}, {"sub": ""}, {"jti": 5}, {"jti": ""}, {"jti": "a\x00b"}, {"jti": "a b"}, {"jti": None},
     {"exp": "1893502800"}, {"exp": True}, {"exp": 10**30}, {"exp": 1893502800.5}, {"iat": []}, {"exp": None}],
)  # fmt: skip
def test_claims_of_a_wrong_kind_are_refused(change: dict[str, Any]) -> None:
    """Rightly signed claims still have to have the right types and ranges."""
    try:
        token = jwt.encode(PAYLOAD | change, KEY, algorithm="HS256")
    except TypeError:
        token = ".".join([segment({"alg": "HS256"}), segment(PAYLOAD | change), "AAAA"])
    refused(token)


def test_changing_any_character_voids_a_token() -> None:
    """Of the 43 characters of the signature and all of the rest, none can be changed."""
    token = TokenSigner(SECRET).sign(CLAIMS)
    for position in range(0, len(token) - 1, 3):  # the last character holds padding bits
        other = "A" if token[position] != "A" else "B"
        refused(token[:position] + other + token[position + 1 :])


@given(st.text(max_size=80))
@settings(max_examples=200, deadline=None)
def test_garbage_is_refused_and_nothing_else(text: str) -> None:
    """Whatever is sent as a token raises InvalidTokenError only."""
    refused(text)
    refused(f"{text}.{text}.{text}")


def test_an_endless_token_is_refused_unread() -> None:
    """A token far longer than ours costs nothing."""
    refused("a" * 1_000_000)


def test_refusals_do_not_quote_the_token() -> None:
    """The error's text can be logged: no part of the token is in it."""
    with pytest.raises(InvalidTokenError) as caught:
        TokenSigner(SECRET).read("not-a-token-but-maybe-a-password", now=NOW)
    assert "password" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_token_ids_are_long_and_never_the_same() -> None:
    """192 random bits each."""
    ids = {new_token_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(len(each) == 32 for each in ids)
