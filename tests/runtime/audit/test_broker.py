"""What settings of the broker could lose: as a table of facts, and on real brokers that are set wrongly."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from nats.js.api import (
    ConsumerInfo,
    DiscardPolicy,
    PersistMode,
    RetentionPolicy,
    StorageType,
    StreamInfo,
    StreamState,
)

from runtime import bus, embedded, streams
from runtime.audit import broker as audit
from runtime.audit.broker import Facts, Server
from runtime.audit.clock import Reading
from runtime.audit.finding import Finding, worst_first
from runtime.permissions import USERS
from runtime.streams import BODIES_STREAM, DAY_S, DELIVERIES, EVENTS, NOTIFIER, POLLER_STREAM, PROJECTOR
from tests.conftest import Broker
from tests.servers import _nats_answers, _running, _until, data_folder

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SERVER = Server("nats-1", 0.0, 1 << 20, 0, 0, Reading(NOW, NOW, NOW))
STREAMS = {str(config.name): config for config in streams.stream_configs(1)}
CONSUMERS = {str(config.durable_name): (stream, config) for stream, config in streams.consumer_configs()}


def facts(stream: str = DELIVERIES, consumer: str | None = None, **settings: Any) -> Facts:
    """A broker set as we set it, but for these settings of one stream, or of one consumer."""
    config = STREAMS[stream] if consumer else STREAMS[stream].evolve(**settings)
    state = StreamState(messages=0, bytes=0, first_seq=1, last_seq=0, consumer_count=0)
    info = StreamInfo(config=config, state=state)
    held = {}
    drift = streams.compare(f"stream {stream}", STREAMS[stream], config)
    if consumer is not None:
        of, ours = CONSUMERS[consumer]
        theirs = ours.evolve(**{k: v for k, v in settings.items() if k != "paused"})
        held[consumer] = ConsumerInfo(consumer, of, theirs, created=NOW, paused=settings.get("paused"))
        drift = streams.compare(f"consumer {consumer}", ours, theirs)
    return Facts(max_payload=1 << 20, servers=[SERVER], streams={stream: info}, consumers=held, drift=drift)


def judged(given: Facts, ledger_seq: int | None = None) -> list[tuple[str, str]]:
    return [(each.level, each.part) for each in audit.findings(given, NOW, ledger_seq)]


def test_our_own_settings_lose_nothing() -> None:
    for stream in STREAMS:
        assert judged(facts(stream)) == []
    for consumer, (stream, _) in CONSUMERS.items():
        assert judged(facts(stream, consumer)) == []


@pytest.mark.parametrize(
    ("stream", "settings", "level"),
    [
        (DELIVERIES, {"storage": StorageType.MEMORY}, "error"),
        (POLLER_STREAM, {"storage": StorageType.MEMORY}, "warning"),
        (DELIVERIES, {"retention": RetentionPolicy.WORK_QUEUE}, "error"),
        (DELIVERIES, {"retention": RetentionPolicy.INTEREST}, "error"),
        (DELIVERIES, {"subjects": ["deliveries.github.>"]}, "error"),
        (DELIVERIES, {"discard": DiscardPolicy.OLD}, "warning"),
        (DELIVERIES, {"discard": DiscardPolicy.OLD, "max_bytes": 1 << 30}, "error"),
        (DELIVERIES, {"discard": DiscardPolicy.OLD, "max_msgs": 10}, "error"),
        (DELIVERIES, {"max_bytes": 1 << 30}, None),
        (DELIVERIES, {"max_msg_size": 1024}, "error"),
        (DELIVERIES, {"max_msg_size": 1 << 20}, "info"),
        (DELIVERIES, {"max_msg_size": -1}, "info"),
        (DELIVERIES, {"duplicate_window": 120.0}, "warning"),
        (DELIVERIES, {"duplicate_window": 7200.0}, "info"),
        (DELIVERIES, {"num_replicas": 3}, "info"),
        (DELIVERIES, {"max_age": 3600.0}, "warning"),
        (DELIVERIES, {"max_age": 30.0 * DAY_S}, "info"),
        (EVENTS, {"max_age": 3600.0}, "warning"),
        (EVENTS, {"max_age": 2.0 * DAY_S}, None),
        (BODIES_STREAM, {"max_age": 3600.0}, "warning"),
        (DELIVERIES, {"max_msgs_per_subject": 1}, "error"),
        (DELIVERIES, {"persist_mode": PersistMode.ASYNC}, "error"),
        (DELIVERIES, {"no_ack": True}, "error"),
        (DELIVERIES, {"sealed": True}, "error"),
        (BODIES_STREAM, {"allow_rollup_hdrs": True}, "warning"),
        (DELIVERIES, {"allow_atomic": False}, "info"),
    ],
)
def test_a_streams_setting_is_judged_by_what_it_could_lose(
    stream: str, settings: dict[str, Any], level: str | None
) -> None:
    assert judged(facts(stream, **settings)) == ([] if level is None else [(level, f"stream {stream}")])


@pytest.mark.parametrize(
    ("consumer", "settings", "level"),
    [
        (PROJECTOR, {"max_deliver": 5}, "error"),
        (PROJECTOR, {"filter_subject": "deliveries.github.>"}, "error"),
        (PROJECTOR, {"headers_only": True}, "error"),
        (PROJECTOR, {"deliver_policy": "new"}, "error"),
        (PROJECTOR, {"ack_policy": "none"}, "error"),
        (PROJECTOR, {"ack_wait": 1.0}, "warning"),
        (PROJECTOR, {"max_ack_pending": 1}, "warning"),
        (PROJECTOR, {"paused": True}, "error"),
        (NOTIFIER, {"filter_subjects": ["events.build.finished"]}, "error"),
        (NOTIFIER, {"paused": True}, "error"),
    ],
)
def test_a_consumers_setting_is_judged_by_what_it_could_lose(
    consumer: str, settings: dict[str, Any], level: str
) -> None:
    stream, _ = CONSUMERS[consumer]
    assert judged(facts(stream, consumer, **settings)) == [(level, f"consumer {consumer}")]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"sync_interval_s": 120.0}, [("error", "broker nats-1")]),
        ({"max_payload": 64 * 1024}, [("error", "broker nats-1")]),
        ({"storage_bytes": 90, "storage_bytes_max": 100}, [("warning", "disk of nats-1")]),
        (
            {"clock": Reading(NOW + timedelta(seconds=5), NOW, NOW)},
            [("warning", "clock of broker nats-1")],
        ),
    ],
)
def test_a_server_is_judged_by_what_it_says(changes: dict[str, Any], found: list[tuple[str, str]]) -> None:
    assert judged(replace(facts(), servers=[replace(SERVER, **changes)])) == found


def test_a_broker_that_does_not_tell_is_unknown_and_one_that_was_not_asked_is_nothing() -> None:
    (silent,) = audit.findings(replace(facts(), servers=[]), NOW)
    assert (silent.level, silent.part) == ("unknown", "broker")
    assert "/varz" in silent.mend
    assert judged(replace(facts(), servers=None)) == []
    ahead = Reading(NOW + timedelta(seconds=90), NOW, NOW)
    assert ("error", "clock of the broker") in judged(replace(facts(), servers=[], clock=ahead))


def test_one_copy_is_too_few_where_there_are_three_servers() -> None:
    three = [replace(SERVER, name=f"nats-{n}") for n in (1, 2, 3)]
    assert judged(replace(facts(), servers=three)) == [("warning", f"stream {DELIVERIES}")]
    assert judged(replace(facts(), servers=three[:2])) == []


def test_what_waits_must_not_grow_old() -> None:
    given = replace(facts(max_age=30.0 * DAY_S), waiting_since={PROJECTOR: NOW - timedelta(days=16)})
    error, _ = worst_first(audit.findings(given, NOW))
    assert error.level == "error"
    assert error.could_lose == "what the projector has not read, in 14 d"
    assert judged(replace(given, waiting_since={PROJECTOR: NOW - timedelta(days=14)})) == [
        ("info", f"stream {DELIVERIES}")
    ]


@pytest.mark.parametrize(
    ("first", "ledger", "lost"), [(1, 0, None), (11, 10, None), (12, 10, "11 to 11"), (5, 0, "1 to 4")]
)
def test_a_log_that_begins_after_the_ledgers_end_has_lost_deliveries(
    first: int, ledger: int, lost: str | None
) -> None:
    given = facts()
    given.streams[DELIVERIES].state.first_seq = first
    found = audit.findings(given, NOW, ledger)
    assert [each.level for each in found] == ([] if lost is None else ["error"])
    assert lost is None or f"from {lost}" in found[0].could_lose


@pytest.mark.anyio
async def test_a_broker_that_is_set_as_we_set_it_has_no_finding(broker: Broker) -> None:
    nc = await bus.connect(broker.url("reader"), "reader")
    try:
        asked = await audit.ask(nc, STREAMS, CONSUMERS, replicas=1, oldest=True)
    finally:
        await nc.close()
    assert audit.findings(asked, datetime.now(UTC), 0) == []
    assert [server.name for server in asked.servers or ()] == ["odooops-embedded"]
    assert asked.streams.keys() == STREAMS.keys()
    assert asked.consumers.keys() == CONSUMERS.keys()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("user", "names", "consumers", "servers"),
    [
        ("ingest", (DELIVERIES, BODIES_STREAM), (), True),
        ("projector", (DELIVERIES, EVENTS, BODIES_STREAM), (PROJECTOR,), True),
        ("notifier", (EVENTS,), (NOTIFIER,), False),
    ],
)
async def test_each_service_may_ask_what_it_asks_at_its_start(
    broker: Broker, user: str, names: tuple[str, ...], consumers: tuple[str, ...], servers: bool
) -> None:
    complaints: list[str] = []

    async def heard(reason: str) -> None:
        complaints.append(reason)

    nc = await bus.connect(broker.url(user), user, heard)
    try:
        assert await audit.told(nc, names, consumers, servers=servers) == []
        assert complaints == []
    finally:
        await nc.close()


@pytest.mark.anyio
async def test_whoever_may_not_ask_the_servers_is_told_how_to_look(broker: Broker) -> None:
    nc = await bus.connect(broker.url("poller"), "poller")
    try:
        (silent,) = await audit.told(nc, (DELIVERIES,))
    finally:
        await nc.close()
    assert (silent.level, silent.part) == ("unknown", "broker")


@pytest.mark.anyio
async def test_settings_that_drifted_are_found_and_set_back(broker: Broker) -> None:
    js = broker.js
    config = (await js.stream_info(DELIVERIES)).config
    await js.update_stream(config.evolve(discard=DiscardPolicy.OLD, max_bytes=1 << 30, duplicate_window=60.0))
    held = (await js.consumer_info(DELIVERIES, PROJECTOR)).config
    await js.add_consumer(DELIVERIES, held.evolve(max_deliver=3))
    await js.delete_consumer(EVENTS, NOTIFIER)

    async def found() -> list[Finding]:
        asked = await audit.ask(broker.nc, STREAMS, CONSUMERS, replicas=1)
        return audit.findings(asked, datetime.now(UTC))

    assert {(each.level, each.part, each.says) for each in await found()} == {
        ("error", "stream DELIVERIES", "discard is old, not new"),
        ("warning", "stream DELIVERIES", "duplicate_window is 60.0, not 1800"),
        ("error", "consumer projector", "max_deliver is 3, not -1"),
        ("error", "consumer notifier", "is missing"),
    }
    done, refused = await streams.mend(js)
    assert {(each.where, each.setting) for each in done} == {
        ("stream DELIVERIES", "discard"),
        ("stream DELIVERIES", "duplicate_window"),
        ("consumer projector", "max_deliver"),
    }
    assert refused == []
    assert await found() == []
    assert (await js.stream_info(DELIVERIES)).config.max_bytes == 1 << 30  # the operator's choice stays


@pytest.mark.anyio
async def test_what_waits_is_found_with_its_age(broker: Broker) -> None:
    for n in range(3):
        await broker.js.publish("deliveries.github.issues", b"1", headers={"Nats-Msg-Id": f"{n}"})
    pull = await broker.js.pull_subscribe_bind(PROJECTOR, DELIVERIES)
    (first,) = await pull.fetch(1)
    await first.ack_sync()
    before = datetime.now(UTC) - timedelta(minutes=1)
    asked = await audit.ask(broker.nc, (DELIVERIES,), (PROJECTOR,), oldest=True)
    assert before < asked.waiting_since[PROJECTOR] <= datetime.now(UTC)


@pytest.mark.anyio
async def test_a_consumer_that_was_paused_is_an_error_until_it_goes_on(broker: Broker) -> None:
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    await broker.js.pause_consumer(DELIVERIES, PROJECTOR, until)
    (paused,) = await audit.told(broker.nc, (DELIVERIES,), (PROJECTOR,), servers=False)
    assert (paused.level, paused.part) == ("error", "consumer projector")
    await broker.js.resume_consumer(DELIVERIES, PROJECTOR)
    assert await audit.told(broker.nc, (DELIVERIES,), (PROJECTOR,), servers=False) == []


@pytest.fixture
def lazy() -> Iterator[str]:
    """A broker that writes every two minutes, and takes small messages only: the operator's address."""
    with data_folder() as folder:
        port = embedded.free_port()
        command = embedded.prepare_nats(folder, port, dict.fromkeys(USERS, "test"))
        config = folder / "nats" / "nats.conf"
        wrong = config.read_text().replace(", sync_interval: always", "").replace("1MB", "64KB")
        config.write_text(wrong)
        with _running(command, signal.SIGTERM, folder):
            url = embedded.nats_url(port, "operator", dict.fromkeys(USERS, "test"))
            _until(lambda: asyncio.run(_nats_answers(url)))
            yield url


@pytest.mark.anyio
async def test_a_broker_that_does_not_sync_each_write_is_an_error(lazy: str) -> None:
    nc = await bus.connect(lazy, "operator")
    try:
        await streams.provision(nc.jetstream())
        unsynced, small = await audit.told(nc, (DELIVERIES,))
    finally:
        await nc.close()
    assert unsynced.says == "writes reach its disk every 120 s, not before they are acknowledged"
    assert unsynced.level == small.level == "error"
    assert small.says.startswith("max_payload is 65,536 bytes")


@pytest.mark.anyio
async def test_a_broker_without_streams_is_an_error_for_each(broker: Broker) -> None:
    await broker.js.delete_stream(DELIVERIES)
    (missing,) = await audit.told(broker.nc, (DELIVERIES,))
    assert (missing.level, missing.part, missing.says) == ("error", "stream DELIVERIES", "is missing")
