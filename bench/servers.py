"""Real servers and real processes for measurements, in a folder that goes away afterwards."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from migrations.__main__ import upgrade
from runtime import embedded

ROOT = Path(__file__).parent.parent
START_S_MAX = 20.0
POLL_S = 0.02
"""Between two questions to a server that gives no signal; each wait has a deadline."""


@dataclass(frozen=True)
class Servers:
    """A broker and a migrated database, with an address per service, and their process ids."""

    folder: Path
    nats: Mapping[str, str]
    postgres: Mapping[str, str]
    nats_pid: int
    postgres_pid: int


@asynccontextmanager
async def servers(kept: Path | None = None) -> AsyncIterator[Servers]:
    """Both servers, empty; or with what an earlier run left in the folder `kept`."""
    folder = kept or Path(tempfile.mkdtemp(prefix="odooops-bench-"))
    passwords = embedded.credentials(folder)
    nats_port, postgres_port = embedded.free_port(), embedded.free_port()
    nats = embedded.prepare_nats(folder, nats_port, passwords["nats"])
    postgres = embedded.prepare_postgres(folder, postgres_port, passwords["postgres"])
    try:
        async with running(nats) as broker, running(postgres, stop=signal.SIGINT) as database:
            async with asyncio.timeout(START_S_MAX):
                while not await embedded.nats_answers(nats_port):
                    await asyncio.sleep(POLL_S)
                while not await embedded.postgres_answers(postgres_port, passwords["postgres"]):
                    await asyncio.sleep(POLL_S)
            await embedded.bootstrap(postgres_port, passwords["postgres"])
            addresses = {
                user: embedded.database_url(postgres_port, user, passwords["postgres"])
                for user in (*embedded.DATABASE_USERS, embedded.MIGRATOR)
            }
            await asyncio.to_thread(upgrade, addresses[embedded.MIGRATOR])
            await embedded.make_logins(postgres_port, passwords["postgres"])
            urls = {user: embedded.nats_url(nats_port, user, passwords["nats"]) for user in passwords["nats"]}
            yield Servers(folder, urls, addresses, broker.pid, database.pid)
    finally:
        if kept is None:
            shutil.rmtree(folder)


@asynccontextmanager
async def running(command: list[str], stop: int = signal.SIGTERM, **how: Any) -> AsyncIterator[Process]:
    """A process that ends with the block."""
    silent = {"stdout": asyncio.subprocess.DEVNULL, "stderr": asyncio.subprocess.DEVNULL}
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, **{**silent, **how})
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(stop)
        try:
            await asyncio.wait_for(process.wait(), START_S_MAX)
        except TimeoutError:
            process.kill()
            await process.wait()


@asynccontextmanager
async def service(name: str, settings: Mapping[str, str]) -> AsyncIterator[Process]:
    """A service as a process of its own."""
    async with module(f"services.{name}", settings) as process:
        yield process


@asynccontextmanager
async def module(name: str, settings: Mapping[str, str]) -> AsyncIterator[Process]:
    """A module as a process of its own."""
    command = [sys.executable, "-m", name]
    async with running(command, env={**os.environ, **settings}) as process:
        yield process


def cpu_s(pid: int) -> float:
    """The processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def family_cpu_s(pid: int) -> float:
    """The processor time of a process and of all that it has started, those included that have ended."""
    used = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):  # it has just ended
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                used[int(folder.name)] = (
                    int(fields[1]),
                    sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK"),
                )
    members = {pid}
    while more := {child for child, (parent, _) in used.items() if parent in members} - members:
        members |= more
    return sum(used[member][1] for member in members)
