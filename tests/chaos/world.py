"""The whole system as real processes on loopback, with our proxy on every way between them."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from migrations.__main__ import upgrade
from runtime import bus, embedded, streams
from runtime.embedded import LOOPBACK
from tests.chaos.disk import Disk, disk
from tests.chaos.kept import ROOT, Kept, left_alive
from tests.chaos.plan import LINKS, Act
from tests.chaos.proxy import Link
from tests.servers import Database, Nats, Postgres, data_folder
from tests.slack_double import CHANNEL, TOKEN, SlackDouble

START_S_MAX = 30.0
POLL_S = 0.02
SECRET = "a secret of chaos"
DOORS = ("ingest-0", "ingest-1")
SERVICES = (*DOORS, "projector", "notifier")


class World:
    """Servers, services, and what stands between them."""

    def __init__(self, folder: Path, spool: Disk, slack: SlackDouble) -> None:
        self.spool = spool
        self.slack = slack
        self._folder = folder
        passwords = embedded.credentials(folder)
        self._nats_passwords, self._postgres_passwords = passwords["nats"], passwords["postgres"]
        self.nats_port, self.postgres_port = embedded.free_port(), embedded.free_port()
        self.doors = {name: embedded.free_port() for name in DOORS}
        ports = {
            "nats": self.nats_port,
            "postgres": self.postgres_port,
            "slack": int(slack.address.rpartition(":")[2]),
            **self.doors,
        }
        self.links = {name: Link(name, ports[name.partition(">")[2]]) for name in LINKS}
        self.processes = {"nats": self._nats(), "postgres": self._postgres()}
        self.processes |= {name: self._service(name) for name in SERVICES}

    def _nats(self) -> Kept:
        command = embedded.prepare_nats(self._folder, self.nats_port, self._nats_passwords)
        return Kept("nats", lambda: command, {}, self._folder)

    def _postgres(self) -> Kept:
        command = embedded.prepare_postgres(self._folder, self.postgres_port, self._postgres_passwords)
        # Nothing here outlives a crash of the machine.
        return Kept("postgres", lambda: [*command, "-c", "fsync=off"], {}, self._folder, signal.SIGINT)

    def _service(self, name: str) -> Kept:
        module = name.partition("-")[0]
        entering = self.spool.entering() if module == "ingest" else []
        command = [*entering, sys.executable, "-m", f"services.{module}"]
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONPATH": str(ROOT),
            "ODOOOPS_SSOT_DIR": str(ROOT / "ssot"),
            "SSL_CERT_DIR": "/dev/null",
            "NATS_URL": embedded.nats_url(self.links[f"{name}>nats"].port, module, self._nats_passwords),
        }
        if module == "ingest":
            environment |= {
                "ODOOOPS_PORT": str(self.doors[name]),
                "ODOOOPS_SPOOL_DIR": str(self.spool.folder),
                "GITHUB_WEBHOOK_SECRET": SECRET,
            }
        else:
            environment[f"DATABASE_URL_{module.upper()}"] = embedded.database_url(
                self.links[f"{name}>postgres"].port, module, self._postgres_passwords
            )
        if module == "notifier":
            api = f"http://{LOOPBACK}:{self.links['notifier>slack'].port}/api"
            environment |= {"SLACK_BOT_TOKEN": TOKEN, "SLACK_CHANNEL": CHANNEL, "SLACK_API_URL": api}
        return Kept(name, lambda: command, environment, self._folder)

    async def start(self, ack_wait_s: float | None) -> None:
        """Start everything, and wait until the doors are open.

        The broker waits `ack_wait_s` for what a consumer took and did not acknowledge, if that is given.
        """
        for name in ("nats", "postgres"):
            self.processes[name].start()
        for link in self.links.values():
            await link.open()
        async with asyncio.timeout(START_S_MAX):
            while not await embedded.nats_answers(self.nats_port):
                await asyncio.sleep(POLL_S)
            while not await embedded.postgres_answers(self.postgres_port, self._postgres_passwords):
                await asyncio.sleep(POLL_S)
            for name in SERVICES:  # they wait for what is not there yet
                self.processes[name].start()
            await embedded.bootstrap(self.postgres_port, self._postgres_passwords)
            await asyncio.to_thread(upgrade, self.database_url(embedded.MIGRATOR))
            await embedded.make_logins(self.postgres_port, self._postgres_passwords)
            nc = await bus.connect(self.nats_url("operator"), "operator")
            js = nc.jetstream()
            await streams.provision(js)
            if ack_wait_s is not None:
                for stream, config in streams.consumer_configs():
                    await js.add_consumer(stream, config.evolve(ack_wait=ack_wait_s))
            await nc.close()
            for port in self.doors.values():
                while not await _listens(port):
                    await asyncio.sleep(POLL_S)

    def nats_url(self, user: str) -> str:
        """Its address, past all proxies."""
        return embedded.nats_url(self.nats_port, user, self._nats_passwords)

    def database_url(self, user: str, database: str = embedded.DATABASE) -> str:
        """Its address, past all proxies."""
        return embedded.database_url(self.postgres_port, user, self._postgres_passwords, database)

    @property
    def nats(self) -> Nats:
        return Nats(self.nats_url)

    @property
    def database(self) -> Database:
        return Database(Postgres(self.database_url), embedded.DATABASE)

    async def carry_out(self, act: Act) -> None:
        """Do what `act` says, and mend it in the end."""
        process, link = self.processes.get(act.target), self.links.get(act.target)
        if process is not None:
            await self._hurt(process, act)
        elif link is not None:
            await _break(link, act)

    async def _hurt(self, process: Kept, act: Act) -> None:
        try:
            if act.verb == "stop":
                process.freeze()
            elif act.verb == "crash":
                process.crash_a_child()
            elif act.verb == "restart":
                await process.ask_to_stop()
            else:
                if act.verb == "fill":
                    self.spool.fill()
                await process.kill()
            await asyncio.sleep(act.for_s)
        finally:
            process.thaw()
            if act.verb == "fill":
                self.spool.free()
            process.start()

    async def carry_out_all(self, acts: Iterable[Act]) -> None:
        """Do each at its time, counted from now."""
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def later(act: Act) -> None:
            await asyncio.sleep(began + act.at_s - loop.time())
            await self.carry_out(act)

        async with asyncio.TaskGroup() as group:
            for act in acts:
                group.create_task(later(act))

    def troubles(self) -> list[str]:
        """What our processes did that nobody had asked for."""
        return [trouble for name in SERVICES for trouble in self.processes[name].troubles]

    def said(self, name: str) -> str:
        """What a process has written."""
        return self.processes[name].log.read_text(errors="replace")

    async def end(self) -> list[str]:
        """Stop the services as an operator does and the servers at once; what is still alive then."""
        await asyncio.gather(*(self.processes[name].ask_to_stop() for name in SERVICES))
        await asyncio.gather(*(process.end() for process in self.processes.values()))
        await asyncio.gather(*(link.close() for link in self.links.values()))
        names = {known: name for name, process in self.processes.items() for known in process.seen}
        return sorted(f"{names[known]}: process {known[0]}" for known in await left_alive({*names}))


async def _break(link: Link, act: Act) -> None:
    try:
        {"cut": link.refuse, "hole": link.swallow, "forget": link.forget, "slow": link.slow}[act.verb]()
        await asyncio.sleep(act.for_s)
    finally:
        link.heal()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(LOOPBACK, port)
    except OSError:
        return False
    writer.close()
    return True


@asynccontextmanager
async def world(ack_wait_s: float | None = None) -> AsyncIterator[World]:
    """A world while the block runs; whoever wants to know what is left of it calls `end` before."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(data_folder())
        spool = await stack.enter_async_context(disk(folder / "spool"))
        slack = stack.enter_context(SlackDouble())
        made = World(folder, spool, slack)
        try:
            await made.start(ack_wait_s)
            yield made
        finally:
            await asyncio.gather(*(process.end() for process in made.processes.values()))
            await asyncio.gather(*(link.close() for link in made.links.values()))
