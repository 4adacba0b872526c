"""What the database's settings, roles and rights could lose: asked with any login's rights, judged without any.

`ask` gets the facts, `findings` is a function of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from runtime.audit import clock
from runtime.audit.clock import Reading
from runtime.audit.finding import Finding, Level, not_asked
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
NAMED_MAX = 5
"""Tables that a finding names in its sentence; its command names them all."""
RELOAD = "SELECT pg_reload_conf();"
MIGRATE = "python -m migrations"
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


async def told(engine: AsyncEngine) -> list[Finding]:
    """The findings of a service; that it cannot ask is a finding, and no error."""
    try:
        async with asyncio.timeout(TOLD_S_MAX), engine.connect() as connection:
            facts = await ask(connection)
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        return [not_asked("database", error)]
    return [*findings(facts), *clock.findings({"the database": facts.clock})]


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


def findings(facts: Facts) -> list[Finding]:
    """What these settings could lose, but for the clock, which is compared with others."""
    return [
        *_server(facts),
        *_commits(facts),
        *_connections(facts),
        *_roles(facts),
        *_rights(facts),
    ]


_OFF_LOSES: Mapping[str, tuple[Level, str]] = {
    "fsync": (
        "error",
        "at a power cut, the whole database: rebuild makes ops anew from the log, nothing makes notify",
    ),
    "full_page_writes": (
        "error",
        "at a power cut, pages that were half written, and nothing notices at first",
    ),
    "autovacuum": (
        "warning",
        "nothing at first: old rows stay until the disk is full, and the projector waits",
    ),
    "track_counts": (
        "warning",
        "nothing at first: old rows stay until the disk is full, and the projector waits",
    ),
}


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
    if hidden := [name for name in SETTINGS if name not in facts.settings]:
        asking = " ".join(f"SHOW {name};" for name in hidden)
        found.append(
            Finding(
                "unknown",
                "database",
                f"it does not show {facts.login} {', '.join(hidden)}",
                "not known",
                f"{asking}   -- as a superuser, or ask who runs it",
            )
        )
    version = int(_value(facts, "server_version_num") or VERSION_MIN * 10_000) // 10_000
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
    found += [
        Finding(level, "database", f"{name} is off", lost, _switch_on(name, facts.settings[name].source))
        for name, (level, lost) in _OFF_LOSES.items()
        if _value(facts, name) == "off"
    ]
    return found


def _value(facts: Facts, name: str) -> str | None:
    return facts.settings[name].value if name in facts.settings else None


def _switch_on(name: str, source: str) -> str:
    """How a setting of the whole server is set to `on`: what overrides its files has to go first."""
    if source == "command line":
        return f"take `-c {name}=…` out of the command that starts Postgres, and start it again; then odooops verify"
    if source in ("client", "environment variable", "session"):
        return f"take {name} out of the options of the service's DATABASE_URL, and restart it; then odooops verify"
    return f"ALTER SYSTEM SET {name} = on; {RELOAD}   -- as a superuser; then odooops verify"


_COMMIT_LOSES: Mapping[str, tuple[Level, str]] = {
    "off": (
        "error",
        "at a crash of Postgres, what the projector acknowledged in the last second: rows are missing until a rebuild",
    ),
    "local": (
        "warning",
        "at a failover to the standby, what the projector acknowledged last: rows are missing until a rebuild",
    ),
}
"""`local` is as good as `on` where commits wait for no standby."""


def _commits(facts: Facts) -> list[Finding]:
    """Where a commit is said to be done before it is on disk, or on the standby that it should wait for."""
    readers = {"odooops_reader", "odooops_reader_pii"}
    # A login does not inherit the settings of its role, so that of one that cannot log in counts for nobody.
    writers = {role.name for role in facts.roles if role.login and not readers.issuperset(role.member_of)}
    said = []
    for role, database, value in facts.commits:
        if role and role not in writers:
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
        said.append((value, f" for {who}", mend))
    here = facts.settings.get("synchronous_commit")
    if here is not None and here.source not in ("user", "database", "database user", "global"):
        said.append((here.value, "", _switch_on("synchronous_commit", here.source)))
    if not _value(facts, "synchronous_standby_names"):
        said = [each for each in said if each[0] != "local"]
    return [
        Finding(level, "database", f"synchronous_commit is {value}{who}", lost, mend)
        for value, who, mend in said
        if value in _COMMIT_LOSES
        for level, lost in [_COMMIT_LOSES[value]]
    ]


def _connections(facts: Facts) -> list[Finding]:
    found = []
    allowed = int(_value(facts, "max_connections") or 0)
    if allowed and allowed - facts.reserved - facts.connections < POOL_CONNECTIONS_MAX:
        found.append(
            Finding(
                "warning",
                "database",
                f"{facts.connections} of {allowed - facts.reserved} connections are taken;"
                f" a service takes up to {POOL_CONNECTIONS_MAX}",
                "nothing: a service that starts has to wait, and deliveries wait in the log",
                f"ALTER SYSTEM SET max_connections = {2 * allowed};   -- as a superuser; then restart Postgres",
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


def _roles(facts: Facts) -> list[Finding]:
    """Missing ones, services that nobody can log in for, too powerful ones, and logins that serve for several."""
    known = {role.name for role in facts.roles}
    found = [
        Finding(
            "error",
            f"role {name}",
            "is missing",
            "nothing: its service cannot work",
            f"CREATE ROLE {name} NOLOGIN;   -- then odooops doctor names the rights that a service lacks"
            if facts.migrated
            else MIGRATE,
        )
        for name in ROLES
        if name not in known
    ]
    for service in sorted({role for role, _ in NEEDS} & known):
        members = [role for role in facts.roles if service in role.member_of and role.name not in ROLES]
        if not any(role.login for role in members):
            locked = ", ".join(role.name for role in members)
            found.append(
                Finding(
                    "error" if locked else "warning",
                    f"role {service}",
                    f"its login {locked} may not log in" if locked else "no login is a member of it",
                    "nothing: its service cannot connect, unless as a superuser, and what it is to do waits",
                    f"ALTER ROLE {_quoted(members[0].name)} LOGIN;"
                    if locked
                    else "python -m migrations.logins",
                )
            )
    for role in facts.roles:
        if not role.owns_database:  # that is the migrator: it makes roles and tables
            found += _powers(role)
    return found


def _powers(role: Role) -> list[Finding]:
    where, name = f"role {role.name}", _quoted(role.name)
    found: list[tuple[Level, str, str, str]] = []
    if role.superuser:
        lost = "whatever its service is made to do: rows that no delivery made, files of the server"
        found.append(("error", "is a superuser", lost, f"ALTER ROLE {name} NOSUPERUSER;"))
    if role.writes_all:
        lost = "rows that say what no delivery said; the next rebuild removes them, and verify names them"
        found.append(("error", f"is a member of {WRITE_ALL}", lost, f"REVOKE {WRITE_ALL} FROM {name};"))
    if role.powers:
        says = f"has {', '.join(role.powers)}, which its service does not need"
        lost = "whoever takes over that service can give itself more"
        mend = f"ALTER ROLE {name} {' '.join(f'NO{power}' for power in role.powers)};"
        found.append(("warning", says, lost, mend))
    if role.name in ROLES and role.login:
        says = "can log in: it is there to hold rights, each service has a login of its own"
        lost = "who did what: connections of several services look alike"
        found.append(("warning", says, lost, f"ALTER ROLE {name} NOLOGIN;"))
    if role.login and len(role.member_of) > 1:
        says = f"is a member of {', '.join(role.member_of)}"
        lost = "whoever takes over one of these services can do what the others may"
        found.append(("warning", says, lost, _parted(role)))
    return [Finding(level, where, says, lost, mend) for level, says, lost, mend in found]


def _parted(role: Role) -> str:
    """How a login gets to serve one service only: that of its name, where it is called by one."""
    others = [each for each in role.member_of if not role.name.endswith(each.removeprefix("odooops"))]
    if len(others) == len(role.member_of) - 1:
        return f"REVOKE {', '.join(others)} FROM {_quoted(role.name)};"
    return "python -m migrations.logins   # with DATABASE_URL_<SERVICE> as a login of its own for each"


def _rights(facts: Facts) -> list[Finding]:
    found = [
        Finding(
            "error",
            f"role {name}",
            f"may write {_some(tables)}",
            "rows that say what no delivery said; the next rebuild removes them, and verify names them",
            f"REVOKE {', '.join(WRITE)} ON {', '.join(tables)} FROM {name if name == 'PUBLIC' else _quoted(name)};",
        )
        for name, tables in facts.granted.items()
    ]
    found += [
        Finding(
            "warning",
            f"role {name}",
            f"owns {_some(tables)}",
            "rows that it changes or drops; and `odooops rebuild`, which only their owner may",
            " ".join(f"ALTER TABLE {table} OWNER TO {OWNER};" for table in tables) + "   -- as a superuser",
        )
        for name, tables in facts.owned.items()
    ]
    found += [
        Finding(
            "error",
            f"role {name}",
            f"lacks {right} on {_some(tables) if tables else f'the schema {schema}'}",
            "nothing: its service waits for the right, and what it is to do waits",
            f"GRANT {right} ON {', '.join(tables) or f'SCHEMA {schema}'} TO {name};",
        )
        for (name, schema, right), tables in facts.lacking.items()
    ]
    return found


def _some(tables: Sequence[str]) -> str:
    more = len(tables) - NAMED_MAX
    return ", ".join(tables[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")


def _quoted(name: str) -> str:
    plain = name.isascii() and name.replace("_", "a").isalnum() and name == name.lower()
    return name if plain or not name else '"' + name.replace('"', '""') + '"'
