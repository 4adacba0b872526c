"""One run over one scope: what it stores, remembers and says. Broker and API are real servers."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from contracts.health import HealthcheckCompleted
from contracts.ledger import DeliveryDiscarded
from contracts.observation import observed_body
from contracts.polls import LISTED_REFS_MAX
from providers.polling import Ask, Failed, Keep, Known, Listed, Look, Say, Show, Steps, Warn
from providers.port import Item, Unintelligible
from runtime import streams
from services.poller import memory
from services.poller.run import Report, Trouble
from tests import api as apis
from tests.api import Reply, by_link, too_many
from tests.services.poller.running import Shop, statuses
from tests.services.poller.shop import EVERY_S, SECRET, TOKEN, item, scope, things

pytestmark = pytest.mark.anyio

AT = datetime(2026, 11, 1, 12, tzinfo=UTC)
HEALTHY = HealthcheckCompleted(target="shop", check_name="http", status="ok", occurred_at=AT)


def rows(*ids: int) -> list[dict[str, Any]]:
    return [{"id": n, "state": "open"} for n in ids]


def saying(*steps: Any) -> Any:
    """A part that takes these steps, whatever comes of them."""

    def read(look: Look) -> Steps:
        for step in steps:  # noqa: UP028  # a list cannot be sent what came of a step
            yield step

    return read


async def test_a_run_stores_what_it_sees_once_and_says_how_it_went(store: Shop) -> None:
    store.api.routes["/things"] = by_link(rows(1, 2, 3, 4, 5), size=2)
    report = await store.poll()
    assert [("observed.thing", row) for row in rows(1, 2, 3, 4, 5)] == sorted(
        await store.observed(), key=lambda found: found[1]["id"]
    )
    (start,), (end,), (listed,) = await store.starts(), await store.ends(), await store.listings()
    assert (start.source, start.scope, start.status, start.triggered_by) == (
        "shop",
        "all",
        "running",
        "manual",
    )
    assert start.ref == end.ref == f"shop:poll/{start.run_id}"
    assert (end.status, end.error, end.stale_after_s) == ("success", None, 3 * EVERY_S + 120)
    assert end.started_at == start.started_at <= listed.started_at <= end.finished_at
    assert end.counts == report.counts
    assert report.counts == {
        "thing": 5, "seen": 5, "new": 5, "changed": 0, "unchanged": 0, "gone": 0, "calls": 3, "errors": 0
    }  # fmt: skip
    assert (listed.scope, listed.refs) == ("all/things", [f"shop:thing/{n}" for n in range(1, 6)])
    assert {each.via for each in await store.log()} == {"poll"}


async def test_a_listing_is_said_to_be_whole_only_when_all_that_it_showed_is_stored(store: Shop) -> None:
    count = LISTED_REFS_MAX + 1
    store.api.routes["/things"] = by_link(rows(*range(count)), size=count)
    await store.poll()
    kinds = [each.kind for each in await store.log()]
    assert kinds == [
        "poll.started", *["observed.thing"] * count, *["listing.completed"] * 2, "poll.finished"
    ]  # fmt: skip
    assert [(1, 2), (2, 2)] == [(each.part, each.parts) for each in await store.listings()]


async def test_a_second_run_stores_what_changed_and_nothing_else(store: Shop) -> None:
    found = rows(1, 2, 3)
    store.api.routes["/things"] = by_link(found)
    await store.poll()
    again = await store.poll()
    assert (again.new, again.changed, again.unchanged, len(await store.observed())) == (0, 0, 3, 3)
    found[1]["state"] = "closed"
    changed = await store.poll()
    assert (changed.new, changed.changed, changed.unchanged) == (0, 1, 2)
    assert (await store.observed())[3:] == [("observed.thing", {"id": 2, "state": "closed"})]


async def test_the_memory_may_be_lost(store: Shop) -> None:
    store.api.routes["/things"] = by_link(rows(1, 2))
    await store.poll()
    await store.forget()
    again = await store.poll()
    assert (again.new, again.gone, again.status) == (2, 0, "success")
    assert len(await store.observed()) == 4


async def test_a_thing_without_a_time_of_its_own_is_stored_each_time(store: Shop) -> None:
    store.api.routes["/things"] = by_link(rows(1))
    dateless = scope(things=things("/things", undated=True))
    await store.poll(dateless)
    again = await store.poll(dateless)
    assert (again.changed, again.unchanged, len(await store.observed())) == (0, 1, 2)


async def test_what_one_run_shows_twice_is_stored_twice_only_if_it_changed_meanwhile(store: Shop) -> None:
    first, second = item({"id": 1, "n": 1}), item({"id": 1, "n": 2})
    sights = [Show(items=[each], fetched_at=AT) for each in (first, first, second)]
    report = await store.poll(scope(things=saying(*sights)))
    assert (report.seen["thing"], report.new) == (1, 1)
    shown = [each for each in await store.log() if each.kind == "observed.thing"]
    assert [json.loads(each.body)["item"]["n"] for each in shown] == [1, 2]
    assert len({each.identity for each in shown}) == 2  # no conflict of two bodies of one identity
    assert (await store.poll(scope(things=saying(sights[2])))).unchanged == 1


async def test_a_run_is_logged_whatever_kinds_of_things_it_saw(store: Shop) -> None:
    await store.poll(scope(things=saying(Show(items=[item({"id": 1}, "event")], fetched_at=AT))))
    (line,) = store.lines
    assert (line["event"], line["status"], line["counts"]["event"]) == ("polled", "success", 1)


async def test_two_things_of_one_ref_are_no_conflict(store: Shop) -> None:
    body = observed_body("things", {"id": 7})
    both = [Item(ref="shop:7", kind=kind, body=body) for kind in ("issue", "pull_request")]
    await store.poll(scope(things=saying(Show(items=both, fetched_at=AT))))
    assert len({each.identity for each in await store.log() if each.kind.startswith("observed.")}) == 2
    again = await store.poll(scope(things=saying(Show(items=both, fetched_at=AT))))
    assert again.unchanged == 2


async def test_what_a_whole_listing_does_not_show_any_more_is_counted_as_gone(store: Shop) -> None:
    found = rows(1, 2, 3)
    store.api.routes["/things"] = by_link(found)
    await store.poll()
    del found[1]
    assert (await store.poll()).gone == 1
    assert (await store.listings())[-1].refs == ["shop:thing/1", "shop:thing/3"]
    assert (await store.poll()).gone == 0


@pytest.mark.parametrize(
    "reply, reason",
    [
        (apis.BAD_GATEWAY, "http_502"),
        (too_many(900), "rate_limited"),
        (apis.BROKEN, "not_json"),
        (apis.DROPS, "no_answer"),
    ],
)
async def test_a_reading_that_was_aborted_completes_nothing(store: Shop, reply: Reply, reason: str) -> None:
    found = rows(1, 2, 3)
    store.api.routes["/things"] = by_link(found, size=1)
    await store.poll()
    found.clear()
    found += [{"id": 1, "state": "closed"}, *rows(2)]

    def second_page_fails(call: apis.Call) -> Reply:
        return reply if call.query.get("page") == "2" else by_link(found, size=1)(call)

    store.api.routes["/things"] = second_page_fails
    report = await store.poll()
    assert (report.status, report.gone, [each.reason for each in report.troubles]) == ("failed", 0, [reason])
    # What was read before counts.
    assert (await store.observed())[3:] == [("observed.thing", {"id": 1, "state": "closed"})]
    assert len(await store.listings()) == 1
    (_, end) = await store.ends()
    assert end.error is not None and end.error.startswith("things: ") and f"({reason})" in end.error


@pytest.mark.parametrize("listing, reason", [(apis.endless(rows(1)), "repeated_page")])
async def test_a_page_that_repeats_for_ever_ends_the_reading(store: Shop, listing: Any, reason: str) -> None:
    store.api.routes["/things"] = listing
    report = await store.poll()
    assert (report.status, report.troubles[0].reason, report.calls) == ("failed", reason, 2)
    assert await store.listings() == []


async def test_a_part_that_fails_does_not_stop_the_others(store: Shop) -> None:
    store.api.routes["/things"] = by_link(rows(1))
    report = await store.poll(scope(orders=things("/orders", "order"), things=things("/things")))
    assert (report.status, report.new) == ("partial", 1)
    (end,) = await store.ends()
    assert (end.status, end.counts["errors"]) == ("partial", 1)
    why = f"GET /orders answered 404: Not Found; is it there, and may {SECRET} see it?"
    assert end.error == f"orders: {why} (http_404)"
    assert end.summary == f"shop: poll of {end.scope} partial: {end.error}"


def mistaken(look: Look) -> Steps:
    yield Ask(path="/things")
    raise KeyError("what the answer said")


def unintelligible(look: Look) -> Steps:
    yield Ask(path="/things")
    raise Unintelligible("shape_mismatch", "no list")


@pytest.mark.parametrize("part, reason", [(mistaken, "crashed"), (unintelligible, "shape_mismatch")])
async def test_a_mistake_in_a_part_does_not_stop_the_others(store: Shop, part: Any, reason: str) -> None:
    store.api.routes["/things"] = by_link(rows(1))
    report = await store.poll(scope(wrong=part, things=things("/things")))
    assert (report.status, report.troubles[0].reason, report.new) == ("partial", reason, 1)
    assert "what the answer said" not in str(report.troubles[0])


async def test_a_part_may_catch_a_failure_and_go_on(store: Shop) -> None:
    caught: list[tuple[str, int | None]] = []

    def read(look: Look) -> Steps:
        try:
            yield Ask(path="/missing")
        except Failed as failed:
            caught.append((failed.reason, failed.status))
        yield Warn("missing", "one thing is missing")

    report = await store.poll(scope(things=read))
    assert caught == [("http_404", 404)]
    assert (report.status, report.error) == ("partial", "things: one thing is missing (missing)")


async def test_a_run_whose_budget_is_used_up_keeps_how_far_it_came(store: Shop) -> None:
    asked: list[int] = []

    def read(look: Look) -> Steps:
        n = look.state.get("next", 0)
        try:
            while n < 5:
                yield Ask(path="/things", params={"n": str(n)})
                asked.append(n)
                n += 1
        except Failed:
            yield Keep({"next": n})
            raise
        yield Keep({"next": n})

    store.api.routes["/things"] = Reply([])
    reading = scope(things=read)
    work = store.work(calls_max=3)
    first = await store.poll(reading, work)
    assert (first.status, first.troubles[0].reason) == ("failed", "budget")
    assert (await store.poll(reading, work)).status == "success"
    assert asked == [0, 1, 2, 3, 4]


async def test_a_part_that_takes_no_notice_of_a_used_up_budget_is_ended(store: Shop) -> None:
    def read(look: Look) -> Steps:
        while True:
            try:
                yield Ask(path="/things")
            except Failed:
                continue

    store.api.routes["/things"] = Reply([])
    report = await store.poll(scope(things=read), store.work(calls_max=2))
    assert ([each.reason for each in report.troubles], report.calls) == (["budget"], 2)


async def test_an_api_that_wants_to_be_left_alone_is_asked_by_no_other_part(store: Shop) -> None:
    store.api.routes["/things"] = too_many(900)
    report = await store.poll(scope(things=things("/things"), orders=things("/orders")))
    assert [each.reason for each in report.troubles] == ["rate_limited"] * 2
    assert (store.api.count(), report.not_before is not None) == (1, True)


async def test_what_is_kept_is_told_the_next_time_and_read_by_no_other_part(store: Shop) -> None:
    told: list[Any] = []

    def read(look: Look) -> Steps:
        told.append(look.state)
        yield Keep({"n": len(told)})

    both = scope(one=read, other=read)
    await store.poll(both)
    await store.poll(both)
    assert told == [{}, {}, {"n": 1}, {"n": 2}]


async def test_a_run_from_a_time_on_keeps_nothing(store: Shop) -> None:
    told: list[Any] = []

    def read(look: Look) -> Steps:
        told.append((look.since, look.state))
        yield Keep({"n": 1})

    await store.poll(scope(things=read), since=AT)
    await store.poll(scope(things=read))
    assert told == [(AT, {}), (None, {})]


async def test_too_much_to_keep_is_refused(store: Shop) -> None:
    report = await store.poll(scope(things=saying(Keep({"n": "x" * 70_000}))))
    assert report.troubles[0].reason == "state_too_large"


async def test_a_part_learns_which_refs_the_last_whole_listing_showed(store: Shop) -> None:
    known: list[Any] = []

    def read(look: Look) -> Steps:
        known.append((yield Known("all/a")))
        yield Listed(scope="all/a", shown={"x": ["shop:x/1"], "y": ["shop:y/1"]}, began_at=look.started_at)

    await store.poll(scope(things=read))
    await store.poll(scope(things=read))
    assert known == [frozenset(), frozenset({"shop:x/1", "shop:y/1"})]


async def test_what_was_seen_since_the_last_listing_is_known_until_the_next(store: Shop) -> None:
    known: list[frozenset[str]] = []

    def seeing(*ids: int, whole: bool = False) -> Any:
        def read(look: Look) -> Steps:
            shown = [item(each) for each in rows(*ids)]
            yield Show(items=shown, fetched_at=AT, listing="all/things")
            known.append((yield Known("all/things")))
            if whole:
                refs = [each.ref for each in shown]
                yield Listed(scope="all/things", shown={"thing": refs}, began_at=look.started_at)
                known.append((yield Known("all/things")))

        return read

    for part in (seeing(1, 2), seeing(2, 3), seeing(4, whole=True), seeing(5)):
        await store.poll(scope(things=part))

    seen = [{int(ref.rpartition("/")[2]) for ref in refs} for refs in known]
    assert [{1, 2}, {1, 2, 3}, {1, 2, 3, 4}, {4}, {4, 5}] == seen


async def test_a_listing_of_any_size_is_remembered_in_pieces(store: Shop, monkeypatch: Any) -> None:
    monkeypatch.setattr(memory, "POLLER_VALUE_BYTES_MAX", 60)
    kept = memory.Memory(store.work().bucket, "shop")
    many = {"x": [f"shop:x/{n}" for n in range(100)]}
    await kept.remember_listed("all", "run-1", many)
    assert await store.remembered() > 2
    assert await kept.listed("all") == many
    await kept.remember_listed("all", "run-2", {"x": []})
    assert await kept.listed("all") == {"x": []}
    # A crash between two pieces: what is left is of two readings, and counts as nothing.
    bucket = store.work().bucket
    value, _ = await bucket.get(memory.key_of("listed", "shop", "all", "1"))
    assert value is not None
    await bucket.put(memory.key_of("listed", "shop", "all", "0"), b"run-3\n2\n")
    assert await kept.listed("all") is None


async def test_a_run_says_what_a_poll_may_say_and_nothing_else(store: Shop) -> None:
    wrong = DeliveryDiscarded(
        delivery_source="shop",
        delivery_identity="1",
        body_sha256="0" * 64,
        seq=1,
        why="a poll may not discard",
        occurred_at=AT,
    )
    report = await store.poll(scope(health=saying(Say(HEALTHY)), wrong=saying(Say(wrong))))
    assert (report.status, report.troubles[0].reason) == ("partial", "not_ours_to_say")
    assert await store.said(HealthcheckCompleted, DeliveryDiscarded) == [HEALTHY]


async def test_a_dry_run_stores_nothing_changes_nothing_and_says_what_it_found(store: Shop) -> None:
    found = rows(1, 2)
    store.api.routes["/things"] = by_link(found)
    await store.poll()
    found[0]["state"] = "closed"
    found[1]["id"] = 3
    before = len(await store.log()), await store.remembered()
    acting = saying(Ask(path="/redeliver", method="POST"), Say(HEALTHY), Keep({"n": 1}))
    report = await store.rehearse(scope(things=things("/things"), acting=acting))
    assert sorted(report.notes[:2]) == ["changed: thing shop:thing/1", "new: thing shop:thing/3"]
    assert report.notes[2:] == [
        "gone: thing shop:thing/2",
        "would ask: POST /redeliver",
        f"would say: healthcheck.completed {HEALTHY.ref}",
    ]
    assert (report.new, report.changed, report.gone, report.status) == (1, 1, 1, "success")
    assert before == (len(await store.log()), await store.remembered())
    assert store.api.count("/redeliver") == 0


async def test_the_secret_is_said_nowhere(store: Shop) -> None:
    store.api.routes["/things"] = Reply({"message": f"token {TOKEN} is not known"}, 401)
    report = await store.poll()
    assert "(secret)" in str(report.error)
    assert TOKEN not in repr((report, await store.log(), store.lines))


async def test_a_log_that_takes_no_more_ends_a_run_at_once(store: Shop) -> None:
    store.api.routes["/things"] = by_link(rows(1))
    info = await store.broker.js.stream_info(streams.DELIVERIES)
    await store.broker.js.update_stream(info.config, max_msgs=1)
    report = await store.poll()
    assert {each.reason for each in report.troubles} == {"log_full"}
    assert store.lines[-1]["status"] == "failed"


async def test_what_became_of_a_run_is_counted_in_its_lease(store: Shop) -> None:
    store.api.routes["/things"] = apis.NOT_FOUND
    for failures in (1, 2):
        await store.poll()
        assert (await store.lease(scope()))["failures"] == failures
    store.api.routes["/things"] = too_many(900)
    await store.poll()
    lease = await store.lease(scope())
    assert (lease["failures"], lease["ended"]) == (2, "failed")
    wait = datetime.fromisoformat(lease["not_before"]) - datetime.now(UTC)
    assert timedelta(seconds=890) < wait < timedelta(seconds=901)
    store.api.routes["/things"] = by_link(rows(1))
    await store.poll()
    assert (await store.lease(scope()))["failures"] == 0
    assert statuses(await store.ends()) == ["failed"] * 3 + ["success"]


def test_parts_that_ended_alike_are_named_together() -> None:
    report = Report(parts=3)
    for part, sentence in (("one", "stopped"), ("two", "is away"), ("three", "stopped")):
        report.troubles.append(Trouble(part=part, reason="why", sentence=sentence, ended=True))
    assert report.error == "one, three: stopped (why); two: is away (why)"
