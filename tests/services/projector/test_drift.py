"""What a poll finds to be other than the tables: told once, whatever happens, and never by a rebuild."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError
from prometheus_client import REGISTRY
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts import own
from contracts.delivery import TRACEPARENT as TRACED
from contracts.delivery import Delivery, body_sha256
from contracts.drift import VALUE_CHARS_MAX, shown
from contracts.envelope import TRACEPARENT
from contracts.observation import observation
from contracts.webhooks import RedeliveryAsked
from providers.github.observed import items
from runtime import bus, streams
from services.projector import drift, redact, retry, write
from services.projector.rebuild import rebuild
from services.projector.retry import Outcome, Selection
from services.projector.understand import parked
from tests.conftest import Broker
from tests.providers.digitalocean.answers import observed as droplet_item
from tests.read_models.test_digitalocean import whole
from tests.samples import body, delivery
from tests.servers import Database
from tests.services.projector.drifting import PULLS, REF, issue, listed, minute, seen, webhook
from tests.services.projector.rebuilding import working
from tests.services.projector.running import (
    A_DRIFT_NOT_SAID,
    drained,
    fold_one,
    project_all,
    projecting,
    run_until_killed,
    shorten_ack_wait,
    store,
    store_batch,
    until,
)
from tests.tables import count, snapshot

pytestmark = pytest.mark.anyio

A_DRIFT = "deliveries.odooops.drift.found"


async def told(broker: Broker, engine: AsyncEngine, *deliveries: Delivery, projectors: int = 1) -> None:
    """Store deliveries one after the other and fold all, and what follows from them."""
    await store(broker, deliveries)
    await project_all(broker, engine, projectors)


async def drifts(engine: AsyncEngine) -> list[dict[str, Any]]:
    async with engine.connect() as connection:
        rows = await connection.execute(
            text(
                "SELECT d.*, n.cause FROM ops.drift AS d JOIN ops.drift_now AS n USING (event_id) ORDER BY d.ref"
            )
        )
        return [dict(row) for row in rows.mappings()]


async def known(engine: AsyncEngine) -> bool:
    return bool(await count(engine, "drift"))


async def messages(broker: Broker) -> list[RawStreamMsg]:
    """What is in EVENTS."""
    last = (await broker.js.stream_info(streams.EVENTS)).state.last_seq
    found = []
    for seq in range(1, last + 1):
        with suppress(NotFoundError):
            found.append(await broker.js.get_msg(streams.EVENTS, seq))
    return found


def type_of(message: RawStreamMsg) -> str:
    return str((message.headers or {})["ce-type"])


async def published(broker: Broker, *types: str) -> list[str]:
    """The events of some types, in the order in which they were published."""
    return [found for message in await messages(broker) if (found := type_of(message)) in types]


def github(event: str, said: dict[str, Any], received_at: datetime) -> Delivery:
    return replace(
        delivery(event, json.dumps(said).encode(), 0, f"{event}-{received_at:%H%M}"), received_at=received_at
    )


OPENED = webhook("opened", issue(7, minute(0)), minute(0))
CLOSED = issue(7, minute(5), closed=True)
LOST = seen(CLOSED, minute(10))
"""That the issue was closed is known by a poll only."""
HEARD = replace(delivery("ping", body("ping.00"), 0, "ping"), received_at=minute(0))
"""A webhook about nothing of this, from which on its source tells of changes."""
LATER = replace(HEARD, received_at=minute(25 * 60))


async def test_what_a_lost_webhook_would_have_told_is_healed_told_and_explained(
    broker: Broker, engine: AsyncEngine
) -> None:
    before = REGISTRY.get_sample_value("odooops_drift_total", {"source": "github", "cause": "missed"}) or 0.0

    await told(broker, engine, OPENED, LOST)

    [found] = await drifts(engine)
    assert (f"{REF}7", "work_items", "different", "github", "missed") == tuple(
        found[name] for name in ("ref", "model", "kind", "source", "cause")
    )
    assert {"status", "provider_status", "closed_at", "updated_at"} == set(found["columns"])
    assert ("open", "done") == (found["was"]["status"], found["found"]["status"])
    assert (minute(5), minute(10), LOST.name) == (
        found["changed_at"],
        found["observed_at"],
        found["delivery"],
    )
    assert 1 == await count(engine, "work_items", "status = 'done'")
    assert ["work_item.opened", "work_item.observed", "drift.found"] == await published(
        broker, "work_item.opened", "work_item.observed", "drift.found"
    )
    assert found["missed"] == [
        (message.headers or {})["ce-id"]
        for message in await messages(broker)
        if type_of(message) == "work_item.observed"
    ]
    assert before + 1 == REGISTRY.get_sample_value(
        "odooops_drift_total", {"source": "github", "cause": "missed"}
    )


async def test_what_a_poll_found_goes_on_with_its_trace_and_what_is_read_again_with_none(
    broker: Broker, engine: AsyncEngine
) -> None:
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    await told(broker, engine, OPENED, replace(LOST, trace=trace))

    carried = {type_of(each): (each.headers or {}).get(TRACEPARENT) for each in await messages(broker)}
    assert (None, trace) == (carried["work_item.opened"], carried["work_item.observed"])
    said = await broker.js.get_msg(streams.DELIVERIES, 3)
    assert (A_DRIFT, trace) == (said.subject, (said.headers or {})[TRACED])
    assert (await bus.read_delivery(broker.js, 3)).trace is None


async def test_a_row_that_was_not_there_is_missing(broker: Broker, engine: AsyncEngine) -> None:
    await told(broker, engine, HEARD, LOST)

    [found] = await drifts(engine)
    assert ("missing", [], {}) == (found["kind"], found["columns"], found["was"])
    assert "done" == found["found"]["status"]


@pytest.mark.parametrize("heard", [[], [LATER]], ids=["none came", "the first came a day later"])
async def test_what_changed_before_any_webhook_was_to_come_is_news_and_no_drift(
    broker: Broker, engine: AsyncEngine, heard: list[Delivery]
) -> None:
    away = [*listed(minute(11), [7]), *listed(minute(20), [])]
    await told(broker, engine, *heard, LOST, *away)

    assert [] == await drifts(engine)
    assert ["work_item.observed", "resource.gone"] == await published(
        broker, "work_item.observed", "drift.found", "resource.gone"
    )


async def test_an_observation_that_changes_nothing_publishes_nothing(
    broker: Broker, engine: AsyncEngine
) -> None:
    same = issue(7, minute(0))
    await told(broker, engine, OPENED, seen(same, minute(10)))
    await told(broker, engine, seen(same, minute(20)), seen(issue(7, minute(-5)), minute(30)))

    assert [] == await drifts(engine)
    assert ["work_item.opened"] == await published(
        broker, "work_item.opened", "work_item.observed", "drift.found"
    )
    assert 0 == await count(engine, "deliveries", "status <> 'projected'")


@pytest.mark.parametrize("order", ["webhook first", "poll first"])
async def test_what_is_told_in_the_same_batch_is_not_drift(
    broker: Broker, engine: AsyncEngine, order: str
) -> None:
    pair = [webhook("closed", CLOSED, minute(10)), LOST]
    await store_batch(broker, [OPENED, *(pair if order == "webhook first" else reversed(pair))])

    await project_all(broker, engine)

    assert [] == await drifts(engine)
    assert ["work_item.opened", "work_item.closed"] == await published(
        broker, "work_item.opened", "work_item.closed", "work_item.observed", "drift.found"
    )


async def test_a_second_change_in_the_same_second_is_drift(broker: Broker, engine: AsyncEngine) -> None:
    await told(broker, engine, OPENED, seen(issue(7, minute(0), title="Changed at once"), minute(10)))

    assert [["title"]] == [each["columns"] for each in await drifts(engine)]


async def test_what_an_api_shows_more_of_a_known_moment_is_news_and_no_drift(
    broker: Broker, engine: AsyncEngine
) -> None:
    # Of a pull request, webhooks about issues tell all but what only the list of pull requests shows.
    shown: dict[str, Any] = json.loads(body("pull_request.opened.12"))["pull_request"]
    as_issue = {name: value for name, value in shown.items() if name not in ("head", "base", "draft")}
    as_issue["pull_request"] = {"merged_at": None}
    await told(broker, engine, webhook("labeled", as_issue, minute(0)))
    [item] = items("pulls", PULLS, json.dumps([shown]).encode())
    fetched = observation(
        source="github",
        ref=item.ref,
        kind=item.kind,
        body=item.body,
        via="poll",
        run_id="r",
        fetched_at=minute(10),
    )
    await told(broker, engine, fetched)

    assert 1 == await count(engine, "work_items", "head_sha IS NOT NULL")
    assert [] == await drifts(engine)
    assert ["work_item.observed"] == await published(broker, "work_item.observed", "drift.found")


async def test_of_a_source_that_is_only_polled_what_changes_is_news_and_no_drift(
    broker: Broker, engine: AsyncEngine
) -> None:
    off = {"id": 3, "name": "web", "status": "off", "tags": []}
    first, same, changed = (
        replace(droplet_item("droplet", item, at=minute(n), scope="droplets"), seq=0, identity=f"run{n}")
        for n, item in ((0, off), (10, off), (20, off | {"status": "active"}))
    )
    await told(broker, engine, first, same, changed)

    assert [] == await drifts(engine)
    assert ["droplet.observed"] * 2 == await published(broker, "droplet.observed", "drift.found")


async def test_a_crash_between_commit_and_publishing_loses_no_drift(
    broker: Broker, database: Database, engine: AsyncEngine, tmp_path: Path
) -> None:
    await told(broker, engine, OPENED)
    await shorten_ack_wait(broker)
    await store(broker, [LOST])
    await run_until_killed(broker, database, A_DRIFT_NOT_SAID, tmp_path)
    assert 1 == await count(engine, "work_items", "status = 'done'")
    assert [] == await drifts(engine)

    await project_all(broker, engine)

    assert 1 == len(await drifts(engine))
    assert ["work_item.observed", "drift.found"] == await published(
        broker, "work_item.observed", "drift.found"
    )
    async with engine.connect() as connection:
        assert 0 == (await connection.execute(text("SELECT count(*) FROM projector.outbox"))).scalar_one()


async def test_a_full_log_keeps_nobody_from_folding_what_is_in_it(
    broker: Broker, engine: AsyncEngine
) -> None:
    await told(broker, engine, OPENED)
    await store(broker, [LOST, webhook("opened", issue(8, minute(20)), minute(20))])
    full = (await broker.js.stream_info(streams.DELIVERIES)).config
    await broker.js.update_stream(full.evolve(max_msgs=3))

    async with projecting(broker, engine):
        await until(lambda: drained(broker), "what is in the log is folded")
        assert 2 == await count(engine, "work_items")
        assert ["work_item.observed"] == await published(broker, "work_item.observed", "drift.found")

        await broker.js.update_stream(full)
        await until(lambda: known(engine), "the drift is told once there is room")


async def test_what_is_published_twice_after_a_crash_is_stored_once(
    broker: Broker, engine: AsyncEngine
) -> None:
    await told(broker, engine, OPENED)
    await told(broker, engine, LOST)
    async with engine.begin() as connection:
        [message] = [each for each in await messages(broker) if type_of(each) == "work_item.observed"]
        statement = text(
            "INSERT INTO projector.outbox (message_id, subject, headers, data)"
            " VALUES (:id, :subject, CAST(:headers AS jsonb), :data)"
        )
        await connection.execute(
            statement,
            {
                "id": (message.headers or {})["ce-id"],
                "subject": message.subject,
                "headers": json.dumps(message.headers),
                "data": (message.data or b"").decode(),
            },
        )

    assert 1 == await drift.drain(engine, broker.nc)

    assert ["work_item.observed"] == await published(broker, "work_item.observed")


async def test_several_projectors_tell_of_each_thing_once(broker: Broker, engine: AsyncEngine) -> None:
    many = [seen(issue(n % 20, minute(0)), minute(10), run=f"run{n}") for n in range(600)]
    await told(broker, engine, HEARD)
    await store_batch(broker, many)

    await project_all(broker, engine, 3)

    assert [f"{REF}{n}" for n in sorted(range(20), key=str)] == [each["ref"] for each in await drifts(engine)]
    assert {"missing"} == {each["kind"] for each in await drifts(engine)}


async def test_who_is_overtaken_again_and_again_folds_alone(
    broker: Broker, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store(broker, [LOST, OPENED])
    watch = drift.WATCHED["work_items"]
    slowly = f"SELECT b.row FROM (SELECT pg_sleep(0.3)) AS nap, LATERAL ({watch.before}) AS b"
    monkeypatch.setitem(drift.WATCHED, "work_items", replace(watch, before=text(slowly)))
    monkeypatch.setattr(write, "OVERTAKEN_MAX", 1)

    async with asyncio.TaskGroup() as group:
        group.create_task(fold_one(broker, engine, 1))
        await asyncio.sleep(0.1)
        group.create_task(fold_one(broker, engine, 2))

    assert 1 == await count(engine, "work_items", "status = 'done'")


async def test_rebuild_and_verify_find_no_drift_anew(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    await told(broker, engine, OPENED, LOST, *listed(minute(20), [7]), *listed(minute(30), []))
    before, last = await snapshot(engine), (await broker.js.stream_info(streams.DELIVERIES)).state.last_seq
    assert 2 == len(before["drift"])

    async with working(broker, database) as work:
        assert all(each.equal for each in (await rebuild(work, limit=5, dry_run=True)).compared)
        await rebuild(work, limit=0, dry_run=False)

    assert before == await snapshot(engine)
    assert last == (await broker.js.stream_info(streams.DELIVERIES)).state.last_seq


async def test_an_observation_that_was_parked_tells_when_it_is_retried(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    await told(broker, engine, OPENED)
    await store(broker, [LOST])
    async with working(broker, database) as work:
        read = await bus.read_delivery(broker.js, 2)
        await work.writer("ops").fold([parked(read, "shape_mismatch", "older code did not understand it")])
        outcome = Outcome()
        await retry.retry(work, Selection(), outcome)

    await project_all(broker, engine)

    assert 1 == len(await drifts(engine))
    assert ["work_item.observed", "drift.found"] == await published(
        broker, "work_item.observed", "drift.found"
    )


async def test_a_comment_does_not_hide_what_was_missed_of_its_pull_request(
    broker: Broker, engine: AsyncEngine
) -> None:
    said = json.loads(body("pull_request.opened.00"))
    pull = said["pull_request"] | {"updated_at": minute(0).isoformat()}
    opened = github("pull_request", said | {"pull_request": pull}, minute(0))
    # A push that nobody told of, then a comment, of which the webhook comes.
    pushed = pull | {"head": pull["head"] | {"sha": "f" * 40}, "updated_at": minute(5).isoformat()}
    comment = json.loads(body("issue_comment.created.00"))
    item = {
        name: pushed.get(name) for name in ("number", "title", "state", "labels", "assignee", "assignees")
    }
    item |= {
        name: pushed.get(name) for name in ("milestone", "created_at", "updated_at", "closed_at", "user")
    }
    shown = comment["issue"] | item | {"html_url": pushed["html_url"], "pull_request": {"merged_at": None}}
    commented = github(
        "issue_comment", comment | {"issue": shown, "repository": said["repository"]}, minute(5)
    )
    [found] = items("pulls", "repos/Codertocat/Hello-World/pulls", json.dumps([pushed]).encode())
    sight = observation(
        source="github", ref=found.ref, kind=found.kind, body=found.body, via="poll", run_id="run",
        fetched_at=minute(10),
    )  # fmt: skip
    await told(broker, engine, opened, commented)
    assert 1 == await count(engine, "work_items")

    await told(broker, engine, sight)

    assert [["head_sha"]] == [each["columns"] for each in await drifts(engine)]


# Gone.


async def test_what_a_whole_listing_does_not_show_is_drift_once(broker: Broker, engine: AsyncEngine) -> None:
    first = [OPENED, seen(issue(7, minute(0)), minute(1)), *listed(minute(1), [7])]
    await told(broker, engine, *first, *listed(minute(20), []))
    await told(broker, engine, *listed(minute(40), []))

    [found] = await drifts(engine)
    assert (f"{REF}7", "work_items", "gone", "gone", minute(20)) == tuple(
        found[name] for name in ("ref", "model", "kind", "cause", "observed_at")
    )
    assert 0 == await count(engine, "deliveries", "status <> 'projected'")


async def test_what_comes_back_and_goes_again_is_told_again(broker: Broker, engine: AsyncEngine) -> None:
    sight = seen(issue(7, minute(0)), minute(1))
    for n, numbers in enumerate([[7], [], [7], []]):
        await told(broker, engine, *([HEARD, sight] if n == 0 else []), *listed(minute(10 + n), numbers))

    gone = [each["observed_at"] for each in await drifts(engine) if each["kind"] == "gone"]
    assert [minute(11), minute(13)] == sorted(gone)


async def test_what_was_deleted_by_word_is_not_told_to_be_gone(broker: Broker, engine: AsyncEngine) -> None:
    sight = seen(issue(7, minute(0)), minute(1))
    deleted = webhook("deleted", issue(7, minute(5)), minute(5))
    await told(broker, engine, OPENED, sight, *listed(minute(1), [7]), deleted, *listed(minute(20), []))

    assert [] == await drifts(engine)


async def test_a_listing_of_which_a_part_is_missing_tells_of_nothing(
    broker: Broker, engine: AsyncEngine
) -> None:
    numbers = range(1, 1_100)
    first, *others = listed(minute(20), numbers)
    assert others
    sights = [seen(issue(n, minute(0)), minute(1)) for n in (1, 2_000)]
    await told(broker, engine, HEARD, *sights, *listed(minute(2), [1, 2_000]), *others)
    assert [] == [each for each in await drifts(engine) if each["kind"] == "gone"]

    await told(broker, engine, first)

    assert [f"{REF}2000"] == [each["ref"] for each in await drifts(engine) if each["kind"] == "gone"]


async def test_a_listing_that_was_never_completed_hides_nothing_that_is_gone(
    broker: Broker, engine: AsyncEngine
) -> None:
    numbers = range(1, 1_100)
    sights = [seen(issue(n, minute(0)), minute(1)) for n in (1, 2_000)]
    cut_short, *_ = listed(minute(10), numbers)
    await told(broker, engine, HEARD, *sights, *listed(minute(2), [1, 2_000]), cut_short)

    await told(broker, engine, *listed(minute(20), numbers))

    assert [f"{REF}2000"] == [each["ref"] for each in await drifts(engine) if each["kind"] == "gone"]


async def test_listings_in_the_wrong_order_tell_once(broker: Broker, engine: AsyncEngine) -> None:
    first = [seen(issue(7, minute(0)), minute(1)), *listed(minute(2), [7])]
    await told(broker, engine, HEARD, *first, *listed(minute(40), []))
    await told(broker, engine, *listed(minute(20), []))

    assert [minute(40)] == [each["observed_at"] for each in await drifts(engine) if each["kind"] == "gone"]
    assert 0 == await count(engine, "deliveries", "status <> 'projected'")


async def test_a_droplet_that_is_gone_is_news_and_no_drift(broker: Broker, engine: AsyncEngine) -> None:
    item = {"id": 3, "name": "web", "status": "active", "tags": []}
    sight = replace(droplet_item("droplet", item, at=minute(0), scope="droplets"), seq=0)
    here = replace(whole(0, minute(0), "digitalocean:droplet/3"), seq=0)
    away = [replace(whole(0, minute(n)), seq=0) for n in (10, 20)]
    await told(broker, engine, sight, here, *away)

    assert [] == await drifts(engine)
    [message] = [each for each in await messages(broker) if type_of(each) == "resource.gone"]
    assert ("digitalocean:droplet/3", "do_droplets") == tuple(
        json.loads(message.data or b"")[name] for name in ("ref", "model")
    )


async def test_what_only_webhooks_told_of_is_gone_when_its_listing_misses_it(
    broker: Broker, engine: AsyncEngine
) -> None:
    await told(broker, engine, OPENED, *listed(minute(20), []))

    assert [(f"{REF}7", "gone")] == [(each["ref"], each["kind"]) for each in await drifts(engine)]


# The cause.


def late(n: float, identity: str = "late") -> Delivery:
    return webhook("closed", CLOSED, minute(n), identity)


ASKED = own.delivery_of(
    RedeliveryAsked(
        source="github", ref="github:hook/1", occurred_at=minute(11), scope="repos/a/b", deliveries=["late"]
    ),
    "poll",
    minute(11),
)
POISON = replace(
    webhook("opened", issue(9, minute(4)), minute(4), "poison"),
    body=b"{}",
    body_sha256=body_sha256(b"{}"),
)


@pytest.mark.parametrize(
    ("cause", "others"),
    [
        ("missed", []),
        ("late", [late(12)]),
        ("missed", [late(10 + 61)]),
        ("missed", [ASKED, late(12)]),
        ("late", [ASKED, late(12, "of-itself")]),
        ("unknown", [POISON]),
    ],
    ids=[
        "nothing came",
        "it came soon",
        "hours later",
        "we had asked",
        "we had asked for another",
        "one is parked",
    ],
)
async def test_the_cause_follows_from_what_else_came(
    broker: Broker, engine: AsyncEngine, cause: str, others: Sequence[Delivery]
) -> None:
    await told(broker, engine, OPENED, LOST)
    await told(broker, engine, *others)

    assert [cause] == [each["cause"] for each in await drifts(engine)]


# Values, and their erasure.


async def test_a_redaction_erases_what_the_table_said_before(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    secret = issue(7, minute(0), title="A secret")
    await told(
        broker,
        engine,
        webhook("opened", secret, minute(0)),
        seen(issue(7, minute(5), title="New"), minute(10)),
    )
    [found] = await drifts(engine)
    assert "A secret" == found["was"]["title"]

    async with working(broker, database) as work:
        opened = redact.of_sequence(1)
        await redact.redact(work, await redact.look(work, opened), "somebody", "asked for")
    await project_all(broker, engine)

    async with engine.connect() as connection:
        for table in ("ops.drift", "ops.platform_events", "ops.work_items", "projector.outbox"):
            rows = (await connection.execute(text(f"SELECT to_jsonb(t) FROM {table} AS t"))).scalars()
            assert [] == [row for row in rows if "A secret" in json.dumps(row)]
    assert [] == [message for message in await messages(broker) if b"A secret" in (message.data or b"")]
    last = (await broker.js.stream_info(streams.DELIVERIES)).state.last_seq
    for seq in range(3, last + 1):
        with suppress(NotFoundError):
            message = await broker.js.get_msg(streams.DELIVERIES, seq)
            assert b"A secret" not in (message.data or b"")


async def test_a_redaction_names_what_was_found_after_it_was_planned(
    broker: Broker, database: Database, engine: AsyncEngine
) -> None:
    await told(broker, engine, webhook("opened", issue(7, minute(0), title="A secret"), minute(0)))
    async with working(broker, database) as work:
        plan = await redact.look(work, redact.of_sequence(1))
        await told(broker, engine, seen(issue(7, minute(5), title="New"), minute(10)))
        done = await redact.redact(work, plan, "somebody", "asked for")
        assert any("once more" in note for note in done.notes)

        again = await redact.redact(
            work, await redact.look(work, redact.of_sequence(1)), "somebody", "asked for"
        )
        assert [] == again.notes
    async with engine.connect() as connection:
        rows = (await connection.execute(text("SELECT to_jsonb(t) FROM ops.drift AS t"))).scalars()
        assert [] == [row for row in rows if "A secret" in json.dumps(row)]


def test_a_long_value_is_shown_by_its_beginning() -> None:
    long = "x" * (VALUE_CHARS_MAX + 1)
    assert {"a": "x" * VALUE_CHARS_MAX + "…", "b": 1, "c": None} == shown({"a": long, "b": 1, "c": None})
    [cut] = shown({"labels": [long]}).values()
    assert cut.startswith('["xxx')
    assert VALUE_CHARS_MAX + 1 == len(cut)
