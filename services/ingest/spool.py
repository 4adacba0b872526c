"""What is behind the door while the broker takes nothing: deliveries are synced to a local disk, and stored later.

What was spooled is answered with 200, as what is in the log. It goes there with the identity and the time of receipt
that it had, so it does not matter whether the broker had stored it after all: its id, and later the ledger, make a
repeat harmless. Whoever finds the segment of a process that is no more drains it as well. One that the broker never
takes is tried for ever, and those behind it pass.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import nats.errors
from prometheus_client import Counter, Gauge

from contracts.delivery import Delivery
from runtime import bus, streams
from runtime.settings import BadSettings
from services.ingest import segments
from services.ingest.segments import Damage, Packed, Record, Segment
from services.ingest.seldom import Seldom

SPOOLED = Counter("odooops_ingest_spooled_total", "Deliveries written to the spool", ["source"])
DRAINED = Counter("odooops_ingest_spool_drained_total", "Deliveries of the spool stored in the log")
DAMAGES = Counter("odooops_ingest_spool_damages_total", "Parts of segments that are no whole record")
HELD = Gauge(
    "odooops_ingest_spool_bytes", "Bytes that wait in the spool's folder, whichever process wrote them"
)
DAMAGED = Gauge("odooops_ingest_spool_damaged_bytes", "Bytes of the damaged segments in the spool's folder")


class SpoolFull(Exception):
    """the spool has reached its size, or its disk takes no more"""


@dataclass(frozen=True, slots=True, eq=False)
class _Put:
    packed: Packed
    written: asyncio.Future[None]


class Spool:
    """The spool of one process in `folder`, which several may share. Raises BadSettings where it cannot be one."""

    def __init__(self, folder: Path, log: Any) -> None:
        self.waits = False
        """Whether the broker was away when it was last asked: then nobody else waits for it in vain."""
        self._asks_at = 0.0
        """When one asks it again, on the loop's clock, though it was away."""
        self._folder = folder
        self._log = log
        self._seldom = Seldom(log)
        self._segment: Segment | None = None
        """The one that is being written."""
        self._ended: list[Segment] = []
        """Those into which a write failed: nobody knows what is behind their end, nothing more goes into them."""
        self._taking = threading.Lock()
        """Held while the segment is written, and while it is taken away to be drained."""
        self._puts: list[_Put] = []
        self._writing: asyncio.Task[None] | None = None
        self._something = asyncio.Event()
        self._files = 0
        """Those that are being drained."""
        self._slots = asyncio.Semaphore(streams.SPOOL_DRAIN_COUNT)
        """One for each delivery that is to be stored now, however often it is tried."""
        self._large = asyncio.Semaphore(streams.LARGE_BODIES_AT_ONCE)
        HELD.set_function(partial(_measured, folder, segments.SUFFIX))
        DAMAGED.set_function(partial(_measured, folder, segments.DAMAGED))
        self._try_the_folder()

    def _try_the_folder(self) -> None:
        try:
            segment = self._new_segment()
            try:
                segment.remove()
            finally:
                segment.close()
        except (PermissionError, NotADirectoryError, FileExistsError) as error:
            raise BadSettings(f"ODOOOPS_SPOOL_DIR is {self._folder}: {error.strerror}") from None
        except OSError as error:  # a disk that fails now keeps no delivery away that the broker takes
            self._log.error("the spool cannot be written", folder=str(self._folder), reason=str(error))

    def asks(self) -> bool:
        """Whether a delivery that comes now is to be offered to the broker.

        While it is away one is, now and then: what is drained may be just what it does not take.
        """
        now = asyncio.get_running_loop().time()
        if self.waits and now < self._asks_at:
            return False
        self._asks_at = now + streams.SPOOL_ASK_S
        return True

    def stored(self) -> None:
        """The broker has taken something."""
        if self.waits:
            self.waits = False
            self._something.set()

    async def put(self, delivery: Delivery) -> None:
        """Write and sync a delivery. Raises SpoolFull."""
        put = _Put(segments.pack(delivery), asyncio.get_running_loop().create_future())
        self._puts.append(put)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        # Before it is written: once it is, it may be stored, and the broker be known to be back, before we hear of it.
        if not self.waits:
            self._asks_at = asyncio.get_running_loop().time() + streams.SPOOL_ASK_S
        self.waits = True
        try:
            await put.written
        except SpoolFull:
            self.waits = False  # perhaps nothing of ours is left that would find out that the broker is back
            raise
        SPOOLED.labels(delivery.source).inc()

    async def _write(self) -> None:
        """Write what was put, all that came during one sync by the next."""
        try:
            while self._puts:
                puts, self._puts = self._puts, []
                error: Exception | None = None
                try:
                    count = await asyncio.to_thread(self._append, [put.packed for put in puts])
                except Exception as found:  # noqa: BLE001  # whatever it is, somebody waits to be told
                    count, error = 0, found
                self._something.set()
                for n, put in enumerate(puts):
                    if put.written.done():
                        continue
                    if n < count:
                        put.written.set_result(None)
                    else:
                        full = f"the spool holds its {streams.SPOOL_BYTES_MAX} bytes"
                        put.written.set_exception(SpoolFull(_why(error) if error else full))
        finally:
            self._writing = None

    def _append(self, deliveries: Sequence[Packed]) -> int:
        """Write as many, from the first on, as there is room for; how many. Where it raises, it is none."""
        room = streams.SPOOL_BYTES_MAX - segments.held_bytes(self._folder)
        count = 0
        while count < len(deliveries) and (room := room - deliveries[count].count) >= 0:
            count += 1
        if count == 0:
            return 0
        with self._taking:
            segment, self._segment = self._segment or self._new_segment(), None
            try:
                segment.append(deliveries[:count])
            except BaseException:
                self._ended.append(segment) if segment.size else segment.discard()
                raise
            if segment.size < streams.SPOOL_SEGMENT_BYTES:
                self._segment = segment
            else:
                segment.close()
        return count

    def _new_segment(self) -> Segment:
        segments.make_folder(self._folder)
        return Segment.new(self._folder)

    async def keep_draining(self, store: bus.Store) -> None:
        """Store what is in the spool, as long as it takes; look for what dead processes left now and then."""
        async with asyncio.TaskGroup() as draining:
            while True:
                self._something.clear()
                while not (self.waits and self._files >= streams.SPOOL_FILES_AWAY):
                    if (segment := await asyncio.to_thread(self._next)) is None:
                        break
                    # One after the other is read; its last deliveries may still be tried while the next one is.
                    read = asyncio.Event()
                    draining.create_task(self._drain(segment, store, read))
                    await read.wait()
                with suppress(TimeoutError):
                    async with asyncio.timeout(streams.SPOOL_LOOK_S):
                        await self._something.wait()

    def _next(self) -> Segment | None:
        """Ours, to which nothing more is written from now on, or one that nobody owns."""
        with self._taking:
            if self._ended:
                return self._ended.pop()
            ours, self._segment = self._segment, None
        if ours is not None:
            return ours
        try:
            left = sorted(self._folder.glob(f"*{segments.SUFFIX}"))
        except OSError as error:
            self._seldom.error("the spool cannot be read", reason=str(error))
            return None
        for path in left:
            try:
                if (found := Segment.adopt(path)) is not None:
                    return found
            except (OSError, ValueError) as error:
                self._seldom.error("a file of the spool cannot be read", file=path.name, reason=str(error))
        return None

    async def _drain(self, segment: Segment, store: bus.Store, read: asyncio.Event) -> None:
        """Store what is in `segment`, and end it; `read` is set when its last delivery has its turn."""
        damages: list[Damage] = []
        self._files += 1

        def damaged(damage: Damage) -> None:
            damages.append(damage)
            self._name(segment, damage)

        async def end(record: Record, small: Delivery | None) -> None:
            try:
                if damage := await self._stored(segment, record, small, store):
                    damaged(damage)
            finally:
                self._slots.release()

        try:
            async with asyncio.TaskGroup() as storing:
                parts = segment.parts()
                while chunk := await asyncio.to_thread(_chunk, segment, parts):
                    for part, small in chunk:
                        if isinstance(part, Damage):
                            damaged(part)
                            continue
                        await self._slots.acquire()
                        storing.create_task(end(part, small))
                read.set()
            await self._done(segment, damaged=bool(damages))
        finally:
            self._files -= 1
            segment.close()

    async def _stored(
        self, segment: Segment, record: Record, small: Delivery | None, store: bus.Store
    ) -> Damage | None:
        """Store one delivery, as long as it takes. Its damage, where there is none to be read."""
        while True:
            async with nullcontext() if small else self._large:
                found = small if small else await asyncio.to_thread(segment.delivery, record)
                if isinstance(found, Damage):
                    return found
                wait_s = await self._tried(found, store)
            if wait_s is None:
                return None
            await asyncio.sleep(wait_s)

    async def _tried(self, delivery: Delivery, store: bus.Store) -> float | None:
        """None where it is stored; else when to try again."""
        try:
            await store(delivery, streams.ACCEPT_S_MAX)
        except (bus.BrokerAway, nats.errors.TimeoutError):
            return streams.RECONNECT_WAIT_S  # it has been waited for long enough
        except Exception as error:  # noqa: BLE001  # a refusal, or a mistake of ours: it was acknowledged, so it stays
            reason = f"{type(error).__name__}: {error}"
            self._seldom.error("not stored from the spool", source=delivery.source, reason=reason)
            return streams.SPOOL_LOOK_S
        self.stored()
        DRAINED.inc()
        return None

    async def _done(self, segment: Segment, *, damaged: bool) -> None:
        """Nothing is left to be stored of `segment`."""
        while True:
            try:
                if damaged:
                    self._log.error("a damaged segment is kept", file=str(segment.set_aside()))
                else:
                    segment.remove()
            except FileNotFoundError:
                return  # somebody else has deleted it
            except OSError as error:  # not let go of: who adopts it would store it all again
                about = {"file": segment.path.name}
                self._seldom.error("a drained segment cannot be removed", about, reason=_why(error))
                await asyncio.sleep(streams.SPOOL_LOOK_S)
            else:
                return

    def _name(self, segment: Segment, damage: Damage) -> None:
        DAMAGES.inc()
        torn = damage.last and damage.why == segments.TORN
        self._log.error(
            "a part of the spool cannot be read",
            file=segment.path.name,
            offset=damage.offset,
            bytes=damage.count,
            reason=damage.why,
            hint="cut off while it was written, then nobody was told that it is stored" if torn else None,
        )


def _chunk(
    segment: Segment, parts: Iterator[Record | Damage]
) -> list[tuple[Record | Damage, Delivery | None]]:
    """The next parts, with the deliveries whose bodies are small; of the others, and of damaged ones, none."""
    chunk: list[tuple[Record | Damage, Delivery | None]] = []
    for part in islice(parts, streams.SPOOL_DRAIN_COUNT):
        if isinstance(part, Damage) or part.body > streams.INLINE_BODY_BYTES_MAX:
            chunk.append((part, None))
            continue
        found = segment.delivery(part)
        chunk.append((found, None) if isinstance(found, Damage) else (part, found))
    return chunk


def _why(error: Exception) -> str:
    """In the same words each time: without the name of a file that is another one each time."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _measured(folder: Path, suffix: str) -> float:
    try:
        return segments.held_bytes(folder, suffix)
    except OSError:
        return math.nan
