"""One role of PostgreSQL for each community plugin: made, granted exactly what its plugin was, and nothing of PUBLIC.

A role for each, with a login of its own: a role that a shared login switches to is left again by RESET ROLE. The
login is of no use to the plugin, which has no socket and never learns the password.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pixsim7_backend.db.urls import parse_url
from pixsim7_backend.infrastructure.plugins._grants.permissions import Grants
from pixsim7_backend.kept_secret import kept_secret

from .hardening import find_makers, find_open_doors, find_public_doors
from .openness import Access, Openness, access_of

__all__ = [
    "AppliedGrants",
    "Change",
    "apply_grants",
    "login_of",
    "own_schema",
    "remove_role",
    "role_of",
    "server_conninfo",
]

_LONGEST_NAME = 63
_CONNECTIONS = 40
"""Of one role: the transactions of one jail, times the workers that run it."""
_ATTRIBUTES = "LOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
_SECRETS = "community-roles"
_PATIENCE = 5

_IS_HARD = """
SELECT rolcanlogin AND NOT (rolinherit OR rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls)
  FROM pg_roles WHERE rolname = %s AND rolconnlimit = %s
"""
_TEMPORARY = "temp_file_limit=131072"
"""Kibibytes of temporary files."""
_SETTINGS = "SELECT setconfig FROM pg_db_role_setting WHERE setrole = %s::text::regrole"
_GROUPS = """
SELECT g.rolname FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid JOIN pg_roles r ON r.oid = m.member
WHERE r.rolname = %s
"""
_DOORWAYS = (
    ("SELECT has_database_privilege(%s, current_database(), 'CONNECT')", "CONNECT ON DATABASE {}"),
    ("SELECT has_schema_privilege(%s, 'public', 'USAGE')", "USAGE ON SCHEMA public"),
)
_SEES_SCHEMA = "SELECT has_schema_privilege(%s, %s, 'USAGE')"
_COLUMNS = """
SELECT c.relname, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'public' AND c.relname = ANY(%s) AND a.attnum > 0 AND NOT a.attisdropped
"""
_GRANTED = """
WITH r AS (SELECT oid, %s::text AS schema FROM pg_roles WHERE rolname = %s)
SELECT n.nspname, c.relname, NULL, p.privilege_type
FROM r, pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(c.relacl) p
WHERE p.grantee = r.oid AND n.nspname <> r.schema
UNION ALL
SELECT n.nspname, c.relname, a.attname, p.privilege_type
FROM r, pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace,
  aclexplode(a.attacl) p
