"""A file of named parts with their sums: what a backup is made of. `tar -tvf` lists it.

A part's size is known only when its last byte has come, so each header is written twice. The last part,
`manifest.json`, holds the sums of all others and its own: a file that was cut off has none.

    {"sha256":"<64 hex digits>","manifest":{"format":1,…,"parts":{"<name>":{"bytes":9,"sha256":"…"}}}}

The hash is of the bytes of the object `manifest` as they stand there. Sums find damage, not forgery: whoever can write
the file can write sums that fit. What is read is therefore held to what `writing` writes, and to the file's own size:
regular members with plain names, each once; nothing is ever unpacked onto a disk.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Any, BinaryIO, cast

FORMAT = 1
MANIFEST = "manifest.json"
MANIFEST_BYTES_MAX = 16_000_000
PART = ".part"
FILE_MODE = 0o600
PIECE_BYTES = 128 * 1024
PARTS_COUNT_MAX = 1_000
_BLOCK_BYTES = tarfile.BLOCKSIZE
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
_HEAD, _MIDDLE, _END = b'{"sha256":"', b'","manifest":', b"}"


class BadBundle(Exception):
    """a file is no backup, or is not whole; the message says why"""


class Writing:
    """A file that is being made. `parts` are the sums of those that are done."""

    def __init__(self, file: BinaryIO) -> None:
        self.parts: dict[str, dict[str, Any]] = {}
        self._file = file

    @contextmanager
    def part(self, name: str) -> Iterator[Callable[[bytes], None]]:
        """Write a part by what this yields."""
        file, header_at = self._file, self._file.tell()
        file.write(_header(name, 0))
        made, size = hashlib.sha256(), 0

        def write(data: bytes) -> None:
            nonlocal size
            file.write(data)
            made.update(data)
            size += len(data)

        yield write
        file.write(bytes(-size % _BLOCK_BYTES))
        end = file.tell()
        file.seek(header_at)
        file.write(_header(name, size))
        file.seek(end)
        self.parts[name] = {"bytes": size, "sha256": made.hexdigest()}

    def finish(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest, with the sums of all parts, and the end."""
        said = json.dumps({"format": FORMAT, **manifest, "parts": self.parts}, indent=1).encode()
        with self.part(MANIFEST) as write:
            write(_HEAD + hashlib.sha256(said).hexdigest().encode() + _MIDDLE + said + _END)
        self._file.write(bytes(2 * _BLOCK_BYTES))


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, FILE_MODE, int(time())
    made = info.tobuf(tarfile.GNU_FORMAT)
    assert len(made) == _BLOCK_BYTES, name
    return made


