"""What PostgreSQL gives everybody, and plugins must not have: taken from PUBLIC, and left to who owns the tables.

All of it holds for one database. Functions of the system belong to its superuser, so only that can revoke them.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

__all__ = ["PLUGIN_ROLES", "find_makers", "find_open_doors", "find_public_doors"]

PLUGIN_ROLES = "^pixsim7_[0-9a-f]{8}_"
"""How the names of plugins' roles begin, as a pattern."""

_FUNCTIONS = (
    r"^(lo_.*|loread|lowrite"  # large objects: written even in a READ ONLY transaction
    r"|pg_advisory_.*|pg_try_advisory_.*"  # locks that the host's own migrations wait for
    r"|pg_sleep.*|set_config|pg_notify|pg_logical_emit_message|pg_export_snapshot"
    r"|query_to_xml.*|cursor_to_xml.*|table_to_xml.*|schema_to_xml.*|database_to_xml.*|ts_stat|ts_rewrite"  # run a text
    r"|pg_stat_get_.*|pg_get_functiondef|pg_get_function_sqlbody|pg_get_viewdef|pg_get_ruledef|pg_get_triggerdef|pg_show_all_settings"
    r"|pg_show_all_file_settings|pg_lock_status|pg_prepared_xact|pg_cursor|pg_prepared_statement"
    r"|pg_cancel_backend|pg_terminate_backend|pg_ls_.*|pg_read_.*|pg_stat_file|pg_current_logfile"
    r"|dblink.*|postgres_fdw.*|pg_database_size|pg_tablespace_size)$"
)
_RELATIONS = (
    r"^(pg_stat_.*|pg_statio_.*|pg_locks|pg_settings|pg_file_settings|pg_hba_file_rules|pg_roles|pg_user|pg_group"
    r"|pg_shadow|pg_proc|pg_rules|pg_views|pg_matviews|pg_trigger|pg_rewrite|pg_cursors|pg_prepared_.*|pg_stats.*"
    r"|pg_shdescription|pg_database|pg_auth_members|pg_db_role_setting|pg_foreign_.*|pg_user_mapping.*|pg_largeobject.*"
    r"|pg_policy|pg_policies|pg_publication.*|pg_replication_.*)$"
)

_PUBLIC_FUNCTIONS = """
SELECT format('%%I.%%I(%%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid))
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE ((n.nspname = 'pg_catalog' AND p.proname ~ %(functions)s)
       OR p.proname ~ '^(dblink|postgres_fdw)'
       OR (p.prosecdef AND n.nspname NOT IN ('pg_catalog', 'information_schema')))
  AND {condition}
ORDER BY 1
"""
_PUBLIC_RELATIONS = """
SELECT format('%%I.%%I', n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'pg_catalog' AND c.relkind IN ('r', 'v') AND c.relname ~ %(relations)s AND {condition}
ORDER BY 1
"""
_ACL_PUBLIC = sql.SQL(
    "EXISTS (SELECT FROM aclexplode(coalesce({acl}, acldefault({kind}, {owner}))) a WHERE a.grantee = 0)"
)


def find_public_doors(connection: psycopg.Connection[Any]) -> list[tuple[sql.Composed, sql.Composed]]:
    """Return what PUBLIC still has, as pairs of statements: what revokes it, what leaves it to the owners."""
    owners = connection.execute(_OWNERS, [PLUGIN_ROLES]).fetchall()
    keepers = sql.SQL(", ").join([sql.SQL("CURRENT_USER"), *(sql.Identifier(name) for (name,) in owners)])
    functions = _ACL_PUBLIC.format(acl=sql.SQL("p.proacl"), kind=sql.SQL("'f'"), owner=sql.SQL("p.proowner"))
    relations = _ACL_PUBLIC.format(acl=sql.SQL("c.relacl"), kind=sql.SQL("'r'"), owner=sql.SQL("c.relowner"))
    doors = [_door("EXECUTE ON ROUTINE", name, keepers) for name in _names(connection, _PUBLIC_FUNCTIONS, functions)]
    doors += [_door("SELECT ON", name, keepers) for name in _names(connection, _PUBLIC_RELATIONS, relations)]
    doors += [_door("USAGE ON LANGUAGE", name, keepers) for name in _column(connection, _LANGUAGES)]
    doors += [_door(privilege + " ON DATABASE", name, keepers) for privilege, name in _pairs(connection, _DATABASE)]
    doors += [_door("CREATE ON SCHEMA", name, keepers) for name in _column(connection, _SCHEMAS)]
    return doors


