"""A file of named parts with their sums: what a backup is made of. `tar -tvf` lists it.

A part's size is known only when its last byte has come, so each header is written twice. The last part,
`manifest.json`, holds the sums of all others and its own: a file that was cut off has none.

    {"sha256":"<64 hex digits>","manifest":{"format":1,…,"parts":{"<name>":{"bytes":9,"sha256":"…"}}}}

The hash is of the bytes of the object `manifest` as they stand there.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import time
from typing import Any, BinaryIO, cast

FORMAT = 1
MANIFEST = "manifest.json"
MANIFEST_BYTES_MAX = 16_000_000
PART = ".part"
FILE_MODE = 0o600
PIECE_BYTES = 128 * 1024
_BLOCK_BYTES = tarfile.BLOCKSIZE
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

    What an interrupted run has left of that is replaced. Raises FileExistsError where `path` is there.
    """
    if path.exists():
        raise FileExistsError(17, "is there already: give the backup a new name", str(path))
    part = path.with_name(path.name + PART)
    part.unlink(missing_ok=True)
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE), "wb") as file:
            yield Writing(cast(BinaryIO, file))
            file.flush()
            os.fsync(file.fileno())
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
def reading(path: Path) -> Iterator[Reading]:
    """Open a file that `writing` made. Raises BadBundle where it is none."""
    with ExitStack() as opened:
        try:
            tar = opened.enter_context(tarfile.open(path, "r:"))
        except tarfile.TarError:
            raise BadBundle(f"{path} is no backup") from None
        yield Reading(path, tar)


class Reading:
    """A backup whose manifest was read, and is as it was written."""

    def __init__(self, path: Path, tar: tarfile.TarFile) -> None:
        self.path = path
        self._tar = tar
        self.manifest = self._manifest()

    def pieces(self, name: str) -> Iterator[bytes]:
        """The bytes of a part."""
        try:
            file = self._tar.extractfile(name)
        except (KeyError, tarfile.TarError):
            file = None
        if file is None:
            raise BadBundle(f"{self.path} is damaged: {name} is missing")
        with file:
            try:
                while piece := file.read(PIECE_BYTES):
                    yield piece
            except tarfile.TarError:
                raise BadBundle(f"{self.path} is cut off within {name}") from None

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

    def _manifest(self) -> Mapping[str, Any]:
        try:
            size = self._tar.getmember(MANIFEST).size
        except (KeyError, tarfile.TarError):
            raise BadBundle(f"{self.path} is no backup, or is cut off: it has no {MANIFEST}") from None
        data = b"".join(self.pieces(MANIFEST)) if size <= MANIFEST_BYTES_MAX else b""
        sum_, middle, said = data[len(_HEAD) : -len(_END)].partition(_MIDDLE)
        if not middle or hashlib.sha256(said).hexdigest().encode() != sum_:
            raise BadBundle(f"{self.path} is damaged: {MANIFEST} is not what was written")
        manifest: Mapping[str, Any] = json.loads(said)
        if manifest["format"] != FORMAT:
            raise BadBundle(f"{self.path} has format {manifest['format']}: this version reads {FORMAT}")
        return manifest
