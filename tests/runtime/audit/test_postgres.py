"""What settings of the database could lose: as a table of facts, and on a real one that is set wrongly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.audit import catalog
from runtime.audit import postgres as audit
from runtime.audit.catalog import ROLES, Facts, Role, Setting
from runtime.audit.clock import Reading
from runtime.audit.finding import Finding
from runtime.postgres import make_engine
from tests.servers import Database

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LOGIN = Role("odooops_login_projector", login=True, member_of=("odooops_projector",))
FACTS = Facts(
    settings={
        name: Setting(value)
        for name, value in {
            "fsync": "on",
            "full_page_writes": "on",
            "synchronous_commit": "on",
            "synchronous_standby_names": "",
            "autovacuum": "on",
            "track_counts": "on",
            "server_version_num": "180004",
            "max_connections": "100",
        }.items()
    },
    login="odooops_login_reader",
    standby=False,
    migrated=True,
    connections=20,
    reserved=3,
    clock=Reading(NOW, NOW, NOW),
    roles=[
        *(Role(name, login=False) for name in ROLES),
        LOGIN,
        Role("odooops_login_notifier", login=True, member_of=("odooops_notifier",)),
        Role("odooops_login_reader", login=True, member_of=("odooops_reader",)),
    ],
)


def set_to(**settings: str) -> Facts:
    others = {name: Setting(value) for name, value in settings.items()}
    return replace(FACTS, settings={**FACTS.settings, **others})


def judged(facts: Facts) -> list[tuple[str, str]]:
    return [(each.level, each.part) for each in audit.findings(facts)]


def test_a_database_as_it_should_be_has_no_finding() -> None:
    assert judged(FACTS) == []


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"fsync": "off"}, [("error", "database")]),
        ({"full_page_writes": "off"}, [("error", "database")]),
        ({"synchronous_commit": "off"}, [("error", "database")]),
        ({"synchronous_commit": "local"}, []),
        ({"synchronous_commit": "remote_write"}, []),
        ({"autovacuum": "off"}, [("warning", "database")]),
        ({"track_counts": "off"}, [("warning", "database")]),
        ({"server_version_num": "140011"}, [("error", "database")]),
        ({"server_version_num": "150000"}, []),
        ({"max_connections": "28"}, [("warning", "database")]),
        ({"max_connections": "29"}, []),
    ],
)
def test_a_setting_is_judged_by_what_it_could_lose(
    settings: dict[str, str], found: list[tuple[str, str]]
) -> None:
    assert judged(set_to(**settings)) == found


def test_a_commit_that_waits_for_no_standby_loses_only_where_there_is_one() -> None:
    given = set_to(synchronous_commit="local", synchronous_standby_names="s1")
    assert judged(given) == [("warning", "database")]
    assert judged(replace(FACTS, commits=[("", "odooops", "local")])) == []
    on_one = replace(set_to(synchronous_standby_names="s1"), commits=[("", "odooops", "local")])
    assert [each.says for each in audit.findings(on_one)] == [
        "synchronous_commit is local for DATABASE odooops"
    ]


@pytest.mark.parametrize(
    ("source", "mend"),
    [
        ("configuration file", "ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf();"),
        ("command line", "take `-c fsync=…` out of the command that starts Postgres"),
        ("client", "take fsync out of the options of the service's DATABASE_URL"),
    ],
)
def test_a_setting_is_mended_where_it_comes_from(source: str, mend: str) -> None:
    (found,) = audit.findings(replace(FACTS, settings={**FACTS.settings, "fsync": Setting("off", source)}))
    assert found.mend.startswith(mend)


def test_a_setting_that_is_not_shown_is_unknown() -> None:
    shown = {name: each for name, each in FACTS.settings.items() if name not in ("fsync", "max_connections")}
    (hidden,) = audit.findings(replace(FACTS, settings=shown))
    assert (hidden.level, hidden.part) == ("unknown", "database")
    assert hidden.says == "it does not show odooops_login_reader fsync, max_connections"
    assert len(audit.findings(replace(FACTS, settings={}))) == 1


def test_more_connections_are_never_fewer_than_there_were() -> None:
    (few,) = audit.findings(replace(set_to(max_connections="400"), connections=395))
    assert few.mend.startswith("ALTER SYSTEM SET max_connections = 800;")


@pytest.mark.parametrize(
    ("commit", "level", "mend"),
    [
        (("odooops_login_projector", "", "off"), "error", "ALTER ROLE odooops_login_projector RESET"),
        (("", "odooops", "off"), "error", "ALTER DATABASE odooops RESET"),
        (("", "", "off"), "error", "ALTER ROLE ALL RESET"),
        (
            ("odooops_login_projector", "odooops", "off"),
            "error",
            "ALTER ROLE odooops_login_projector IN DATABASE odooops RESET",
        ),
        (("odooops_projector", "", "off"), None, ""),  # nobody logs in as that
        (("odooops_login_reader", "", "off"), None, ""),
        (("somebody", "", "off"), None, ""),
        (("odooops_login_projector", "", "on"), None, ""),
    ],
)
def test_a_commit_that_is_not_on_disk_is_found_where_it_is_set(
    commit: tuple[str, str, str], level: str | None, mend: str
) -> None:
    found = audit.findings(replace(FACTS, commits=[commit]))
    assert [each.level for each in found] == ([] if level is None else [level])
    assert all(each.mend.startswith(f"{mend} synchronous_commit") for each in found)


@pytest.mark.parametrize(
    ("role", "levels"),
    [
        (LOGIN, []),
        (replace(LOGIN, superuser=True), ["error"]),
        (replace(LOGIN, powers=("BYPASSRLS", "CREATEROLE")), ["warning"]),
        (replace(LOGIN, member_of=("odooops_notifier", "odooops_projector")), ["warning"]),
        (replace(LOGIN, connections_max=5), ["warning"]),
        (replace(LOGIN, connections_max=6), []),
        (replace(LOGIN, superuser=True, powers=("CREATEDB",), owns_database=True), []),
        (Role("odooops_notifier", login=True), ["warning"]),
        (Role("odooops_notifier", login=False, superuser=True), ["error"]),
    ],
)
def test_a_role_is_judged_by_what_it_may_do(role: Role, levels: Sequence[str]) -> None:
    others = [each for each in FACTS.roles if each.name != role.name]
    found = audit.findings(replace(FACTS, roles=[*others, role]))
    assert [(each.level, each.part) for each in found] == [(level, f"role {role.name}") for level in levels]


def test_roles_that_are_missing_are_named() -> None:
    without = [role for role in FACTS.roles if role.name != "odooops_reader_pii"]
    (found,) = audit.findings(replace(FACTS, roles=without))
    assert found.mend.startswith("CREATE ROLE odooops_reader_pii NOLOGIN;")
    (found,) = audit.findings(replace(FACTS, roles=without, migrated=False))
    assert (found.part, found.mend) == ("role odooops_reader_pii", "python -m migrations")


def test_a_login_for_several_services_keeps_that_of_its_name() -> None:
    both = ("odooops_operator", "odooops_projector")
    (named,) = audit._powers(replace(LOGIN, member_of=both))
    assert named.mend == "REVOKE odooops_operator FROM odooops_login_projector;"
    (other,) = audit._powers(Role("app", login=True, member_of=both))
    assert other.mend.startswith("python -m migrations.logins ")


def test_a_service_that_nobody_can_log_in_for_is_told() -> None:
    locked = [replace(role, login=role.login and role != LOGIN) for role in FACTS.roles]
    (found,) = audit.findings(replace(FACTS, roles=locked))
    assert (found.level, found.mend) == ("error", "ALTER ROLE odooops_login_projector LOGIN;")
    nobody = [role for role in FACTS.roles if role != LOGIN]
    (found,) = audit.findings(replace(FACTS, roles=nobody))
    assert (found.level, found.says) == ("warning", "no login is a member of it")
    by_itself = [replace(role, login=role.login or role.name == "odooops_projector") for role in nobody]
    (found,) = audit.findings(replace(FACTS, roles=by_itself))
    assert found.mend.startswith("python -m migrations.logins ")  # or nobody could log in for it


def test_a_standby_is_told() -> None:
    assert judged(replace(FACTS, standby=True)) == [("info", "database")]


def test_a_name_that_needs_quotes_gets_them() -> None:
    found = audit.findings(replace(FACTS, granted={'Bob"; DROP': ["ops.builds"]}))
    assert found[0].mend.endswith('FROM "Bob""; DROP";')


async def found(connection: AsyncConnection) -> list[Finding]:
    """What is found, but for this: the tests' own server runs without fsync."""
    said = audit.findings(await catalog.ask(connection))
    assert "fsync is off" in [each.says for each in said]
    return [each for each in said if each.says != "fsync is off"]


