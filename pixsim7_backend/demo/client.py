"""Talks to the backend over HTTP, and turns refusals into sentences."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import httpx

from pixsim7_backend.cli.output import CommandError

__all__ = ["DemoError", "Event", "EventFeed", "GameClient", "RefusedError"]

API = "/api/v1"
PATIENCE = 5.0
"""Seconds that an event may take to arrive."""


class DemoError(CommandError):
    """The demo cannot go on; the text names the request, the answer and the way out."""


class RefusedError(DemoError):
    """The backend refused a request; ``status`` and ``detail`` say why."""

    def __init__(self, *, method: str, path: str, status: int, detail: str) -> None:
        super().__init__(f"{method} {path} was answered by {status}: {detail}")
        self.status = status
        self.detail = detail


class GameClient:
    """A player, or admin, of the backend at ``base_url``; a context manager that closes the connections."""

    def __init__(self, base_url: str) -> None:
        try:
            self._http = httpx.Client(base_url=base_url, timeout=30, trust_env=False)
        except httpx.InvalidURL as error:
            raise DemoError(f"{base_url!r} is not an address ({error}); write it like http://127.0.0.1:8000") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def log_in(self, login: str, password: str) -> str:
        """Log in, and return the role of the account; RefusedError when the password is wrong."""
        answer = self.call("POST", "/auth/login", json={"email": login, "password": password})
        self._http.headers["Authorization"] = f"Bearer {answer['access_token']}"
        role: str = answer["user"]["role"]
        return role

    def log_out(self) -> None:
        """End the login; a server that is gone has ended it already."""
        with suppress(DemoError):
            self.call("POST", "/auth/logout")

    def call(self, method: str, path: str, **request: Any) -> Any:
        """Send a request under ``/api/v1`` and return the JSON of its answer (None when it has no body).

        Raises:
            RefusedError: the answer is an error.
            DemoError: there is no answer.
        """
        try:
            answer = self._http.request(method, f"{API}{path}", **request)
        except httpx.TransportError as error:
            address = self._http.base_url
            raise DemoError(f"{address} does not answer ({error}); start it with `pixsim7 serve`") from None
        if answer.is_error:
            raise RefusedError(method=method, path=path, status=answer.status_code, detail=_detail(answer))
        try:
            return answer.json() if answer.content else None
        except ValueError:
            raise DemoError(f"{self._http.base_url} is no PixSim7 backend: {path} is not JSON there") from None

    def find_by(self, key: str, value: str, path: str) -> dict[str, Any] | None:
        """Return the first item of a paged list whose ``key`` is ``value``, or None."""
        query: dict[str, Any] = {"limit": 100}
        while True:
            page = self.call("GET", path, params=query)
            found: dict[str, Any] | None = next((item for item in page["items"] if item[key] == value), None)
            if found is not None or page["next_cursor"] is None:
                return found
            query["cursor"] = page["next_cursor"]


def _detail(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return answer.reason_phrase


@dataclass(frozen=True, slots=True)
class Event:
    """Something that the server announced."""

    name: str
    payload: tuple[Any, ...]


class EventFeed:
    """The server's events, as the plugin demo-observer shows them; nothing where it is not loaded."""

    def __init__(self, client: GameClient) -> None:
        self._client = client
        self._seen = 0
        self.is_available = self._probe()

    def take(self, *expected: str) -> tuple[Event, ...]:
        """Return the events since the last call; those ``expected`` are waited for, as they follow the answer.

        Raises:
            DemoError: an expected event did not come.
        """
        if not self.is_available:
            return ()
        deadline = time.monotonic() + PATIENCE
        taken: list[Event] = []
        while True:
            taken += self._new()
            missing = Counter(expected) - Counter(event.name for event in taken)
            if not missing:
                return tuple(taken)
            if time.monotonic() > deadline:
                raise DemoError(f"the server did not announce {', '.join(missing)} within {PATIENCE:.0f} s")
            time.sleep(0.02)

    def _new(self) -> Sequence[Event]:
        rows = self._client.call("GET", "/demo/events/", params={"after": self._seen})
        self._seen = rows[-1]["number"] if rows else self._seen
        return [Event(row["event"], tuple(row["payload"])) for row in rows]

    def _probe(self) -> bool:
        try:
            self._client.call("GET", "/demo/events/", params={"after": 2**53})
        except RefusedError as refusal:
            if refusal.status == 404:
                return False
            raise
        return True
