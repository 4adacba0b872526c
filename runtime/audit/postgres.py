"""What the database's settings, roles and rights could lose: asked with any login's rights, judged without any.

`ask` gets the facts, `findings` is a function of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from runtime.audit import clock
from runtime.audit.clock import Reading
from runtime.audit.finding import Finding, not_asked
from runtime.postgres import OWNER, POOL_CONNECTIONS_MAX

VERSION_MIN = 15
TOLD_S_MAX = 3.0
"""A service that is to stop meanwhile stops within 10 s."""
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
    "autovacuum",
    "track_counts",
    "server_version_num",
    "max_connections",
)
NAMED_MAX = 5
"""Tables that a finding names."""
RELOAD = "SELECT pg_reload_conf();"
MIGRATE = "python -m migrations"


@dataclass(frozen=True, slots=True)
class Role:
    """A role of ours, or a login that is a member of one, with what it may do beyond that."""

    name: str
    login: bool
    superuser: bool = False
    powers: tuple[str, ...] = ()
    """Of BYPASSRLS, CREATEROLE, CREATEDB and REPLICATION, those that it has."""
    member_of: tuple[str, ...] = ()
    """The services' roles that it is a member of, and can use."""
    owns_database: bool = False
    connections_max: int = -1


@dataclass(frozen=True, slots=True)
class Facts:
    """What the database answered."""

    settings: Mapping[str, str]
    """As they are for this login."""
    login: str
    standby: bool
    connections: int
    reserved: int
    """Connections that only superusers and the like can have."""
    clock: Reading
    roles: Sequence[Role] = ()
    commits: Sequence[tuple[str, str, str]] = ()
    """Settings of synchronous_commit for a role or a database: role, database (empty: any), value."""
    writers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Tables of `ops` that a login or role may write and should not, by its name."""
    unwritable: Sequence[str] = ()
    """Tables of `ops` that the projector may not write."""


async def ask(connection: AsyncConnection) -> Facts:
    """Ask the database. Raises what SQLAlchemy does, where it does not answer or refuses."""
    asked = datetime.now(UTC)
    at = (await connection.execute(text("SELECT clock_timestamp()"))).scalar_one()
    answered = datetime.now(UTC)
    settings = await connection.execute(_SETTINGS, {"names": list(SETTINGS)})
    here = (await connection.execute(_HERE)).one()
    roles = [
        _role(*row)
        for row in await connection.execute(_ROLES, {"ours": list(ROLES), "services": list(SERVICES)})
    ]
    roles = [role for role in roles if role.name in ROLES or role.member_of]
    writers: dict[str, list[str]] = {}
    unwritable = []
    for name, table, may in await connection.execute(
        _WRITERS, {"may": [*WRITERS, OWNER], "roles": list(ROLES)}
    ):
        if may:
            writers.setdefault(name, []).append(table)
        else:
            unwritable.append(table)
    commits = [tuple(row) for row in await connection.execute(_COMMITS)]
    return Facts(
        settings={row.name: row.setting for row in settings},
        login=here.login,
        standby=here.standby,
        connections=here.connections,
        reserved=here.reserved,
        clock=Reading(at, asked, answered),
        roles=roles,
        commits=[(role, database, value) for role, database, value in commits],
        writers=writers,
        unwritable=unwritable,
    )


async def ledger_seq(connection: AsyncConnection) -> int:
    """The last sequence of the log that the ledger knows; it reads the whole ledger."""
    return int((await connection.execute(_LEDGER)).scalar_one())


async def told(engine: AsyncEngine) -> list[Finding]:
    """The findings of a service; that it cannot ask is a finding, and no error."""
    try:
        async with asyncio.timeout(TOLD_S_MAX), engine.connect() as connection:
            facts = await ask(connection)
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        return [not_asked("database", error)]
    return findings(facts)


def _role(
    name: str,
    login: bool,
    superuser: bool,
    powers: Sequence[str],
    member_of: Sequence[str],
    owns: bool,
    connections_max: int,
) -> Role:
    return Role(name, login, superuser, tuple(powers), tuple(member_of), owns, connections_max)


_SETTINGS = text("SELECT name, setting FROM pg_settings WHERE name = ANY(:names)")
_HERE = text(
    "SELECT current_user AS login, pg_is_in_recovery() AS standby,"
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
    r.rolconnlimit
FROM pg_roles AS r
WHERE r.rolname = ANY(:ours) OR (r.rolcanlogin AND EXISTS (
    SELECT FROM pg_auth_members AS m JOIN pg_roles AS s ON s.oid = m.roleid
    WHERE m.member = r.oid AND s.rolname = ANY(:services)))
ORDER BY r.rolname
"""
)
# By login: what one may do by its own rights, by a role's, or because everybody may.
_WRITERS = text(
    """
WITH tables AS (
    SELECT c.oid, format('%I.%I', n.nspname, c.relname) AS name
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = 'ops' AND c.relkind IN ('r', 'p')
), may AS (SELECT oid FROM pg_roles WHERE rolname = ANY(:may))
SELECT r.rolname, t.name, true FROM pg_roles AS r CROSS JOIN tables AS t
WHERE (r.rolcanlogin OR r.rolname = ANY(:roles)) AND NOT r.rolsuper
AND r.oid NOT IN (SELECT datdba FROM pg_database WHERE datname = current_database())
AND NOT EXISTS (SELECT FROM may WHERE pg_has_role(r.oid, may.oid, 'MEMBER'))
AND (has_table_privilege(r.oid, t.oid, 'DELETE, TRUNCATE') OR has_any_column_privilege(r.oid, t.oid, 'INSERT, UPDATE'))
UNION ALL
SELECT p.rolname, t.name, false FROM pg_roles AS p CROSS JOIN tables AS t WHERE p.rolname = 'odooops_projector'
AND NOT (has_table_privilege(p.oid, t.oid, 'INSERT') AND has_table_privilege(p.oid, t.oid, 'UPDATE')
    AND has_table_privilege(p.oid, t.oid, 'DELETE'))
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


def findings(facts: Facts) -> list[Finding]:
    """What these settings could lose."""
    return [
        *_server(facts),
        *_commits(facts),
        *_connections(facts),
        *_roles(facts.roles),
        *_rights(facts),
        *clock.findings("the database", facts.clock),
    ]


def _server(facts: Facts) -> list[Finding]:
    found = []
    if facts.standby:
        found.append(
            Finding(
                "info",
                "database",
                "is a standby: its settings are its own, the primary's were not asked",
                "not known of the primary",
                "odooops doctor   # with DATABASE_URL_READER at the primary",
            )
        )
    version = int(facts.settings["server_version_num"]) // 10_000
    if version < VERSION_MIN:
        found.append(
            Finding(
                "error",
                "database",
                f"is Postgres {version}, from {VERSION_MIN} on ours works",
                "not known: nobody has tried it",
                f"pg_upgrade to {VERSION_MIN} or later",
            )
        )
    for setting, lost in (
        (
            "fsync",
            "at a power cut, the whole database: rebuild makes ops anew from the log, nothing makes notify",
        ),
        ("full_page_writes", "at a power cut, pages that were half written, and nothing notices at first"),
    ):
        if facts.settings[setting] == "off":
            mend = f"ALTER SYSTEM SET {setting} = on; {RELOAD}   -- as a superuser; then odooops verify"
            found.append(Finding("error", "database", f"{setting} is off", lost, mend))
    found += [
        Finding(
            "warning",
            "database",
            f"{setting} is off: nothing clears away old rows",
            "nothing at first: tables grow until the disk is full, and the projector waits",
            f"ALTER SYSTEM SET {setting} = on; {RELOAD}   -- as a superuser",
        )
        for setting in ("autovacuum", "track_counts")
        if facts.settings[setting] == "off"
    ]
    return found


_COMMIT_LOSES = (
    "at a crash of Postgres, what it committed in the last second and the projector acknowledged: rows are missing"
    " until `odooops rebuild`"
)


def _commits(facts: Facts) -> list[Finding]:
    """Where a commit is said to be done before it is on disk; `off` is the only such value."""
    found = []
    readers = {"odooops_reader", "odooops_reader_pii"}
    # A login does not inherit the settings of its role, so that of one that cannot log in counts for nobody.
    writers = {role.name for role in facts.roles if role.login and not readers.issuperset(role.member_of)}
    for role, database, value in facts.commits:
        if value != "off" or (role and role not in writers):
            continue
        where = f" IN DATABASE {_quoted(database)}" if database else ""
        who = (
            f"ROLE {_quoted(role)}{where}"
            if role
            else f"DATABASE {_quoted(database)}"
            if database
            else "ROLE ALL"
        )
        mend = f"ALTER {who} RESET synchronous_commit;   -- then restart the services; odooops verify"
        found.append(
            Finding("error", "database", f"synchronous_commit is off for {who}", _COMMIT_LOSES, mend)
        )
    by_itself = not any(value == "off" and role in ("", facts.login) for role, _, value in facts.commits)
    if facts.settings["synchronous_commit"] == "off" and by_itself:
        mend = f"ALTER SYSTEM SET synchronous_commit = on; {RELOAD}   -- as a superuser; then odooops verify"
        found.append(Finding("error", "database", "synchronous_commit is off", _COMMIT_LOSES, mend))
    return found


def _connections(facts: Facts) -> list[Finding]:
    found = []
    most = int(facts.settings["max_connections"]) - facts.reserved
    if most - facts.connections < POOL_CONNECTIONS_MAX:
        found.append(
            Finding(
                "warning",
                "database",
                f"{facts.connections} of {most} connections are taken; a service takes up to {POOL_CONNECTIONS_MAX}",
                "nothing: a service that starts has to wait, and deliveries wait in the log",
                "ALTER SYSTEM SET max_connections = 200;   -- as a superuser; then restart Postgres",
            )
        )
    found += [
        Finding(
            "warning",
            f"role {role.name}",
            f"may have {role.connections_max} connections, a service takes up to {POOL_CONNECTIONS_MAX}",
            "nothing: the service waits, and deliveries wait in the log",
            f"ALTER ROLE {_quoted(role.name)} CONNECTION LIMIT -1;",
        )
        for role in facts.roles
        if role.login and 0 <= role.connections_max < POOL_CONNECTIONS_MAX
    ]
    return found


def _roles(roles: Sequence[Role]) -> list[Finding]:
    """Missing ones, too powerful ones, and logins that serve for several services."""
    known = {role.name for role in roles}
    found = [
        Finding("error", f"role {name}", "is missing", "nothing: its service cannot work", MIGRATE)
        for name in ROLES
        if name not in known
    ]
    for role in roles:
        where, name = f"role {role.name}", _quoted(role.name)
        if role.owns_database:
            continue  # the migrator: it makes roles and tables
        if role.superuser:
            found.append(
                Finding(
                    "error",
                    where,
                    "is a superuser",
                    "whatever its service is made to do: rows that no delivery made, files of the server",
                    f"ALTER ROLE {name} NOSUPERUSER;",
                )
            )
        if role.powers:
            found.append(
                Finding(
                    "warning",
                    where,
                    f"has {', '.join(role.powers)}, which its service does not need",
                    "whoever takes over that service can give itself more",
                    f"ALTER ROLE {name} {' '.join(f'NO{power}' for power in role.powers)};",
                )
            )
        if role.name in ROLES and role.login:
            found.append(
                Finding(
                    "warning",
                    where,
                    "can log in: it is there to hold rights, each service has a login of its own",
                    "who did what: connections of several services look alike",
                    f"ALTER ROLE {name} NOLOGIN;",
                )
            )
        if role.login and len(role.member_of) > 1:
            found.append(
                Finding(
                    "warning",
                    where,
                    f"is a member of {', '.join(role.member_of)}",
                    "whoever takes over one of these services can do what the others may",
                    f"REVOKE {', '.join(role.member_of[1:])} FROM {name};   -- and a login of its own for each service",
                )
            )
    return found


def _rights(facts: Facts) -> list[Finding]:
    found = []
    for name, tables in facts.writers.items():
        found.append(
            Finding(
                "error",
                f"role {name}",
                f"may write {_some(tables)}",
                "rows that say what no delivery said; the next rebuild removes them, and verify names them",
                f"REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON {_some(tables, named_max=len(tables))}"
                f" FROM {_quoted(name)}, PUBLIC;",
            )
        )
    if facts.unwritable:
        found.append(
            Finding(
                "error",
                "role odooops_projector",
                f"may not write {_some(facts.unwritable)}",
                "nothing: it waits for the right, and so do all deliveries",
                f"GRANT SELECT, INSERT, UPDATE, DELETE ON {', '.join(facts.unwritable)} TO odooops_projector;",
            )
        )
    return found


def _some(tables: Sequence[str], named_max: int = NAMED_MAX) -> str:
    more = len(tables) - named_max
    return ", ".join(tables[:named_max]) + (f" and {more} more" if more > 0 else "")


def _quoted(name: str) -> str:
    plain = name.isascii() and name.replace("_", "a").isalnum() and name == name.lower()
    return name if plain or not name else '"' + name.replace('"', '""') + '"'
