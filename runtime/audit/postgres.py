"""What the database's settings, roles and rights could lose, judged by the facts of the `catalog`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from runtime.audit import clock
from runtime.audit.catalog import NEEDS, ROLES, SETTINGS, WRITE, WRITE_ALL, Facts, Role, ask
from runtime.audit.finding import Finding, Level, not_asked
from runtime.postgres import OWNER, POOL_CONNECTIONS_MAX

VERSION_MIN = 15
TOLD_S_MAX = 3.0
"""A service that is to stop meanwhile stops within 10 s."""
NAMED_MAX = 5
"""Tables that a finding names in its sentence; its command names them all."""
RELOAD = "SELECT pg_reload_conf();"
MIGRATE = "python -m migrations"
OWN_LOGINS = "python -m migrations.logins   # with a login of its own for each in DATABASE_URL_<SERVICE>"


async def told(engine: AsyncEngine) -> list[Finding]:
    """The findings of a service; that it cannot ask is a finding, and no error."""
    try:
        async with asyncio.timeout(TOLD_S_MAX), engine.connect() as connection:
            facts = await ask(connection)
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        return [not_asked("database", error)]
    return [*findings(facts), *clock.findings({"the database": facts.clock})]


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
        itself = any(role.login for role in facts.roles if role.name == service)
        if not itself and not any(role.login for role in members):
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
        found.append(("warning", says, lost, f"{OWN_LOGINS}; then ALTER ROLE {name} NOLOGIN;"))
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
    return OWN_LOGINS


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