@pytest.mark.anyio
@pytest.mark.parametrize("asker", ["reader", "projector", "notifier", "operator"])
async def test_every_service_may_ask_and_what_the_migrations_made_is_right(
    database: Database, asker: str
) -> None:
    engine = make_engine(database.url(asker), "test")
    async with engine.connect() as connection:
        assert await found(connection) == []
    await engine.dispose()


PROJECTOR = "role odooops_projector"
LOGS_IN = "role odooops_login_projector"
BY_HAND = (
    ("ALTER ROLE odooops_login_projector SUPERUSER", "error", LOGS_IN, "is a superuser"),
    (
        "ALTER ROLE odooops_login_projector BYPASSRLS CREATEROLE",
        "warning",
        LOGS_IN,
        "has BYPASSRLS, CREATEROLE, which its service does not need",
    ),
    (
        "ALTER ROLE odooops_login_projector SET synchronous_commit = off",
        "error",
        "database",
        "synchronous_commit is off for ROLE odooops_login_projector",
    ),
    (
        "ALTER ROLE ALL SET synchronous_commit = off",
        "error",
        "database",
        "synchronous_commit is off for ROLE ALL",
    ),
    (
        "GRANT odooops_notifier TO odooops_login_projector",
        "warning",
        LOGS_IN,
        "is a member of odooops_notifier, odooops_projector",
    ),
    (
        "GRANT UPDATE (title) ON ops.work_items TO odooops_notifier",
        "error",
        "role odooops_notifier",
        "may write ops.work_items",
    ),
    ("GRANT DELETE ON ops.builds TO PUBLIC", "error", "role PUBLIC", "may write ops.builds"),
    (
        "CREATE ROLE odooops_test_team; GRANT INSERT ON ops.builds TO odooops_test_team",
        "error",
        "role odooops_test_team",
        "may write ops.builds",
    ),
    (
        "GRANT pg_write_all_data TO odooops_login_reader",
        "error",
        "role odooops_login_reader",
        "is a member of pg_write_all_data",
    ),
    (
        "CREATE ROLE odooops_test_eve; ALTER TABLE ops.builds OWNER TO odooops_test_eve",
        "warning",
        "role odooops_test_eve",
        "owns ops.builds",
    ),
    ("REVOKE INSERT ON ops.builds FROM odooops_projector", "error", PROJECTOR, "lacks INSERT on ops.builds"),
    (
        "REVOKE USAGE ON SCHEMA ops FROM odooops_projector",
        "error",
        PROJECTOR,
        "lacks USAGE on the schema ops",
    ),
    (
        "REVOKE UPDATE ON notify.messages FROM odooops_notifier",
        "error",
        "role odooops_notifier",
        "lacks UPDATE on notify.messages",
    ),
    (
        "ALTER ROLE odooops_login_projector NOLOGIN",
        "error",
        PROJECTOR,
        "its login odooops_login_projector may not log in",
    ),
    (
        "ALTER ROLE odooops_login_projector CONNECTION LIMIT 2",
        "warning",
        LOGS_IN,
        "may have 2 connections, a service takes up to 6",
    ),
)


