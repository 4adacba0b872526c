"""The files of the spool: deliveries one after the other, each with checksums, each file owned by one process.

A record is a frame, the delivery's subject and message headers as JSON, and its body. The frame begins with the file's
key, which only its name tells: a sender cannot write what would pass for a record into a body. So where a frame cannot
be believed, the next one can be looked for. The frame's own checksum says whether its lengths can be believed.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

from contracts import delivery as wire
from contracts.delivery import Delivery, UnreadableDelivery
from runtime import streams

SUFFIX = ".spool"
DAMAGED = ".damaged"
HEAD_BYTES_MAX = 64 * 1024
SEARCH_BYTES = 1024 * 1024
TORN = "no whole record"
_FRAME = struct.Struct(">16sIII")
"""The file's key, bytes of the head, bytes of the body, CRC-32 of both; its own CRC-32 follows."""
_CHECK = struct.Struct(">I")
FRAME_BYTES = _FRAME.size + _CHECK.size


@dataclass(frozen=True, slots=True)
class Packed:
    """A delivery as it stands in a segment, without the frame."""

    head: bytes
    body: bytes

    @property
    def count(self) -> int:
        """Bytes in the file."""
        return FRAME_BYTES + len(self.head) + len(self.body)

    def framed(self, key: bytes) -> bytes:
        """The frame and the head; the body follows."""
        check = zlib.crc32(self.body, zlib.crc32(self.head))
        frame = _FRAME.pack(key, len(self.head), len(self.body), check)
        return b"".join((frame, _CHECK.pack(zlib.crc32(frame)), self.head))


