"""The files of the spool: deliveries one after the other, each with checksums, each file owned by one process.

A record is a frame, the delivery's subject and message headers as JSON, and its body. The frame's own checksum says
whether its lengths can be believed: nothing is ever looked for in the bytes of a body, where a sender could have
written what looks like a record.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from contracts import delivery as wire
from contracts.delivery import Delivery, UnreadableDelivery
from runtime import streams

SUFFIX = ".spool"
DAMAGED = ".damaged"
HEAD_BYTES_MAX = 64 * 1024
MAGIC = b"oSp1"
_FRAME = struct.Struct(">4sIII")
"""Magic, bytes of the head, bytes of the body, CRC-32 of both; its own CRC-32 follows."""
_CHECK = struct.Struct(">I")
FRAME_BYTES = _FRAME.size + _CHECK.size


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes of a segment that are no whole record: what a crash cut off while it was written, or a bad disk."""

    offset: int
    count: int
    last: bool
    """Whether they reach to the end of the file."""


def record(delivery: Delivery) -> bytes:
    """`delivery` as it stands in a segment. Raises MalformedName for what no message header can carry."""
    head = json.dumps({"subject": delivery.subject, "headers": wire.to_headers(delivery)}).encode()
    body = delivery.body
    frame = _FRAME.pack(MAGIC, len(head), len(body), zlib.crc32(body, zlib.crc32(head)))
    return b"".join((frame, _CHECK.pack(zlib.crc32(frame)), head, body))


def read(file: BinaryIO) -> Iterator[Delivery | Damage]:
    """What a segment holds, in order. After a frame that cannot be believed nothing more is read."""
    size = os.fstat(file.fileno()).st_size
    while (offset := file.tell()) < size:
        lengths = _lengths(file.read(FRAME_BYTES), size - offset)
        if lengths is None:
            yield Damage(offset, size - offset, last=True)
            return
        head_bytes, body_bytes, check = lengths
        head, body = file.read(head_bytes), file.read(body_bytes)
        delivery = _delivery(head, body) if zlib.crc32(body, zlib.crc32(head)) == check else None
        end = file.tell()
        yield delivery or Damage(offset, end - offset, last=end == size)


def _lengths(frame: bytes, bytes_left: int) -> tuple[int, int, int] | None:
    if len(frame) < FRAME_BYTES or _CHECK.unpack_from(frame, _FRAME.size)[0] != zlib.crc32(
        frame[: _FRAME.size]
    ):
        return None
    magic, head, body, check = _FRAME.unpack_from(frame)
    possible = magic == MAGIC and head <= HEAD_BYTES_MAX and body <= streams.BODY_BYTES_MAX
    return (head, body, check) if possible and FRAME_BYTES + head + body <= bytes_left else None


def _delivery(head: bytes, body: bytes) -> Delivery | None:
    try:
        said = json.loads(head)
        return wire.from_message(said["subject"], said["headers"], body, 0)
    except (ValueError, KeyError, TypeError, UnreadableDelivery):
        return None


class Segment:
    """A file of the spool that this process alone writes or drains, for as long as it lives."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size
        """Bytes up to the end of the last whole record."""

    @classmethod
    def new(cls, folder: Path) -> Segment:
        """An empty one. Raises OSError."""
        # Locked before it has its name: nobody may take it for the file of a dead process.
        hidden = folder / f".{uuid4()}"
        descriptor = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path = folder / f"{hidden.name[1:]}{SUFFIX}"
            os.rename(hidden, path)
            sync_folder(folder)
        except OSError:
            os.close(descriptor)
            hidden.unlink(missing_ok=True)
            raise
        return cls(path, descriptor)

    @classmethod
    def adopt(cls, path: Path) -> Segment | None:
        """That of a process that is no more; None where its process lives, or somebody else was faster."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever drained it before us has unlinked it: then the name is gone, or another file's.
            if os.fstat(descriptor).st_ino == os.stat(path).st_ino:
                return cls(path, descriptor)
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(descriptor)
        return None

    def append(self, records: Sequence[bytes]) -> None:
        """Write records and sync them. Raises OSError, and then the segment is as it was."""
        try:
            for each in records:
                left = memoryview(each)
                while left:
                    left = left[os.write(self._descriptor, left) :]
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, self.size)
            raise
        self.size += sum(map(len, records))

    def reader(self) -> BinaryIO:
        """The file from its beginning; the caller closes it."""
        return open(self.path, "rb")

    def remove(self) -> None:
        """Everything in it is in the log."""
        self.path.unlink(missing_ok=True)
        sync_folder(self.path.parent)

    def set_aside(self) -> Path:
        """Keep it under another name, for it has bytes that nobody could read; its new path."""
        kept = self.path.with_suffix(DAMAGED)
        os.rename(self.path, kept)
        sync_folder(self.path.parent)
        return kept

    def close(self) -> None:
        """Let go of it: another process may drain it."""
        os.close(self._descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def held_bytes(folder: Path) -> int:
    """Of all segments in `folder`, whoever owns them; what was set aside counts as well."""
    total = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith((SUFFIX, DAMAGED)):
                try:
                    total += entry.stat().st_size
                except FileNotFoundError:
                    continue  # drained meanwhile
    return total
