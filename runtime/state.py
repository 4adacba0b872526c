"""Who runs on a data folder, and where: two locks, and the file by which commands find the servers.

`up.lock` is held by `odooops up` alone, `children.lock` also by every process that it started (they inherit
the descriptor). So the second `up` is refused, a start after a crash waits for the last survivor, and nothing
depends on process ids, which a container hands out again.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from runtime.embedded import write_private

FILE = "state.json"
SURVIVORS_S_MAX = 20.0
"""How long a start waits for what a killed `up` left behind: each process stops within 12 s."""
READER_S_MAX = 0.5
"""A command that looks whether the folder is owned holds its lock for an instant."""
LOCK_EVERY_S = 0.05


class NotRunning(Exception):
    """no servers run in a data folder"""


class Owned(Exception):
    """another `odooops up` runs on the data folder"""


class State(BaseModel):
    """Where the servers of a data folder are. Addresses hold passwords, so only the folder's owner reads it."""

    model_config = ConfigDict(frozen=True)

    pid: int
    started_at: datetime
    http_url: str
    nats: dict[str, str] = Field(repr=False)
    """Addresses of the broker, by user."""
    database: dict[str, str] = Field(repr=False)
    """Addresses of the database, by user."""
    ops_host: str
    ops_ports: dict[str, int]
    """Ports of /readyz and /metrics, by service."""
    pids: dict[str, int]
    secret_files: dict[str, str]
    """Files that hold a webhook secret made for this folder, by the secret's name."""
    closed_sources: dict[str, str] = {}
    """What to set, by the source that takes nothing because it has no secret."""
    not_polled: dict[str, str] = {}
    """Why, and the fix, by the source whose API is named and not polled."""
    log_dir: str
    embedded_nats: bool
    embedded_database: bool


def write(data_dir: Path, state: State) -> None:
    """Tell commands where the servers are."""
    write_private(data_dir / FILE, state.model_dump_json(indent=1) + "\n")


def forget(data_dir: Path) -> None:
    """Nothing runs any more, or not yet."""
    (data_dir / FILE).unlink(missing_ok=True)


def read(data_dir: Path) -> State:
    """Where the servers of `data_dir` are; raises NotRunning."""
    if not _is_owned(data_dir):
        raise NotRunning(f"no servers run in {data_dir}: start them with `odooops up`")
    try:
        return State.model_validate_json((data_dir / FILE).read_bytes())
    except FileNotFoundError:
        raise NotRunning(f"the servers in {data_dir} are still starting, or stopping: try again") from None
    except ValidationError:
        raise NotRunning(f"{data_dir / FILE} was written by another version: restart `odooops up`") from None


@contextmanager
def owned(data_dir: Path) -> Iterator[int]:
    """Own the folder while the block runs; yields the descriptor that children inherit. Raises Owned.

    Inside, nothing of an earlier run is alive, so a process id file that one left behind is known to be stale.
    """
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _opened(data_dir / "up.lock") as ours, _opened(data_dir / "children.lock") as childrens:
        if not _take(ours, READER_S_MAX):
            raise Owned(
                f"another `odooops up` runs on {data_dir}: stop it, or choose another folder by --data-dir"
            )
        if not _take(childrens, SURVIVORS_S_MAX):
            raise Owned(f"processes that an earlier `odooops up` started on {data_dir} are still running")
        forget(data_dir)
        (data_dir / "postgres" / "postmaster.pid").unlink(missing_ok=True)
        try:
            yield childrens
        finally:
            forget(data_dir)


def _is_owned(data_dir: Path) -> bool:
    try:
        with _opened(data_dir / "up.lock", os.O_RDONLY) as lock:
            return not _lock(lock, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


@contextmanager
def _opened(path: Path, flags: int = os.O_RDWR | os.O_CREAT) -> Iterator[int]:
    descriptor = os.open(path, flags, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _take(descriptor: int, wait_s: float) -> bool:
    """Lock the file for us alone; a lock that is freed gives no signal, hence the short waits."""
    deadline = time.monotonic() + wait_s
    while not _lock(descriptor, fcntl.LOCK_EX):
        if time.monotonic() > deadline:
            return False
        time.sleep(LOCK_EVERY_S)
    return True


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
