"""What settings of the database could lose: as a table of facts, and on a real one that is set wrongly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from runtime.audit import postgres as audit
from runtime.audit.clock import Reading
from runtime.audit.finding import Finding
from runtime.audit.postgres import ROLES, Facts, Role
from runtime.postgres import make_engine
from tests.servers import Database

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LOGIN = Role("odooops_login_projector", login=True, member_of=("odooops_projector",))
FACTS = Facts(
    settings={
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
        "autovacuum": "on",
        "track_counts": "on",
        "server_version_num": "180004",
        "max_connections": "100",
    },
    login="odooops_login_reader",
    standby=False,
    connections=20,
    reserved=3,
    clock=Reading(NOW, NOW, NOW),
    roles=[
        *(Role(name, login=False) for name in ROLES),
        LOGIN,
        Role("odooops_login_reader", login=True, member_of=("odooops_reader",)),
    ],
)


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
    assert judged(replace(FACTS, settings={**FACTS.settings, **settings})) == found


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
    found = audit.findings(replace(FACTS, roles=FACTS.roles[1:]))
    assert [(each.part, each.mend) for each in found] == [("role odooops_projector", "python -m migrations")]


def test_a_standby_and_a_skew_are_told() -> None:
    skewed = Reading(NOW - timedelta(seconds=90), NOW, NOW)
    assert judged(replace(FACTS, standby=True, clock=skewed)) == [
        ("info", "database"),
        ("error", "clock of the database"),
    ]


def test_a_name_that_needs_quotes_gets_them() -> None:
    found = audit.findings(replace(FACTS, writers={'Bob"; DROP': ["ops.builds"]}))
    assert found[0].mend.endswith('FROM "Bob""; DROP", PUBLIC;')


async def found_after(database: Database, *statements: str, asker: str = "admin") -> list[Finding]:
    """What is found after these statements of the admin's, which are then rolled back: roles belong to all tests."""
    engine = make_engine(database.url(asker), "test")
    try:
        async with engine.connect() as connection:
            for statement in statements:
                await connection.execute(text(statement))
            found = audit.findings(await audit.ask(connection))
            await connection.rollback()
    finally:
        await engine.dispose()
    # The tests' own server runs without it.
    assert "fsync is off" in [each.says for each in found]
    return [each for each in found if each.says != "fsync is off"]


@pytest.mark.anyio
@pytest.mark.parametrize("asker", ["reader", "projector", "notifier", "operator"])
async def test_every_service_may_ask_and_what_the_migrations_made_is_right(
    database: Database, asker: str
) -> None:
    assert await found_after(database, asker=asker) == []


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("statement", "level", "part", "says"),
    [
        (
            "ALTER ROLE odooops_login_projector SUPERUSER",
            "error",
            "role odooops_login_projector",
            "is a superuser",
        ),
        (
            "ALTER ROLE odooops_login_reader BYPASSRLS CREATEROLE",
            "warning",
            "role odooops_login_reader",
            "has BYPASSRLS, CREATEROLE, which its service does not need",
        ),
        (
            "ALTER ROLE odooops_login_projector SET synchronous_commit = off",
            "error",
            "database",
            "synchronous_commit is off for ROLE odooops_login_projector",
        ),
        (
            "GRANT odooops_projector TO odooops_login_reader",
            "warning",
            "role odooops_login_reader",
            "is a member of odooops_projector, odooops_reader",
        ),
        (
            "GRANT UPDATE (title) ON ops.work_items TO odooops_notifier",
            "error",
            "role odooops_notifier",
            "may write ops.work_items",
        ),
        (
            "REVOKE INSERT ON ops.builds FROM odooops_projector",
            "error",
            "role odooops_projector",
            "may not write ops.builds",
        ),
        (
            "ALTER ROLE odooops_login_projector CONNECTION LIMIT 2",
            "warning",
            "role odooops_login_projector",
            "may have 2 connections, a service takes up to 6",
        ),
    ],
)
async def test_a_database_that_was_changed_by_hand_is_found_out(
    database: Database, statement: str, level: str, part: str, says: str
) -> None:
    found = await found_after(database, statement)
    assert (level, part, says) in [(each.level, each.part, each.says) for each in found]
    if statement.startswith("ALTER"):
        assert len(found) == 1


@pytest.mark.anyio
async def test_a_table_that_everybody_may_write_is_named_for_each_login(database: Database) -> None:
    found = await found_after(database, "GRANT DELETE ON ops.builds TO PUBLIC")
    assert {each.part for each in found} >= {"role odooops_login_reader", "role odooops_login_notifier"}
    assert {each.says for each in found} == {"may write ops.builds"}


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
            assert await audit.ledger_seq(connection) == 0
            await connection.execute(
                text(
                    "INSERT INTO ops.deliveries (source, identity, body_sha256, last_seq) VALUES ('s', 'i', 'b', 7)"
                )
            )
            assert await audit.ledger_seq(connection) == 7
    finally:
        await engine.dispose()
