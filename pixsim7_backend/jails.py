"""What confined plugins may call of this backend, when they are granted it."""

from __future__ import annotations

from pixsim7_backend.community.database.service import DatabaseService
from pixsim7_backend.community.http.service import HttpService
from pixsim7_backend.community.redis.service import RedisService
from pixsim7_backend.community.users import UserService, extend_scope
from pixsim7_backend.db import Database
from pixsim7_backend.infrastructure.plugins import plugin_hooks
from pixsim7_backend.infrastructure.plugins.jails import Jails, make_jails
from pixsim7_backend.settings import Settings

__all__ = ["make_backend_jails"]


def make_backend_jails(settings: Settings, database: Database) -> Jails:
    """Return what runs the backend's confined plugins; nothing is started before there is one."""
    return make_jails(
        plugin_hooks,
        services=(
            DatabaseService(lambda: database, data_dir=settings.data_dir),
            HttpService(allow_plain=settings.community_plain_http),
            RedisService(settings.redis_url.get_secret_value, data_dir=settings.data_dir),
            UserService(),
        ),
        inside=["pixsim7_backend.community.alike:install"],
        extend=[extend_scope],
        calls=settings.community_calls,
        floor=settings.community_floor,
        hook_timeout=settings.hook_timeout,
        start=settings.jail_start,
        idle=settings.jail_idle,
        allowances=settings.jail_limits,
    )
