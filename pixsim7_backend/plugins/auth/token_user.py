"""Whose token a request presents, for those who only count requests."""

from __future__ import annotations

from datetime import datetime

from fastapi import FastAPI
from starlette.types import Scope

from .runtime import AuthRuntime
from .tokens import InvalidTokenError

_REMEMBERED = 4096
_LONGEST = 4096  # bytes of a header worth looking at


class TokenUserReader:
    """Tells the user of a token that is ours and not expired; whether its login was ended is not asked.

    So this is for counting, never for letting anybody in. Tokens that were read are remembered, as
    reading one takes a signature.
    """

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._known: dict[bytes, tuple[int, datetime]] = {}

    def __call__(self, scope: Scope) -> int | None:
        """Return the id of the user whose token the request presents, None without a valid one."""
        header = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        if header[:7].lower() != b"bearer " or len(header) > _LONGEST:
            return None
        auth: AuthRuntime = self._app.state.auth
        now = auth.clock()
        found = self._known.get(header) or self._read(auth, header, now)
        return found[0] if found is not None and found[1] > now else None

    def _read(self, auth: AuthRuntime, header: bytes, now: datetime) -> tuple[int, datetime] | None:
        try:
            claims = auth.signer.read(header[7:].strip().decode("ascii"), now=now)
        except (InvalidTokenError, UnicodeDecodeError):
            return None
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        found = self._known[header] = claims.user_id, claims.expires_at
        return found
