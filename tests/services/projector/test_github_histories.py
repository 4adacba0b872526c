"""Lives of things at GitHub in a real Postgres: any order gives the same rows, and the views say what is so now."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import permutations
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.delivery import Delivery
from runtime.postgres import make_engine
from services.projector.understand import understand
from services.projector.write import Writer
from tests.providers.github import histories
from tests.providers.github.deliveries import SOURCE
from tests.providers.github.histories import HISTORIES, history, issue, push, renamed, repository
from tests.servers import Postgres, fresh_database
from tests.tables import SQL, Snapshot, empty, snapshot

pytestmark = pytest.mark.anyio
SOURCES = {"github": SOURCE}
ORDERS_MAX = 5
OLD, NEW, NEWEST = histories.OLD, histories.NEW, histories.NEWEST


@pytest.fixture(scope="module")
async def engine(postgres_server: Postgres, anyio_backend: object) -> AsyncIterator[AsyncEngine]:
    with fresh_database(postgres_server) as database:
        made = make_engine(database.url("projector"), "test")
        yield made
        await made.dispose()


def writer(engine: AsyncEngine, told: Sequence[Delivery]) -> Writer:
    by_seq = {each.seq: each for each in told}

    async def read(seq: int) -> Delivery:
        return by_seq[seq]

    return Writer(engine, SQL, SOURCES, read)


async def folded(engine: AsyncEngine, told: Sequence[Delivery], order: Sequence[Delivery]) -> Snapshot:
    """What the tables hold when deliveries are folded one by one."""
    await empty(engine)
    for each in order:
        await writer(engine, told).fold([understand(SOURCES, each)])
    return await snapshot(engine)


async def found(engine: AsyncEngine, query: str) -> list[tuple[Any, ...]]:
    async with engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(text(query))]


@pytest.mark.parametrize("name", HISTORIES)
async def test_a_history_gives_the_same_tables_in_any_order_and_refolded(
    name: str, engine: AsyncEngine
) -> None:
    told = HISTORIES[name]()
    expected = await folded(engine, told, told)
    orders = list(permutations(told))

    for order in orders[1 :: max(1, len(orders) // ORDERS_MAX)]:
        assert expected == await folded(engine, told, order), [each.seq for each in order]

    await writer(engine, told).refold({ref for row in expected["deliveries"] for ref in row["refs"]})
    assert expected == await snapshot(engine)


async def test_every_name_of_a_renamed_repository_leads_to_todays_work_item(engine: AsyncEngine) -> None:
    told = HISTORIES["renamed"]()
    await folded(engine, told, told)

    assert [(NEW, [OLD], False)] == await found(
        engine, "SELECT full_name, previous_names, deleted FROM ops.repositories_now"
    )
    assert [
        (f"github:{NEW}#1", f"github:{NEW}#1"),
        (f"github:{OLD}#1", f"github:{NEW}#1"),
    ] == await found(
        engine, "SELECT work_item_ref, current_ref FROM ops.work_item_refs_now ORDER BY work_item_ref"
    )


async def test_a_repository_that_took_its_old_name_again_has_it(engine: AsyncEngine) -> None:
    told = HISTORIES["renamed there and back"]()
    await folded(engine, told, told)

    assert [(OLD, [NEW])] == await found(engine, "SELECT full_name, previous_names FROM ops.repositories_now")
    assert [(f"github:{OLD}#1",)] == await found(engine, "SELECT current_ref FROM ops.work_item_refs_now")


async def test_a_rename_that_nobody_heard_of_shows_with_the_next_push(engine: AsyncEngine) -> None:
    told = HISTORIES["renamed unheard"]()
    await folded(engine, told, told)

    assert {f"github:{NEWEST}#1"} == {
        ref for (ref,) in await found(engine, "SELECT current_ref FROM ops.work_item_refs_now")
    }


async def test_a_rename_is_later_than_the_last_push_though_updated_at_is_not_touched(
    engine: AsyncEngine,
) -> None:
    body_of_rename = renamed(OLD, NEW, 5)
    pushed_after = body_of_rename.body.replace(
        b'"pushed_at": "2026-03-04T12:00:00Z"', b'"pushed_at": "2026-03-04T12:00:30Z"'
    )
    assert pushed_after != body_of_rename.body
    told = history(push(OLD, 30), replace(body_of_rename, body=pushed_after))
    await folded(engine, told, told)

    assert [(NEW,)] == await found(engine, "SELECT full_name FROM ops.repositories_now")


async def test_of_a_push_and_a_rename_in_one_second_the_rename_is_later(engine: AsyncEngine) -> None:
    told = history(push(NEW, 5), renamed(NEW, OLD, 5))
    await folded(engine, told, told)

    assert [(OLD, [NEW])] == await found(engine, "SELECT full_name, previous_names FROM ops.repositories_now")


async def test_a_name_that_another_repository_took_over_belongs_to_it_now(engine: AsyncEngine) -> None:
    heir = repository("created", OLD, 20)
    heir = replace(heir, body=heir.body.replace(b"186853002", b"186859999"))
    told = history(push(OLD, 1), renamed(OLD, NEW, 5), heir)
    await folded(engine, told, told)

    assert [(186853002, NEW), (186859999, OLD)] == await found(
        engine, "SELECT repository_id, full_name FROM ops.repositories_now ORDER BY repository_id"
    )


async def test_a_deleted_repository_is_so_until_it_is_heard_of_again(engine: AsyncEngine) -> None:
    gone = history(push(OLD, 1), repository("deleted", OLD, 0))
    await folded(engine, gone, gone)
    assert [(True,)] == await found(engine, "SELECT deleted FROM ops.repositories_now")

    *_, again = history(*gone, push(OLD, 86_400))
    restored = [*gone, replace(again, received_at=histories.NOON + timedelta(days=2))]
    await folded(engine, restored, restored)
    assert [(False,)] == await found(engine, "SELECT deleted FROM ops.repositories_now")


async def test_a_moved_issue_is_followed_into_a_repository_that_was_renamed_since(
    engine: AsyncEngine,
) -> None:
    told = history(*HISTORIES["transferred"](), push(OLD, 7), renamed(OLD, NEW, 9))
    await folded(engine, told, told)

    assert [
        (f"github:{OLD}#7", f"github:{NEW}#7"),
        ("github:octo-org/octo-repo#1", f"github:{NEW}#7"),
    ] == await found(
        engine, "SELECT work_item_ref, current_ref FROM ops.work_item_refs_now ORDER BY work_item_ref"
    )


async def test_an_item_that_only_a_poll_saw_knows_its_repository_by_name(engine: AsyncEngine) -> None:
    told = history(push(OLD, 1), renamed(OLD, NEW, 5), histories.polled_issue("open", 3))
    await folded(engine, told, told)

    assert [(None,)] == await found(engine, "SELECT project_id FROM ops.work_items")
    assert [(f"github:{NEW}#1",)] == await found(engine, "SELECT current_ref FROM ops.work_item_refs_now")


async def test_an_item_of_which_no_repository_is_known_keeps_its_ref(engine: AsyncEngine) -> None:
    told = history(issue("opened", "open", 1))
    await folded(engine, told, told)

    assert [(f"github:{OLD}#1",)] == await found(engine, "SELECT current_ref FROM ops.work_item_refs_now")


async def test_the_last_word_about_a_permission_is_the_last_in_the_audit_stream(engine: AsyncEngine) -> None:
    told = HISTORIES["permission lost and regained"]()
    await folded(engine, told, list(reversed(told)))

    assert ["created", "suspend", "unsuspend", "suspend", "new_permissions_accepted"] == [
        change
        for (change,) in await found(
            engine,
            "SELECT payload ->> 'change' FROM ops.platform_events"
            " WHERE ref = 'github:installation/16598467' ORDER BY version",
        )
    ]


async def test_an_issue_deleted_in_the_second_of_its_reopen_is_deleted_now(engine: AsyncEngine) -> None:
    told = HISTORIES["deleted in the second of a reopen"]()
    await folded(engine, told, told)

    assert [("open", True)] == await found(engine, "SELECT status, deleted FROM ops.work_items_now")


async def test_the_steps_of_a_job_can_be_asked_for_in_sql(engine: AsyncEngine) -> None:
    told = HISTORIES["job whose start is filled while it queues"]()
    await folded(engine, told, told)

    assert [(8, "Run yarn run format-check", "00:00:01")] == await found(
        engine,
        "SELECT (s ->> 'number')::int, s ->> 'name',"
        " ((s ->> 'finished_at')::timestamptz - (s ->> 'started_at')::timestamptz)::text"
        " FROM ops.build_jobs, jsonb_array_elements(steps) AS s WHERE s ->> 'conclusion' = 'failure'",
    )
