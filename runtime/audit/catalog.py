"""What the database says of its settings, roles and rights, asked with any login's rights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.audit.clock import Reading
from runtime.postgres import OWNER

SERVICES = (
    "odooops_projector",
    "odooops_notifier",
    "odooops_reader",
    "odooops_reader_pii",
    "odooops_operator",
)
ROLES = (*SERVICES, OWNER)
"""What the migrations make."""
WRITERS = ("odooops_projector", "odooops_operator")
"""Who may write `ops.*`: the projector, and the operator by the same code."""
SETTINGS = (
    "fsync",
    "full_page_writes",
    "synchronous_commit",
    "synchronous_standby_names",
    "autovacuum",
    "track_counts",
    "server_version_num",
    "max_connections",
)
WRITE = ("INSERT", "UPDATE", "DELETE", "TRUNCATE")
NEEDS = {
    ("odooops_projector", "ops"): ("SELECT", "INSERT", "UPDATE", "DELETE"),
    ("odooops_projector", "projector"): ("SELECT", "INSERT", "UPDATE", "DELETE"),
    ("odooops_notifier", "notify"): ("SELECT", "INSERT", "UPDATE"),
}
"""What a service needs on each table of a schema, beside USAGE on the schema itself."""
WRITE_ALL = "pg_write_all_data"
"""Postgres's own role, whose members may write everywhere."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting as it is for this login, and where that comes from, in the words of pg_settings."""

    value: str
    source: str = "default"


@dataclass(frozen=True, slots=True)
class Role:
    """A role of ours, or a member of one, with what it may do beyond that."""

    name: str
    login: bool
    superuser: bool = False
    powers: tuple[str, ...] = ()
    """Of BYPASSRLS, CREATEROLE, CREATEDB and REPLICATION, those that it has."""
    member_of: tuple[str, ...] = ()
    """The services' roles that it is a member of, and can use."""
    owns_database: bool = False
    connections_max: int = -1
    writes_all: bool = False
    """Whether it is a member of WRITE_ALL."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the database answered."""

    settings: Mapping[str, Setting]
    """Those of SETTINGS that this login is shown."""
    login: str
    standby: bool
    migrated: bool
    connections: int
    reserved: int
    """Connections that only superusers and the like can have."""
    clock: Reading
    roles: Sequence[Role] = ()
    commits: Sequence[tuple[str, str, str]] = ()
    """Settings of synchronous_commit for a role or a database: role, database (empty: any), value."""
    granted: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Tables of `ops` that a role was given the right to write and should not, by its name; PUBLIC is everybody."""
    owned: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Tables and views of `ops` that are not OWNER's, by who owns them."""
    lacking: Mapping[tuple[str, str, str], Sequence[str]] = field(default_factory=dict)
    """What of NEEDS is not given: role, schema, right; the tables, none where it is the schema."""


async def ask(connection: AsyncConnection) -> Facts:
    """Ask the database. Raises what SQLAlchemy does, where it does not answer or refuses."""
    asked = datetime.now(UTC)
    at = (await connection.execute(text("SELECT clock_timestamp()"))).scalar_one()
    answered = datetime.now(UTC)
    settings = await connection.execute(_SETTINGS, {"names": list(SETTINGS)})
    here = (await connection.execute(_HERE)).one()
    names = {"ours": list(ROLES), "services": list(SERVICES), "write_all": WRITE_ALL}
    roles = [_role(*row) for row in await connection.execute(_ROLES, names)]
    granted = await connection.execute(_GRANTED, {"may": [*WRITERS, OWNER], "rights": list(WRITE)})
    owned = await connection.execute(_OWNED, {"owner": OWNER})
    lacking: dict[tuple[str, str, str], list[str]] = {}
    for (role, schema), rights in NEEDS.items():
        needs = {"role": role, "schema": schema, "rights": list(rights)}
        for right, table in await connection.execute(_LACKING, needs):
            lacking.setdefault((role, schema, right), []).extend([table] if table else [])
    commits = [tuple(row) for row in await connection.execute(_COMMITS)]
    return Facts(
        settings={row.name: Setting(row.setting, row.source) for row in settings},
        login=here.login,
        standby=here.standby,
        migrated=here.migrated,
        connections=here.connections,
        reserved=here.reserved,
        clock=Reading(at, asked, answered),
        roles=[role for role in roles if role.name in ROLES or role.member_of],
        commits=[(role, database, value) for role, database, value in commits],
        granted=_by_first(granted),
        owned=_by_first(owned),
        lacking=lacking,
    )


