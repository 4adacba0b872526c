"""`odooops backup` and `restore`, with real servers: what is restored is what was there, and never ahead of its log."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import stat
import tarfile
from collections import namedtuple
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import asyncpg
import pytest

from cli.main import main
from contracts.delivery import Delivery
from runtime import bundle, bus, dump, postgres, snapshot, streams
from runtime.bus import BrokerAway
from tests import servers
from tests.conftest import Broker
from tests.samples import body, delivery, log, paths
from tests.servers import Database
from tests.services.projector.running import project_all, store, store_batch
from tests.tables import count
from tests.tables import snapshot as rows_of

pytestmark = pytest.mark.anyio

FOLDED = log(paths("issues", "issue_comment", "workflow_run"))
LARGE = json.dumps({**json.loads(body("issues.edited.00")), "pad": "x" * streams.INLINE_BODY_BYTES_MAX})
Disk = namedtuple("Disk", "total used free")  # noqa: PYI024  # as shutil has it


class Commands:
    """The commands beside the test's event loop, at the broker and at a database."""

    def __init__(
        self, broker: Broker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self._capsys, self._env = capsys, monkeypatch
        for user in ("operator", "reader"):
            monkeypatch.setenv(f"NATS_URL_{user.upper()}", broker.url(user))

    def at(self, database: Database) -> None:
        """From now on the commands are for this one."""
        self._env.setenv("DATABASE_URL", database.url("admin"))
        for user in ("operator", "reader"):
            self._env.setenv(f"DATABASE_URL_{user.upper()}", database.url(user))

    async def __call__(self, *arguments: object, code: int = 0) -> str:
        """What it printed, on either stream."""
        given = await asyncio.to_thread(main, [str(each) for each in arguments])
        told = self._capsys.readouterr()
        assert code == given, told.err
        return told.out + told.err


@pytest.fixture
def run(
    broker: Broker,
    database: Database,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Commands:
    monkeypatch.setenv("ODOOOPS_DATA_DIR", str(tmp_path / "none"))
    made = Commands(broker, capsys, monkeypatch)
    made.at(database)
    return made


@pytest.fixture
def other(postgres_server: servers.Postgres) -> Iterator[Database]:
    """A database to restore into."""
    with servers.fresh_database(postgres_server) as made:
        yield made


async def fold(broker: Broker, database: Database, entries: list[Delivery]) -> None:
    await store_batch(broker, entries)
    engine = postgres.make_engine(database.url("projector"), "test")
    await project_all(broker, engine)
    await engine.dispose()


async def lose(broker: Broker) -> None:
    for info in await broker.js.streams_info():
        await broker.js.delete_stream(str(info.config.name))


async def messages(broker: Broker, stream: str) -> dict[int, tuple[Any, ...]]:
    """All messages of a stream by sequence."""
    state = (await broker.js.stream_info(stream)).state
    found = {}
    for seq in range(max(state.first_seq, 1), state.last_seq + 1):
        message = await broker.js.get_msg(stream, seq)
        found[seq] = (message.subject, message.data, message.headers)
    return found


async def rows(database: Database) -> Any:
    engine = postgres.make_engine(database.url("operator"), "test")
    try:
        return await rows_of(engine)
    finally:
        await engine.dispose()


async def test_an_empty_system_becomes_what_the_backup_was_of(
    broker: Broker, database: Database, other: Database, run: Commands, tmp_path: Path
) -> None:
    await store(broker, [delivery("issues", LARGE.encode(), 0, "large")])
    await fold(broker, database, FOLDED)
    await broker.js.add_consumer(
        streams.EVENTS, streams.subscriber_config(servers.SUBSCRIBER, ["events.build.>"])
    )
    was = {
        name: await messages(broker, name)
        for name in (streams.DELIVERIES, streams.EVENTS, streams.BODIES_STREAM)
    }
    tables = await rows(database)
    told = await run("backup", tmp_path / "b.tar")
    assert f"{len(FOLDED) + 1} deliveries up to sequence {len(FOLDED) + 1}" in told
    await lose(broker)
    run.at(other)
    told = await run("restore", tmp_path / "b.tar")
    assert "odooops verify" in told
    assert was == {name: await messages(broker, name) for name in was}
    assert was[streams.BODIES_STREAM]
    assert tables == await rows(other)
    # Nothing is folded or told twice, and whoever reads events goes on where it was.
    projector = await broker.js.consumer_info(streams.DELIVERIES, streams.PROJECTOR)
    assert (0, len(FOLDED) + 1) == (projector.num_pending, projector.ack_floor.stream_seq)
    assert await broker.js.consumer_info(streams.EVENTS, servers.SUBSCRIBER)
    assert [] == await streams.inspect(broker.js)
    for info in await broker.js.streams_info():
        assert not [key for key in info.config.metadata or {} if key.startswith("odooops")]
    # What comes again is known by the ledger, and what is new is numbered behind the old.
    await fold(broker, other, [FOLDED[0], delivery("issues", body("issues.opened.15"), 0, "new")])
    engine = postgres.make_engine(other.url("reader"), "test")
    assert len(tables["deliveries"]) + 1 == await count(engine, "deliveries")
    assert len(FOLDED) + 3 == (await broker.js.stream_info(streams.DELIVERIES)).state.last_seq
    await engine.dispose()
    await run("verify")


async def test_what_comes_between_any_two_parts_leaves_none_ahead_of_the_log(
    broker: Broker, database: Database, other: Database, run: Commands, tmp_path: Path
) -> None:
    """Before each part something small and something large is stored, folded, told as an event, and told to Slack."""
    engine, loop = postgres.make_engine(database.url("projector"), "test"), asyncio.get_running_loop()
    slack = await asyncpg.connect(database.url("notifier"))
    small, parts, order = iter(FOLDED), itertools.count(), []

    async def comes() -> None:
        n = next(parts)
        issue = {**json.loads(LARGE), "issue": {**json.loads(LARGE)["issue"], "number": 1_000 + n}}
        await store_batch(broker, [next(small), delivery("issues", json.dumps(issue).encode(), 0, f"{n}")])
        await project_all(broker, engine)
        await slack.execute(
            "INSERT INTO notify.messages"
            " (destination, ref, kind, message_id, event_id, status, text, blocks, occurred_at)"
            " VALUES ('dry_run', $1, '', '', '', 'dry_run', '', '[]', now())",
            f"{n}",
        )

    def after_what_comes(name: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def called(*arguments: Any, **options: Any) -> Any:
            order.append(arguments[1] if name == "stream" else name)
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(comes(), loop))
            return await call(*arguments, **options)

        return called

    await comes()
    with (
        mock.patch.object(snapshot, "take", after_what_comes("stream", snapshot.take)),
        mock.patch.object(dump, "revision", after_what_comes("tables", dump.revision)),
    ):
        await run("backup", tmp_path / "b.tar")
    assert order == [
        "KV_POLLER",
        "tables",
        "EVENTS",
        "DELIVERIES",
        "OBJ_DELIVERY_BODIES",
        "OBJ_ARTIFACTS",
        "tables",
    ]
    was, told = await messages(broker, streams.DELIVERIES), await messages(broker, streams.EVENTS)
    assert len(was) == 2 * (len(order) + 1)
    await lose(broker)
    run.at(other)
    await run("restore", tmp_path / "b.tar")

    log_now, events = await messages(broker, streams.DELIVERIES), await messages(broker, streams.EVENTS)
    assert log_now == {seq: was[seq] for seq in range(1, len(log_now) + 1)}
    in_log = {identity_of(message) for message in log_now.values()}
    assert {message[2]["ce-delivery"] for message in events.values()} <= in_log
    for seq in log_now:
        assert (await bus.read_delivery(broker.js, seq)).body
    restored = postgres.make_engine(other.url("projector"), "test")
    assert await count(restored, "deliveries", f"last_seq > {len(log_now)}") == 0
    assert await count(restored, "deliveries") < len(log_now)
    assert [f"{n}" for n in range(len(order) + 1)] == await refs_told(other)

    # The projector goes on: what the tables did not hold yet is folded, and told if it was not.
    await project_all(broker, restored)
    assert await count(restored, "deliveries") == len(log_now)
    ids = {message[2]["ce-id"] for message in (await messages(broker, streams.EVENTS)).values()}
    assert {message[2]["ce-id"] for message in told.values() if message[2]["ce-delivery"] in in_log} == ids
    await slack.close()
    await engine.dispose()
    await restored.dispose()
    await run("verify")


def identity_of(message: tuple[Any, ...]) -> str:
    return str(message[2]["Nats-Msg-Id"]).rpartition(":")[0]


async def refs_told(database: Database) -> list[str]:
    connection = await asyncpg.connect(database.url("reader"))
    found = await connection.fetch("SELECT ref FROM notify.messages ORDER BY ref")
    await connection.close()
    return [row["ref"] for row in found]


async def test_every_table_of_the_migrations_is_in_a_backup(database: Database) -> None:
    connection = await asyncpg.connect(database.url("admin"))
    left_out = await connection.fetch(
        "SELECT schemaname || '.' || tablename AS name FROM pg_tables"
        " WHERE schemaname NOT IN ('pg_catalog', 'information_schema') AND schemaname <> ALL ($1)",
        dump.SCHEMAS,
    )
    await connection.close()
    assert ["public.alembic_version"] == [row["name"] for row in left_out]


async def test_a_system_that_holds_anything_is_left_as_it_is(
    broker: Broker, database: Database, other: Database, run: Commands, tmp_path: Path
) -> None:
    await fold(broker, database, FOLDED[:5])
    await run("backup", tmp_path / "b.tar")
    told = await run("restore", tmp_path / "b.tar", code=1)
    assert "this system is not empty: there is something in EVENTS, DELIVERIES, " in told
    run.at(other)
    told = await run("restore", tmp_path / "b.tar", code=1)
    assert "there is something in EVENTS, DELIVERIES." in told
    await lose(broker)
    run.at(database)
    told = await run("restore", tmp_path / "b.tar", code=1)
    assert "ops.deliveries" in told
    assert [] == await broker.js.streams_info()
    assert 5 == len((await rows(database))["deliveries"])


async def test_what_is_stored_while_room_is_made_is_kept(
    broker: Broker, database: Database, other: Database, run: Commands, tmp_path: Path
) -> None:
    await run("backup", tmp_path / "b.tar")
    info = snapshot.info

    async def told_late(nc: Any, stream: str) -> dict[str, Any]:
        found = await info(nc, stream)
        if stream == streams.DELIVERIES and not found["state"]["messages"]:
            await nc.jetstream().publish("deliveries.github.ping", b"{}")
        return found

    run.at(other)
    with mock.patch.object(snapshot, "info", told_late):
        told = await run("restore", tmp_path / "b.tar", code=1)
    assert "something was stored in DELIVERIES just now" in told
    assert 1 == len(await messages(broker, streams.DELIVERIES))
    assert await broker.js.publish("deliveries.github.ping", b"{}")


def _fails(call: Callable[..., Awaitable[Any]], when: Callable[..., bool]) -> Callable[..., Awaitable[Any]]:
    async def failing(*arguments: Any, **options: Any) -> Any:
        if when(*arguments):
            raise BrokerAway("the broker did not answer")
        return await call(*arguments, **options)

    return failing


async def test_a_restore_that_broke_off_anywhere_goes_on(
    broker: Broker, database: Database, other: Database, run: Commands, tmp_path: Path
) -> None:
    await fold(broker, database, FOLDED[:5])
    await run("backup", tmp_path / "b.tar")
    was = await messages(broker, streams.DELIVERIES)
    await lose(broker)
    run.at(other)
    last = f"UPDATE.{streams.DELIVERIES}"
    for module, name, when in (
        (snapshot, "give", lambda nc, config, state, pieces: config["name"] == streams.EVENTS),
        (snapshot, "give", lambda nc, config, state, pieces: config["name"] == streams.DELIVERIES),
        (dump, "load", lambda *_: True),
        (streams, "provision", lambda *_: True),
        (snapshot, "ask", lambda nc, subject, question: "CONSUMER.RESET" in subject),
        (snapshot, "ask", lambda nc, subject, question: subject.endswith(last)),
        (dump, "set_mark", lambda connection, backup: backup is None),
    ):
        with mock.patch.object(module, name, _fails(getattr(module, name), when)):
            assert "did not answer" in await run("restore", tmp_path / "b.tar", code=1)
        if name != "set_mark":
            # What could be made empty and filled before the restore goes on is not made.
            with pytest.raises(streams.HalfRestored, match="run the same `odooops restore` again"):
                await streams.provision(broker.js)
            with pytest.raises(streams.HalfRestored):
                await streams.mend(broker.nc, [streams.missing(f"stream {streams.EVENTS}")])
    assert 5 == len((await rows(other))["deliveries"])
    await run("restore", tmp_path / "b.tar")
    assert was == await messages(broker, streams.DELIVERIES)
    assert await rows(database) == await rows(other)
    assert "not empty" in await run("restore", tmp_path / "b.tar", code=1)


async def test_a_backup_that_is_not_whole_is_named_and_not_restored(
    broker: Broker, database: Database, run: Commands, tmp_path: Path
) -> None:
    await fold(broker, database, FOLDED[:5])
    whole, other = tmp_path / "b.tar", tmp_path / "other.tar"
    await run("backup", whole)
    assert "5 deliveries" in await run("backup", whole, "--check")
    with tarfile.open(whole) as file:
        places = {each.name: each.offset_data for each in file}
    data = whole.read_bytes()

    async def told(damaged: bytes) -> str:
        other.write_bytes(damaged)
        said = await run("backup", other, "--check", code=1)
        assert said == await run("restore", other, code=1)
        return said

    part = "streams/DELIVERIES.tar.s2"
    at = places[part] + 100
    flipped = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    assert f"is damaged: {part} is not what was written" in await told(flipped)
    at = places[bundle.MANIFEST] + 200
    assert "manifest.json is not what was written" in await told(
        data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    )
    assert "has no manifest.json" in await told(data[: places[part]])
    assert "is no backup" in await told(b"{}")
    assert "No such file" in await run("backup", tmp_path / "none.tar", "--check", code=1)
    assert 5 == len(await messages(broker, streams.DELIVERIES))


async def test_a_backup_of_a_newer_version_is_for_that_version(run: Commands, tmp_path: Path) -> None:
    with mock.patch.object(dump, "revision", mock.AsyncMock(return_value="9999")):
        await run("backup", tmp_path / "b.tar")
    assert "is of a newer version, with migration 9999" in await run("restore", tmp_path / "b.tar", code=1)


async def test_a_file_has_its_name_once_it_is_whole_and_is_for_its_owner_alone(
    broker: Broker, run: Commands, tmp_path: Path
) -> None:
    file = tmp_path / "b.tar"
    (tmp_path / "b.tar.part").write_bytes(b"of a backup that was killed")
    with mock.patch.object(dump, "copy_out", mock.AsyncMock(side_effect=BrokerAway("away"))):
        await run("backup", file, code=1)
    assert not list(tmp_path.glob("b.tar*"))
    await run("backup", file)
    assert [file] == list(tmp_path.glob("b.tar*"))
    assert 0o600 == stat.S_IMODE(file.stat().st_mode)
    password = urlsplit(broker.url("operator")).password
    assert password
    assert password.encode() not in file.read_bytes()
    was = file.read_bytes()
    assert "is there already" in await run("backup", file, code=1)
    assert was == file.read_bytes()
    file.rename(tmp_path / "kept")
    await run("backup", tmp_path)
    [named] = tmp_path.glob("odooops-20*Z.tar")
    await run("backup", named, "--check")


async def test_what_numbers_its_rows_goes_on_behind_them(
    broker: Broker, database: Database, other: Database, run: Commands, tmp_path: Path
) -> None:
    async def add(where: Database, message_id: str) -> int:
        connection = await asyncpg.connect(where.url("projector"))
        number: int = await connection.fetchval(
            "INSERT INTO projector.outbox (message_id, subject, headers, data) VALUES ($1, '', '{}', '')"
            " RETURNING id",
            message_id,
        )
        await connection.close()
        return number

    waiting = await add(database, "waits")
    await run("backup", tmp_path / "b.tar")
    await lose(broker)
    run.at(other)
    await run("restore", tmp_path / "b.tar")
    assert waiting + 1 == await add(other, "comes")


async def test_a_database_that_breaks_off_is_one_sentence(run: Commands, tmp_path: Path) -> None:
    async def lost(connection: asyncpg.Connection, *_: object) -> None:
        connection.terminate()
        raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")

    with mock.patch.object(dump, "copy_out", lost):
        told = await run("backup", tmp_path / "b.tar", code=1)
    assert "the database says: connection was closed" in told
    assert not list(tmp_path.glob("b.tar*"))


async def test_a_disk_without_room_is_found_out_first(run: Commands, tmp_path: Path) -> None:
    with mock.patch.object(shutil, "disk_usage", return_value=Disk(1, 1, 0)):
        told = await run("backup", tmp_path / "b.tar", code=1)
    assert "choose another place" in told
    assert not list(tmp_path.glob("b.tar*"))
