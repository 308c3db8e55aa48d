"""Access tokens: JWT signed with HS256, whose ``jti`` names the row of a login session."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import jwt

ALGORITHM = "HS256"
_ISSUER = "pixsim7"
_LONGEST = 4096  # characters; ours have about 250
_SUBJECT = re.compile(r"[0-9]{1,18}")
_TOKEN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CLAIMS = ("iss", "sub", "jti", "iat", "exp")


class InvalidTokenError(Exception):
    """The token is malformed, not signed by us, or expired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenClaims:
    """What a token says: whose it is, which login session it belongs to and how long it may be used."""

    user_id: int
    token_id: str
    issued_at: datetime
    expires_at: datetime


def new_token_id() -> str:
    """Return a fresh ``jti``: 192 random bits."""
    return secrets.token_urlsafe(24)


def derive_key(secret: str, purpose: str) -> bytes:
    """Return the key for one purpose: signatures and counters never share key material."""
    return hmac.new(secret.encode(), f"pixsim7 auth {purpose}".encode(), hashlib.sha256).digest()


class TokenSigner:
    """Signs claims and reads them back; the algorithm is ours to choose, never the token's."""

    def __init__(self, secret: str) -> None:
        self._key = derive_key(secret, "access token")

    def sign(self, claims: TokenClaims) -> str:
        """Return the token that says ``claims``."""
        payload = {
            "iss": _ISSUER,
            "sub": str(claims.user_id),
            "jti": claims.token_id,
            "iat": int(claims.issued_at.timestamp()),
            "exp": int(claims.expires_at.timestamp()),
        }
        return jwt.encode(payload, self._key, algorithm=ALGORITHM)

    def read(self, token: str, *, now: datetime) -> TokenClaims:
        """Return what a token says.

        Raises:
            InvalidTokenError: it is malformed, not signed by us with HS256, or expired at ``now``.
        """
        if len(token) > _LONGEST:
            raise InvalidTokenError("too long")
        try:
            payload = jwt.decode(token, self._key, algorithms=[ALGORITHM], issuer=_ISSUER, options=_OPTIONS)
            claims = _parse(payload)
        except (jwt.InvalidTokenError, ValueError, OverflowError, OSError) as error:
            raise InvalidTokenError(type(error).__name__) from None  # its text may quote the token
        if claims.expires_at <= now:
            raise InvalidTokenError("expired")
        return claims


# The time claims are compared with the clock that was handed in, in `read`.
_OPTIONS: Any = {"require": list(_CLAIMS), "verify_exp": False, "verify_iat": False, "verify_nbf": False}


def _parse(payload: dict[str, Any]) -> TokenClaims:
    if not _SUBJECT.fullmatch(payload["sub"]) or not _TOKEN_ID.fullmatch(payload["jti"]):
        raise ValueError("sub or jti is not what we put there")
    return TokenClaims(
        user_id=int(payload["sub"]),
        token_id=payload["jti"],
        issued_at=_moment(payload["iat"]),
        expires_at=_moment(payload["exp"]),
    )


def _moment(value: object) -> datetime:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("not a whole number of seconds")  # noqa: TRY004 - a bad token, not a bad caller
    return datetime.fromtimestamp(value, UTC)
