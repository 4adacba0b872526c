"""Who may do what on a broker that runs with exactly the users of deploy/nats/nats.conf."""

from __future__ import annotations

import pytest
from nats.aio.msg import Msg
from nats.js.errors import APIError

from contracts.ledger import DeliveryDiscarded, DeliveryRedacted, SecretExcluded
from runtime import bus, streams
from runtime.bus import Message
from runtime.permissions import USERS, inbox_prefix
from runtime.pull import Pull
from runtime.streams import ARTIFACTS_STREAM, BODIES_STREAM, DELIVERIES, EVENTS, NOTIFIER, PROJECTOR
from tests.deploy.conftest import House
from tests.deploy.deliveries import LARGE, SMALL, delivery

pytestmark = pytest.mark.anyio

SERVICES = tuple(user for user in USERS if user != "operator")
WAIT_S_MAX = 5.0

DESTRUCTIVE = tuple(
    subject
    for stream in (DELIVERIES, EVENTS, BODIES_STREAM, ARTIFACTS_STREAM)
    for subject in (
        f"$JS.API.STREAM.DELETE.{stream}",
        f"$JS.API.STREAM.PURGE.{stream}",
        f"$JS.API.STREAM.MSG.DELETE.{stream}",
        f"$JS.API.STREAM.UPDATE.{stream}",
        f"$JS.API.STREAM.CREATE.{stream}",
        f"$JS.API.STREAM.RESTORE.{stream}",
        f"$JS.API.STREAM.LEADER.STEPDOWN.{stream}",
        f"$JS.API.CONSUMER.CREATE.{stream}.mine",
        f"$JS.API.CONSUMER.CREATE.{stream}.{PROJECTOR}.deliveries.>",
        f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.mine",
        f"$JS.API.CONSUMER.DELETE.{stream}.{PROJECTOR}",
        f"$JS.API.CONSUMER.DELETE.{stream}.{NOTIFIER}",
        f"$JS.API.CONSUMER.PAUSE.{stream}.{PROJECTOR}",
        f"$JS.API.CONSUMER.RESET.{stream}.{PROJECTOR}",
    )
)
READING = (
    "$JS.API.STREAM.MSG.GET.{stream}",
    "$JS.API.DIRECT.GET.{stream}",
    "$JS.API.DIRECT.GET.{stream}.deliveries.github.ping",
    "$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}",
    "$JS.ACK.{stream}.{consumer}.1.1.1.1.0",
)


async def test_ingest_stores_a_small_and_a_large_delivery_once_each(house: House) -> None:
    async with house.enter("ingest") as ingest:
        for n, body in enumerate((SMALL, LARGE), 1):
            assert (n, False) == await bus.store_delivery(ingest.js, delivery(f"{n}", body))
            assert (n, True) == await bus.store_delivery(ingest.js, delivery(f"{n}", body))
        assert [] == ingest.complaints
    # Three pieces and their description, stored once.
    assert (2, 4) == (await house.count(DELIVERIES), await house.count(BODIES_STREAM))


async def test_ingest_cannot_read_what_it_stored(house: House) -> None:
    async with house.enter("ingest") as ingest:
        for template in READING:
            assert not await ingest.may_publish(template.format(stream=DELIVERIES, consumer=PROJECTOR))


@pytest.mark.parametrize("user", SERVICES)
async def test_nobody_but_the_operator_deletes_or_changes_a_stream(house: House, user: str) -> None:
    await bus.store_delivery(house.operator.js, delivery("kept", LARGE))
    async with house.enter(user) as door:
        assert [] == [subject for subject in DESTRUCTIVE if await door.may_publish(subject)]
    assert (1, 4) == (await house.count(DELIVERIES), await house.count(BODIES_STREAM))


@pytest.mark.parametrize("target", ["$JS.API.STREAM.DELETE.DELIVERIES", "deliveries.github.forged"])
@pytest.mark.parametrize("user", ["projector", "reader"])
async def test_an_answer_cannot_be_sent_where_its_reader_may_not_publish(
    house: House, user: str, target: str
) -> None:
    # A message without a body, as that of a large delivery, is a valid order to delete.
    await bus.store_delivery(house.operator.js, delivery("large", LARGE))
    async with house.enter(user) as door:
        await door.nc.publish(f"$JS.API.DIRECT.GET.{DELIVERIES}", b'{"seq": 1}', reply=target)
        await door.nc.publish(f"$JS.API.STREAM.INFO.{DELIVERIES}", b"", reply=target)
        # The same question once more, answered where we hear it: the others were answered before.
        await door.js.get_msg(DELIVERIES, 1, direct=True)
    assert 1 == await house.count(DELIVERIES)


