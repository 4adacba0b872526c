"""The notifier as a process: stops in time, survives being killed, never spins."""

from __future__ import annotations

import asyncio
import io
import itertools
import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import structlog

from runtime import embedded, streams
from services.notifier import app
from services.notifier.dry_run import DryRun
from services.notifier.notify import Notifier
from tests.processes import Forked, forked
from tests.services.notifier.events import build
from tests.services.notifier.running import Place, eventually, running
from tests.slack_double import Reply

pytestmark = pytest.mark.anyio

Started = Callable[[Mapping[str, str]], AbstractContextManager[Forked]]
SHORT_ACK_WAIT_S = 2.0
STOP_S_MAX = 10.0


@pytest.fixture
def started(tmp_path: Path) -> Started:
    """`python -m services.notifier` with settings, while a block runs; killed at its end if it still lives."""
    numbers = itertools.count()

    def start(given: Mapping[str, str]) -> AbstractContextManager[Forked]:
        variables = {name.upper(): value for name, value in given.items()}
        environment = {"PATH": os.environ.get("PATH", ""), **variables}
        return forked(["-m", "services.notifier"], environment, tmp_path / f"notifier-{next(numbers)}")

    return start


async def stopped(child: Forked) -> float:
    """Seconds from SIGTERM to a clean exit."""
    begun = time.monotonic()
    child.signal(signal.SIGTERM)
    assert await child.ended(STOP_S_MAX) == 0
    return time.monotonic() - begun


async def redelivering_soon(place: Place) -> None:
    """Shorten how long the broker waits before it gives a dead notifier's events to the next one."""
    info = await place.broker.js.consumer_info(streams.EVENTS, streams.NOTIFIER)
    config = replace(info.config, ack_wait=SHORT_ACK_WAIT_S)
    await place.broker.js.add_consumer(streams.EVENTS, config)


async def test_an_idle_notifier_stops_at_once(place: Place, started: Started) -> None:
    with started(place.by_bot) as child:
        await place.says()
        assert await stopped(child) < 5


async def test_a_notifier_without_a_broker_stops_too(place: Place, started: Started) -> None:
    away = f"nats://notifier:x@127.0.0.1:{embedded.free_port()}"
    with started({**place.by_bot, "nats_url_notifier": away}) as child:
        await place.says(broker="not connected")
        await stopped(child)


async def test_a_notifier_stops_in_time_with_a_post_in_hand_and_the_next_one_looks_for_it(
    place: Place,
    started: Started,
) -> None:
    await redelivering_soon(place)
    place.slack.replies.append(Reply(hangs=True, stores=True))
    with started(place.by_bot) as child:
        await place.publish(build())
        await asyncio.to_thread(place.slack.wait_for_posts, 1)
        await stopped(child)
        assert "cut off by the stop, it comes again" in child.said()
    with started(place.by_bot):
        (row,) = await place.settled(1)
    assert (row["status"], len(place.slack.posts)) == ("posted", 1)


@pytest.mark.parametrize("arrived", [True, False])
async def test_a_notifier_killed_between_post_and_mark_leads_to_one_message(
    place: Place, started: Started, arrived: bool
) -> None:
    await redelivering_soon(place)
    place.slack.replies.append(Reply(hangs=True, stores=arrived))
    with started(place.by_bot) as child:
        await place.publish(build())
        await asyncio.to_thread(place.slack.wait_for_posts, 1)
        (row,) = await place.rows()
        assert row["status"] == "posting"
        child.kill()
    with started(place.by_bot):
        (row,) = await place.settled(1)
    assert (row["status"], row["slack_ts"]) == ("posted", place.slack.messages[0]["ts"])
    assert place.slack.ids == [row["message_id"]]
    assert len(place.slack.posts) == (1 if arrived else 2)


async def test_a_dry_run_prints_to_standard_output(place: Place, started: Started) -> None:
    await place.publish(build())
    with started(place.addresses) as child:

        async def printed() -> bool:
            return "[dry run] build.finished" in child.out.read_text()

        await eventually(printed)
        await place.settled(1)
    assert child.out.read_text().startswith("\n[dry run] build.finished\n")


async def test_a_wrong_setting_is_one_sentence(place: Place, started: Started) -> None:
    with started({**place.by_bot, "slack_channel": "#ops"}) as child:
        assert await child.ended(STOP_S_MAX) == 2
    assert child.said().splitlines()[-1].startswith("notifier: SLACK_CHANNEL must be the channel's id")


async def test_metrics_count_what_became_of_messages(place: Place, started: Started) -> None:
    place.slack.replies.append(Reply(error="no_text"))
    with started(place.by_bot):
        await place.publish(build(run=1), build(run=2))
        await place.settled(2)
        async with httpx.AsyncClient(trust_env=False, verify=False) as client:
            said = (await client.get(f"http://127.0.0.1:{place.ops_port}/metrics")).text
    assert 'odooops_notifier_messages_total{kind="build.finished",status="posted"} 1.0' in said
    assert 'odooops_notifier_messages_total{kind="build.finished",status="failed"} 1.0' in said
    assert 'odooops_notifier_slack_errors_total{error="no_text"} 1.0' in said
    assert "odooops_notifier_delay_seconds_count 1.0" in said
    assert 'odooops_lag_messages{stage="notify"} 0.0' in said
    assert 'odooops_lag_seconds{stage="notify"} 0.0' in said
    assert 'odooops_build_info{service="notifier"' in said


async def test_a_connection_closed_for_good_ends_the_process_and_stops_no_loop(place: Place) -> None:
    lost: list[str] = []
    log = structlog.wrap_logger(structlog.PrintLogger(io.StringIO()))
    notifier = Notifier(place.engine, DryRun(), log)
    subscriber = app.Subscriber(place.broker.url("notifier"), notifier, log, lost.append)
    await subscriber.start()
    assert subscriber._client is not None
    await subscriber._client.close()

    async def told() -> bool:
        return bool(lost)

    await eventually(told)
    refused = app.FETCH_ERRORS._value.get()
    begun = time.monotonic()
    while app.FETCH_ERRORS._value.get() < refused + 2:
        await asyncio.sleep(0.01)
    assert time.monotonic() - begun > streams.RECONNECT_WAIT_S
    assert await subscriber.problems() == {"broker": "not connected"}
    await subscriber.stop()


async def test_a_start_that_fails_ends_the_notifier(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(_: app.Subscriber) -> None:
        raise RuntimeError("no start")

    monkeypatch.setattr(app.Subscriber, "start", fails)
    with pytest.raises(RuntimeError, match="no start"):
        async with running(place.by_bot):
            pass