@pytest.mark.anyio
async def test_what_was_changed_by_hand_is_found_and_mended_by_the_findings_own_command(
    database: Database,
) -> None:
    engine = make_engine(database.url("admin"), "test")
    async with engine.connect() as connection:
        for statements, level, part, says in BY_HAND:
            await run(connection, statements)
            (one,) = await found(connection)
            assert (one.level, one.part, one.says) == (level, part, says)
            await run(connection, one.mend)
            assert await found(connection) == []
            await connection.rollback()  # roles belong to all tests
    await engine.dispose()


async def run(connection: AsyncConnection, statements: str) -> None:
    for statement in statements.partition("--")[0].split(";"):
        if statement.strip():
            await connection.execute(text(statement))


@pytest.mark.anyio
async def test_a_database_that_is_away_is_unknown() -> None:
    engine: Any = make_engine("postgresql://reader:x@127.0.0.1:1/x", "test")
    (away,) = await audit.told(engine)
    await engine.dispose()
    assert (away.level, away.part) == ("unknown", "database")


@pytest.mark.anyio
async def test_the_ledgers_end_is_where_it_has_read_to(database: Database) -> None:
    engine = make_engine(database.url("admin"), "test")
    try:
        async with engine.begin() as connection:
            assert await catalog.ledger_seq(connection) == 0
            await connection.execute(
                text(
                    "INSERT INTO ops.deliveries (source, identity, body_sha256, last_seq) VALUES ('s', 'i', 'b', 7)"
                )
            )
            assert await catalog.ledger_seq(connection) == 7
    finally:
        await engine.dispose()
