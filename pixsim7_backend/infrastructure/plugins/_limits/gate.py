"""What a request passes before its plugin serves it."""

from __future__ import annotations

from typing import Protocol

from starlette.types import Scope, Send

from .client import FindClient, client_address
from .memory import MemoryRates
from .refusal import RateFields, no_room
from .shared import SharedCounts


class Serving(Protocol):
    """Who serves what is let through."""

    @property
    def in_flight(self) -> int:
        """How many requests it serves now."""


class Gate:
    """The limits of one plugin: what each client may do, and how many requests it serves at once.

    Args:
        plugin: its id.
        rates: counts the clients' requests in this process; None: there is no rate.
        room: requests at once; None: any number.
        shared: counts for all processes, where there is such a thing.
        find_client: tells whose request it is, where the address does not say enough.
    """

    def __init__(
        self,
        plugin: str,
        *,
        rates: MemoryRates | None = None,
        room: int | None = None,
        shared: SharedCounts | None = None,
        find_client: FindClient | None = None,
    ) -> None:
        self.plugin = plugin
        self.rates = rates
        self.room = room
        self._shared = shared
        self._find_client = find_client
        self._fields = RateFields(plugin, rates.rate) if rates is not None else None

    async def admit(self, scope: Scope, send: Send, serving: Serving) -> Send:
        """Let a request through; return what to send its answer with, which tells the client where it stands.

        The caller begins to serve without waiting for anything.

        Raises:
            RefusedError: it is beyond a limit.
        """
        if self.rates is not None and self._fields is not None:
            client = (self._find_client and self._find_client(scope)) or client_address(scope)
            verdict = None
            if self._shared is not None:
                verdict = await self._shared.take(self.plugin, client, self.rates.rate)
            if verdict is None:
                verdict = self.rates.take(client)
            if not verdict.is_allowed:
                raise self._fields.refusal(verdict)
            send = self._fields.announced_by(send, verdict)
        if self.room is not None and serving.in_flight >= self.room:
            raise no_room(self.plugin, self.room)
        return send