async def test_the_pull_of_one_consumer_cannot_be_sent_to_another_stream(house: House) -> None:
    await bus.store_delivery(house.operator.js, delivery("large", LARGE))
    async with house.enter("projector") as projector:
        pull = f"$JS.API.CONSUMER.MSG.NEXT.{DELIVERIES}.{PROJECTOR}"
        for target in (f"$JS.API.STREAM.DELETE.{DELIVERIES}", "deliveries.github.forged"):
            await projector.nc.publish(pull, b'{"batch": 1, "no_wait": true}', reply=target)
        await projector.js.consumer_info(DELIVERIES, PROJECTOR)
    assert 1 == await house.count(DELIVERIES)


@pytest.mark.parametrize("scope", ["sub", "all"])
@pytest.mark.parametrize(
    "subject", ["deliveries.github.ping", "$O.DELIVERY_BODIES.C.any", "$O.DELIVERY_BODIES.M.any"]
)
async def test_ingest_cannot_wipe_by_rolling_up(house: House, subject: str, scope: str) -> None:
    await bus.store_delivery(house.operator.js, delivery("kept", LARGE))
    async with house.enter("ingest") as ingest:
        with pytest.raises(APIError, match="rollup not permitted"):
            await ingest.js.publish(subject, b"", headers={"Nats-Rollup": scope})
    assert (1, 4) == (await house.count(DELIVERIES), await house.count(BODIES_STREAM))


@pytest.mark.parametrize("user", SERVICES)
async def test_nobody_but_the_operator_writes_or_reads_artifacts(house: House, user: str) -> None:
    async with house.enter(user) as door:
        for subject in (
            "$O.ARTIFACTS.C.any",
            "$O.ARTIFACTS.M.any",
            f"$JS.API.STREAM.MSG.GET.{ARTIFACTS_STREAM}",
        ):
            assert not await door.may_publish(subject)
    assert 0 == await house.count(ARTIFACTS_STREAM)


async def test_an_artifact_of_the_operators_is_kept_and_cannot_be_rolled_up(house: House) -> None:
    js = house.operator.js
    await js.publish("$O.ARTIFACTS.C.piece", b"report", stream=ARTIFACTS_STREAM)
    with pytest.raises(APIError, match="rollup not permitted"):
        await js.publish("$O.ARTIFACTS.C.piece", b"", headers={"Nats-Rollup": "all"})
    assert 1 == await house.count(ARTIFACTS_STREAM)


async def test_a_body_written_again_under_its_name_changes_nothing(house: House) -> None:
    kept, name = delivery("kept", LARGE), bus.body_object_name(delivery("kept", LARGE))
    async with house.enter("ingest") as ingest:
        seq, _ = await bus.store_delivery(ingest.js, kept)
        await ingest.js.publish(bus.description_subject(name), b'{"nuid": "other", "chunks": 0}')
    async with house.enter("projector") as projector:
        assert LARGE == (await bus.read_delivery(projector.js, seq)).body


OPERATORS_WORDS = tuple(
    f"deliveries.odooops.{word.type}" for word in (DeliveryDiscarded, DeliveryRedacted, SecretExcluded)
)


async def test_ingest_says_nothing_in_the_operators_name(house: House) -> None:
    async with house.enter("ingest") as ingest:
        assert [] == [subject for subject in OPERATORS_WORDS if await ingest.may_publish(subject)]
        assert 1 == (await ingest.js.publish("deliveries.odooops.backup.started", b"{}")).seq
    # Acknowledged, so stored: a plain message is stored some time after the broker took it.
    assert [2, 3, 4] == [(await house.operator.js.publish(word, b"{}")).seq for word in OPERATORS_WORDS]


async def test_no_answer_to_ingest_is_stored_in_the_operators_name(house: House) -> None:
    async with house.enter("ingest") as ingest:
        for subject in OPERATORS_WORDS:
            await ingest.nc.publish(f"$JS.API.STREAM.INFO.{DELIVERIES}", b"", reply=subject)
            await ingest.nc.publish("deliveries.github.ping", b"{}", reply=subject)
        # Answered where we hear it: the others were answered before.
        await bus.store_delivery(ingest.js, delivery("last", SMALL))
    assert len(OPERATORS_WORDS) + 1 == await house.count(DELIVERIES)


async def test_the_poller_says_what_an_advisor_found_and_not_what_somebody_decided(house: House) -> None:
    async with house.enter("poller") as poller:
        for subject in (
            "advisor_finding.found",
            "advisor_run.finished",
            "backup.finished",
            "metric.recorded",
        ):
            await poller.js.publish(f"deliveries.odooops.{subject}", b"{}")
        for subject in ("advisor_finding.dismissed", "advisor_finding.reopened", "gate.evaluated"):
            assert not await poller.may_publish(f"deliveries.odooops.{subject}")
    assert 4 == await house.count(DELIVERIES)