WHERE p.grantee = r.oid AND n.nspname <> r.schema
"""


@dataclass(frozen=True, slots=True)
class Change:
    """A statement that was run, or would be; without its secret."""

    sql: str

    def __str__(self) -> str:
        return self.sql


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedGrants:
    """What was changed for a plugin, or would be; and what it could do beyond its grants even then."""

    role: str
    changes: tuple[Change, ...]
    missing: tuple[str, ...] = ()
    """Granted tables that are not in the database: their plugin is not migrated yet."""
    left_open: tuple[str, ...] = ()
    """What everybody may do on this server, and only its superuser can forbid."""
    refused: tuple[Change, ...] = ()
    """What the login may not do; until somebody else has, the role is not as it should be."""
    login: str = ""


def apply_grants(
    database_url: str, plugin: str, grants: Grants, openness: Openness, *, data_dir: Path, dry_run: bool = False
) -> AppliedGrants:
    """Make the plugin's role, close what PUBLIC leaves open, and grant what its grants reach of what is open.

    Doing it twice changes nothing the second time. Everything happens in one transaction.

    Args:
        database_url: of the host's own login, which must be allowed to create roles.
        plugin: its id.
        grants: what the operator gave it; nothing takes away all that it had.
        openness: what the owners open.
        data_dir: where the role's password is kept.
        dry_run: change nothing.

    What the login may not do is told in the outcome; the rest is done.

    Raises:
        psycopg.Error: the server failed; nothing was changed.
    """
    access = access_of(grants, openness)
    with psycopg.connect(server_conninfo(database_url)) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('pixsim7 grants'))")
        work = _Work(connection, plugin, data_dir, is_dry=dry_run)
        work.close_doors()
        login = connection.info.user
        left: tuple[str, ...] = ()
        if work.make_role():
            work.grant(access)
            work.give_schema(is_own=access.own)
            left = work.left_open()
        if dry_run:
            connection.rollback()
    return AppliedGrants(
        role=work.role,
        changes=tuple(work.changes),
        missing=work.missing,
        left_open=left,
        refused=tuple(work.refused),
        login=login,
    )


def has_role(database_url: str, plugin: str) -> bool:
    """Tell whether the plugin has a role; raise psycopg.Error where the server does not say."""
    with psycopg.connect(server_conninfo(database_url), connect_timeout=_PATIENCE) as connection:
        name = role_of(connection.info.dbname, plugin)
        found = connection.execute("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = %s)", [name]).fetchone()
    return bool(found and found[0])


def remove_role(database_url: str, plugin: str, *, data_dir: Path) -> None:
    """Delete the plugin's role, all that it was granted, and its own tables. Doing it twice is fine.

    The schema goes, too, unless others have put something there.
    """
    with psycopg.connect(server_conninfo(database_url)) as connection:
        name = role_of(connection.info.dbname, plugin)
        role = sql.Identifier(name)
        with suppress(psycopg.errors.UndefinedObject), connection.transaction():
            connection.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(role))
            connection.execute(sql.SQL("DROP ROLE {}").format(role))
        left = psycopg.errors.DependentObjectsStillExist, psycopg.errors.InsufficientPrivilege
        with suppress(*left), connection.transaction():
            connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {}").format(sql.Identifier(own_schema(plugin))))
    (data_dir / _SECRETS / name).unlink(missing_ok=True)


def role_of(database: str, plugin: str) -> str:
    """Return the name of the plugin's role. Roles belong to the whole server, so the database is part of it."""
    return _fit(f"pixsim7_{hashlib.sha256(database.encode()).hexdigest()[:8]}_{plugin.replace('-', '_')}")


def own_schema(plugin: str) -> str:
    """Return the name of the schema with the plugin's own tables."""
    return _fit(f"plugin_{plugin.replace('-', '_')}")


def login_of(database_url: str, plugin: str, data_dir: Path) -> str:
    """Return what logs in as the plugin's role: the host's own address with its name and password."""
    conninfo = server_conninfo(database_url)
    role = role_of(str(conninfo_to_dict(conninfo).get("dbname") or ""), plugin)
    return make_conninfo(conninfo, user=role, password=_password(data_dir, role))


def server_conninfo(database_url: str) -> str:
    """Return the URL as libpq reads it, with the database's name."""
    url = parse_url(database_url)
    return make_conninfo(url.set(drivername="postgresql").render_as_string(hide_password=False))


def _password(data_dir: Path, role: str) -> str:
    return kept_secret(data_dir / _SECRETS / role)


def _fit(name: str) -> str:
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[: _LONGEST_NAME - 9]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