@dataclass(frozen=True, slots=True)
class Record:
    """Where a record lies, by a frame that can be believed."""

    offset: int
    head: int
    body: int
    check: int
    last: bool

    @property
    def count(self) -> int:
        """Bytes in the file."""
        return FRAME_BYTES + self.head + self.body


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes of a segment that are no whole record: what a crash cut off while it was written, or a bad disk."""

    offset: int
    count: int
    last: bool
    """Whether they reach to the end of the file."""
    why: str = TORN


def pack(delivery: Delivery) -> Packed:
    """`delivery` as it is written. Raises MalformedName for what no message header can carry."""
    head = json.dumps({"subject": delivery.subject, "headers": wire.to_headers(delivery)}).encode()
    return Packed(head, delivery.body)


class Segment:
    """A file of the spool that this process alone writes or drains, for as long as it lives."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.size = os.fstat(descriptor).st_size
        """Bytes up to the end of the last whole record."""
        self._key = UUID(path.stem).bytes
        self._descriptor = descriptor

    @classmethod
    def new(cls, folder: Path) -> Segment:
        """An empty one. Raises OSError."""
        while True:
            path = folder / f"{uuid4()}{SUFFIX}"
            made = cls._owned(path, os.O_CREAT | os.O_EXCL)
            if made is None:
                continue  # another process took it for one of a dead one, before we had its lock
            try:
                sync_folder(folder)
            except OSError:
                made.discard()
                raise
            return made

    @classmethod
    def adopt(cls, path: Path) -> Segment | None:
        """That of a process that is no more; None where its process lives, or somebody else was faster.

        Raises OSError, and ValueError where its name is none of ours.
        """
        UUID(path.stem)
        try:
            return cls._owned(path)
        except FileNotFoundError:
            return None

    @classmethod
    def _owned(cls, path: Path, flags: int = 0) -> Segment | None:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever drained it before us has unlinked it: then the name is gone, or another file's.
            if os.fstat(descriptor).st_ino == os.stat(path).st_ino:
                return cls(path, descriptor)
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def append(self, deliveries: Sequence[Packed]) -> None:
        """Write deliveries and sync them. Raises OSError: then none of them counts, and nothing more may be appended.

        After a sync that failed nobody knows what the disk has; what stands before has been synced by an earlier one.
        """
        try:
            if os.fstat(self._descriptor).st_nlink == 0:
                raise FileNotFoundError(errno.ENOENT, "somebody has deleted this file of the spool")
            for each in deliveries:
                for piece in (each.framed(self._key), each.body):
                    left = memoryview(piece)
                    while left:
                        left = left[os.write(self._descriptor, left) :]
            os.fsync(self._descriptor)
        except OSError:
            with suppress(
                OSError
            ):  # what stays is found by its checksum, or stored though nobody was told so
                os.ftruncate(self._descriptor, self.size)
            raise
        self.size += sum(each.count for each in deliveries)

    def parts(self) -> Iterator[Record | Damage]:
        """What the file holds, in order, by its frames: `delivery` reads a record."""
        offset, size = 0, os.fstat(self._descriptor).st_size
        while offset < size:
            try:
                record = self._record_at(offset, size)
                end = self._next_record(offset + 1, size) if record is None else offset + record.count
            except OSError as error:
                yield Damage(offset, size - offset, last=True, why=str(error))
                return
            yield record or Damage(offset, end - offset, last=end == size)
            offset = end

    def _record_at(self, offset: int, size: int) -> Record | None:
        frame = os.pread(self._descriptor, FRAME_BYTES, offset)
        if len(frame) < FRAME_BYTES or _CHECK.unpack_from(frame, _FRAME.size)[0] != zlib.crc32(
            frame[: _FRAME.size]
        ):
            return None
        key, head, body, check = _FRAME.unpack_from(frame)
        end = offset + FRAME_BYTES + head + body
        possible = key == self._key and head <= HEAD_BYTES_MAX and body <= streams.BODY_BYTES_MAX
        return Record(offset, head, body, check, last=end == size) if possible and end <= size else None

    def _next_record(self, offset: int, size: int) -> int:
        """Where the first one begins at or after `offset`; the end of the file where there is none."""
        while len(block := os.pread(self._descriptor, SEARCH_BYTES, offset)) >= FRAME_BYTES:
            at = block.find(self._key)
            if at < 0:
                offset += len(block) - len(self._key) + 1
            elif self._record_at(offset + at, size):
                return offset + at
            else:
                offset += at + 1
        return size

    def delivery(self, record: Record) -> Delivery | Damage:
        """What stands in `record`."""
        try:
            start = record.offset + FRAME_BYTES
            head = os.pread(self._descriptor, record.head, start)
            body = os.pread(self._descriptor, record.body, start + record.head)
            if zlib.crc32(body, zlib.crc32(head)) == record.check:
                said = json.loads(head)
                return wire.from_message(said["subject"], said["headers"], body, 0)
            why = TORN
        except (OSError, ValueError, KeyError, TypeError, UnreadableDelivery) as error:
            why = str(error) or type(error).__name__
        return Damage(record.offset, record.count, record.last, why)

    def remove(self) -> None:
        """Everything in it is in the log. Raises OSError."""
        self.path.unlink(missing_ok=True)
        sync_folder(self.path.parent)

    def set_aside(self) -> Path:
        """Keep it under another name, for it has bytes that nobody could read; its new path. Raises OSError."""
        kept = self.path.with_suffix(DAMAGED)
        os.rename(self.path, kept)
        sync_folder(self.path.parent)
        return kept

    def discard(self) -> None:
        """Let go of one in which nothing stands; it may stay as an empty file, which whoever finds it removes."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let go of it: another process may drain it."""
        with suppress(OSError):  # then it is closed as well
            os.close(self._descriptor)


def make_folder(folder: Path) -> None:
    """Make `folder`, where it is missing, for this user alone and durably. Raises OSError."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for each in missing:
        sync_folder(each.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def held_bytes(folder: Path, *suffixes: str) -> int:
    """Of the segments in `folder`, whoever owns them; of all, and what was set aside, where no suffix is given.

    Raises OSError.
    """
    total = 0
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(suffixes or (SUFFIX, DAMAGED)):
                with suppress(FileNotFoundError):  # drained meanwhile
                    total += entry.stat().st_size
    return total
