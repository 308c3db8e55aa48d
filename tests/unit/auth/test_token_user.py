"""Whose token a request presents."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI

from pixsim7_backend.plugins.auth import token_user
from pixsim7_backend.plugins.auth.token_user import TokenUserReader
from pixsim7_backend.plugins.auth.tokens import TokenClaims, TokenSigner, new_token_id

SECRET = "unit-test-secret-8f1c0d7e5b3a49c2"
NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)


class Desk:
    """A reader, and what signs for it; ``now`` is what its clock says."""

    def __init__(self) -> None:
        self.now = NOW
        self.signer = TokenSigner(SECRET)
        app = FastAPI()
        app.state.auth = SimpleNamespace(signer=self.signer, clock=lambda: self.now)
        self.read = TokenUserReader(app)

    def token(self, user_id: int = 7, hours: int = 1) -> str:
        expires_at = NOW + timedelta(hours=hours)
        return self.signer.sign(
            TokenClaims(user_id=user_id, token_id=new_token_id(), issued_at=NOW, expires_at=expires_at)
        )

    def user(self, authorization: str | None) -> int | None:
        headers: list[Any] = [(b"host", b"test")]
        if authorization is not None:
            headers.append((b"authorization", authorization.encode("latin-1")))
        return self.read({"type": "http", "headers": headers})


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_valid_token_names_its_user_until_it_expires(desk: Desk) -> None:
    """The first time and when it is remembered; the scheme in any case."""
    token = desk.token()
    assert [desk.user(f"{scheme} {token}") for scheme in ("Bearer", "Bearer", "bearer")] == [7, 7, 7]
    desk.now += timedelta(hours=1)
    assert desk.user(f"Bearer {token}") is None


def test_what_is_no_token_of_ours_names_nobody(desk: Desk) -> None:
    """Nobody can choose whom to be counted as."""
    forged = TokenSigner("another-secret-of-thirty-two-bytes").sign(
        TokenClaims(user_id=7, token_id=new_token_id(), issued_at=NOW, expires_at=NOW + timedelta(hours=1))
    )
    for text in (None, "", "Bearer", "Bearer ", f"Bearer {forged}", "Basic YTpi", "Bearer ä", "Bearer " + "x" * 5000):
        assert desk.user(text) is None


def test_few_tokens_are_remembered(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are presented; those that are forgotten are read again."""
    monkeypatch.setattr(token_user, "_REMEMBERED", 3)
    tokens = [desk.token(user_id) for user_id in range(1, 11)]
    for _ in range(2):
        for user_id, token in enumerate(tokens, 1):
            assert desk.user(f"Bearer {token}") == user_id
            assert len(desk.read._known) <= 3
