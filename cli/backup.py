"""`odooops backup`: the log and the tables as one file, taken while everything runs.

The order is what makes the parts fit together: each is older than what it rests on.

- What the poller remembers comes before the log: it must not remember what the log does not hold.
- How far the projector was comes first, then the tables, then the log: on a restored system it goes on from there, and
  folds at most once more what the tables held already. Up to there all events are told, and what the tables' outbox
  does not hold any more: so the events come after them. And before the log, which no event may be ahead of.
- Bodies and artifacts come after the messages that name them: they are stored before those, and nobody removes one
  meanwhile, since a redaction waits.
- What Slack was told comes last: all that a restored notifier will hear was told by then, or was not.
"""

from __future__ import annotations

import shlex
import shutil
import zlib
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import uuid4

import asyncpg
from nats.js.api import StreamInfo
from nats.js.errors import NotFoundError

from cli import manifest, terminal
from cli.database import DatabaseRefused, reason
from cli.reach import Servers, Trouble
from cli.resting import resting
from cli.work import Telling, working
from runtime import bundle, dump, snapshot, streams
from runtime.bundle import BadBundle
from runtime.state import NotRunning
from services.projector.work import Progress, Work, alone

BEFORE_TABLES = (streams.POLLER_STREAM,)
AFTER_TABLES = (streams.EVENTS, streams.DELIVERIES, streams.BODIES_STREAM, streams.ARTIFACTS_STREAM)
TOLD = "notify"
"""The schema whose tables come last."""
NAMES = "odooops-*.tar"
WITH_CONSUMERS = (streams.EVENTS,)
"""Whose readers' positions are kept; the log's only one is the projector's, which has to fit the tables instead."""
SPARE_BYTES = 16_000_000
"""Of the disk, beyond what a backup may need."""
MEGABYTE = 1_000_000
REPEATABLE_READ = "repeatable_read"


def new_file(place: Path) -> Path:
    """`place` itself, or a new name in that folder, freed of what killed backups have left there."""
    if not place.is_dir():
        return place
    bundle.remove_left_behind(place, NAMES)
    return place / NAMES.replace("*", f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}")


async def run(servers: Servers, file: Path, as_json: bool) -> None:
    """Write a backup to `file`, which is there once it is whole."""
    started = monotonic()
    with sentences():
        with bundle.writing(file) as into:
            async with _reached(servers), working(servers) as work, alone(work.engine):
                await _require_room(work, file)
                said = await _write(work, into)
            into.finish(said)
        with opened(file) as made:
            _print(file, made.manifest, monotonic() - started, as_json)
    if not as_json:
        say("passwords, webhook secrets, API tokens and SSOT are not in it: keep those elsewhere")


def check(file: Path, as_json: bool) -> None:
    """Read a backup from end to end, and print what it holds."""
    started = monotonic()
    with sentences(), opened(file) as found:
        read(found)
        _print(file, found.manifest, monotonic() - started, as_json)


@contextmanager
def opened(file: Path) -> Iterator[bundle.Reading]:
    """A backup that says what it has to. Raises BadBundle."""
    with bundle.reading(file) as found:
        manifest.require_whole(found)
        yield found


def read(found: bundle.Reading) -> None:
    """Read a backup from end to end, telling how far that is. Raises BadBundle where it is not whole."""
    telling, counting = Telling(), Counting("reading the backup", found.path.stat().st_size)
    try:
        found.check(lambda done, total: telling(counting.at(done)))
    finally:
        telling.end()


@asynccontextmanager
async def _reached(servers: Servers) -> AsyncIterator[None]:
    """Start the data folder's own servers where it has any and nothing runs on it."""
    try:
        if servers.in_folder:
            servers.state  # noqa: B018  # raises where nothing runs
    except NotRunning:
        if not (servers.data_dir / "nats").is_dir():
            raise
        async with resting(servers.data_dir):
            yield
        return
    yield


async def _require_room(work: Work, file: Path) -> None:
    """Raises Trouble where the disk may not have room; compressed, it may take less."""
    needed = SPARE_BYTES
    for stream in (*BEFORE_TABLES, *AFTER_TABLES):
        if (info := await _info(work, stream)) is not None:
            needed += info.state.bytes
    async with dump.connected(work.engine) as connection:
        needed += await dump.size(connection)
    free = shutil.disk_usage(file.parent).free
    if free < needed:
        raise Trouble(
            f"the backup may take up to {terminal.size(needed)}, and its disk has {terminal.size(free)} left:"
            " choose another place"
        )


async def _info(work: Work, stream: str) -> StreamInfo | None:
    try:
        return await work.nc.jetstream().stream_info(stream)
    except NotFoundError:
        return None


async def _write(work: Work, into: bundle.Writing) -> Mapping[str, Any]:
    """Write all parts; what the manifest says of them."""
    nats = work.nc.connected_server_version
    said: dict[str, Any] = {
        "id": str(uuid4()),
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "nats": f"{nats.major}.{nats.minor}.{nats.patch}",
        "streams": [],
    }
    if await _info(work, streams.DELIVERIES) is None:
        raise Trouble("the broker has no DELIVERIES: there is nothing to back up")
    for stream in BEFORE_TABLES:
        await _write_stream(work, into, stream, said["streams"])
    said["projected_upto"] = await _projected_upto(work)
    said |= await _write_tables(work, into, [schema for schema in dump.SCHEMAS if schema != TOLD])
    for stream in AFTER_TABLES:
        await _write_stream(work, into, stream, said["streams"])
    last = await _write_tables(work, into, [TOLD])
    if last["migration"] != said["migration"]:
        raise Trouble("the tables were migrated meanwhile: make the backup again")
    return {**said, "tables": said["tables"] + last["tables"]}


