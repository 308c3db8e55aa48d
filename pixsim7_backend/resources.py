"""The database and Redis that the settings name, made known to the whole process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pixsim7_backend.db import Database, check_database, set_default_database
from pixsim7_backend.redis import check_redis, configure_redis
from pixsim7_backend.settings import Settings

if TYPE_CHECKING:
    from pixsim7_backend.community.enforcing import CommunityEnforcer

#: What plugins may require: each name with a check that returns None, or what is wrong and which setting to add.
CHECKS: dict[str, Callable[[], str | None]] = {"db": check_database, "redis": check_redis}


@contextmanager
def configured(settings: Settings) -> Iterator[Database]:
    """Use the settings' database and Redis in this process, also where no app is at hand; nothing is opened yet.

    Raises:
        DatabaseUrlError: ``DATABASE_URL`` is malformed or names something that is not supported.
    """
    database = Database(settings.database)
    set_default_database(database)
    configure_redis(settings.redis_url.get_secret_value() or None)
    try:
        yield database
    finally:
        configure_redis(None)
        set_default_database(None)
        database.close()


def enforcer_of(settings: Settings) -> CommunityEnforcer:
    """Return who lets the database and Redis follow what is granted."""
    from pixsim7_backend.community.enforcing import CommunityEnforcer

    return CommunityEnforcer(settings.database, settings.redis_url.get_secret_value(), data_dir=settings.data_dir)
