"""What is behind the door while the broker is away: deliveries are synced to a local disk, and stored when it is back.

What was spooled is answered with 200, as what is in the log. It goes there with the identity and the time of receipt
that it had, so it does not matter whether the broker had stored it after all: its id, and later the ledger, make a
repeat harmless. Whoever finds the segment of a process that is no more drains it as well.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import nats.errors
from prometheus_client import Counter, Gauge

from contracts.delivery import Delivery
from runtime import bus, streams
from services.ingest import segments
from services.ingest.segments import Damage, Segment

SPOOLED = Counter("odooops_ingest_spooled_total", "Deliveries written to the spool", ["source"])
DRAINED = Counter("odooops_ingest_spool_drained_total", "Deliveries of the spool stored in the log")
DAMAGES = Counter("odooops_ingest_spool_damages_total", "Parts of segments that are no whole record")
HELD = Gauge("odooops_ingest_spool_bytes", "Bytes in the spool's folder, whichever process wrote them")


class SpoolFull(Exception):
    """the spool has reached its size, or its disk takes no more"""


@dataclass(frozen=True, slots=True, eq=False)
class _Put:
    record: bytes
    written: asyncio.Future[None]


class Spool:
    """The spool of one process in `folder`, which several may share."""

    def __init__(self, folder: Path, log: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder = folder
        self.waits = False
        """Whether the broker was away when it was last asked: then nobody else waits for it in vain."""
        self._log = log
        self._segment: Segment | None = None
        """The one that is being written."""
        self._taking = threading.Lock()
        """Held while the segment is written, and while it is taken away to be drained."""
        self._puts: list[_Put] = []
        self._writing: asyncio.Task[None] | None = None
        self._something = asyncio.Event()
        HELD.set_function(partial(segments.held_bytes, folder))

    async def put(self, delivery: Delivery) -> None:
        """Write and sync a delivery. Raises SpoolFull."""
        put = _Put(segments.record(delivery), asyncio.get_running_loop().create_future())
        self._puts.append(put)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        # Before it is written: once it is, it may be stored, and the broker be known to be back, before we hear of it.
        self.waits = True
        try:
            await put.written
        except SpoolFull:
            self.waits = False  # nothing of ours is left that would find out that the broker is back
            raise
        SPOOLED.labels(delivery.source).inc()
        self._something.set()

    async def _write(self) -> None:
        """Write what was put, all that came during one sync by the next."""
        try:
            while self._puts:
                puts, self._puts = self._puts, []
                error: Exception | None = None
                try:
                    await asyncio.to_thread(self._append, [put.record for put in puts])
                except (SpoolFull, OSError) as found:
                    error = found if isinstance(found, SpoolFull) else SpoolFull(str(found))
                for put in puts:
                    if not put.written.done():
                        put.written.set_exception(error) if error else put.written.set_result(None)
        finally:
            self._writing = None

    def _append(self, records: list[bytes]) -> None:
        if segments.held_bytes(self.folder) + sum(map(len, records)) > streams.SPOOL_BYTES_MAX:
            raise SpoolFull(f"the spool holds its {streams.SPOOL_BYTES_MAX} bytes")
        with self._taking:
            if self._segment is None:
                self._segment = Segment.new(self.folder)
            self._segment.append(records)

    async def keep_draining(self, store: bus.Store) -> None:
        """Store what is in the spool, as long as it takes; look for what dead processes left now and then."""
        while True:
            self._something.clear()
            while (segment := await asyncio.to_thread(self._next)) is not None:
                try:
                    await self._drain(segment, store)
                finally:
                    segment.close()
            with suppress(TimeoutError):
                async with asyncio.timeout(streams.SPOOL_LOOK_S):
                    await self._something.wait()

    def _next(self) -> Segment | None:
        """Ours, to which nothing more is written from now on, or one that nobody owns."""
        with self._taking:
            ours, self._segment = self._segment, None
        if ours is not None:
            return ours
        left = sorted(self.folder.glob(f"*{segments.SUFFIX}"))
        return next((found for path in left if (found := Segment.adopt(path)) is not None), None)

    async def _drain(self, segment: Segment, store: bus.Store) -> None:
        damaged = False
        with segment.reader() as file:
            found = segments.read(file)
            while chunk := await asyncio.to_thread(_chunk, found):
                deliveries = [each for each in chunk if isinstance(each, Delivery)]
                await asyncio.gather(*(self._store(each, store) for each in deliveries))
                DRAINED.inc(len(deliveries))
                for damage in chunk:
                    if isinstance(damage, Damage):
                        damaged = True
                        self._name(segment, damage)
        if damaged:
            self._log.error("a damaged segment is kept", file=str(segment.set_aside()))
        else:
            segment.remove()

    async def _store(self, delivery: Delivery, store: bus.Store) -> None:
        while True:
            try:
                await store(delivery, streams.ACCEPT_S_MAX)
            except (bus.BrokerAway, bus.LogFull, nats.errors.Error, OSError):
                await asyncio.sleep(streams.RECONNECT_WAIT_S)
            else:
                self.waits = False
                return

    def _name(self, segment: Segment, damage: Damage) -> None:
        DAMAGES.inc()
        self._log.error(
            "a part of the spool cannot be read",
            file=segment.path.name,
            offset=damage.offset,
            bytes=damage.count,
            hint="cut off while it was written, then nobody was told that it is stored"
            if damage.last
            else None,
        )


def _chunk(found: Iterator[Delivery | Damage]) -> list[Delivery | Damage]:
    """The next deliveries to store at the same time: few, or of few bytes together."""
    chunk: list[Delivery | Damage] = []
    held = 0
    for each in islice(found, streams.SPOOL_DRAIN_COUNT):
        chunk.append(each)
        held += len(each.body) if isinstance(each, Delivery) else 0
        if held >= streams.GROUP_BYTES_MAX:
            break
    return chunk
