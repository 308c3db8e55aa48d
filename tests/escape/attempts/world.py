"""What an attempt is told of its surroundings, so that it need not search."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any


class Foiled(Exception):
    """The attempt came to nothing, though nobody refused it."""


@dataclass(frozen=True, kw_only=True)
class World:
    """Things of the host, and the plugin's own."""

    host: int
    """The server's process."""
    victim: int
    """Another process of the host's user, with ``secret`` in its environment and its memory."""
    address: int
    """Where the secret lies in the victim's memory."""
    descriptor: int
    """Of the victim: it reads a file with ``secret``."""
    secret: str
    home: str
    """A directory of the host that everybody can read: secret, .env, settings.yaml, key.pem, socket, datagrams."""
    port: int
    """Of the host's database, say."""
    datagram_port: int
    abstract: str
    """The name of an abstract Unix socket."""
    plugin: str
    neighbour: str
    """The folder of another plugin."""
    scratch: str
    token: str
    """A name for what the attempt makes; another one each time."""
    size: int = 0
    """How far to go, where going on for ever could not be shown to work."""
    patience: float = 0.0
    """Seconds to wait whether somebody takes offence."""

    @property
    def processes(self) -> tuple[int, ...]:
        """Everybody who is not the plugin."""
        return (self.victim, self.host, os.getppid())

    def inside(self, name: str) -> Path:
        """Return a path in the directory that is the plugin's to write to."""
        return Path(self.scratch, name)

    def outside(self, name: str) -> Path:
        """Return a path in the host's directory."""
        return Path(self.home, name)


def each(*ways: Callable[[], Any]) -> Any:
    """Return what the first way brings that works; raise what the last one raised when none does."""
    last: Exception = Foiled("there was no way to try")
    for way in ways:
        try:
            return way()
        except (OSError, Foiled, CalledProcessError) as error:  # anything else is a mistake
            last = error
    raise last