def find_makers(connection: psycopg.Connection[Any]) -> list[str]:
    """Return whose new functions are open to everybody, of the host's login and of owners for whom it may speak."""
    return [name for (name,) in connection.execute(_MAKERS, [PLUGIN_ROLES]).fetchall()]


def find_open_doors(connection: psycopg.Connection[Any], role: str) -> list[str]:
    """Return what of all this the role can still do: nothing, where a superuser has hardened the database."""
    functions = sql.SQL("has_function_privilege({role}, p.oid, 'EXECUTE')").format(role=sql.Literal(role))
    relations = sql.SQL("has_any_column_privilege({role}, c.oid, 'SELECT')").format(role=sql.Literal(role))
    left = [f"call {name}" for name in _names(connection, _PUBLIC_FUNCTIONS, functions)]
    left += [f"read {name}" for name in _names(connection, _PUBLIC_RELATIONS, relations)]
    checks = (
        ("make temporary tables", "has_database_privilege({role}, current_database(), 'TEMP')"),
        ("make tables in the schema public", "has_schema_privilege({role}, 'public', 'CREATE')"),
        (
            "write functions in SQL or PL/pgSQL",
            "bool_or(has_language_privilege({role}, oid, 'USAGE')) FROM pg_language WHERE lanpltrusted",
        ),
    )
    for what, check in checks:
        question = sql.SQL("SELECT ") + sql.SQL(check).format(role=sql.Literal(role))
        if (connection.execute(question).fetchone() or (False,))[0]:
            left.append(what)
    return left


_OWNERS = """
SELECT r.rolname FROM pg_roles r WHERE NOT r.rolsuper AND r.rolname !~ '^pg_' AND r.rolname !~ %s AND r.oid IN (
  SELECT datdba FROM pg_database WHERE datname = current_database()
  UNION SELECT c.relowner FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'public'
) ORDER BY 1
"""
_MAKERS = """
SELECT r.rolname FROM pg_roles r
WHERE pg_has_role(current_user, r.oid, 'USAGE') AND r.rolname !~ '^pg_' AND r.rolname !~ %s
AND (r.rolname = current_user OR r.oid IN (
  SELECT datdba FROM pg_database WHERE datname = current_database()
  UNION SELECT c.relowner FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'public'))
AND NOT EXISTS (SELECT FROM pg_default_acl d WHERE d.defaclrole = r.oid AND d.defaclnamespace = 0
  AND d.defaclobjtype = 'f' AND NOT EXISTS (SELECT FROM aclexplode(d.defaclacl) a WHERE a.grantee = 0))
ORDER BY 1
"""
_LANGUAGES = """
SELECT quote_ident(l.lanname) FROM pg_language l WHERE l.lanpltrusted AND EXISTS (
  SELECT FROM aclexplode(coalesce(l.lanacl, acldefault('l', l.lanowner))) a WHERE a.grantee = 0) ORDER BY 1
"""
_DATABASE = """
SELECT a.privilege_type, quote_ident(d.datname) FROM pg_database d,
  aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
WHERE d.datname = current_database() AND a.grantee = 0 AND a.privilege_type IN ('TEMPORARY', 'CREATE') ORDER BY 1
"""
_SCHEMAS = """
SELECT quote_ident(n.nspname) FROM pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
WHERE n.nspname = 'public' AND a.grantee = 0 AND a.privilege_type = 'CREATE'
"""


def _door(privilege: str, name: str, keepers: sql.Composed) -> tuple[sql.Composed, sql.Composed]:
    what = sql.SQL(f"{privilege} {name}")  # the names are quoted by the server
    return sql.SQL("REVOKE {} FROM PUBLIC").format(what), sql.SQL("GRANT {} TO {}").format(what, keepers)


def _names(connection: psycopg.Connection[Any], query: str, condition: sql.Composed) -> list[str]:
    statement = sql.SQL(query).format(condition=condition)
    found = connection.execute(statement, {"functions": _FUNCTIONS, "relations": _RELATIONS})
    return [name for (name,) in found]


def _column(connection: psycopg.Connection[Any], query: str) -> list[str]:
    return [name for (name,) in connection.execute(query.encode())]


def _pairs(connection: psycopg.Connection[Any], query: str) -> list[tuple[str, str]]:
    return [(first, second) for first, second in connection.execute(query.encode())]
