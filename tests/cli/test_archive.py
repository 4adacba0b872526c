"""`odooops archive`, with real servers: what leaves the log is in the file byte for byte, or it does not leave."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import stat
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from cli.main import main
from contracts import delivery as wire
from contracts.delivery import Delivery
from runtime import bus, postgres, streams
from runtime.bus import LogTrimmed
from runtime.erase import erase_body
from services.projector import archive
from services.projector.archive import NotArchived
from services.projector.rebuild import rebuild
from services.projector.work import Progress, Work, alone
from tests.conftest import Broker
from tests.samples import SOURCES, body, delivery
from tests.servers import Database
from tests.services.projector.rebuilding import working
from tests.services.projector.running import project_all, store
from tests.tables import snapshot

pytestmark = pytest.mark.anyio

LARGE = json.dumps(
    {**json.loads(body("issues.edited.00")), "pad": "x" * streams.INLINE_BODY_BYTES_MAX}
).encode()


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ODOOOPS_DATA_DIR", "NATS_URL", "NATS_URL_OPERATOR", "DATABASE_URL_OPERATOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    made = postgres.make_engine(database.url("projector"), "test")
    yield made
    await made.dispose()


class Archiving:
    """The command beside the test's event loop."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    async def __call__(self, *arguments: str, code: int = 0) -> str:
        """What it printed, on either stream."""
        given = await asyncio.to_thread(main, ["archive", *arguments])
        told = self.capsys.readouterr()
        assert given == code, told.err
        return told.out + told.err


