"""Three brokers on the committed configuration: they find each other and keep each delivery three times."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import nats.errors
import pytest
import structlog
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import StoreCompression
from nats.js.errors import APIError

from cli.main import main
from contracts.delivery import Delivery
from runtime import bus, embedded, provision, settings, streams
from runtime.audit import asking
from runtime.audit import broker as audit
from runtime.postgres import make_engine
from runtime.pull import Pull
from runtime.streams import BODIES_STREAM, DELIVERIES, EVENTS, PROJECTOR
from services.ingest.group_commit import store_by
from services.notifier.app import Subscriber
from services.notifier.dry_run import DryRun
from services.notifier.notify import Notifier
from tests.conftest import Broker
from tests.deploy import brokers
from tests.deploy.deliveries import LARGE, SMALL, delivery
from tests.servers import Database

pytestmark = pytest.mark.anyio

PROVISION_S_MAX = 60.0
WAIT_S_MAX = 20.0
OUTAGE_S_MAX = 30.0
"""An election takes up to 9 s."""
POLL_S = 0.02
SENDERS = 16
SEND_EVERY_S = 0.02
MANY = 100


@pytest.fixture(scope="module")
def cluster() -> Iterator[brokers.Brokers]:
    with brokers.running(3) as three:
        yield three


async def provisioned(url: str, secret: Path, replicas: int) -> tuple[int, str]:
    """Run `python -m runtime.provision` as compose.yaml does: exit code and what it said."""
    secret.write_text(url)
    variables = {"NATS_URL_OPERATOR_FILE": str(secret), "NATS_REPLICAS": str(replicas)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "runtime.provision"),
        env={**os.environ, **variables},
        cwd=brokers.ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PROVISION_S_MAX):
        _, said = await process.communicate()
    return process.returncode or 0, said.decode()


async def test_three_brokers_keep_each_delivery_three_times(cluster: brokers.Brokers, tmp_path: Path) -> None:
    assert (0, "") == await provisioned(cluster.url("operator"), tmp_path / "url", 3)
    assert (0, "") == await provisioned(cluster.url("operator"), tmp_path / "url", 3)
    # Every node alone, so that most of them have to ask another one for the stream's leader.
    for n, address in enumerate(cluster.url("ingest").split(",")):
        ingest = await bus.connect(address, "ingest")
        await bus.store_delivery(ingest.jetstream(), delivery(f"small-{n}"))
        await bus.store_delivery(ingest.jetstream(), delivery(f"large-{n}", LARGE))
        await ingest.close()
    bodies = []
    for address in cluster.url("projector").split(","):
        projector = await bus.connect(address, "projector")
        pull = Pull(projector, DELIVERIES, PROJECTOR, 2)
        messages: list[Msg] = []
        async with asyncio.timeout(WAIT_S_MAX):
            while len(messages) < 2:
                messages += await pull.fetch(WAIT_S_MAX)
            for message in messages:
                read = await bus.delivery_of(
                    projector.jetstream(),
                    message.subject,
                    message.headers,
                    message.data,
                    bus.sequence_of(message),
                )
                bodies.append(read.body)
                await message.ack_sync(WAIT_S_MAX)
        await pull.close()
        await projector.close()
    assert [SMALL, LARGE] * 3 == bodies
    operator = await bus.connect(cluster.url("operator"), "operator")
    for stream in (DELIVERIES, EVENTS, BODIES_STREAM):
        state = (await operator.jetstream().stream_info(stream)).cluster
        assert state is not None
        assert 2 == len([replica for replica in state.replicas or [] if replica.current])
    await operator.close()


async def test_several_copies_are_not_compressed_though_an_earlier_version_had_them_so(
    cluster: brokers.Brokers,
) -> None:
    operator = await bus.connect(cluster.url("operator"), "operator")
    js = operator.jetstream(timeout=WAIT_S_MAX)
    await streams.provision(js, 3)
    for stream in (DELIVERIES, EVENTS):
        made = (await js.stream_info(stream)).config
        assert StoreCompression.NONE == made.compression
        await js.update_stream(made.evolve(compression=StoreCompression.S2))
    assert 2 == len(await streams.inspect(js, 3))
    assert [] == await streams.provision(js, 3)
    for stream in (DELIVERIES, EVENTS):
        assert StoreCompression.NONE == (await js.stream_info(stream)).config.compression
    await operator.close()


async def test_a_client_with_three_addresses_needs_one_that_answers(cluster: brokers.Brokers) -> None:
    answering = cluster.url("operator").split(",")[0]
    dead = f"nats://operator:nobody@{embedded.LOOPBACK}:{embedded.free_port()}"
    async with asyncio.timeout(WAIT_S_MAX):
        client = await bus.connect(f"{dead}, {answering},{dead}", "operator")
    assert client.is_connected
    # No address is learned from a server: it would come without a login.
    assert 3 == len(client.servers)
    assert [] == client.discovered_servers
    await client.close()


async def test_the_notifier_too_takes_several_addresses(cluster: brokers.Brokers) -> None:
    operator = await bus.connect(cluster.url("operator"), "operator")
    await streams.provision(operator.jetstream(timeout=WAIT_S_MAX), 3)
    await operator.close()
    dead = f"nats://notifier:nobody@{embedded.LOOPBACK}:{embedded.free_port()}"
    log = structlog.get_logger()
    engine = make_engine("postgresql://nobody@localhost/nothing", "test")  # never connected to
    subscriber = Subscriber(
        f"{dead},{cluster.url('notifier')}", Notifier(engine, DryRun(), log), log, pytest.fail
    )
    async with asyncio.timeout(WAIT_S_MAX):
        await subscriber.start()
        assert {} == await subscriber.problems()
    await subscriber.stop()


async def test_a_changed_setting_is_named_and_left(tmp_path: Path) -> None:
    with brokers.running(1) as single:
        url = single.url("operator")
        assert (0, "") == await provisioned(url, tmp_path / "url", 1)
        operator = await bus.connect(url, "operator")
        js = operator.jetstream()
        config = (await js.stream_info(DELIVERIES)).config
        await js.update_stream(config.evolve(duplicate_window=60))

        code, said = await provisioned(url, tmp_path / "url", 1)

        assert 1 == code
        assert ["stream DELIVERIES: duplicate_window is 60.0, expected 1800"] == [
            line.split("left as it is: ")[1] for line in said.splitlines()
        ]
        assert 60 == (await js.stream_info(DELIVERIES)).config.duplicate_window
        await operator.close()


async def test_a_refusal_is_said_at_once(tmp_path: Path) -> None:
    with brokers.running(1) as single:
        code, said = await provisioned(single.url("operator"), tmp_path / "url", 3)
    assert 1 == code
    assert said.startswith("provision: the broker refused: replicas > 1 not supported")


async def test_a_wrong_password_is_said_after_the_deadline(
    cluster: brokers.Brokers, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = cluster.url("operator").replace("operator:", "operator:x")
    monkeypatch.setenv("NATS_URL_OPERATOR", url)
    with pytest.raises(bus.BrokerAway, match="uthorization"):
        await provision.provision(settings.load(), wait_s=0.5)


def test_a_list_of_addresses_is_split_at_commas() -> None:
    assert ["nats://a:1", "nats://b:2"] == bus.servers(" nats://a:1, nats://b:2,")


async def test_each_of_three_brokers_tells_a_reader_how_it_is_set(cluster: brokers.Brokers) -> None:
    operator = await bus.connect(cluster.url("operator"), "operator")
    await streams.provision(operator.jetstream(timeout=PROVISION_S_MAX), 3)
    reader = await bus.connect(cluster.url("reader").split(",")[0], "reader")
    try:
        facts = await asking.ask(reader, (DELIVERIES,), replicas=3)
    finally:
        await operator.close()
        await reader.close()
    assert [server.name for server in facts.servers or ()] == ["nats-1", "nats-2", "nats-3"]
    assert [each.part for each in audit.findings(facts, datetime.now(UTC)) if each.level == "error"] == []


async def test_a_backup_of_one_broker_is_restored_into_three_and_back_into_one(
    cluster: brokers.Brokers,
    broker: Broker,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def at(url: str, replicas: int, where: Database) -> None:
        monkeypatch.setenv("NATS_URL_OPERATOR", url)
        monkeypatch.setenv("NATS_REPLICAS", str(replicas))
        monkeypatch.setenv("DATABASE_URL", where.url("admin"))
        monkeypatch.setenv("DATABASE_URL_OPERATOR", where.url("operator"))

    async def odooops(*arguments: object) -> None:
        assert 0 == await asyncio.to_thread(main, [str(each) for each in arguments])

    for n in range(3):
        await bus.store_delivery(broker.js, delivery(f"large-{n}", LARGE))
    at(broker.url("operator"), 1, database)
    await odooops("backup", tmp_path / "one.tar")
    operator = await bus.connect(cluster.url("operator"), "operator")
    js = operator.jetstream(timeout=WAIT_S_MAX)
    for info in await js.streams_info():
        await js.delete_stream(str(info.config.name))
    at(cluster.url("operator"), 3, database)
    await odooops("restore", tmp_path / "one.tar")
    assert [] == await streams.inspect(js, 3)
    assert LARGE == (await bus.read_delivery(js, 3)).body
    await odooops("backup", tmp_path / "three.tar")
    await operator.close()
    for info in await broker.js.streams_info():
        await broker.js.delete_stream(str(info.config.name))
    at(broker.url("operator"), 1, database)
    await odooops("restore", tmp_path / "three.tar")
    assert [] == await streams.inspect(broker.js)
    assert LARGE == (await bus.read_delivery(broker.js, 3)).body


class Senders:
    """Who store deliveries through ingest's own way, each until it is acknowledged, and what was."""

    def __init__(self, store: bus.Store) -> None:
        self.acknowledged: list[str] = []
        self.repeated = 0
        self._store = store
        self._ids = itertools.count()

    async def send(self, ended: asyncio.Event) -> None:
        while not ended.is_set():
            entry = delivery(f"chaos-{next(self._ids)}")
            while not await self._stored(entry):
                self.repeated += 1
            self.acknowledged.append(entry.identity)
            await asyncio.sleep(SEND_EVERY_S)

    async def _stored(self, entry: Delivery) -> bool:
        try:
            await self._store(entry, streams.PUBLISH_ATTEMPT_S)
        except bus.BrokerAway:
            return False
        return True

    async def go_on(self) -> None:
        """Wait until many more are acknowledged that were not sent yet."""
        enough = len(self.acknowledged) + MANY
        async with asyncio.timeout(OUTAGE_S_MAX):
            while len(self.acknowledged) < enough:
                await asyncio.sleep(POLL_S)


