"""Free disk, where this process can see it."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from runtime.audit.finding import Finding
from runtime.streams import SPOOL_BYTES_MAX

GIB = 1 << 30
FREE_BYTES_WARNING = 5 * GIB
FREE_BYTES_ERROR = GIB
FULL_FRACTION_WARNING = 0.80
FULL_FRACTION_ERROR = 0.95


def free_bytes(folder: Path) -> int:
    """What an ordinary user may still write there. Raises OSError."""
    space = os.statvfs(folder)
    return space.f_bavail * space.f_frsize


def of_data_folder(folder: Path, free: int) -> list[Finding]:
    """Of the embedded servers' data: both write into it."""
    if free >= FREE_BYTES_WARNING:
        return []
    return [
        Finding(
            level="error" if free < FREE_BYTES_ERROR else "warning",
            part="disk",
            says=f"{_size(free)} are free where the servers write, {folder}",
            could_lose="when it is full, deliveries are refused and Postgres stops",
            mend="odooops archive FILE --before 90d --trim   # FILE on another disk; or give this one more room",
        )
    ]


def of_spool(folder: Path) -> list[Finding]:
    """Whether the spool may grow to the size that it may have."""
    try:
        free = free_bytes(folder)
    except OSError as error:
        return [
            Finding(
                level="error",
                part="spool",
                says=f"{folder}: {error.strerror}",
                could_lose="deliveries that come while the broker is away",
                mend=f"mkdir -p {shlex.quote(str(folder))}   # and let ingest's user write there",
            )
        ]
    if free >= SPOOL_BYTES_MAX:
        return []
    return [
        Finding(
            level="warning",
            part="spool",
            says=f"{_size(free)} are free in {folder}, it may hold {_size(SPOOL_BYTES_MAX)}",
            could_lose="deliveries that come while the broker is away for long, of senders that do not repeat",
            mend="give that disk more room, or set ODOOOPS_SPOOL_DIR to a folder on another",
        )
    ]


NO_SPOOL = Finding(
    level="warning",
    part="spool",
    says="ODOOOPS_SPOOL_DIR is not set",
    could_lose="what GitHub and other senders that never repeat tell while the broker is away",
    mend="set ODOOOPS_SPOOL_DIR to a folder on a disk that survives a restart",
)


SPOOL_UNSEEN = Finding(
    level="unknown",
    part="spool",
    says="where ingest keeps what comes while the broker is away is not seen from here",
    could_lose="where it has no room: what senders that never repeat tell meanwhile",
    mend=f"docker compose exec ingest df -h /spool   # it may take {SPOOL_BYTES_MAX / GIB:.1f} GiB",
)
DATABASE_UNSEEN = Finding(
    level="unknown",
    part="disk of the database",
    says="how much is free is not told by Postgres",
    could_lose="nothing: when it is full, Postgres stops, and deliveries wait in the log",
    mend="docker compose exec postgres df -h /var/lib/postgresql   # or df on its server",
)


def of_storage(part: str, used: int, limit: int) -> list[Finding]:
    """How full storage of the broker is, by its limit; of a server that is three quarters of its disk, unless told."""
    if limit <= 0 or used < limit * FULL_FRACTION_WARNING:
        return []
    return [
        Finding(
            level="error" if used >= limit * FULL_FRACTION_ERROR else "warning",
            part=part,
            says=f"{_size(used)} of {_size(limit)} are used, {used / limit:.0%}",
            could_lose="when it is full, every delivery is refused with 503, and some senders never repeat",
            mend="odooops archive FILE --before 90d --trim   # or give its disk more room; see the runbook full-stream",
        )
    ]


def _size(count: int) -> str:
    return f"{count / GIB:.1f} GiB"