@pytest.fixture
def archiving(
    broker: Broker,
    database: Database,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Archiving:
    monkeypatch.setenv("NATS_URL_OPERATOR", broker.url("operator"))
    monkeypatch.setenv("DATABASE_URL_OPERATOR", database.url("operator"))
    return Archiving(capsys)


def large(identity: str) -> Delivery:
    """A delivery whose body lies in the object store."""
    return delivery("issues", LARGE, 0, identity)


def lines(path: str) -> list[dict[str, Any]]:
    with gzip.open(path, "rt") as file:
        return [json.loads(line) for line in file]


async def log(broker: Broker) -> list[Delivery]:
    """Three deliveries, the second of them large."""
    stored = [
        delivery("issues", body("issues.opened.15"), 0, "one"),
        large("two"),
        delivery("issues", body("issues.edited.00"), 0, "three"),
    ]
    await store(broker, stored)
    return stored


async def bodies(broker: Broker) -> int:
    return int((await broker.js.stream_info(streams.BODIES_STREAM)).state.messages)


async def first_seq(broker: Broker) -> int:
    return int((await broker.js.stream_info(streams.DELIVERIES)).state.first_seq)


async def test_the_file_holds_every_byte_and_says_how_to_go_on(broker: Broker, archiving: Archiving) -> None:
    stored = await log(broker)

    said = await archiving("old.gz", "--until-seq", "2")

    begun, *messages, end = lines("old.gz")
    assert (1, "DELIVERIES", 1, 2) == tuple(
        begun[name] for name in ("odooops_archive", "stream", "first_seq", "last_seq")
    )
    assert 2 == end["count"]
    for seq, (given, message) in enumerate(
        zip(stored, (each["message"] for each in messages), strict=False), 1
    ):
        held = wire.from_message(
            message["subject"], message["headers"], base64.b64decode(message["body"]), message["seq"]
        )
        assert replace(given, seq=seq) == held
        raw = await broker.js.get_msg(streams.DELIVERIES, seq)
        assert raw.headers == message["headers"]
        assert raw.time is not None
        assert abs(raw.time - datetime.fromisoformat(message["stored_at"])) <= timedelta(microseconds=1)
    assert "old.gz: 2 deliveries, sequences 1 to 2" in said
    assert "archive --check old.gz --trim" in said
    assert 0o600 == stat.S_IMODE(Path("old.gz").stat().st_mode)
    assert ["old.gz"] == [path.name for path in Path().iterdir()]
    assert 1 == await first_seq(broker)
    trimmed = json.loads(await archiving("--check", "old.gz", "--json"))
    assert (2, 1, 2, None) == tuple(
        trimmed[name] for name in ("deliveries", "first_seq", "last_seq", "log_begins_at")
    )


async def test_a_range_may_end_at_a_time_and_begin_anywhere(broker: Broker, archiving: Archiving) -> None:
    await log(broker)
    third = await broker.js.get_msg(streams.DELIVERIES, 3)
    assert third.time is not None

    await archiving("old.gz", "--before", third.time.isoformat(), "--from-seq", "2")
    await archiving("all.gz", "--before", datetime.now(UTC).isoformat())

    assert [2] == [each["message"]["seq"] for each in lines("old.gz")[1:-1]]
    assert [1, 2, 3] == [each["message"]["seq"] for each in lines("all.gz")[1:-1]]


async def test_trimmed_rows_stay_and_rebuild_and_verify_go_on(
    broker: Broker, database: Database, engine: AsyncEngine, archiving: Archiving
) -> None:
    await log(broker)
    await project_all(broker, engine)
    before = await snapshot(engine)

    await archiving("old.gz", "--until-seq", "2")
    said = await archiving("--check", "old.gz", "--trim")

    assert "trimmed: the log begins at sequence 3" in said
    assert (3, 0) == (await first_seq(broker), await bodies(broker))
    with pytest.raises(LogTrimmed):
        await bus.read_delivery(broker.js, 2)
    async with working(broker, database) as work:
        done = await rebuild(work, limit=5, dry_run=False)
    assert (3, []) == (done.proven_from, [each for each in done.compared if not each.equal])
    assert before == await snapshot(engine)


async def test_a_body_that_a_later_copy_names_stays(
    broker: Broker, engine: AsyncEngine, archiving: Archiving
) -> None:
    stored = await log(broker)
    headers = wire.to_headers(stored[1], bus.body_object_name(stored[1]))
    del headers[wire.MESSAGE_ID]
    await broker.js.publish(stored[1].subject, b"", stream=streams.DELIVERIES, headers=headers)
    await store(broker, [large("five")])
    await project_all(broker, engine)

    await archiving("old.gz", "--until-seq", "3", "--trim")

    assert [LARGE] * 2 == [(await bus.read_delivery(broker.js, seq)).body for seq in (4, 5)]


async def test_what_the_projector_has_not_done_is_not_trimmed(
    broker: Broker, engine: AsyncEngine, archiving: Archiving
) -> None:
    await log(broker)

    said = await archiving("old.gz", "--until-seq", "2", "--trim", code=1)
    assert "the projector has done the log up to sequence 0 only" in said
    await project_all(broker, engine)
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM ops.deliveries"))
    said = await archiving("old.gz", "--until-seq", "2", "--trim", code=1)

    assert "the ledger knows the log up to sequence 0 only" in said
    assert 1 == await first_seq(broker)
    assert [] == list(Path().iterdir())


async def test_parked_deliveries_are_not_trimmed(
    broker: Broker, engine: AsyncEngine, archiving: Archiving
) -> None:
    await store(broker, [delivery("issues", b"no json", 0)])
    await project_all(broker, engine)

    said = await archiving("old.gz", "--until-seq", "1", "--trim", code=1)

    assert "1 deliveries up to sequence 1 are parked" in said
    assert "odooops parked list" in said


async def test_only_the_beginning_of_the_log_is_trimmed(
    broker: Broker, engine: AsyncEngine, archiving: Archiving
) -> None:
    await log(broker)
    await project_all(broker, engine)
    await archiving("middle.gz", "--from-seq", "2", "--until-seq", "2")

    said = await archiving("--check", "middle.gz", "--trim", code=1)

    assert "the log begins at sequence 1 and the archive at 2" in said


async def test_an_archive_of_another_log_trims_nothing(
    broker: Broker, engine: AsyncEngine, archiving: Archiving
) -> None:
    await log(broker)
    await archiving("old.gz", "--until-seq", "1")
    await broker.js.delete_stream(streams.DELIVERIES)
    await streams.provision(broker.js)
    await log(broker)
    await project_all(broker, engine)

    said = await archiving("--check", "old.gz", "--trim", code=1)

    assert "the archive is of another log" in said
    assert 1 == await first_seq(broker)


async def test_trimming_again_removes_what_an_interrupted_run_left(
    broker: Broker, engine: AsyncEngine, archiving: Archiving
) -> None:
    await log(broker)
    await project_all(broker, engine)
    await archiving("old.gz", "--until-seq", "2")
    await broker.js.purge_stream(streams.DELIVERIES, seq=3)

    await archiving("--check", "old.gz", "--trim")

    assert (3, 0) == (await first_seq(broker), await bodies(broker))


async def test_a_file_that_is_there_is_left_alone_and_a_part_is_replaced(
    broker: Broker, archiving: Archiving
) -> None:
    await log(broker)
    Path("old.gz.part").write_text("what a killed run left")
    await archiving("old.gz", "--until-seq", "1")
    before = Path("old.gz").read_bytes()

    said = await archiving("old.gz", "--until-seq", "2", code=1)

    assert "old.gz is there already" in said
    assert before == Path("old.gz").read_bytes()
    assert ["old.gz"] == [path.name for path in Path().iterdir()]


async def test_an_interrupted_run_leaves_no_file_of_that_name(broker: Broker, database: Database) -> None:
    await log(broker)

    def interrupt(_: Progress) -> None:
        raise KeyboardInterrupt

    async with working(broker, database) as work:
        with pytest.raises(KeyboardInterrupt):
            await archive.export(Work(work.nc, work.engine, SOURCES, interrupt), Path("old.gz"), 1, 3)

    assert ["old.gz.part"] == [path.name for path in Path().iterdir()]
    with pytest.raises(NotArchived):
        archive.check(Path("old.gz.part"))


async def test_a_body_that_the_broker_has_lost_is_said(broker: Broker, archiving: Archiving) -> None:
    stored = await log(broker)
    assert await erase_body(broker.js, bus.body_object_name(stored[1]))
    assert not await erase_body(broker.js, bus.body_object_name(stored[1]))

    said = await archiving("old.gz", "--until-seq", "3")

    assert "of 1 the broker did not have the body" in said
    message = lines("old.gz")[2]["message"]
    assert message["body"] is None
    assert "is not in the object store" in message["missing"]


async def test_any_change_of_the_file_is_found(broker: Broker, archiving: Archiving) -> None:
    await log(broker)
    await archiving("old.gz", "--until-seq", "3")
    packed, plain = Path("old.gz").read_bytes(), gzip.decompress(Path("old.gz").read_bytes())
    rows = plain.splitlines(keepends=True)
    broken = {
        "cut": packed[:-20],
        "no gzip": plain,
        "empty": b"",
        "a byte": gzip.compress(plain.replace(b'"body":"', b'"body":"A', 1)),
        "another head": gzip.compress(plain.replace(b'"first_seq":1', b'"first_seq":0', 1)),
        "without a line": gzip.compress(b"".join([rows[0], *rows[2:]])),
        "lines changed about": gzip.compress(b"".join([rows[0], rows[2], rows[1], *rows[3:]])),
        "without an end": gzip.compress(b"".join(rows[:-1])),
        "more": gzip.compress(plain + b"\n"),
        "another format": gzip.compress(plain.replace(b'"odooops_archive":1', b'"odooops_archive":2')),
        "no object": gzip.compress(b"[]\n"),
    }

    assert "3 deliveries, sequences 1 to 3" in await archiving("--check", "old.gz")
    for name, data in broken.items():
        Path("broken.gz").write_bytes(data)
        assert "broken.gz is no whole archive" in await archiving("--check", "broken.gz", code=1), name


async def test_while_a_rebuild_runs_nothing_is_archived(
    broker: Broker, database: Database, archiving: Archiving
) -> None:
    await log(broker)
    async with working(broker, database) as work, alone(work.engine):
        assert "another rebuild" in await archiving("old.gz", "--until-seq", "1", code=1)


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (["old.gz"], "either --until-seq or --before", 2),
        (["old.gz", "--until-seq", "1", "--before", "2d"], "either --until-seq or --before", 2),
        (["old.gz", "--check", "--until-seq", "1"], "leave the range out", 2),
        (["old.gz", "--check"], "old.gz: No such file", 1),
        (["old.gz", "--before", "soon"], "--before soon", 1),
        (["old.gz", "--until-seq", "1"], "the log ends at sequence 0", 1),
        (["old.gz", "--before", "2d"], "nothing to archive", 1),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else "",
)
async def test_what_cannot_be_meant_is_refused(
    archiving: Archiving, arguments: list[str], said: str, code: int
) -> None:
    assert said in await archiving(*arguments, code=code)
    assert [] == list(Path().iterdir())