async def leader_of(js: JetStreamContext) -> str:
    """The node that leads DELIVERIES, once all three have all of it."""
    async with asyncio.timeout(OUTAGE_S_MAX):
        while True:
            with suppress(nats.errors.Error, APIError):
                state = (await js.stream_info(DELIVERIES)).cluster
                replicas = (state.replicas if state else None) or []
                if state and state.leader and 2 == len([each for each in replicas if each.current]):
                    return state.leader
            await asyncio.sleep(POLL_S)


async def test_whatever_becomes_of_one_node_nothing_acknowledged_is_lost_or_doubled(
    cluster: brokers.Brokers,
) -> None:
    _, *others = cluster.nodes  # the first is the one that clients are connected to
    operator = await bus.connect(cluster.url("operator").split(",")[0], "operator")
    js = operator.jetstream(timeout=WAIT_S_MAX)
    await streams.provision(js, 3)
    before = (await js.stream_info(DELIVERIES)).state.last_seq
    ingest = await bus.connect(cluster.url("ingest").split(",")[0], "ingest")
    senders, ended = Senders(store_by(ingest)), asyncio.Event()
    sending = [asyncio.create_task(senders.send(ended)) for _ in range(SENDERS)]
    await senders.go_on()

    leader = await leader_of(js)
    killed = next(name for name in others if name != leader)
    cluster.nodes[killed].kill()
    await senders.go_on()
    cluster.nodes[killed].start()

    assert await leader_of(js)
    # The one that was away takes over: it has caught up.
    asked = json.dumps({"placement": {"preferred": killed}}).encode()
    answer = await operator.request(f"$JS.API.STREAM.LEADER.STEPDOWN.{DELIVERIES}", asked, WAIT_S_MAX)
    assert json.loads(answer.data)["success"]
    await senders.go_on()
    assert killed == await leader_of(js)

    # Whoever follows it is cut off. The leader with its office takes an election of up to 9 s: `make chaos` does that.
    (cut_off,) = {*others} - {killed}
    cluster.nodes[cut_off].pause()
    await senders.go_on()
    cluster.nodes[cut_off].resume()
    assert killed == await leader_of(js)

    ended.set()
    async with asyncio.timeout(OUTAGE_S_MAX):
        await asyncio.gather(*sending)
    last = (await js.stream_info(DELIVERIES)).state.last_seq
    stored = [(await bus.read_delivery(js, seq)).identity for seq in range(before + 1, last + 1)]
    assert sorted(senders.acknowledged) == sorted(stored)
    await ingest.close()
    await operator.close()


async def test_where_no_broker_is_at_work_each_is_tried_in_turn(
    cluster: brokers.Brokers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus, "is_led", lambda answer: False)
    monkeypatch.setattr(streams, "JETSTREAM_ASK_S", 0.05)
    monkeypatch.setattr(streams, "JETSTREAM_SILENT_S_MAX", 0.1)
    said: list[str] = []

    async def hear(reason: str) -> None:
        if reason != "disconnected":
            said.append(reason)

    ingest = await bus.connect(cluster.url("ingest"), "ingest", hear)
    async with asyncio.timeout(WAIT_S_MAX):
        while len(said) < 4:
            await asyncio.sleep(POLL_S)
    await ingest.close()
    assert len(set(said[:3])) == 3 and said[3] == said[0]