async def test_the_projector_pulls_reads_acknowledges_and_publishes_events(house: House) -> None:
    async with house.enter("ingest") as ingest:
        for n, body in enumerate((SMALL, LARGE), 1):
            await bus.store_delivery(ingest.js, delivery(f"{n}", body))
    async with house.enter("projector") as projector:
        pull = Pull(projector.nc, DELIVERIES, PROJECTOR, 10)
        messages: list[Msg] = []
        while len(messages) < 2:
            messages += await pull.fetch(WAIT_S_MAX)
        read = [
            await bus.delivery_of(projector.js, each.subject, each.headers, each.data, bus.sequence_of(each))
            for each in messages
        ]
        assert [SMALL, LARGE] == [each.body for each in read]
        assert SMALL == (await bus.read_delivery(projector.js, 1)).body
        for message in messages:
            await message.in_progress()
            await message.ack_sync(WAIT_S_MAX)
        await pull.close()
        count = streams.ATOMIC_BATCH_COUNT_MIN
        events = [Message("events.build.finished", b"{}", {"Nats-Msg-Id": f"{n}"}) for n in range(count)]
        await bus.publish_all(projector.nc, EVENTS, events)  # as one batch
        await bus.publish_all(projector.nc, EVENTS, events)  # refused as one, then known one by one
        assert [] == projector.complaints
    assert count == await house.count(EVENTS)
    state = await house.operator.js.consumer_info(DELIVERIES, PROJECTOR)
    assert (0, 0) == (state.num_ack_pending, state.num_pending)


async def test_the_projector_publishes_no_delivery_and_no_body(house: House) -> None:
    async with house.enter("projector") as projector:
        assert not await projector.may_publish("deliveries.github.ping")
        assert not await projector.may_publish("$O.DELIVERY_BODIES.C.any")


async def test_the_notifier_gets_its_events_and_nothing_else(house: House) -> None:
    told = Message("events.build.finished", b'{"told": 1}', {"Nats-Msg-Id": "1"})
    await bus.publish_all(house.operator.nc, EVENTS, [told])
    async with house.enter("notifier") as notifier:
        subscription = await notifier.js.pull_subscribe_bind(consumer=NOTIFIER, stream=EVENTS)
        (message,) = await subscription.fetch(1, timeout=WAIT_S_MAX)
        assert told.data == message.data
        await message.nak()
        (message,) = await subscription.fetch(1, timeout=WAIT_S_MAX)
        await message.ack_sync(WAIT_S_MAX)
        assert [] == notifier.complaints
        for template in READING:
            assert not await notifier.may_publish(template.format(stream=DELIVERIES, consumer=PROJECTOR))
            assert not await notifier.may_publish(template.format(stream=EVENTS, consumer=PROJECTOR))
        for subject in ("events.build.finished", "deliveries.github.ping", "$O.DELIVERY_BODIES.C.any"):
            assert not await notifier.may_publish(subject)


async def test_the_reader_reads_everything_and_publishes_nothing(house: House) -> None:
    seq, _ = await bus.store_delivery(house.operator.js, delivery("large", LARGE))
    async with house.enter("reader") as reader:
        assert LARGE == (await bus.read_delivery(reader.js, seq)).body
        assert [] == await streams.inspect(reader.js)
        assert [] == reader.complaints
        for subject in ("deliveries.github.ping", "events.build.finished", "$O.DELIVERY_BODIES.C.any"):
            assert not await reader.may_publish(subject)
        for stream, consumer in ((DELIVERIES, PROJECTOR), (EVENTS, NOTIFIER)):
            assert not await reader.may_publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}")
            assert not await reader.may_publish(f"$JS.ACK.{stream}.{consumer}.1.1.1.1.0")


@pytest.mark.parametrize("user", SERVICES)
async def test_nobody_hears_more_than_the_own_answers(house: House, user: str) -> None:
    others = [f"{inbox_prefix(other)}.>" for other in USERS if other != user]
    async with house.enter(user) as door:
        for subject in (*others, "_INBOX.>", ">", "deliveries.>", "events.>", "$JS.>", "$SYS.>"):
            assert not await door.may_subscribe(subject)
        assert await door.may_subscribe(f"{inbox_prefix(user)}.>")


async def test_the_operator_deletes(house: House) -> None:
    seq, _ = await bus.store_delivery(house.operator.js, delivery("spoilt", LARGE))
    await house.operator.js.delete_msg(DELIVERIES, seq)
    await house.operator.js.purge_stream(BODIES_STREAM)
    assert (0, 0) == (await house.count(DELIVERIES), await house.count(BODIES_STREAM))
