"""Each thing is posted once, and never when it is old news. Real NATS, real Postgres."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from runtime import streams
from services.notifier import memory
from services.notifier.memory import Key
from tests.services.notifier.events import SAME_AS, build, by_github, by_vercel, deployment
from tests.services.notifier.running import Place, eventually, running
from tests.slack_double import CHANNEL, TOKEN, Reply

pytestmark = pytest.mark.anyio

BY_BOT = f"slack:{CHANNEL}"
OLD = timedelta(seconds=streams.NOTIFY_AGE_S_MAX + 60)


async def test_a_build_is_posted_and_remembered(place: Place) -> None:
    event = build()
    async with running(place.by_bot):
        await place.publish(event)
        (row,) = await place.settled(1)
    (message,) = place.slack.messages
    assert (row["destination"], row["ref"], row["kind"]) == (BY_BOT, event.ref, "build.finished")
    assert (row["status"], row["slack_ts"], row["channel"]) == ("posted", message["ts"], CHANNEL)
    assert (row["event_id"], row["attempts"], row["last_error"]) == (event.id, 1, None)
    assert place.slack.ids == [row["message_id"]]
    assert message["blocks"] == row["blocks"]
    assert place.slack.searches == []


async def test_one_thing_told_by_many_events_is_posted_once(place: Place) -> None:
    event = build()
    async with running(place.by_bot):
        await place.publish(event)
        await place.publish(event, copy="-again")
        await place.publish(build(status="failed"), build(at=datetime.now(UTC) + timedelta(seconds=1)))
        await place.settled(1)
    async with running(place.by_bot):
        await place.publish(event, copy="-after-a-restart")
        await place.settled(1)
    assert len(place.slack.posts) == 1


async def test_a_replay_posts_nothing_that_was_posted_and_nothing_old(place: Place) -> None:
    told, old = build(), build(at=datetime.now(UTC) - OLD, run=422)
    async with running(place.by_bot):
        await place.publish(told)
        await place.settled(1)
        await place.publish(told, old, replayed="again")
        rows = await place.settled(2)
    assert ["posted", "too_old"] == [row["status"] for row in rows]
    assert len(place.slack.posts) == 1


async def test_a_deployment_is_posted_once_for_each_state_worth_it(place: Place) -> None:
    states = ["queued", "deploying", "failed", "deploying", "success", "inactive", "success", "unknown"]
    async with running(place.by_bot):
        for n, state in enumerate(states):
            await place.publish(deployment(status=state), copy=str(n))
        rows = await place.settled(2)
    assert sorted(row["kind"] for row in rows) == ["deployment.failed", "deployment.success"]
    assert len(place.slack.posts) == 2


@pytest.mark.parametrize("outcome", ["success", "failed"])
@pytest.mark.parametrize("first", ["github", "vercel"])
async def test_a_deployment_that_two_providers_report_is_posted_once(
    place: Place, first: str, outcome: str
) -> None:
    reports = [by_github(status=outcome), by_vercel(status=outcome)]
    if first == "vercel":
        reports.reverse()
    async with running(place.by_bot):
        await place.publish(reports[0])
        await place.settled(1)
        await place.publish(reports[1])
        (row,) = await place.settled(1)
    assert (row["ref"], row["kind"], row["status"]) == (SAME_AS, f"deployment.{outcome}", "posted")
    assert row["event_id"] == reports[0].id
    assert len(place.slack.posts) == 1


async def test_a_success_that_vercel_tells_in_three_words_is_posted_once(place: Place) -> None:
    words = [
        ("succeeded", (2, 0, 0), "success"),
        ("ready", (3, 0, 0), "success"),
        ("promoted", (4, 1, 0), "success"),
    ]
    async with running(place.by_bot):
        for word, moment, status in words:
            await place.publish(by_vercel(provider_status=word, moment=moment, status=status))
        await place.settled(1)
    assert len(place.slack.posts) == 1


async def test_two_deployments_are_two_messages_also_where_one_has_no_address(place: Place) -> None:
    other = by_vercel(ref="vercel:dpl_other", same_as="vercel:url/shop-other-example-org.vercel.app")
    async with running(place.by_bot):
        await place.publish(by_vercel(), other, deployment())
        await place.settled(3)
    assert len(place.slack.posts) == 3


async def test_after_a_crash_the_other_providers_report_finds_what_was_posted(place: Place) -> None:
    ts = place.slack.seed(await place.crashed_before(by_github(), BY_BOT))
    await place.publish(by_vercel())
    async with running(place.by_bot):
        (row,) = await place.settled(1)
    assert (row["status"], row["slack_ts"]) == ("posted", ts)
    assert place.slack.posts == []


async def test_after_a_crash_what_was_posted_is_found_and_not_posted_again(place: Place) -> None:
    event = build()
    ts = place.slack.seed(await place.crashed_before(event, BY_BOT))
    await place.publish(event)
    async with running(place.by_bot):
        (row,) = await place.settled(1)
    assert (row["status"], row["slack_ts"]) == ("posted", ts)
    assert place.slack.posts == []


async def test_after_a_crash_what_was_not_posted_is_posted_once(place: Place) -> None:
    event = build()
    made = await place.crashed_before(event, BY_BOT)
    place.slack.seed("another message")
    await place.publish(event)
    async with running(place.by_bot):
        (row,) = await place.settled(1)
    assert row["status"] == "posted"
    assert len(place.slack.searches) == 1
    assert place.slack.ids == ["another message", made]


async def test_a_webhook_cannot_look_and_posts_again_after_a_crash(place: Place) -> None:
    async with running(place.by_webhook):
        await place.publish(build(run=1))
        (row,) = await place.settled(1)
    event = build(run=2)
    await place.crashed_before(event, row["destination"])
    await place.publish(event)
    async with running(place.by_webhook):
        rows = await place.settled(2)
    assert [row["status"] for row in rows] == ["posted", "posted"]
    assert {row["channel"] for row in rows if row["ref"] == "github:run/1/1"} == {None}
    assert row["destination"].startswith("webhook:")
    assert len(place.slack.posts) == 2
    assert place.slack.searches == []


@pytest.mark.parametrize("way", ["by_bot", "by_webhook"])
async def test_old_news_are_recorded_and_not_posted_at_the_first_start_too(place: Place, way: str) -> None:
    old = [build(at=datetime.now(UTC) - OLD, run=n) for n in range(3)]
    await place.publish(*old, build(run=9))
    async with running(getattr(place, way)):
        rows = await place.settled(4)
    assert [row["status"] for row in rows] == ["too_old", "too_old", "too_old", "posted"]
    assert len(place.slack.posts) == 1
    assert rows[0]["last_error"] is None


@pytest.mark.parametrize("in_channel", [True, False])
async def test_what_was_under_way_when_it_grew_old_is_still_looked_up(place: Place, in_channel: bool) -> None:
    event = build(at=datetime.now(UTC) - OLD)
    made = await place.crashed_before(event, BY_BOT)
    if in_channel:
        place.slack.seed(made)
    await place.publish(event)
    async with running(place.by_bot):
        (row,) = await place.settled(1)
    assert row["status"] == ("posted" if in_channel else "too_old")
    assert place.slack.posts == []


async def test_without_credentials_everything_is_printed_and_recorded_once(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    old = build(at=datetime.now(UTC) - OLD, run=1, title="\x1b[31mold\x1b[0m <!channel>")
    await place.publish(old)
    await place.publish(old, copy="-again")
    await place.publish(deployment())
    async with running(place.addresses):
        rows = await place.settled(2)
    printed = capsys.readouterr().out
    assert {(row["destination"], row["status"]) for row in rows} == {("dry_run", "dry_run")}
    assert (
        printed.count("[dry run] build.finished\n✅ Build succeeded: org/shop\n  [31mold [0m <!channel>\n")
        == 1
    )
    assert printed.count("[dry run] deployment.success\n🚀 Deployment succeeded: org/shop\n") == 1
    assert "\x1b" not in printed


async def test_a_dry_run_does_not_keep_a_message_from_slack(place: Place) -> None:
    event = build()
    await place.publish(event)
    async with running(place.addresses):
        await place.settled(1)
    await place.publish(event, copy="-again")
    async with running(place.by_bot):
        rows = await place.settled(2)
    assert sorted(row["status"] for row in rows) == ["dry_run", "posted"]


async def test_a_title_pings_nobody(place: Place) -> None:
    async with running(place.by_bot):
        await place.publish(build(title="<!channel> look", branch="<@U0123>"))
        await place.settled(1)
    sent = json.dumps(place.slack.posts[0])
    assert "<!channel>" not in sent
    assert "<@U0123>" not in sent
    assert "&lt;!channel&gt; look" in sent


async def test_a_message_in_another_process_hands_is_left_alone(place: Place) -> None:
    event = build()
    await place.crashed_before(event, BY_BOT)
    key = Key(BY_BOT, event.ref, "build.finished")
    async with place.engine.begin() as connection:
        assert await memory.hold(connection, key) is not None
        async with running(place.by_bot):
            await place.publish(event)

            async def given_out_again() -> bool:
                info = await place.broker.js.consumer_info(streams.EVENTS, streams.NOTIFIER)
                return (info.num_redelivered or 0) > 0

            await eventually(given_out_again)
            assert place.slack.searches == place.slack.posts == []
            await connection.rollback()
            (row,) = await place.settled(1)
    assert row["status"] == "posted"
    assert len(place.slack.posts) == 1


async def test_two_notifiers_share_the_work_and_repeat_nothing(place: Place) -> None:
    other = {**place.by_bot, "odooops_ops_port": "0"}
    async with running(place.by_bot), running(other):
        for n in range(12):
            await place.publish(build(run=n), build(run=n, status="failed"))
        rows = await place.settled(12)
    assert {row["status"] for row in rows} == {"posted"}
    assert sorted(place.slack.ids) == sorted(row["message_id"] for row in rows)


async def test_no_secret_reaches_the_table_or_the_log(place: Place) -> None:
    place.slack.default = Reply(error="invalid_auth")
    said = ""
    for way in (place.by_bot, place.by_webhook):
        async with running(way) as log:
            await place.publish(build(run=len(said)))
            await asyncio.to_thread(place.slack.wait_for_posts, 2 if said else 1)
            await eventually(place.rows)
        said += log.getvalue() + "-"
    said += repr(await place.rows())
    assert "destination" in said
    assert TOKEN not in said
    assert "secret-that-nobody-may-see" not in said
    assert place.broker.url("notifier") not in said


async def test_the_notifier_may_forget_nothing(place: Place) -> None:
    for statement in ("DELETE FROM notify.messages", "SELECT FROM ops.builds"):
        async with place.engine.connect() as connection:
            with pytest.raises(ProgrammingError, match="permission denied"):
                await connection.execute(text(statement))