@contextmanager
def writing(path: Path) -> Iterator[Writing]:
    """Make the file `path`, for its owner alone; it has its name once it is on the disk, and is `<path>.part` before.

    What a killed run has left of that is replaced. Raises FileExistsError where `path` is there, or being written.
    """
    _require_new(path)
    part = path.with_name(path.name + PART)
    with _naming(path), _claimed(part) as file:
        try:
            yield Writing(file)
            file.flush()
            os.fsync(file.fileno())
            _require_new(path)
            part.rename(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """A disk says that it is full, and not which."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in _DISK:
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def _require_new(path: Path) -> None:
    if path.exists():
        raise FileExistsError(17, "is there already: give the backup a new name", str(path))


@contextmanager
def _claimed(part: Path) -> Iterator[BinaryIO]:
    """A new file of ours, locked for as long as it is written; one that nobody writes any more goes before it."""
    with _left_behind(part) as left:
        if left:
            part.unlink()
        try:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
        except FileExistsError:
            raise _written(part) from None
        with open(descriptor, "wb") as file:
            if not _lock(descriptor):
                raise _written(part)
            yield cast(BinaryIO, file)


@contextmanager
def _left_behind(part: Path) -> Iterator[bool]:
    """Whether a killed run has left `part`; nobody else takes it away while the block runs."""
    with ExitStack() as opened:
        left = False
        with suppress(FileNotFoundError):
            descriptor = os.open(part, os.O_RDONLY | os.O_NOFOLLOW)
            opened.callback(os.close, descriptor)
            left = _lock(descriptor) and _is_at(descriptor, part)
        yield left


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _written(part: Path) -> FileExistsError:
    return FileExistsError(17, "another run is writing it: wait for that one", str(part))


def remove_left_behind(folder: Path, pattern: str) -> None:
    """Remove what killed runs of ours have left of files whose names are like `pattern`."""
    for part in folder.glob(pattern + PART):
        with suppress(PermissionError), _left_behind(part) as left:
            if left:
                part.unlink()


@contextmanager
def reading(path: Path) -> Iterator[Reading]:
    """Open a file that `writing` made. Raises BadBundle where it is none."""
    with open(path, "rb") as file:
        yield Reading(path, file)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a part's bytes are."""

    offset: int
    bytes: int


class Reading:
    """A backup whose manifest was read, and is as it was written."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self._file = file
        self._places = self._walked()
        self.manifest = self._manifest()

    def pieces(self, name: str) -> Iterator[bytes]:
        """The bytes of a part."""
        if (place := self._places.get(name)) is None:
            raise BadBundle(f"{self.path} is damaged: {name} is missing")
        at, end = place.offset, place.offset + place.bytes
        while at < end:
            self._file.seek(at)
            if not (piece := self._file.read(min(PIECE_BYTES, end - at))):
                raise BadBundle(f"{self.path} is cut off within {name}")
            at += len(piece)
            yield piece

    def check(self, tell: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Read every part; `tell` hears how many bytes of how many. Raises BadBundle where a sum is another one."""
        total, done = sum(part["bytes"] for part in self.manifest["parts"].values()), 0
        for name, part in self.manifest["parts"].items():
            made = hashlib.sha256()
            for piece in self.pieces(name):
                made.update(piece)
                done += len(piece)
                tell(done, total)
            if made.hexdigest() != part["sha256"]:
                raise BadBundle(f"{self.path} is damaged: {name} is not what was written")

    def _walked(self) -> Mapping[str, _Place]:
        """Where each part is, by the headers; what follows a header that cannot be read is not there."""
        places: dict[str, _Place] = {}
        size, at = self.path.stat().st_size, 0
        while len(block := self._read(at, _BLOCK_BYTES)) == _BLOCK_BYTES and any(block):
            try:
                info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
            except (tarfile.TarError, UnicodeError):
                break
            if info.type != tarfile.REGTYPE or info.size < 0 or info.name in places:
                raise BadBundle(
                    f"{self.path} is no backup: none has a member like {info.name!r} at byte {at}"
                )
            if len(places) == PARTS_COUNT_MAX:
                raise BadBundle(f"{self.path} is no backup: none has more than {PARTS_COUNT_MAX} parts")
            at += _BLOCK_BYTES
            places[info.name] = _Place(at, info.size)
            at += info.size + -info.size % _BLOCK_BYTES
            if at > size:
                break
        return places

    def _read(self, at: int, count: int) -> bytes:
        self._file.seek(at)
        return self._file.read(count)

    def _manifest(self) -> Mapping[str, Any]:
        if (place := self._places.get(MANIFEST)) is None:
            raise BadBundle(f"{self.path} is no backup, or is cut off: it has no {MANIFEST}")
        data = b"".join(self.pieces(MANIFEST)) if place.bytes <= MANIFEST_BYTES_MAX else b""
        sum_, middle, said = data[len(_HEAD) : -len(_END)].partition(_MIDDLE)
        framed = data.startswith(_HEAD) and data.endswith(_END)
        if not framed or not middle or hashlib.sha256(said).hexdigest().encode() != sum_:
            raise BadBundle(f"{self.path} is damaged: {MANIFEST} is not what was written")
        try:
            manifest = json.loads(said)
        except (ValueError, RecursionError):
            manifest = None
        made = manifest.get("format") if isinstance(manifest, dict) else None
        if not isinstance(manifest, dict) or made != FORMAT:
            raise BadBundle(f"{self.path} has the format {made!r}: this version reads {FORMAT}")
        return manifest
