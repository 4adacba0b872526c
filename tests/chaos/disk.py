"""A small disk of the spool's own, which can be full: a tmpfs in a mount namespace, which needs no root."""

from __future__ import annotations

import asyncio
import errno
import os
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.chaos.kept import ROOT

DISK_BYTES = 64 * 1024 * 1024
LEFT_BYTES = 16 * 1024
"""What a full disk has left: room for a delivery or two, and for a part of the next."""
READY = b"ready\n"
_MOUNT = 'mount -t tmpfs -o mode=700,size="$1" tmpfs "$0" && echo ready && exec cat'


class Disk:
    """A mounted folder. Where namespaces are forbidden it is any folder, and never full."""

    def __init__(self, folder: Path, holder: Process | None) -> None:
        self.folder = folder
        """As the processes see it that are started by `entering`."""
        self._holder = holder

    @property
    def seen_from_here(self) -> Path:
        if self._holder is None:
            return self.folder
        return Path("/proc", str(self._holder.pid), "root", *self.folder.parts[1:])

    def entering(self) -> list[str]:
        """What to put before a command that is to see the disk."""
        if self._holder is None:
            return []
        where = ("--target", str(self._holder.pid), f"--wd={ROOT}")
        return ["nsenter", "--preserve-credentials", "--user", "--mount", *where, "--"]

    def fill(self) -> bool:
        """Leave room for next to nothing; whether that can be done."""
        if self._holder is None:
            return False
        found = os.statvfs(self.seen_from_here)
        with self._ballast.open("wb") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, max(1, found.f_bavail * found.f_bsize - LEFT_BYTES))
            except OSError as error:
                if error.errno != errno.ENOSPC:  # somebody else was faster
                    raise
        return True

    def free(self) -> None:
        self._ballast.unlink(missing_ok=True)

    @property
    def _ballast(self) -> Path:
        return self.seen_from_here / "ballast"


@asynccontextmanager
async def disk(folder: Path) -> AsyncIterator[Disk]:
    """A disk mounted on `folder`, which is made."""
    folder.mkdir()
    isolate = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", _MOUNT)
    holder = await asyncio.create_subprocess_exec(*isolate, folder, str(DISK_BYTES), stdin=PIPE, stdout=PIPE)
    assert holder.stdin and holder.stdout
    try:
        mounted = await holder.stdout.readline() == READY
        yield Disk(folder, holder if mounted else None)
    finally:
        holder.stdin.close()
        await holder.wait()