async def _projected_upto(work: Work) -> int:
    """The sequence up to which the projector has acknowledged everything: it commits before it does."""
    try:
        found = await work.nc.jetstream().consumer_info(streams.DELIVERIES, streams.PROJECTOR)
    except NotFoundError:
        return 0
    return found.ack_floor.stream_seq if found.ack_floor else 0


async def _write_stream(work: Work, into: bundle.Writing, stream: str, entries: list[dict[str, Any]]) -> None:
    if await _info(work, stream) is None:
        return  # an earlier version did not have it yet
    said, pieces = await snapshot.take(work.nc, stream, consumers=stream in WITH_CONSUMERS)
    counting, part = Counting(f"backing up {stream}", said["state"]["bytes"]), f"streams/{stream}.tar.s2"
    async with aclosing(pieces):
        with into.part(part) as write:
            async for piece in pieces:
                write(piece)
                work.tell(counting.after(len(piece)))
    entries.append({"part": part, "config": said["config"], "state": said["state"]})


async def _write_tables(work: Work, into: bundle.Writing, schemas: Collection[str]) -> dict[str, Any]:
    """Write the tables of `schemas` as they are at one moment; what the manifest says of them."""
    async with (
        dump.connected(work.engine) as connection,
        dump.transaction(connection, isolation=REPEATABLE_READ, readonly=True),
    ):
        revision = await dump.revision(connection)
        if revision is None:
            raise Trouble("the database has no tables: there is nothing to back up")
        entries = []
        counting = Counting("backing up the tables", await dump.size(connection))
        for table in await dump.tables(connection, schemas):
            part = f"tables/{table.full_name}.gz"
            with into.part(part) as write:
                rows = await dump.copy_out(connection, table, _told(write, work, counting))
            entries.append(
                {
                    "part": part,
                    "schema": table.schema,
                    "name": table.name,
                    "columns": table.columns,
                    "rows": rows,
                }
            )
        version = connection.get_server_version()
    return {"migration": revision, "postgres": f"{version.major}.{version.minor}", "tables": entries}


def _told(write: Callable[[bytes], None], work: Work, counting: Counting) -> Callable[[bytes], None]:
    def both(data: bytes) -> None:
        write(data)
        work.tell(counting.after(len(data)))

    return both


class Counting:
    """How far a part is, in megabytes; `total` bytes are the most that it may be."""

    def __init__(self, phase: str, total: int) -> None:
        self._phase, self._total, self._done = f"{phase}, in MB", total, 0
        self._started = monotonic()

    def after(self, count: int) -> Progress:
        """`count` more bytes are done."""
        return self.at(self._done + count)

    def at(self, done: int) -> Progress:
        """`done` bytes are."""
        self._done = done
        rate = done / max(monotonic() - self._started, 0.001)
        left_s = max(self._total - done, 0) / rate if rate else None
        return Progress(self._phase, done // MEGABYTE, self._total // MEGABYTE, rate / MEGABYTE, left_s)


@contextmanager
def sentences() -> Iterator[None]:
    """What a file that is no whole backup, and a database that breaks off a COPY, are to the operator."""
    try:
        yield
    except BadBundle as error:
        raise Trouble(str(error)) from None
    except zlib.error:
        raise Trouble("the backup is no backup of ours: a table's rows cannot be unpacked") from None
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise DatabaseRefused(f"the database says: {reason(error)}") from None
    except asyncpg.InternalClientError:
        # The driver's own word for a connection that is lost just before a COPY.
        raise DatabaseRefused("the database broke off the connection") from None


def _print(file: Path, said: Mapping[str, Any], took_s: float, as_json: bool) -> None:
    states = {entry["config"]["name"]: entry["state"] for entry in said["streams"]}
    log, rows = states[streams.DELIVERIES], sum(entry["rows"] for entry in said["tables"])
    if as_json:
        terminal.print_json(
            {
                "file": str(file),
                "bytes": file.stat().st_size,
                "id": said["id"],
                "made_at": said["made_at"],
                "migration": said["migration"],
                "deliveries": log["messages"],
                "last_seq": log["last_seq"],
                "rows": rows,
                "streams": {name: state["messages"] for name, state in states.items()},
            }
        )
        return
    say(
        f"{file}: {terminal.size(file.stat().st_size)} of {said['made_at']}, in {took_s:.1f} s:"
        f" {terminal.deliveries(log['messages'])} up to sequence {log['last_seq']}, {rows:,} rows"
        f" of migration {said['migration']}"
    )
    say(f"to restore it into an empty system: odooops restore {shlex.quote(str(file))}")


def say(line: str) -> None:
    """A line for the operator."""
    terminal.console().print(terminal.clean(line), soft_wrap=True)
