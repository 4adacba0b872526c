"""The servers of a data folder while no `up` runs on it: without the services, for as long as a command needs them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from signal import SIGINT

from cli import terminal
from runtime import embedded, state
from runtime.embedded import DATABASE_USERS, LOOPBACK, MIGRATOR
from runtime.permissions import USERS
from runtime.state import State
from runtime.supervisor import Child, Supervisor

INHERITED = ("HOME", "LANG", "LD_LIBRARY_PATH", "PATH", "TMPDIR")
"""Of our environment: the servers have no use for anybody's secret."""


@dataclass(frozen=True, slots=True)
class Resting:
    """Where the servers are, for who may do everything."""

    broker: str
    database: str
    """Its migrator's."""


@asynccontextmanager
async def resting(data_dir: Path, sync_interval: str = "always") -> AsyncIterator[Resting]:
    """Start the folder's broker and database, made where there are none, and stop them at the end.

    With another `sync_interval` what the broker has written is on the disk at the end, and not before. Other commands
    find the servers as they find those of `up`. Raises Owned where an `up` runs, and DidNotStart.
    """
    with state.owned(data_dir) as descriptor:
        passwords = embedded.credentials(data_dir)
        supervisor = Supervisor(data_dir / "logs", terminal.say, inherited_fds=(descriptor,))
        env = {name: os.environ[name] for name in INHERITED if name in os.environ}
        nats_port, port = embedded.free_port(), embedded.free_port()
        try:
            await supervisor.start(
                Child(
                    name="nats",
                    argv=embedded.prepare_nats(data_dir, nats_port, passwords["nats"], sync_interval),
                    env=env,
                    ready=lambda: embedded.nats_answers(nats_port),
                ),
                Child(
                    name="postgres",
                    argv=embedded.prepare_postgres(data_dir, port, passwords["postgres"]),
                    env=env,
                    ready=lambda: embedded.postgres_answers(port, passwords["postgres"]),
                    stop_signal=SIGINT,
                ),
            )
            await embedded.bootstrap(port, passwords["postgres"])
            found = State(
                pid=os.getpid(),
                started_at=datetime.now(UTC),
                http_url="",
                nats={user: embedded.nats_url(nats_port, user, passwords["nats"]) for user in USERS},
                database={
                    user: embedded.database_url(port, user, passwords["postgres"]) for user in DATABASE_USERS
                },
                ops_host=LOOPBACK,
                ops_ports={},
                pids=supervisor.pids,
                secret_files={},
                log_dir=str(data_dir / "logs"),
                embedded_nats=True,
                embedded_database=True,
            )
            state.write(data_dir, found)
            yield Resting(
                found.nats["operator"], embedded.database_url(port, MIGRATOR, passwords["postgres"])
            )
            # The roles are there by now, also where a restore has made the tables: other commands need no `up` first.
            await embedded.make_logins(port, passwords["postgres"])
        finally:
            await supervisor.stop()
            if sync_interval != "always":
                await asyncio.to_thread(os.sync)
