"""Late rather than never: Slack, Postgres or the consumer away, and what cannot be said."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import timedelta

import pytest
from nats.js.api import ConsumerConfig

from contracts.envelope import to_headers
from runtime import streams
from services.notifier import memory, notify
from tests.services.notifier.events import build, webhook_failing
from tests.services.notifier.running import Place, running
from tests.slack_double import CHANNEL, Reply

pytestmark = pytest.mark.anyio

BY_BOT = f"slack:{CHANNEL}"
OLD = timedelta(seconds=streams.NOTIFY_AGE_S_MAX + 60)


@pytest.mark.parametrize("stores", [True, False])
@pytest.mark.parametrize("trouble", [{"status": 503}, {"drops": True}, {"error": "fatal_error"}])
async def test_a_lost_answer_is_looked_up_before_anything_is_posted_again(
    place: Place, stores: bool, trouble: dict[str, object]
) -> None:
    place.slack.replies.append(Reply(stores=stores, **trouble))  # type: ignore[arg-type]
    async with running(place.by_bot):
        await place.publish(build())
        (row,) = await place.settled(1)
    assert place.slack.ids == [row["message_id"]]
    assert (row["status"], row["slack_ts"]) == ("posted", place.slack.messages[0]["ts"])
    assert len(place.slack.posts) == (1 if stores else 2)
    assert row["attempts"] == 2


async def test_slack_down_delays_messages_and_loses_none(place: Place) -> None:
    place.slack.default = place.slack.history_default = Reply(status=503)
    events = [build(run=n) for n in range(6)]
    async with running(place.by_bot):
        await place.publish(*events)
        await asyncio.to_thread(place.slack.wait_for_posts, len(events))
        await place.says(slack="http_503")
        assert place.slack.messages == []
        place.slack.default = place.slack.history_default = Reply()
        rows = await place.settled(len(events))
        await place.says()
    assert {row["status"] for row in rows} == {"posted"}
    assert sorted(place.slack.ids) == sorted(row["message_id"] for row in rows)


@pytest.mark.parametrize("error", ["missing_scope", "ratelimited"])
async def test_a_search_that_is_refused_keeps_no_other_message_back(place: Place, error: str) -> None:
    stuck = build(run=1)
    await place.crashed_before(stuck, BY_BOT)
    place.slack.history_default = Reply(error=error)
    await place.publish(stuck, build(run=2), build(run=3))
    async with running(place.by_bot):
        await asyncio.to_thread(place.slack.wait_for_posts, 2)
        place.slack.history_default = Reply()
        first, *others = await place.settled(3)
    assert (first["status"], first["last_error"]) == ("posted", error)
    assert [row["attempts"] for row in others] == [1, 1]
    assert len(place.slack.posts) == 3


async def test_a_limit_is_waited_out_and_the_other_messages_wait_with_it(place: Place) -> None:
    place.slack.replies.append(Reply(status=429, error="ratelimited", retry_after_s=1))
    async with running(place.by_bot):
        await place.publish(*(build(run=n) for n in range(4)))
        rows = await place.settled(4)
    assert {row["status"] for row in rows} == {"posted"}
    assert len(place.slack.posts) == 5
    assert place.slack.post_times[1] - place.slack.post_times[0] >= 0.9


async def test_an_operator_can_mend_the_token_and_the_message_still_goes_out(place: Place) -> None:
    place.slack.replies += [Reply(error="invalid_auth"), Reply(error="not_in_channel")]
    async with running(place.by_bot):
        await place.publish(build())
        (row,) = await place.settled(1)
    assert (row["status"], row["attempts"], row["last_error"]) == ("posted", 3, "not_in_channel")


async def test_a_message_that_slack_never_takes_has_failed_and_stops_nobody(place: Place) -> None:
    place.slack.replies.append(Reply(error="invalid_blocks", details=("[ERROR] [json-pointer:/blocks/0]",)))
    async with running(place.by_bot):
        await place.publish(build(run=1), build(run=2))
        first, second = await place.settled(2)
    assert first["status"] == "failed"
    assert first["last_error"] == "invalid_blocks: [ERROR] [json-pointer:/blocks/0]"
    assert second["status"] == "posted"


async def test_what_fails_until_it_is_old_is_recorded_with_the_reason(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "NOTIFY_AGE_S_MAX", 1.5)
    place.slack.default = Reply(error="channel_not_found")
    async with running(place.by_bot):
        await place.publish(build())
        (row,) = await place.settled(1)
    assert (row["status"], row["last_error"]) == ("too_old", "channel_not_found")
    assert row["attempts"] > 2
    assert place.slack.messages == []


async def test_postgres_away_delays_messages_and_loses_none(place: Place) -> None:
    server, name = place.database.server, place.database.name
    async with running(place.by_bot):
        await place.publish(build(run=1))
        await place.settled(1)
        await place.engine.dispose()
        await asyncio.to_thread(
            server.execute,
            f"ALTER DATABASE {name} ALLOW_CONNECTIONS false",
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
        )
        await place.publish(build(run=2))
        await place.says(postgres="DBAPIError")
        assert len(place.slack.posts) == 1
        await asyncio.to_thread(server.execute, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        rows = await place.settled(2)
    assert [row["status"] for row in rows] == ["posted", "posted"]
    assert len(place.slack.posts) == 2


async def test_an_event_that_cannot_be_read_is_named_and_does_not_block_the_next(place: Place) -> None:
    good = build()
    headers = to_headers(good, "github:a-delivery")
    subject = good.subject
    async with running(place.by_bot) as log:
        for n, (wrong, data) in enumerate(
            [
                (
                    {"ce-type": "build.exploded", "ce-id": "id-of-a-type-of-tomorrow"},
                    good.model_dump_json().encode(),
                ),
                ({"ce-id": "id-of-no-json"}, b"{"),
                ({"ce-id": "id-of-other-fields"}, b'{"ref": "secret-value"}'),
            ]
        ):
            await place.broker.js.publish(
                subject, data, headers={**headers, **wrong, "Nats-Msg-Id": f"wrong{n}"}
            )
        await place.broker.js.publish(subject, b"\xff\x00")
        await place.publish(good)
        (row,) = await place.settled(1)
    assert row["status"] == "posted"
    said = log.getvalue()
    for named in ("id-of-a-type-of-tomorrow", "id-of-no-json", "id-of-other-fields"):
        assert said.count(named) == 1
    assert said.count("acknowledged and still in EVENTS") == 4
    assert "secret-value" not in said
    assert (await place.broker.js.stream_info(streams.EVENTS)).state.messages == 5


async def test_a_mistake_of_ours_is_repeated_until_the_event_is_old_and_then_given_up(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def mistaken(*_: object) -> bool:
        raise KeyError("a mistake")

    monkeypatch.setattr(notify, "NOTIFY_AGE_S_MAX", 1.0)
    monkeypatch.setattr(memory, "enter", mistaken)
    async with running(place.by_bot) as log:
        await place.publish(build())
        await place.settled(0)
    assert log.getvalue().count("an event could not be handled") > 1
    assert log.getvalue().count("an event is given up; it is acknowledged and still in EVENTS") == 1


async def test_a_missing_or_deleted_consumer_is_reported_and_survived(place: Place) -> None:
    gone = f"{streams.NOTIFIER} on {streams.EVENTS} is not there: provision the streams"
    js = place.broker.js
    await js.delete_consumer(streams.EVENTS, streams.NOTIFIER)
    async with running(place.by_bot):
        await place.says(consumer=gone)
        await streams.provision(js)
        await place.says()
        await place.publish(build(run=1))
        await place.settled(1)
        await js.delete_consumer(streams.EVENTS, streams.NOTIFIER)
        await place.says(consumer=gone)
        await place.publish(build(run=2))
        await streams.provision(js)
        await place.settled(2)
    assert len(place.slack.posts) == 2


def _as_made_before(filter_subjects: Collection[str]) -> ConsumerConfig:
    """The notifier's consumer with another filter than today's."""
    ((_, today),) = (each for each in streams.consumer_configs() if each[0] == streams.EVENTS)
    return today.evolve(filter_subjects=sorted(filter_subjects))


async def test_the_consumer_of_an_earlier_version_is_widened_and_goes_on_where_it_was(place: Place) -> None:
    js = place.broker.js
    await js.delete_consumer(streams.EVENTS, streams.NOTIFIER)
    (before,) = streams.NOTIFIED_BEFORE
    await js.add_consumer(streams.EVENTS, _as_made_before(before))
    async with running(place.by_bot):
        await place.publish(build(run=1))
        await place.settled(1)
        assert [] == await streams.provision(js)
        await place.publish(webhook_failing())
        await place.settled(2)
    assert len(place.slack.posts) == 2


async def test_a_filter_that_somebody_chose_is_named_and_left_alone(place: Place) -> None:
    js = place.broker.js
    await js.delete_consumer(streams.EVENTS, streams.NOTIFIER)
    await js.add_consumer(streams.EVENTS, _as_made_before(["events.build.finished"]))
    (drift,) = await streams.provision(js)
    assert ("consumer notifier", "filter_subjects") == (drift.where, drift.setting)
    left = (await js.consumer_info(streams.EVENTS, streams.NOTIFIER)).config
    assert ["events.build.finished"] == (left.filter_subjects or [left.filter_subject])