class _Work:
    """One run in one transaction: looks at what is, and makes it as it should be."""

    def __init__(self, connection: psycopg.Connection[Any], plugin: str, data_dir: Path, *, is_dry: bool) -> None:
        self._connection = connection
        self._data_dir = data_dir
        self._is_dry = is_dry
        self._database = connection.info.dbname
        self.role = role_of(self._database, plugin)
        self._name = sql.Identifier(self.role)
        self._schema = own_schema(plugin)
        self.changes: list[Change] = []
        self.refused: list[Change] = []
        self.missing: tuple[str, ...] = ()

    def close_doors(self) -> None:
        """Take from PUBLIC what plugins must not have; the host's role keeps it."""
        found = find_public_doors(self._connection)
        for revoke, grant in found:
            with suppress(psycopg.errors.InsufficientPrivilege), self._connection.transaction():
                self._connection.execute(grant)
                self._connection.execute(revoke)
        for name in find_makers(self._connection):
            close = sql.SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {} REVOKE EXECUTE ON ROUTINES FROM PUBLIC")
            self._run(close.format(sql.Identifier(name)))
        if not found:
            return
        still = {self._text(revoke) for revoke, _ in find_public_doors(self._connection)}
        done = (self._text(revoke) for revoke, _ in found)
        self.changes += [Change(revoke) for revoke in done if revoke not in still]

    def make_role(self) -> bool:
        """Create the role, or bring it back to what it should be, without settings of its own; tell if it is there."""
        is_new = not self._ask("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = %s)", self.role)
        attributes = sql.SQL("{} CONNECTION LIMIT {}").format(sql.SQL(_ATTRIBUTES), sql.Literal(_CONNECTIONS))
        if is_new and not self._run(sql.SQL("CREATE ROLE {} {}").format(self._name, attributes)):
            return False
        if not is_new and not self._ask(_IS_HARD, self.role, _CONNECTIONS):
            self._run(sql.SQL("ALTER ROLE {} {}").format(self._name, attributes))
        if is_new or not self._can_log_in():
            self._set_password()
        self._settle()
        for (group,) in self._all(_GROUPS, self.role):
            self._run(sql.SQL("REVOKE {} FROM {}").format(sql.Identifier(group), self._name))
        return True

    def _settle(self) -> None:
        """Drop settings that the role has given itself; fix the one that only a superuser can, and it cannot undo."""
        is_superuser = self._ask("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        present = [list(settings) for (settings,) in self._all(_SETTINGS, self.role)]
        if present == [[_TEMPORARY]] or (not present and not is_superuser):
            return
        if present:
            self._run(sql.SQL("ALTER ROLE {} RESET ALL").format(self._name))
            database = sql.Identifier(self._database)
            self._run(sql.SQL("ALTER ROLE {} IN DATABASE {} RESET ALL").format(self._name, database))
        if is_superuser:
            name, _, value = _TEMPORARY.partition("=")
            self._run(sql.SQL("ALTER ROLE {} SET {} = {}").format(self._name, sql.Identifier(name), sql.Literal(value)))

    def left_open(self) -> tuple[str, ...]:
        """Return what the role could do beyond its grants."""
        left = find_open_doors(self._connection, self.role)
        if [_TEMPORARY] not in [list(settings) for (settings,) in self._all(_SETTINGS, self.role)]:
            left.append("fill the server's disk with temporary files")
        return tuple(left)

    def grant(self, access: Access) -> None:
        """Grant the columns that are granted, and revoke whatever else the role has."""
        for ask, privilege in _DOORWAYS:
            if not self._ask(ask, self.role):
                what = sql.SQL(privilege).format(sql.Identifier(self._database))
                self._run(sql.SQL("GRANT {} TO {}").format(what, self._name))
        there = set(self._all(_COLUMNS, list(access.read)))
        wanted = {
            (table, column, privilege)
            for privilege, tables in (("SELECT", access.read), ("UPDATE", access.write))
            for table, columns in tables.items()
            for column in columns
            if (table, column) in there
        }
        self.missing = tuple(sorted(set(access.read) - {table for table, _ in there}))
        present = set(self._all(_GRANTED, self._schema, self.role))
        wanted_there = {("public", *each) for each in wanted}
        for each in sorted(present - wanted_there, key=str):
            self._run(self._privilege("REVOKE {} ON {}.{} FROM {}", *each))
        for each in sorted(wanted_there - present):
            self._run(self._privilege("GRANT {} ON {}.{} TO {}", *each))
        self._check(wanted_there)

    def _check(self, wanted: set[tuple[Any, ...]]) -> None:
        """Look what came of it: who is not the owner of a table is only warned that nothing was changed."""
        present = set(self._all(_GRANTED, self._schema, self.role))
        left = [self._privilege("REVOKE {} ON {}.{} FROM {}", *each) for each in sorted(present - wanted, key=str)]
        left += [self._privilege("GRANT {} ON {}.{} TO {}", *each) for each in sorted(wanted - present)]
        for each in map(self._text, left):
            self.changes = [change for change in self.changes if change.sql != each]
            if Change(each) not in self.refused:
                self.refused.append(Change(each))

    def give_schema(self, *, is_own: bool) -> None:
        """Let the role own the schema of its own tables, or keep it from there; the tables stay."""
        found = self._all("SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = %s", self._schema)
        schema = sql.Identifier(self._schema)
        is_there, is_owner = bool(found), found == [(self.role,)]
        if is_own and not is_owner:
            self._join()
        if is_own and not is_there:
            self._run(sql.SQL("CREATE SCHEMA {} AUTHORIZATION {}").format(schema, self._name))
        elif is_own and not is_owner:
            self._run(sql.SQL("ALTER SCHEMA {} OWNER TO {}").format(schema, self._name))
        elif is_owner and not is_own:
            self._run(sql.SQL("ALTER SCHEMA {} OWNER TO CURRENT_USER").format(schema))
        elif is_there and not is_own and self._ask(_SEES_SCHEMA, self.role, self._schema):
            self._run(sql.SQL("REVOKE USAGE ON SCHEMA {} FROM {}").format(schema, self._name))  # an export was cut off

    def _join(self) -> None:
        """Who gives something to a role must be a member of it, unless it is a superuser."""
        if not self._ask("SELECT pg_has_role(current_user, %s, 'MEMBER')", self.role):
            self._run(sql.SQL("GRANT {} TO CURRENT_USER").format(self._name))

    def _privilege(self, statement: str, schema: str, table: str, column: str | None, privilege: str) -> sql.Composed:
        what: sql.Composable = sql.SQL(privilege)  # a word of the server's, or of ours
        if column is not None:
            what = sql.SQL("{} ({})").format(what, sql.Identifier(column))
        return sql.SQL(statement).format(what, sql.Identifier(schema), sql.Identifier(table), self._name)

    def _set_password(self) -> None:
        statement = sql.SQL("ALTER ROLE {} PASSWORD {}")
        shown = Change(self._text(statement.format(self._name, sql.Literal("(kept in the data directory)"))))
        secret = "" if self._is_dry else _password(self._data_dir, self.role)
        is_done = self._is_done(statement.format(self._name, sql.Literal(secret)))
        (self.changes if is_done else self.refused).append(shown)

    def _can_log_in(self) -> bool:
        if not (self._data_dir / _SECRETS / self.role).exists():
            return False
        conninfo = make_conninfo(
            self._connection.info.dsn,
            password=_password(self._data_dir, self.role),
            user=self.role,
            connect_timeout=_PATIENCE,
        )
        try:
            psycopg.connect(conninfo).close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, statement: sql.SQL | sql.Composed) -> bool:
        """Run a statement and note it; tell whether the login may do that."""
        is_done = self._is_done(statement)
        (self.changes if is_done else self.refused).append(Change(self._text(statement)))
        return is_done

    def _is_done(self, statement: sql.SQL | sql.Composed) -> bool:
        try:
            with self._connection.transaction():
                self._connection.execute(statement)
        except psycopg.errors.InsufficientPrivilege:
            return False
        return True

    def _text(self, statement: sql.Composable) -> str:
        return statement.as_string(self._connection)

    def _all(self, query: str, *values: Any) -> list[Any]:
        return self._connection.execute(query.encode(), values).fetchall()

    def _ask(self, query: str, *values: Any) -> bool:
        found = self._connection.execute(query.encode(), values).fetchone()
        return bool(found and found[0])
