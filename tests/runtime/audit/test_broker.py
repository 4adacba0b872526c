"""What settings of the broker could lose: as a table of facts, and on real brokers that are set wrongly."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from nats.js.api import (
    ClusterInfo,
    ConsumerInfo,
    DiscardPolicy,
    LostStreamData,
    PeerInfo,
    PersistMode,
    Placement,
    RetentionPolicy,
    StorageType,
    StreamConfig,
    StreamInfo,
    StreamSource,
    StreamState,
    SubjectTransform,
)
from nats.js.errors import ServiceUnavailableError

from runtime import bus, embedded, streams
from runtime.audit import asking
from runtime.audit import broker as audit
from runtime.audit.asking import Facts, Server
from runtime.audit.clock import Reading
from runtime.audit.finding import Finding, worst_first
from runtime.permissions import USERS
from runtime.streams import BODIES_STREAM, DAY_S, DELIVERIES, EVENTS, NOTIFIER, POLLER_STREAM, PROJECTOR
from tests.conftest import Broker
from tests.servers import _nats_answers, _running, _until, data_folder

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SERVER = Server("nats-1", 0.0, 1 << 20, 0, 0, Reading(NOW, NOW, NOW))
MADE = {each.name: each for each in streams.all_made()}


def facts(name: str = DELIVERIES, **settings: Any) -> Facts:
    """A broker set as we set it, but for these settings of one stream, or of one consumer and its stream."""
    made = MADE[name]
    theirs: Any = made.config.evolve(**settings)
    stream: Any = theirs if made.of_stream else MADE[made.stream].config.evolve()
    state = StreamState(messages=0, bytes=0, first_seq=1, last_seq=0, consumer_count=0)
    held = {} if made.of_stream else {name: ConsumerInfo(name, made.stream, theirs, created=NOW)}
    return Facts(
        max_payload=1 << 20,
        servers=[SERVER],
        streams={made.stream: StreamInfo(config=stream, state=state)},
        consumers=held,
        drift=streams.compare(made.where, made.config, theirs),
    )


def judged(given: Facts, ledger_seq: int | None = None) -> list[tuple[str, str]]:
    return [(each.level, each.part) for each in audit.findings(given, NOW, ledger_seq)]


def test_any_setting_of_any_kind_is_judged_without_a_fault() -> None:
    for name, made in MADE.items():
        for setting in vars(made.config).keys() - {"name", "durable_name"}:
            for value in (1, 2.0, True):
                audit.findings(facts(name, **{setting: value}), NOW, 0)


def test_our_own_settings_lose_nothing() -> None:
    for name in MADE:
        assert judged(facts(name)) == []


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
        (DELIVERIES, {"num_replicas": 3}, None),
        (DELIVERIES, {"mirror": StreamSource(name="OTHER")}, "error"),
        (DELIVERIES, {"subject_transform": SubjectTransform(src=">", dest="x.>")}, "error"),
        (DELIVERIES, {"allow_msg_ttl": True}, "warning"),
        (DELIVERIES, {"deny_delete": True}, "warning"),
        (DELIVERIES, {"deny_purge": True}, "warning"),
        (DELIVERIES, {"sources": [StreamSource(name="OTHER")]}, "warning"),
        (DELIVERIES, {"placement": Placement(tags=["ssd"]), "description": "ours"}, None),
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
        (PROJECTOR, {"deliver_subject": "x.y"}, "error"),
        (PROJECTOR, {"inactive_threshold": 60.0}, "warning"),
        (PROJECTOR, {"mem_storage": True}, "warning"),
        (PROJECTOR, {"num_replicas": 1}, "warning"),
        (PROJECTOR, {"num_replicas": 0}, None),
        (PROJECTOR, {"max_waiting": 512}, None),
        (PROJECTOR, {"max_waiting": 2}, "warning"),
        (NOTIFIER, {"filter_subjects": None}, "info"),
        (PROJECTOR, {"max_deliver": 5}, "error"),
        (PROJECTOR, {"filter_subject": "deliveries.github.>"}, "error"),
        (PROJECTOR, {"headers_only": True}, "error"),
        (PROJECTOR, {"deliver_policy": "new"}, "error"),
        (PROJECTOR, {"ack_policy": "none"}, "error"),
        (PROJECTOR, {"ack_wait": 1.0}, "warning"),
        (PROJECTOR, {"max_ack_pending": 1}, "warning"),
        (NOTIFIER, {"filter_subjects": ["events.build.finished"]}, "error"),
    ],
)
def test_a_consumers_setting_is_judged_by_what_it_could_lose(
    consumer: str, settings: dict[str, Any], level: str | None
) -> None:
    assert judged(facts(consumer, **settings)) == ([] if level is None else [(level, f"consumer {consumer}")])


def test_what_a_consumer_may_have_passed_over_is_read_again_by_its_mend() -> None:
    for setting, value, again in (
        ("max_deliver", 5, True),
        ("filter_subject", "a.>", True),
        ("ack_wait", 1.0, False),
    ):
        (found,) = audit.findings(facts(PROJECTOR, **{setting: value}), NOW)
        assert ("reads all again" in found.mend) == again


def test_what_the_broker_lets_nobody_change_is_mended_by_a_backup() -> None:
    for setting, value in (
        ("storage", StorageType.MEMORY),
        ("retention", RetentionPolicy.WORK_QUEUE),
        ("sealed", True),
        ("deny_delete", True),
        ("persist_mode", PersistMode.ASYNC),
    ):
        (found,) = audit.findings(facts(DELIVERIES, **{setting: value}), NOW)
        assert found.mend.startswith("odooops backup FILE && odooops restore FILE ")
    (changeable,) = audit.findings(facts(DELIVERIES, retention=RetentionPolicy.INTEREST), NOW)
    assert changeable.mend == "odooops doctor --mend"


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"sync_interval_s": 120.0}, [("error", "broker nats-1")]),
        ({"max_payload": 64 * 1024}, [("error", "broker nats-1")]),
        ({"storage_bytes": 90, "storage_bytes_max": 100}, [("warning", "disk of nats-1")]),
    ],
)
def test_a_server_is_judged_by_what_it_says(changes: dict[str, Any], found: list[tuple[str, str]]) -> None:
    assert judged(replace(facts(), servers=[replace(SERVER, **changes)])) == found


def test_a_broker_that_does_not_tell_is_unknown_and_one_that_was_not_asked_is_nothing() -> None:
    (silent,) = audit.findings(replace(facts(), servers=[]), NOW)
    assert (silent.level, silent.part) == ("unknown", "broker")
    assert "/varz" in silent.mend
    assert judged(replace(facts(), servers=None)) == []
    one = Reading(NOW, NOW, NOW)
    assert audit.clocks(replace(facts(), servers=[], clock=one)) == {"the broker": one}
    assert audit.clocks(replace(facts(), clock=one)) == {"broker nats-1": SERVER.clock}


def test_a_stream_with_more_copies_than_asked_for_is_compared_as_one_of_so_many() -> None:
    for copies, compared in ((1, 1), (3, 3), (5, 5)):
        config: Any = asking._as_many(MADE[DELIVERIES], 1, copies).config
        assert config.num_replicas == compared
    assert asking._as_many(MADE[PROJECTOR], 1, 3) == MADE[PROJECTOR]


def test_one_copy_is_too_few_where_there_are_three_servers() -> None:
    three = [replace(SERVER, name=f"nats-{n}") for n in (1, 2, 3)]
    for name in (DELIVERIES, BODIES_STREAM, EVENTS):
        assert judged(replace(facts(name), servers=three)) == [("warning", f"stream {name}")]
    assert judged(replace(facts(POLLER_STREAM), servers=three)) == []
    assert judged(replace(facts(), servers=three[:2])) == []


def test_a_server_of_the_cluster_that_does_not_tell_is_unknown_unless_it_is_known_to_be_away() -> None:
    given = facts(num_replicas=3)
    peers = [PeerInfo(name="nats-2", current=True), PeerInfo(name="nats-3", current=False, offline=True)]
    given.streams[DELIVERIES].cluster = ClusterInfo(leader="nats-1", replicas=peers)
    assert judged(given) == [("unknown", "broker nats-2"), ("warning", f"stream {DELIVERIES}")]


@pytest.mark.parametrize(
    ("away", "level"), [((), None), (("nats-3",), "warning"), (("nats-2", "nats-3"), "error")]
)
def test_copies_that_are_away_are_an_error_once_they_are_the_majority(
    away: tuple[str, ...], level: str | None
) -> None:
    three = [replace(SERVER, name=f"nats-{n}") for n in (1, 2, 3)]
    given = replace(facts(num_replicas=3), servers=three)
    peers = [PeerInfo(name=name, current=name not in away) for name in ("nats-2", "nats-3")]
    given.streams[DELIVERIES].cluster = ClusterInfo(leader="nats-1", replicas=peers)
    found = audit.findings(given, NOW)
    assert [each.level for each in found] == ([] if level is None else [level])
    assert all(each.mend.endswith(" ".join(away)) for each in found)


def test_a_stream_and_an_account_that_are_nearly_full_are_told() -> None:
    given = facts(max_bytes=1000)
    given.streams[DELIVERIES].state.bytes = 960
    assert judged(given) == [("error", f"room of stream {DELIVERIES}")]
    assert judged(replace(facts(), account=(85, 100))) == [("warning", "storage of the broker's account")]
    assert judged(replace(facts(), account=(85, -1))) == []


def test_events_that_leave_by_size_are_judged_by_how_long_they_stay() -> None:
    given = facts(EVENTS, max_bytes=1000)
    given.streams[EVENTS].state.bytes = 950
    young = replace(given, first_at={EVENTS: NOW - timedelta(hours=3)})
    (found,) = audit.findings(young, NOW)
    assert (found.level, found.says) == ("warning", "max_bytes is 1,000, which is 3 h of it")
    assert judged(replace(given, first_at={EVENTS: NOW - timedelta(days=3)})) == []
    given.streams[EVENTS].state.bytes = 500
    assert judged(young) == []


def test_what_waits_must_not_grow_old() -> None:
    given = facts(PROJECTOR)
    given.streams[DELIVERIES].config.max_age = 30.0 * DAY_S
    given = replace(given, waiting_since={PROJECTOR: NOW - timedelta(days=16)})
    error, _ = worst_first(audit.findings(given, NOW))
    assert error.level == "error"
    assert error.could_lose == "what the projector has not read, in 14 d"
    assert judged(replace(given, waiting_since={PROJECTOR: NOW - timedelta(days=14)})) == [
        ("info", f"stream {DELIVERIES}")
    ]


@pytest.mark.parametrize(
    ("first", "last", "ledger", "says"),
    [
        (1, 0, 0, None),
        (11, 10, 10, None),
        (12, 20, 10, "it begins at 12, and the ledger ends at 10"),
        (5, 4, 0, "it begins at 5, and the ledger ends at 0"),
        (1, 9, 10, "it ends at 9, and the ledger knows 10: it was lost, or this is another"),
    ],
)
def test_a_log_and_a_ledger_that_do_not_meet_have_lost_deliveries(
    first: int, last: int, ledger: int, says: str | None
) -> None:
    given = facts()
    given.streams[DELIVERIES].state.first_seq = first
    given.streams[DELIVERIES].state.last_seq = last
    found = audit.findings(given, NOW, ledger)
    assert [(each.level, each.says) for each in found] == ([] if says is None else [("error", says)])


def test_messages_that_the_broker_cannot_read_are_named() -> None:
    given = facts()
    given.streams[DELIVERIES].state.lost = LostStreamData(msgs=[7, 5], bytes=100)
    (found,) = audit.findings(given, NOW)
    assert (found.level, found.says) == (
        "error",
        "the broker cannot read 2 messages of its disk, the first is 5",
    )


def test_a_log_that_is_missing_is_restored_where_the_ledger_knows_of_one() -> None:
    given = replace(facts(), streams={}, drift=[streams.missing(f"stream {DELIVERIES}")])
    for ledger, mend in (
        (7, "odooops restore "),
        (0, "odooops doctor --mend"),
        (None, "odooops doctor --mend"),
    ):
        (found,) = audit.findings(given, NOW, ledger)
        assert found.mend.startswith(mend)


@pytest.mark.anyio
async def test_a_broker_that_is_set_as_we_set_it_has_no_finding(broker: Broker) -> None:
    nc = await bus.connect(broker.url("reader"), "reader")
    try:
        asked = await asking.ask(nc, asking.ALL, replicas=1, thorough=True)
    finally:
        await nc.close()
    assert audit.findings(asked, datetime.now(UTC), 0) == []
    assert [server.name for server in asked.servers or ()] == ["odooops-embedded"]
    assert {*asked.streams, *asked.consumers} == MADE.keys()
    assert asked.account is not None


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("user", "names", "servers"),
    [
        ("ingest", (DELIVERIES, BODIES_STREAM), True),
        ("projector", (DELIVERIES, EVENTS, BODIES_STREAM, PROJECTOR), True),
        ("notifier", (EVENTS, NOTIFIER), False),
        ("poller", (DELIVERIES, BODIES_STREAM, POLLER_STREAM), False),
    ],
)
async def test_each_service_may_ask_what_it_asks_at_its_start(
    broker: Broker, user: str, names: tuple[str, ...], servers: bool
) -> None:
    complaints: list[str] = []

    async def heard(reason: str) -> None:
        complaints.append(reason)

    nc = await bus.connect(broker.url(user), user, heard)
    try:
        assert await audit.told(nc, names, servers=servers) == []
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


async def found(broker: Broker) -> list[Finding]:
    return audit.findings(await asking.ask(broker.nc, asking.ALL, replicas=1), datetime.now(UTC))


async def mended(broker: Broker, *, limits: bool = False) -> list[str]:
    asked = await asking.ask(broker.nc, asking.ALL, servers=False, replicas=1, limits=limits)
    done, left = await streams.mend(broker.nc, asked.drift)
    assert left == []
    return done


@pytest.mark.anyio
async def test_settings_that_drifted_are_found_and_set_back(broker: Broker) -> None:
    js = broker.js
    config = (await js.stream_info(DELIVERIES)).config
    transform = SubjectTransform(src="deliveries.>", dest="x.deliveries.>")
    await js.update_stream(
        config.evolve(
            discard=DiscardPolicy.OLD, max_bytes=1 << 30, duplicate_window=60.0, subject_transform=transform
        )
    )
    held = (await js.consumer_info(DELIVERIES, PROJECTOR)).config
    until = "2100-01-01T00:00:00Z"
    await js.add_consumer(DELIVERIES, held.evolve(inactive_threshold=60.0))
    await js.pause_consumer(DELIVERIES, PROJECTOR, until)
    await js.delete_consumer(EVENTS, NOTIFIER)
    assert {(each.level, each.part, each.says) for each in await found(broker)} == {
        ("error", "stream DELIVERIES", "discard is old, not new"),
        ("warning", "stream DELIVERIES", "duplicate_window is 60.0, not 1800"),
        (
            "error",
            "stream DELIVERIES",
            "subject_transform is src deliveries.>, dest x.deliveries.>, not unset",
        ),
        ("warning", "consumer projector", "inactive_threshold is 60.0, not unset"),
        ("error", "consumer projector", f"is paused until {until}"),
        ("error", "consumer notifier", "is missing"),
    }
    done = await mended(broker)
    assert [each.partition(":")[0] for each in done] == [
        *["set back"] * 3,
        "set back, it reads from 1 on",
        "made",
    ]
    assert await found(broker) == []
    assert (await js.stream_info(DELIVERIES)).config.max_bytes == 1 << 30  # the operator's choice stays
    assert await mended(broker) == []
    (limit,) = await mended(broker, limits=True)
    assert limit == "set back: stream DELIVERIES: max_bytes is 1073741824, expected None"
    assert (await js.stream_info(DELIVERIES)).config.max_bytes == -1


async def store(broker: Broker, count: int) -> None:
    for n in range(count):
        await broker.js.publish("deliveries.github.issues", b"1", headers={"Nats-Msg-Id": f"{n}"})


async def read(broker: Broker, count: int) -> list[int]:
    """The sequences of the next deliveries that the projector gets; they are acknowledged."""
    pull = await broker.js.pull_subscribe_bind(PROJECTOR, DELIVERIES)
    messages = await pull.fetch(count, timeout=5)
    for message in messages:
        await message.ack_sync()
    await pull.unsubscribe()
    return [message.metadata.sequence.stream for message in messages]


@pytest.mark.anyio
async def test_a_consumer_that_its_service_cannot_pull_from_goes_on_where_it_was(broker: Broker) -> None:
    await store(broker, 3)
    js = broker.js
    wrong = {
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "ack_wait": 30 * 10**9,
        "max_deliver": -1,
        "max_ack_pending": 2000,
        "replay_policy": "original",
        "max_batch": 1,
        "durable_name": PROJECTOR,
    }
    await js.delete_consumer(DELIVERIES, PROJECTOR)
    question = json.dumps({"stream_name": DELIVERIES, "config": wrong}).encode()
    await broker.nc.request(f"$JS.API.CONSUMER.DURABLE.CREATE.{DELIVERIES}.{PROJECTOR}", question)
    assert await read(broker, 1) == [1]
    assert ("error", "max_batch is 1, not unset") in [(each.level, each.says) for each in await found(broker)]
    (done,) = await mended(broker)
    assert done.startswith("made anew, it reads from 2 on: ")
    assert await found(broker) == []
    assert await read(broker, 2) == [2, 3]


@pytest.mark.anyio
async def test_what_a_filter_passed_over_is_read_after_the_mend(broker: Broker) -> None:
    js = broker.js
    config = (await js.consumer_info(DELIVERIES, PROJECTOR)).config
    await js.add_consumer(DELIVERIES, config.evolve(filter_subject="deliveries.plane.>"))
    await store(broker, 1)
    await js.publish("deliveries.plane.issue", b"1", headers={"Nats-Msg-Id": "plane"})
    assert await read(broker, 1) == [2]
    (done,) = await mended(broker)
    assert done.startswith("set back, it reads from 1 on: ")
    assert await read(broker, 2) == [1, 2]


@pytest.mark.anyio
async def test_what_cannot_be_mended_is_told_with_the_reason_and_the_rest_is_mended(broker: Broker) -> None:
    config = (await broker.js.stream_info(EVENTS)).config
    await broker.js.update_stream(config.evolve(deny_delete=True, allow_direct=False))
    asked = await asking.ask(broker.nc, (EVENTS,), servers=False, replicas=1)
    done, left = await streams.mend(broker.nc, asked.drift)
    assert done == ["set back: stream EVENTS: allow_direct is False, expected True"]
    (refused,) = left
    assert refused.startswith("stream EVENTS: deny_delete is True, expected False: the broker refuses: ")


@pytest.mark.anyio
async def test_a_setting_that_waits_for_another_is_set_after_it(broker: Broker) -> None:
    await broker.js.delete_stream(POLLER_STREAM)
    await broker.js.add_stream(StreamConfig(name=POLLER_STREAM, mirror=StreamSource(name=EVENTS)))
    assert ("warning", "mirror is name EVENTS, not unset") in [
        (each.level, each.says) for each in await found(broker)
    ]
    assert any("subjects" in each for each in await mended(broker))  # a mirror can have none
    assert await found(broker) == []


@pytest.mark.anyio
async def test_a_consumer_is_not_removed_where_the_broker_refuses_for_the_moment(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def busy(*given: object) -> None:
        raise ServiceUnavailableError(code=503, err_code=10008, description="temporarily unavailable")

    drift = streams.Drift("consumer projector", "mem_storage", is_=True, expected=None)
    with monkeypatch.context() as refusing:
        refusing.setattr(streams.Made, "make", busy)
        done, left = await streams.mend(broker.nc, [drift])
    assert (done, len(left)) == ([], 1)
    assert await broker.js.consumer_info(DELIVERIES, PROJECTOR)


@pytest.mark.anyio
async def test_what_waits_is_found_with_its_age(broker: Broker) -> None:
    await store(broker, 3)
    assert await read(broker, 1) == [1]
    before = datetime.now(UTC) - timedelta(minutes=1)
    nc = await bus.connect(broker.url("reader"), "reader")
    try:
        asked = await asking.ask(nc, (DELIVERIES, PROJECTOR), thorough=True)
    finally:
        await nc.close()
    assert before < asked.waiting_since[PROJECTOR] <= datetime.now(UTC)
    assert before < asked.first_at[DELIVERIES] <= asked.waiting_since[PROJECTOR]


@pytest.mark.anyio
async def test_one_stream_that_does_not_answer_hides_nothing_of_the_others(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "ASK_S_MAX", 0.2)
    nc = await bus.connect(broker.url("notifier"), "notifier")
    try:  # it may not ask about DELIVERIES: nobody answers
        (silent,) = await audit.told(nc, (EVENTS, DELIVERIES), servers=False)
    finally:
        await nc.close()
    assert (silent.level, silent.part) == ("unknown", f"stream {DELIVERIES}")
    (gone,) = await audit.told(nc, (EVENTS,), servers=False)
    assert (gone.level, gone.part) == ("unknown", "broker")


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