def _by_first(pairs: Iterable[Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for first, second in pairs:
        found.setdefault(first, []).append(second)
    return found


async def ledger_seq(connection: AsyncConnection) -> int:
    """The last sequence of the log that the ledger knows; it reads the whole ledger."""
    return int((await connection.execute(_LEDGER)).scalar_one())


def _role(
    name: str,
    login: bool,
    superuser: bool,
    powers: Sequence[str],
    member_of: Sequence[str],
    owns: bool,
    connections_max: int,
    writes_all: bool,
) -> Role:
    return Role(name, login, superuser, tuple(powers), tuple(member_of), owns, connections_max, writes_all)


_SETTINGS = text("SELECT name, setting, source FROM pg_settings WHERE name = ANY(:names)")
_HERE = text(
    "SELECT current_user AS login, pg_is_in_recovery() AS standby,"
    " to_regclass('public.alembic_version') IS NOT NULL AS migrated,"
    " (SELECT sum(numbackends) FROM pg_stat_database)::int AS connections,"
    " (SELECT sum(setting::int) FROM pg_settings"
    "  WHERE name IN ('superuser_reserved_connections', 'reserved_connections'))::int AS reserved"
)
# Who may use a role, directly or by way of others; whoever may only hand it on (as who made it may) is not meant.
_ROLES = text(
    """
SELECT r.rolname, r.rolcanlogin, r.rolsuper,
    array_remove(ARRAY[
        CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' END, CASE WHEN r.rolcreaterole THEN 'CREATEROLE' END,
        CASE WHEN r.rolcreatedb THEN 'CREATEDB' END, CASE WHEN r.rolreplication THEN 'REPLICATION' END
    ], NULL),
    CASE WHEN r.rolsuper THEN (
        SELECT coalesce(array_agg(s.rolname::text ORDER BY s.rolname), '{}') FROM pg_auth_members AS m
        JOIN pg_roles AS s ON s.oid = m.roleid WHERE m.member = r.oid AND s.rolname = ANY(:services)
    ) ELSE (
        SELECT coalesce(array_agg(s.rolname::text ORDER BY s.rolname), '{}') FROM pg_roles AS s
        WHERE s.rolname = ANY(:services) AND s.oid <> r.oid AND pg_has_role(r.oid, s.oid, 'USAGE')
    ) END,
    r.oid = (SELECT datdba FROM pg_database WHERE datname = current_database()),
    r.rolconnlimit,
    EXISTS (SELECT FROM pg_roles AS w WHERE w.rolname = :write_all AND pg_has_role(r.oid, w.oid, 'USAGE'))
        AND NOT r.rolsuper
FROM pg_roles AS r
WHERE r.rolname = ANY(:ours) OR EXISTS (
    SELECT FROM pg_auth_members AS m JOIN pg_roles AS s ON s.oid = m.roleid
    WHERE m.member = r.oid AND s.rolname = ANY(:services)
) OR (r.rolcanlogin AND NOT r.rolsuper AND EXISTS (
    SELECT FROM pg_roles AS s WHERE s.rolname = ANY(:services) AND pg_has_role(r.oid, s.oid, 'USAGE')
))
ORDER BY r.rolname
"""
)
# By whom it was given to, since that is who it has to be taken from; a column's right is taken with the table's.
_GRANTED = text(
    """
WITH tables AS (
    SELECT c.oid, c.relowner, c.relacl, format('%I.%I', n.nspname, c.relname) AS name
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = 'ops' AND c.relkind IN ('r', 'p')
), grants AS (
    SELECT t.name, t.relowner, a.grantee FROM tables AS t CROSS JOIN aclexplode(t.relacl) AS a
    WHERE a.privilege_type = ANY(:rights)
    UNION
    SELECT t.name, t.relowner, a.grantee FROM tables AS t JOIN pg_attribute AS c ON c.attrelid = t.oid
    CROSS JOIN aclexplode(c.attacl) AS a WHERE a.privilege_type = ANY(:rights)
)
SELECT coalesce(r.rolname, 'PUBLIC'), g.name FROM grants AS g LEFT JOIN pg_roles AS r ON r.oid = g.grantee
WHERE g.grantee <> g.relowner AND NOT coalesce(r.rolsuper, false)
AND g.grantee NOT IN (SELECT datdba FROM pg_database WHERE datname = current_database())
AND NOT EXISTS (SELECT FROM pg_roles AS may WHERE may.rolname = ANY(:may)
    AND r.oid IS NOT NULL AND pg_has_role(r.oid, may.oid, 'MEMBER'))
ORDER BY 1, 2
"""
)
_OWNED = text(
    """
SELECT pg_get_userbyid(c.relowner), format('ops.%I', c.relname) FROM pg_class AS c
WHERE c.relnamespace = to_regnamespace('ops') AND c.relkind IN ('r', 'p', 'v')
AND c.relowner <> coalesce(to_regrole(:owner), c.relowner)
ORDER BY 1, 2
"""
)
_LACKING = text(
    """
WITH r AS (SELECT oid FROM pg_roles WHERE rolname = :role), n AS (SELECT to_regnamespace(:schema)::oid AS oid)
SELECT 'USAGE', NULL FROM r, n WHERE NOT has_schema_privilege(r.oid, n.oid, 'USAGE')
UNION ALL
SELECT needed, format('%I.%I', CAST(:schema AS text), c.relname)
FROM r, n, pg_class AS c, unnest(CAST(:rights AS text[])) AS needed
WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p') AND NOT has_table_privilege(r.oid, c.oid, needed)
ORDER BY 1, 2
"""
)
_COMMITS = text(
    """
SELECT coalesce(r.rolname, ''), coalesce(d.datname, ''), split_part(c, '=', 2)
FROM pg_db_role_setting AS s CROSS JOIN unnest(s.setconfig) AS c
LEFT JOIN pg_roles AS r ON r.oid = s.setrole LEFT JOIN pg_database AS d ON d.oid = s.setdatabase
WHERE c LIKE 'synchronous\\_commit=%'
AND (s.setdatabase = 0 OR d.datname = current_database())
ORDER BY 1, 2
"""
)
_LEDGER = text("SELECT coalesce(max(last_seq), 0) FROM ops.deliveries")
