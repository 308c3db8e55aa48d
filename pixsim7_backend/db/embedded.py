"""The embedded database has no operator: whoever starts plugins on it migrates it.

Offered to the platform as the entry point ``pixsim7.prepare``, for apps that do not bring a step of their own.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from .database import Database
from .default import default_database
from .migrations import find_source, upgrade
from .urls import database_url_from_environment


class PluginLike(Protocol):
    """What is needed of a plugin's record."""

    @property
    def id(self) -> str: ...


def migrate_embedded(plugin: PluginLike, folder: Path) -> None:
    """Bring the plugin's tables up to date, if the process uses the embedded database; else leave it alone.

    Raises:
        MigrationError: a revision failed; nothing of it is left.
    """
    source = find_source(plugin.id, folder)
    if source is not None and _is_embedded():
        upgrade(default_database(), [source])


def _is_embedded() -> bool:
    if os.environ.get("DATABASE_URL"):
        return False
    return default_database().url == Database(database_url_from_environment()).url
