"""What a sender hears while the broker is away or full, and that nothing is stored twice by it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from providers.github import PROVIDER
from runtime import streams
from services.ingest.receive import Endpoint
from tests.providers.driving import source_of
from tests.services.ingest.door import BODY, SECRET, Door, eventually, open_door
from tests.services.ingest.own_broker import OwnBroker

pytestmark = pytest.mark.anyio

LARGE = b'{"pad": "%s"}' % (b"x" * streams.INLINE_BODY_BYTES_MAX)
SOON_S = 0.6
SLACK_S = 1.0


def hurry(patch: pytest.MonkeyPatch) -> None:
    """Shorten the time for which the broker is waited for."""
    patch.setattr(streams, "ACCEPT_S_MAX", SOON_S)
    patch.setattr(streams, "PUBLISH_ATTEMPT_S", SOON_S / 4)
    patch.setattr(streams, "RECONNECT_WAIT_S", SOON_S / 10)


async def told_to_come_again(door: Door, body: bytes = BODY) -> None:
    """A request is answered with 503 within the deadline."""
    began = time.monotonic()
    answer = await door.post(body)
    assert time.monotonic() - began < SOON_S + SLACK_S
    assert (answer.status_code, answer.json()["reason"]) == (503, "broker_away")
    assert answer.headers["retry-after"] == str(streams.RETRY_AFTER_S)


async def taken(door: Door, body: bytes = BODY) -> None:
    """A repeat is answered with 200 in the end."""

    async def repeated() -> bool:
        return (await door.post(body)).status_code == 200

    await eventually(repeated)


async def test_no_answer_before_the_acknowledgement(stoppable: OwnBroker) -> None:
    await stoppable.start()
    async with stoppable.operator() as js, open_door(stoppable.url, js) as door:
        stoppable.pause()
        waiting = asyncio.create_task(door.post())
        await door.holds(len(BODY))
        done, _ = await asyncio.wait({waiting}, timeout=0.3)
        assert not done
        stoppable.resume()
        assert (await waiting).json()["seq"] == 1


async def test_a_sender_that_waits_less_is_answered_in_its_own_time(stoppable: OwnBroker) -> None:
    await stoppable.start()
    hasty = [Endpoint(source_of(replace(PROVIDER, answer_s_max=0.2)), lambda: [SECRET])]
    async with stoppable.operator() as js, open_door(stoppable.url, js, hasty) as door:
        stoppable.pause()
        async with asyncio.timeout(streams.PUBLISH_ATTEMPT_S - 0.5):
            answer = await door.post()
        assert (answer.status_code, answer.json()["reason"]) == (503, "broker_away")
        stoppable.resume()


@pytest.mark.parametrize("body", [BODY, LARGE], ids=["small", "large"])
async def test_a_silent_broker_is_a_503_and_the_repeat_is_stored_once(
    stoppable: OwnBroker, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    await stoppable.start()
    async with stoppable.operator() as js, open_door(stoppable.url, js) as door:
        assert (await door.post(body, delivery="before")).status_code == 200
        with monkeypatch.context() as patch:
            hurry(patch)
            stoppable.pause()
            await told_to_come_again(door, body)
            await told_to_come_again(door, body)
        stoppable.resume()
        await taken(door, body)
        assert [(one.identity, one.body) for one in await door.stored()] == [("before", body), ("d-1", body)]


@pytest.mark.parametrize("body", [BODY, LARGE], ids=["small", "large"])
async def test_a_dead_broker_is_a_503_and_the_repeat_is_stored_once(
    stoppable: OwnBroker, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    hurry(monkeypatch)
    await stoppable.start()
    async with stoppable.operator() as js, open_door(stoppable.url, js) as door:
        assert (await door.post(body, delivery="before")).status_code == 200
        stoppable.kill()
        await told_to_come_again(door, body)
        await stoppable.start()
        await taken(door, body)
        assert [(one.identity, one.body) for one in await door.stored()] == [("before", body), ("d-1", body)]


async def test_a_broker_killed_amid_requests_loses_and_doubles_nothing(
    stoppable: OwnBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    ids = [f"n-{n}" for n in range(400)]
    await stoppable.start()
    async with stoppable.operator() as js, open_door(stoppable.url, js) as door:
        pending, answered = list(ids), asyncio.Event()

        async def sender() -> None:
            while pending:
                delivery = pending.pop()
                while (await door.post(delivery=delivery)).status_code != 200:
                    pass
                if len(pending) < 300:
                    answered.set()

        senders = [asyncio.create_task(sender()) for _ in range(20)]
        await answered.wait()
        stoppable.kill()
        await stoppable.start()
        await asyncio.gather(*senders)
        assert sorted(one.identity for one in await door.stored()) == sorted(ids)


async def test_a_full_log_is_a_503_of_its_own(door: Door) -> None:
    assert (await door.post(delivery="before")).status_code == 200
    info = await door.js.stream_info(streams.DELIVERIES)
    await door.js.update_stream(info.config, max_bytes=info.state.bytes + 10)
    for _ in range(3):
        answer = await door.post()
        assert (answer.status_code, answer.json()["reason"]) == (503, "log_full")
        assert answer.headers["retry-after"] == str(streams.RETRY_AFTER_S)
    (line,) = door.said("the log is full")
    assert line["level"] == "error"
    await door.js.update_stream(info.config, max_bytes=-1)
    assert (await door.post()).status_code == 200
    assert [one.identity for one in await door.stored()] == ["before", "d-1"]


@pytest.mark.parametrize(
    ("stream", "body"), [(streams.DELIVERIES, BODY), (streams.BODIES_STREAM, LARGE)], ids=["log", "bodies"]
)
async def test_a_missing_stream_is_a_503(
    door: Door, monkeypatch: pytest.MonkeyPatch, stream: str, body: bytes
) -> None:
    hurry(monkeypatch)
    await door.js.delete_stream(stream)
    await told_to_come_again(door, body)
    await streams.provision(door.js)
    await taken(door, body)


async def test_before_the_broker_was_ever_reached_it_is_a_503(door: Door) -> None:
    store, door.receiver.store = door.receiver.store, None
    await door.refused(503, "broker_away", await door.post())
    door.receiver.store = store
    assert (await door.post()).status_code == 200
