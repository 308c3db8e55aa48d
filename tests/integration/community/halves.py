"""Props: a jail's half of a service in this process, which calls the host's half over frames that were bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi import FastAPI

from pixsim7_backend.infrastructure.plugins._grants.permissions import Grants, Permission
from pixsim7_backend.infrastructure.plugins._jail.broker import BrokerLimits, Service
from pixsim7_backend.infrastructure.plugins._jail.inside import services as inside_services
from tests.integration.community.loopback import Loopback, connected, identity

__all__ = ["entered", "grants_of"]


def grants_of(*texts: str) -> Grants:
    """Return grants from the texts of permissions."""
    return Grants(frozenset(map(Permission.parse, texts)))


@contextmanager
def entered(
    services: Sequence[Service],
    grants: Grants,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    install: Callable[[FastAPI], None],
    *,
    limits: BrokerLimits | None = None,
    plugin: str = "quest-stats",
) -> Iterator[Loopback]:
    """Give the channel of a jail in which the half that ``install`` is runs."""
    with connected(services, grants, directory, limits=limits, plugin=plugin) as channel:
        monkeypatch.setattr(inside_services._Process, "channel", channel)
        app = FastAPI()
        app.state.services = {each.family: each.describe(identity(directory, plugin), grants) for each in services}
        install(app)
        yield channel
