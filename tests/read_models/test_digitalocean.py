"""What the tables and views say of DigitalOcean's things after a history, in whatever order it is folded."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts import own
from contracts.delivery import Delivery
from contracts.polls import (
    PollFinished,
    PollStarted,
    listing,
    moment_of_cut_off,
    moment_of_end,
    moment_of_start,
)
from providers.registry import PROVIDERS
from runtime.postgres import make_engine
from services.projector.understand import understand
from services.projector.write import Writer
from tests.providers.digitalocean.answers import SOURCE, day, observed
from tests.providers.driving import source_of
from tests.samples import at
from tests.servers import Postgres, fresh_database
from tests.tables import SQL, empty

pytestmark = pytest.mark.anyio

SOURCES = {"digitalocean": SOURCE, "odooops": source_of(PROVIDERS["odooops"])}
DROPLET = "digitalocean:droplet/1"
OTHER = "digitalocean:droplet/2"
PERMUTED_MAX = 5


@pytest.fixture(scope="module")
async def engine(postgres_server: Postgres, anyio_backend: object) -> AsyncIterator[AsyncEngine]:
    with fresh_database(postgres_server) as database:
        made = make_engine(database.url("projector"), "test")
        yield made
        await made.dispose()


async def unread(seq: int) -> Delivery:
    raise AssertionError(f"nothing is read back, and {seq} neither")


async def rows(engine: AsyncEngine, table: str, history: Sequence[Delivery]) -> list[dict[str, Any]]:
    """The rows of a table or view after a history, which has to be the same after each order of it."""
    assert len(history) <= PERMUTED_MAX
    writer = Writer(engine, SQL, SOURCES, unread)
    found: list[list[dict[str, Any]]] = []
    for order in itertools.permutations(history):
        await empty(engine)
        for delivery in order:
            understood = understand(SOURCES, delivery)
            assert "projected" == understood.status, understood.error
            await writer.fold([understood])
        async with engine.connect() as connection:
            seen = await connection.execute(text(f"SELECT * FROM ops.{table} ORDER BY ref"))
            found.append([dict(row) for row in seen.mappings()])
    assert all(each == found[0] for each in found)
    return found[0]


async def row(engine: AsyncEngine, table: str, history: Sequence[Delivery]) -> dict[str, Any]:
    [only] = await rows(engine, table, history)
    return only


def seen(
    seq: int, at: datetime, status: str = "active", number: int = 1, scope: str = "droplets"
) -> Delivery:
    """A poll found the droplet."""
    item: dict[str, Any] = {"id": number, "name": f"web-{number}", "status": status, "tags": ["env:prod"]}
    if scope == "gpu_droplets":
        item["gpu_info"] = {"count": 1, "model": "h100"}
    return observed("droplet", item, at=at, seq=seq, scope=scope)


def whole(seq: int, began: datetime, *refs: str, scope: str = "droplets", kind: str = "droplet") -> Delivery:
    """A listing that came to its end."""
    [event] = listing("digitalocean", scope, began, {kind: refs})
    return at(own.delivery_of(event, "poll", began), seq)


async def gone(engine: AsyncEngine, *history: Delivery, ref: str = DROPLET) -> bool | None:
    found = {each["ref"]: each["gone"] for each in await rows(engine, "do_droplets_now", history)}
    answered: bool | None = found[ref]
    return answered


# Presence.


async def test_what_a_later_whole_listing_does_not_show_is_gone(engine: AsyncEngine) -> None:
    assert True is await gone(engine, seen(1, day(1)), whole(2, day(1), DROPLET), whole(3, day(2), OTHER))


async def test_what_the_newest_listing_shows_is_there(engine: AsyncEngine) -> None:
    assert False is await gone(engine, seen(1, day(1)), whole(2, day(1), DROPLET), whole(3, day(2), DROPLET))


async def test_what_came_back_is_there(engine: AsyncEngine) -> None:
    history = [seen(1, day(1)), whole(2, day(1), DROPLET), whole(3, day(2)), whole(4, day(3), DROPLET)]
    assert False is await gone(engine, *history)


async def test_what_was_seen_after_the_listing_that_missed_it_is_there(engine: AsyncEngine) -> None:
    """A listing by pages may skip a thing; a droplet may be made while it is read."""
    assert False is await gone(engine, seen(1, day(1)), whole(2, day(2)), seen(3, day(2, 1)))


async def test_a_listing_that_was_not_read_to_its_end_removes_nothing(engine: AsyncEngine) -> None:
    parts = listing("digitalocean", "droplets", day(2), {"droplet": [OTHER], "more": ["x"]})
    begun = at(own.delivery_of(parts[0], "poll", day(2)), 3)
    rest = at(own.delivery_of(parts[1], "poll", day(2)), 4)
    history = [seen(1, day(1)), whole(2, day(1), DROPLET), begun]

    assert False is await gone(engine, *history)
    assert True is await gone(engine, *history, rest)


async def test_a_poll_that_failed_removes_nothing(engine: AsyncEngine) -> None:
    failed = poll(3, "failed", began=day(2))
    assert False is await gone(engine, seen(1, day(1)), whole(2, day(1), DROPLET), failed)


async def test_before_the_first_whole_listing_presence_is_unknown(engine: AsyncEngine) -> None:
    assert None is await gone(engine, seen(1, day(1)))


async def test_a_listing_of_ordinary_droplets_says_nothing_about_gpu_droplets(engine: AsyncEngine) -> None:
    gpu = seen(1, day(1), scope="gpu_droplets")

    assert None is await gone(engine, gpu, whole(2, day(2)))
    assert True is await gone(engine, gpu, whole(2, day(2), scope="gpu_droplets"))


async def test_a_filtered_listing_neither_hides_nor_removes_anything(engine: AsyncEngine) -> None:
    """Whatever its name: `app` sorts before `droplets`."""
    filtered = [seen(3, day(2), scope="app"), whole(4, day(2), DROPLET, scope="app")]

    assert False is await gone(engine, seen(1, day(1)), whole(2, day(1), DROPLET), *filtered)
    assert True is await gone(engine, seen(1, day(1)), *filtered, whole(5, day(3)))


async def test_a_listing_of_another_account_says_nothing_about_this_one(engine: AsyncEngine) -> None:
    [event] = listing("digitalocean_eu", "droplets", day(2), {"droplet": []})
    assert None is await gone(engine, seen(1, day(1)), at(own.delivery_of(event, "poll", day(2)), 2))


async def test_a_listing_alone_makes_a_row_of_which_nothing_else_is_known(engine: AsyncEngine) -> None:
    only = await row(engine, "do_droplets_now", [whole(1, day(1), DROPLET)])

    assert (DROPLET, [], None, None, None) == (
        only["ref"],
        only["version"],
        only["name"],
        only["status"],
        only["gone"],
    )


ITEMS: Mapping[str, Mapping[str, Any]] = {
    "database": {"id": "d-1", "name": "main", "engine": "pg", "status": "online"},
    "firewall": {"id": "d-1", "name": "web", "status": "succeeded"},
}


@pytest.mark.parametrize("kind", ITEMS)
async def test_clusters_and_firewalls_are_gone_alike(engine: AsyncEngine, kind: str) -> None:
    ref, scope, table = f"digitalocean:{kind}/d-1", f"{kind}s", f"do_{kind}s_now"
    found = observed(kind, ITEMS[kind], at=day(1))
    shown = whole(2, day(1), ref, scope=scope, kind=kind)
    missed = whole(3, day(2), scope=scope, kind=kind)

    assert None is (await row(engine, table, [found]))["gone"]
    assert False is (await row(engine, table, [found, shown]))["gone"]
    assert True is (await row(engine, table, [found, shown, missed]))["gone"]


async def test_a_listing_makes_rows_of_its_own_kind_only(engine: AsyncEngine) -> None:
    assert [] == await rows(engine, "do_databases", [whole(1, day(1), DROPLET)])
    assert [] == await rows(engine, "do_firewalls", [whole(1, day(1), DROPLET)])


# Content.


async def test_a_status_goes_from_a_to_b_and_back_to_a(engine: AsyncEngine) -> None:
    history = [seen(1, day(1), "active"), seen(2, day(2), "off"), seen(3, day(3), "active")]

    assert "off" == (await row(engine, "do_droplets", history[:2]))["status"]
    back = await row(engine, "do_droplets", history)
    assert ("active", "active", "prod", day(3)) == (
        back["status"],
        back["provider_status"],
        back["env"],
        back["last_observed_at"],
    )


async def test_a_lost_tag_is_a_statement_too(engine: AsyncEngine) -> None:
    bare = observed("droplet", {"id": 1, "name": "web-1", "status": "active"}, at=day(2), seq=2)
    assert ([], "unknown") == (
        (found := await row(engine, "do_droplets", [seen(1, day(1)), bare]))["tags"],
        found["env"],
    )


async def test_rules_and_droplets_of_a_firewall_are_those_last_seen(engine: AsyncEngine) -> None:
    rule = {"protocol": "tcp", "ports": "22", "sources": {"addresses": ["192.0.2.0/24"]}}
    history = [
        observed(
            "firewall", {**ITEMS["firewall"], "inbound_rules": [rule], "droplet_ids": [2**40, 7]}, at=day(1)
        ),
        observed("firewall", {**ITEMS["firewall"], "droplet_ids": [7]}, at=day(2), seq=2),
    ]

    before = await row(engine, "do_firewalls", history[:1])
    assert ["192.0.2.0/24"] == before["inbound_rules"][0]["addresses"]
    assert [2**40, 7] == before["droplet_ids"]
    after = await row(engine, "do_firewalls", history)
    assert ([], [7]) == (after["inbound_rules"], after["droplet_ids"])


def action(seq: int, status: str, at: datetime, completed_at: str | None = None) -> Delivery:
    item = {
        "id": 36_804_636_000,
        "status": status,
        "type": "resize",
        "started_at": "2026-11-01T09:00:00Z",
        "completed_at": completed_at,
        "resource_id": 1,
        "resource_type": "droplet",
    }
    return observed("action", item, at=at, seq=seq)


@pytest.mark.parametrize("ending", ["completed", "errored"])
async def test_an_action_seen_in_progress_after_its_end_has_ended_all_the_same(
    engine: AsyncEngine, ending: str
) -> None:
    """Pages are read one after another, and answers may come from a cache."""
    history = [
        action(1, "in-progress", day(2)),
        action(2, ending, day(3), "2026-11-01T09:00:00Z"),
        action(3, "in-progress", day(4)),
    ]
    found = await row(engine, "do_actions", history)

    assert (ending, DROPLET, day(4)) == (found["status"], found["resource_ref"], found["last_observed_at"])


# Runs of the poll.


def poll(
    seq: int,
    status: Any,
    *,
    began: datetime,
    cut_off: bool = False,
    source: str = "digitalocean",
    provider: str | None = None,
) -> Delivery:
    """The end of the run `r`, an hour after it began; closed by somebody else, two hours after."""
    finished_at = began + timedelta(hours=2 if cut_off else 1)
    event = PollFinished(
        source=source,
        ref=f"{source}:poll/r",
        moment=(moment_of_cut_off if cut_off else moment_of_end)(finished_at),
        fact=status,
        occurred_at=finished_at,
        run_id="r",
        scope="droplets",
        triggered_by="cron",
        provider=provider,
        status=status,
        started_at=began,
        finished_at=finished_at,
        counts={"droplets": 3, "errors": 0},
        error="it did not answer" if status == "failed" else None,
    )
    return at(own.delivery_of(event, "poll", finished_at), seq)


def begun(seq: int, began: datetime) -> Delivery:
    event = PollStarted(
        source="digitalocean",
        ref="digitalocean:poll/r",
        moment=moment_of_start(began),
        occurred_at=began,
        run_id="r",
        scope="droplets",
        triggered_by="cron",
        status="running",
        started_at=began,
    )
    return at(own.delivery_of(event, "poll", began), seq)


async def test_a_run_is_running_until_it_ends(engine: AsyncEngine) -> None:
    running = await row(engine, "do_ingest_runs", [begun(1, day(1))])
    assert ("running", None, None) == (running["status"], running["finished_at"], running["counts"])

    ended = await row(engine, "do_ingest_runs", [begun(1, day(1)), poll(2, "success", began=day(1))])
    assert ("success", day(1, 1), {"droplets": 3, "errors": 0}, day(1)) == (
        ended["status"],
        ended["finished_at"],
        ended["counts"],
        ended["started_at"],
    )


async def test_a_run_closed_as_failed_has_failed_until_its_own_end_is_heard_of(engine: AsyncEngine) -> None:
    closed = poll(2, "failed", began=day(1), cut_off=True)
    history = [begun(1, day(1)), closed]
    failed = await row(engine, "do_ingest_runs", history)
    assert ("failed", "it did not answer") == (failed["status"], failed["last_error"])

    ended = await row(engine, "do_ingest_runs", [*history, poll(3, "success", began=day(1))])
    assert ("success", None) == (ended["status"], ended["last_error"])


async def test_runs_of_other_providers_are_not_digitaloceans(engine: AsyncEngine) -> None:
    assert [] == await rows(engine, "do_ingest_runs", [poll(1, "success", began=day(1), source="github")])


async def test_runs_of_a_second_account_are_digitaloceans(engine: AsyncEngine) -> None:
    second = poll(1, "success", began=day(1), source="droplets_eu", provider="digitalocean")
    other = poll(2, "success", began=day(1), source="digitalocean", provider="somebody_else")
    assert "droplets_eu:poll/r" == (await row(engine, "do_ingest_runs", [second, other]))["ref"]


@pytest.mark.parametrize("view", ["do_droplets_now", "do_databases_now", "do_firewalls_now", "freshness_now"])
@pytest.mark.parametrize("user", ["reader", "projector", "operator"])
async def test_the_views_are_for_everybody_who_reads(postgres_server: Postgres, view: str, user: str) -> None:
    with fresh_database(postgres_server) as database:
        engine = make_engine(database.url(user), "test")
        async with engine.connect() as connection:
            assert [] == (await connection.execute(text(f"SELECT * FROM ops.{view}"))).all()
        await engine.dispose()
