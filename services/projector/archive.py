"""A range of the log as a file, and taking that range out of the log.

The file is JSON lines in UTF-8, compressed with gzip; `zcat` reads it. Format 1:

    {"odooops_archive":1,"stream":"DELIVERIES","stream_created":"…","first_seq":1,"last_seq":9,"made_at":"…"}
    {"sha256":"<64 hex digits>","message":{"seq":1,"stored_at":"…","subject":"…","headers":{…},"body":"<base64>"}}
    …
    {"count":9,"sha256":"<64 hex digits>"}

The hash of a message is of the bytes of the object `message` as they stand there; that of the last line is of all
bytes before it. `body` is the whole body, also where the message itself only names it (Odooops-Body-Object); it is
null, and `missing` says why, where the broker no longer has it. Sequences between the first and the last that have no
line were erased from the log before.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any, BinaryIO

import orjson
from nats.aio.msg import Msg
from sqlalchemy import text

from contracts import delivery as wire
from contracts.delivery import UnreadableDelivery
from read_models.registry import LEDGER
from read_models.table import SCHEMA
from runtime import bus, streams
from runtime.bus import sequence_of
from runtime.erase import erase_body
from runtime.reading import Reading
from services.projector.work import Progress, Work

FORMAT = 1
PART = ".part"
FILE_MODE = 0o600
COMPRESSION = 6
WRITTEN_AT_ONCE_BYTES = 4_000_000
LINE_BYTES_MAX = 2 * streams.BODY_BYTES_MAX
"""A body grows by a third in base64."""
_HASH = b'{"sha256":"'
_MESSAGE = b'","message":'
_HASH_CHARS = 64
_OBJECT_START = len(_HASH) + _HASH_CHARS + len(_MESSAGE)

_FOLDED = text(f"SELECT max(last_seq) FROM {SCHEMA}.{LEDGER.name}")
_PARKED = text(f"SELECT count(*) FROM {SCHEMA}.{LEDGER.name} WHERE status = 'parked' AND stream_seq <= :last")


class NotArchived(Exception):
    """a range cannot be written to a file, or a file is no whole archive; the message says why"""


class NotTrimmed(Exception):
    """a range must not be taken out of the log; the message says why"""


@dataclass(frozen=True, slots=True)
class Archived:
    """What a checked archive holds. `first_seq` and `last_seq` are the range that was asked for."""

    first_seq: int
    last_seq: int
    count: int
    missing: int
    """Messages whose body the broker did not have."""
    stream_created: str
    made_at: str
    objects: frozenset[str]
    """Names of the bodies that lie in the object store."""


async def chosen(work: Work, first: int | None, last: int | None, before: datetime | None) -> tuple[int, int]:
    """The range from `first`, or the beginning, to `last`, or to what was stored before a time.

    Raises NotArchived where there is nothing in it.
    """
    state = (await work.nc.jetstream().stream_info(streams.DELIVERIES)).state
    if last is None:
        assert before is not None
        last = await _last_before(work, before, state.last_seq)
    if last > state.last_seq:
        raise NotArchived(f"the log ends at sequence {state.last_seq}")
    first = max(first or 1, state.first_seq)
    if last < first:
        raise NotArchived(
            f"nothing to archive: the log holds sequences {state.first_seq} to {state.last_seq}, and the range"
            f" is {first} to {last}"
        )
    return first, last


async def _last_before(work: Work, before: datetime, last: int) -> int:
    reading = Reading(work.nc, streams.DELIVERIES, since=before, headers_only=True)
    try:
        async for messages in reading.upto(last):
            return sequence_of(messages[0]) - 1
        return last
    finally:
        await reading.close()


async def export(work: Work, path: Path, first: int, last: int) -> Archived:
    """Write the deliveries from `first` to `last` to `path`, which is there once it was read back and found right.

    Until then it is called `<path>.part`; what an interrupted run left of that is replaced. Raises NotArchived.
    """
    info = await work.nc.jetstream().stream_info(streams.DELIVERIES)
    part = path.with_name(path.name + PART)
    with _opened(path, part) as file:
        with gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=COMPRESSION) as packed:
            writing = _Writing(packed)
            writing.take(
                [
                    _line(
                        {
                            "odooops_archive": FORMAT,
                            "stream": streams.DELIVERIES,
                            "stream_created": _created(info.created),
                            "first_seq": first,
                            "last_seq": last,
                            "made_at": datetime.now(UTC).isoformat(),
                        }
                    )
                ]
            )
            count = await _write(work, writing, first, last)
            packed.write(_line({"count": count, "sha256": writing.hash.hexdigest()}))
        file.flush()
        await asyncio.to_thread(os.fsync, file.fileno())
    archived = await asyncio.to_thread(check, part)
    if archived.count != count:
        raise NotArchived(f"{part}: {count} deliveries were written, and {archived.count} can be read")
    part.rename(path)
    _sync_folder(path.parent)
    return archived


def _opened(path: Path, part: Path) -> BinaryIO:
    if os.path.lexists(path):
        raise NotArchived(f"{path} is there already: choose another name")
    part.unlink(missing_ok=True)
    return os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE), "wb")


class _Writing:
    """A compressed file, and the hash of what went into it."""

    def __init__(self, packed: gzip.GzipFile) -> None:
        self.packed = packed
        self.hash = hashlib.sha256()

    def take(self, lines: Sequence[bytes]) -> None:
        for line in lines:
            self.hash.update(line)
            self.packed.write(line)


async def _write(work: Work, writing: _Writing, first: int, last: int) -> int:
    """Write a line for each message; how many those are."""
    started, count, waiting, waiting_bytes = monotonic(), 0, list[bytes](), 0
    reading = Reading(work.nc, streams.DELIVERIES, first - 1)
    try:
        async for messages in reading.upto(last):
            for message in messages:
                waiting.append(await _message_line(work, message))
                waiting_bytes += len(waiting[-1])
                if waiting_bytes > WRITTEN_AT_ONCE_BYTES:
                    await asyncio.to_thread(writing.take, waiting)
                    waiting, waiting_bytes = [], 0
            count += len(messages)
            seconds = monotonic() - started
            done, rate = reading.position - first + 1, count / max(seconds, 1e-9)
            work.tell(
                Progress(
                    "archiving", done, last - first + 1, rate, (last - reading.position) * seconds / done
                )
            )
        await asyncio.to_thread(writing.take, waiting)
    finally:
        await reading.close()
    return count


async def _message_line(work: Work, message: Msg) -> bytes:
    held: dict[str, Any] = {
        "seq": sequence_of(message),
        "stored_at": message.metadata.timestamp.isoformat(),
        "subject": message.subject,
        "headers": dict(message.headers or {}),
    }
    try:
        body = await bus.body_of(work.nc.jetstream(), message.headers, message.data)
        held["body"] = base64.b64encode(body).decode()
    except UnreadableDelivery as error:
        held |= {"body": None, "missing": str(error)}
    data = orjson.dumps(held)
    return b"".join((_HASH, hashlib.sha256(data).hexdigest().encode(), _MESSAGE, data, b"}\n"))


def _line(value: Mapping[str, object]) -> bytes:
    return orjson.dumps(value) + b"\n"


def _created(at: datetime | None) -> str:
    return "" if at is None else at.astimezone(UTC).isoformat()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check(path: Path) -> Archived:
    """Read an archive from end to end; raises NotArchived where it is not whole."""
    try:
        with gzip.open(path, "rb") as file:
            return _checked(file)  # type: ignore[arg-type]  # it reads like any file
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise NotArchived(
            f"{path} is no whole archive: it is cut off, or its compression is damaged"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotArchived(f"{path} is no whole archive: {error}") from None


def _checked(file: BinaryIO) -> Archived:
    head = file.readline(LINE_BYTES_MAX)
    begun = orjson.loads(head)
    if begun.get("odooops_archive") != FORMAT:
        raise ValueError(f"its first line does not say that it has format {FORMAT}")
    whole = hashlib.sha256(head)
    count, missing, before, objects = 0, 0, int(begun["first_seq"]) - 1, set[str]()
    for line in _lines(file):
        if not line.startswith(_HASH):
            _check_end(line, count, whole.hexdigest())
            if file.read(1):
                raise ValueError("something follows its last line")
            return Archived(
                begun["first_seq"],
                begun["last_seq"],
                count,
                missing,
                begun["stream_created"],
                begun["made_at"],
                frozenset(objects),
            )
        message = _checked_message(line, before, begun["last_seq"])
        whole.update(line)
        count, before = count + 1, message["seq"]
        missing += message["body"] is None
        if (name := message["headers"].get(wire.BODY_OBJECT)) is not None:
            objects.add(name)
    raise ValueError("it has no last line")


def _lines(file: BinaryIO) -> Iterator[bytes]:
    while line := file.readline(LINE_BYTES_MAX):
        yield line


def _check_end(line: bytes, count: int, digest: str) -> None:
    end = orjson.loads(line)
    if end != {"count": count, "sha256": digest}:
        raise ValueError("its last line is about other lines than those before it")


def _checked_message(line: bytes, before: int, last: int) -> dict[str, Any]:
    data = line[_OBJECT_START:-2]
    if line[len(_HASH) : len(_HASH) + _HASH_CHARS] != hashlib.sha256(data).hexdigest().encode():
        raise ValueError(f"the line after sequence {before} is not what was written")
    message: dict[str, Any] = orjson.loads(data)
    if not before < message["seq"] <= last:
        raise ValueError(f"sequence {message['seq']} comes after {before}")
    return message


async def require_trimmable(work: Work, first: int, last: int) -> None:
    """Raise NotTrimmed where something would be lost if the log from its beginning to `last` went."""
    js = work.nc.jetstream()
    state = (await js.stream_info(streams.DELIVERIES)).state
    if state.first_seq < first:
        raise NotTrimmed(
            f"the log begins at sequence {state.first_seq} and the archive at {first}: archive from the beginning,"
            " or trim by the archive of what is before"
        )
    projector = await js.consumer_info(streams.DELIVERIES, streams.PROJECTOR)
    floor = projector.ack_floor.stream_seq if projector.ack_floor else 0
    if floor < last and (projector.num_pending or projector.num_ack_pending):
        raise NotTrimmed(
            f"the projector has done the log up to sequence {floor} only: wait until it has caught up"
            " (`odooops status`)"
        )
    async with work.engine.connect() as connection:
        folded = (await connection.execute(_FOLDED)).scalar() or 0
        parked = (await connection.execute(_PARKED, {"last": last})).scalar_one()
    if folded < last:
        raise NotTrimmed(
            f"the ledger knows the log up to sequence {folded} only, though the projector has done more: run"
            " `odooops rebuild` first"
        )
    if parked:
        raise NotTrimmed(
            f"{parked} deliveries up to sequence {last} are parked, and none of them could be retried: see"
            " `odooops parked list`, then retry or discard them"
        )


async def trim(work: Work, archived: Archived) -> int:
    """Take what an archive holds out of the log, and its bodies out of the object store; where the log begins then.

    May be repeated: what an interrupted run has left of the bodies goes. Raises NotTrimmed.
    """
    js = work.nc.jetstream()
    info = await js.stream_info(streams.DELIVERIES)
    if archived.stream_created != _created(info.created):
        raise NotTrimmed("the archive is of another log: this one was made at another time")
    await require_trimmable(work, archived.first_seq, archived.last_seq)
    # The messages first: one whose body is gone would be worse than a body that no message names.
    await js.purge_stream(streams.DELIVERIES, seq=archived.last_seq + 1)
    objects = archived.objects - await _named_after(work, archived)
    started = monotonic()
    for n, name in enumerate(sorted(objects), 1):
        await erase_body(js, name)
        work.tell(Progress("removing bodies", n, len(objects), n / max(monotonic() - started, 1e-9), None))
    return int((await js.stream_info(streams.DELIVERIES)).state.first_seq)


async def _named_after(work: Work, archived: Archived) -> set[str]:
    """Those of the archive's bodies that a message which stays names too: a copy that came later."""
    named: set[str] = set()
    if not archived.objects:
        return named
    last = (await work.nc.jetstream().stream_info(streams.DELIVERIES)).state.last_seq
    reading = Reading(work.nc, streams.DELIVERIES, archived.last_seq, headers_only=True)
    try:
        async for messages in reading.upto(last):
            for message in messages:
                name = (message.headers or {}).get(wire.BODY_OBJECT)
                if name in archived.objects:
                    named.add(name)
    finally:
        await reading.close()
    return named
