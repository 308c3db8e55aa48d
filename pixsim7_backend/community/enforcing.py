"""PostgreSQL and Redis follow what the operator decides about a plugin, as far as the host's own logins may do that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from pixsim7_backend.community.database.openness import Access, Openness, access_of, present_openness
from pixsim7_backend.db.urls import parse_url
from pixsim7_backend.infrastructure.plugins._grants.enforcing import Enforcement
from pixsim7_backend.infrastructure.plugins._grants.permissions import Grants

__all__ = ["CommunityEnforcer"]

_COMMAND = "pixsim7 plugins grants apply"
_REDIS_IS_FORGETFUL = "Redis has no ACL file, so that the user is gone after its restart; apply again then"


class CommunityEnforcer:
    """Gives plugins roles in PostgreSQL and users in Redis that may do exactly what was granted.

    Args:
        database_url: of the host's own login; the embedded database has no roles.
        redis_url: likewise; empty where there is no Redis.
        data_dir: where the passwords of the roles are kept.
        openness: gives what the owners of tables open.
    """

    def __init__(
        self,
        database_url: str,
        redis_url: str = "",
        *,
        data_dir: Path,
        openness: Callable[[], Openness] = present_openness,
    ) -> None:
        self._database_url = database_url if database_url.startswith("postgres") else ""
        self._redis_url = redis_url
        self._data_dir = data_dir
        self._openness = openness
        self._done: dict[str, tuple[Grants, Access, tuple[Enforcement, ...]]] = {}

    def enforce(self, plugin: str, grants: Grants) -> tuple[Enforcement, ...]:
        """Let exactly this count where the plugin has a role, or needs one; see :class:`Enforcer`.

        A user of Redis is not made: without one the broker checks alone, while one is lost when Redis restarts.
        """
        openness = self._openness()
        access = access_of(grants, openness)
        known = self._done.get(plugin)
        if known is not None and known[:2] == (grants, access):
            return known[2]
        done = (
            *self._follow_in_database(plugin, grants, access),
            *self._follow_in_redis(plugin, grants),
            *_of_no_use(grants, openness),
        )
        if any(each.problem for each in done):
            self._done.pop(plugin, None)
        else:
            self._done[plugin] = grants, access, done
        return done

    def look(self, grants: Grants) -> tuple[Enforcement, ...]:
        """Return which of these grants are of no use; changes nothing."""
        return tuple(_of_no_use(grants, self._openness()))

    def apply(self, plugin: str, grants: Grants, *, dry_run: bool = False) -> tuple[Enforcement, ...]:
        """Make role and user where there are none, too; or only tell what would be changed."""
        return (
            *self._in_database(plugin, grants, dry_run=dry_run),
            *self._in_redis(plugin, grants, dry_run=dry_run),
        )

    def _follow_in_database(self, plugin: str, grants: Grants, access: Access) -> Iterator[Enforcement]:
        if not self._database_url:
            return
        import psycopg

        from pixsim7_backend.community.database.roles import has_role

        try:
            is_needed = access.may_read or access.may_write or has_role(self._database_url, plugin)
        except psycopg.Error as error:
            yield _failure("PostgreSQL", f"the role of {plugin}", error)
            return
        if is_needed:
            yield from self._in_database(plugin, grants)

    def _in_database(self, plugin: str, grants: Grants, *, dry_run: bool = False) -> Iterator[Enforcement]:
        if not self._database_url:
            return
        import psycopg

        from pixsim7_backend.community.database.roles import apply_grants

        try:
            done = apply_grants(
                self._database_url, plugin, grants, self._openness(), data_dir=self._data_dir, dry_run=dry_run
            )
        except (psycopg.Error, OSError, ValueError) as error:
            yield _failure("PostgreSQL", f"the role of {plugin}", error)
            return
        missing = [f"the table {table} is granted and not there; migrate its plugin" for table in done.missing]
        yield Enforcement(
            where="PostgreSQL",
            role=f"role {done.role}",
            changes=tuple(map(str, done.changes)),
            warnings=(*missing, *done.left_open),
            problem=f"the login {done.login!r} of DATABASE_URL may not: {_few(done.refused)}" if done.refused else "",
            way_out=f"let an administrator of the database run: {self._as_administrator()}" if done.refused else "",
        )

    def _as_administrator(self) -> str:
        """Return the command as somebody who may do more would run it, beside the server."""
        url = parse_url(self._database_url).set(drivername="postgresql", username="ADMIN", password="PASSWORD")  # noqa: S106 - to be filled in
        return f"DATABASE_URL={url.render_as_string(hide_password=False)} {_COMMAND}"

    def _follow_in_redis(self, plugin: str, grants: Grants) -> Iterator[Enforcement]:
        if not self._redis_url:
            return
        from pixsim7_backend.community.redis.users import has_user

        if has_user(self._redis_url, plugin, self._data_dir):
            yield from self._in_redis(plugin, grants)

    def _in_redis(self, plugin: str, grants: Grants, *, dry_run: bool = False) -> Iterator[Enforcement]:
        if not self._redis_url:
            return
        from redis.exceptions import RedisError

        from pixsim7_backend.community.redis.users import apply_redis_grants

        try:
            done = apply_redis_grants(self._redis_url, plugin, grants, data_dir=self._data_dir, dry_run=dry_run)
        except (RedisError, OSError, ValueError) as error:
            yield _failure("Redis", f"the user of {plugin}", error)
            return
        is_lost = bool(done.rules) and not done.is_kept and not dry_run
        yield Enforcement(
            where="Redis",
            role=f"Redis user {done.user}",
            changes=done.rules,
            warnings=(_REDIS_IS_FORGETFUL,) if is_lost else (),
        )


def _failure(where: str, role: str, error: Exception) -> Enforcement:
    problem = (str(error).splitlines() or ["it does not answer"])[0]
    return Enforcement(where=where, role=role, problem=problem, way_out=f"mend that, and run: {_COMMAND}")


def _of_no_use(grants: Grants, openness: Openness) -> Iterator[Enforcement]:
    """Warn of tables that are granted by name, and of which their owners open nothing, or that are not there."""
    for name, opened in (
        ("db:read", sorted(openness)),
        ("db:write", sorted(table.name for table in openness.values() if table.writable)),
    ):
        asked = {item for each in grants.granted if each.name == name for item in each.items}
        if closed := sorted(asked - set(opened)):
            text = f"{name} of {', '.join(closed)} is of no use: nobody opens that; open are: "
            yield Enforcement(where="the database", role="grants", warnings=(text + (", ".join(opened) or "none"),))


def _few(statements: tuple[object, ...]) -> str:
    more = f" (and {len(statements) - 2} more)" if len(statements) > 2 else ""
    return "; ".join(map(str, statements[:2])) + more
