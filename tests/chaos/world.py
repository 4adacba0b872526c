"""The whole system as real processes on loopback, with our proxy on every way between them."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import nats.errors
from nats.js.errors import APIError

from migrations.__main__ import upgrade
from runtime import bus, embedded, streams
from runtime.embedded import LOOPBACK
from runtime.permissions import USERS
from tests.chaos.disk import Disk, disk
from tests.chaos.kept import ROOT, Kept, left_alive
from tests.chaos.load import secrets
from tests.chaos.plan import DOORS, LINKS, PROJECTORS, Act
from tests.chaos.proxy import Link
from tests.deploy import brokers
from tests.servers import Database, Nats, Postgres, data_folder
from tests.slack_double import CHANNEL, TOKEN, Reply, SlackDouble

START_S_MAX = 60.0
POLL_S = 0.02
REQUEST_S_MAX = 5.0
SLACK_S = 0.9
"""From a message in the channel to Slack's answer: whoever is hurt meanwhile does not know that it is there."""
SERVICES = (*DOORS, *PROJECTORS, "notifier")
_SERVE = """
import runpy, sys
from runtime import streams
streams.ACCEPT_S_MAX = float(sys.argv[1])
runpy.run_module("services.ingest", run_name="__main__")
"""


class World:
    """Servers, services, and what stands between them."""

    def __init__(self, folder: Path, spool: Disk, slack: SlackDouble, accept_s: float, count: int) -> None:
        self.spool = spool
        self.slack = slack
        self._folder = folder
        self._accept_s = accept_s
        self._postgres_passwords = embedded.credentials(folder)["postgres"]
        self.postgres_port = embedded.free_port()
        self.doors = {name: embedded.free_port() for name in DOORS}
        self.routes: dict[str, Link] = {}
        """Between brokers, by who connects and to whom: `nats-1>nats-2`."""
        self.brokers = self._broker() if count == 1 else self._brokers(count)
        self.nats_ports = tuple(each.port for each in self.brokers)
        ports = {
            "nats": self.nats_ports,
            "postgres": (self.postgres_port,),
            "slack": (int(slack.address.rpartition(":")[2]),),
            **{name: (port,) for name, port in self.doors.items()},
        }
        self.links = {name: Link(*ports[name.partition(">")[2]]) for name in LINKS}
        self.processes = {each.name: Kept(each.name, each.command, {}, folder) for each in self.brokers}
        self.processes["postgres"] = self._postgres()
        self.processes |= {name: self._service(name) for name in SERVICES}
        self._hurting: set[str] = set()
        """The processes that something is being done to."""

    def _broker(self) -> list[brokers.Prepared]:
        port = embedded.free_port()
        self._nats_passwords: Mapping[str, str] = embedded.credentials(self._folder)["nats"]
        return [
            brokers.Prepared("nats", embedded.prepare_nats(self._folder, port, self._nats_passwords), port)
        ]

    def _brokers(self, count: int) -> list[brokers.Prepared]:
        def route(who: str, to: str, port: int) -> int:
            link = self.routes.setdefault(f"{who}>{to}", Link(port))
            return link.port

        secrets, made = brokers.prepare(self._folder, count, route)
        users = {name.removeprefix("nats_url_"): text for name, text in secrets.items()}
        self._nats_passwords = {
            user: urlsplit(text.split(",")[0]).password or "" for user, text in users.items() if user in USERS
        }
        return made

    def _postgres(self) -> Kept:
        command = embedded.prepare_postgres(self._folder, self.postgres_port, self._postgres_passwords)
        # Nothing here outlives a crash of the machine.
        return Kept("postgres", [*command, "-c", "fsync=off"], {}, self._folder, signal.SIGINT)

    def _service(self, name: str) -> Kept:
        module = name.partition("-")[0]
        command = [sys.executable, "-m", f"services.{module}"]
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONPATH": str(ROOT),
            "ODOOOPS_DATA_DIR": str(self._folder),
            "ODOOOPS_SSOT_DIR": str(ROOT / "ssot"),
            "SSL_CERT_DIR": "/dev/null",
            "NATS_URL": self._addresses(module, *self.links[f"{name}>nats"].ports.values()),
        }
        if module == "ingest":
            command = [*self.spool.entering(), sys.executable, "-c", _SERVE, str(self._accept_s)]
            environment |= {
                "ODOOOPS_PORT": str(self.doors[name]),
                "ODOOOPS_SPOOL_DIR": str(self.spool.folder),
                **{secret.name: secret.value.decode() for secret in secrets().values()},
            }
        else:
            environment[f"DATABASE_URL_{module.upper()}"] = embedded.database_url(
                self.links[f"{name}>postgres"].port, module, self._postgres_passwords
            )
        if module == "notifier":
            api = f"http://{LOOPBACK}:{self.links['notifier>slack'].port}/api"
            environment |= {"SLACK_BOT_TOKEN": TOKEN, "SLACK_CHANNEL": CHANNEL, "SLACK_API_URL": api}
        return Kept(name, command, environment, self._folder)

    async def start(self, ack_wait_s: float | None) -> None:
        """Start everything, and wait until the doors are open and everybody is at work.

        The broker waits `ack_wait_s` for what a consumer took and did not acknowledge, if that is given.
        """
        for name in (*(each.name for each in self.brokers), "postgres"):
            self.processes[name].start()
        for link in (*self.links.values(), *self.routes.values()):
            await link.open()
        async with asyncio.timeout(START_S_MAX), asyncio.TaskGroup() as group:
            group.create_task(self._start_broker(ack_wait_s))
            group.create_task(self._start_database())
            for name in SERVICES:  # they wait for what is not there yet
                self.processes[name].start()
            for port in self.doors.values():
                await _until(lambda port=port: _listens(port))  # type: ignore[misc]
        async with asyncio.timeout(START_S_MAX):
            await self._asked()

    async def _start_broker(self, ack_wait_s: float | None) -> None:
        for each in self.brokers:
            await _until(each.answers)
        nc = await bus.connect(self.nats_url("operator"), "operator")
        js = nc.jetstream(timeout=START_S_MAX)
        await streams.provision(js, len(self.brokers))
        if ack_wait_s is not None:
            for stream, config in streams.consumer_configs():
                await js.add_consumer(stream, config.evolve(ack_wait=ack_wait_s))
        await nc.close()

    async def _asked(self) -> None:
        """Wait until somebody asks each consumer for work: before, nobody could be hurt."""
        nc = await bus.connect(self.nats_url("operator"), "operator")
        js = nc.jetstream(timeout=START_S_MAX)
        for stream, config in streams.consumer_configs():
            while not (await js.consumer_info(stream, str(config.durable_name))).num_waiting:
                await asyncio.sleep(POLL_S)
        await nc.close()

    async def _start_database(self) -> None:
        await _until(lambda: embedded.postgres_answers(self.postgres_port, self._postgres_passwords))
        await embedded.bootstrap(self.postgres_port, self._postgres_passwords)
        await asyncio.to_thread(upgrade, self.database_url(embedded.MIGRATOR))
        await embedded.make_logins(self.postgres_port, self._postgres_passwords)

    def nats_url(self, user: str) -> str:
        """Its address, past all proxies."""
        return self._addresses(user, *self.nats_ports)

    def _addresses(self, user: str, *ports: int) -> str:
        return ",".join(embedded.nats_url(port, user, self._nats_passwords) for port in ports)

    def database_url(self, user: str, database: str = embedded.DATABASE) -> str:
        """Its address, past all proxies."""
        return embedded.database_url(self.postgres_port, user, self._postgres_passwords, database)

    @property
    def nats(self) -> Nats:
        return Nats(self.nats_url)

    @property
    def database(self) -> Database:
        return Database(Postgres(self.database_url), embedded.DATABASE)

    async def carry_out(self, act: Act) -> bool:
        """Do what `act` says, and mend it in the end; whether it hit anybody."""
        if act.verb == "demote":
            return await self._demote(act.for_s)
        if act.verb == "isolate":
            leader = await self._leader() or act.target
            about = [link for name, link in self.routes.items() if leader in name.split(">")]
            return await _break(about, Link.refuse, act.for_s)
        if (process := self.processes.get(act.target)) is not None:
            return await self._hurt(process, act)
        how = {"cut": Link.refuse, "hole": Link.swallow, "forget": Link.forget, "slow": Link.slow}
        return await _break([self.links[act.target]], how[act.verb], act.for_s)

    async def _hurt(self, process: Kept, act: Act) -> bool:
        if process.name in self._hurting:
            return False  # it takes longer to stop than was planned
        self._hurting.add(process.name)
        try:
            match act.verb:
                case "stop":
                    hit = process.freeze()
                case "crash":
                    hit = process.crash_a_child()
                case "starve":
                    hit = process.starve()
                case "restart":
                    hit = await process.ask_to_stop()
                case "fill":
                    filled = self.spool.fill()
                    hit = await process.kill() and filled
                case _:
                    hit = await process.kill()
            await asyncio.sleep(act.for_s)
            return hit
        finally:
            process.thaw()
            process.feed()
            if act.verb == "fill":
                self.spool.free()
            process.start()
            self._hurting.discard(process.name)

    async def _leader(self) -> str | None:
        """The broker that leads the log; None where nobody says."""
        nc = await bus.connect(self.nats_url("operator"), "operator")
        try:
            state = (await nc.jetstream().stream_info(streams.DELIVERIES)).cluster
            return state.leader if state else None
        except (nats.errors.Error, APIError):
            return None
        finally:
            await nc.close()

    async def _demote(self, for_s: float) -> bool:
        """Have another broker lead the log, if there is one now that can."""
        nc = await bus.connect(self.nats_url("operator"), "operator")
        try:
            step_down = f"$JS.API.STREAM.LEADER.STEPDOWN.{streams.DELIVERIES}"
            answer = await nc.request(step_down, b"", REQUEST_S_MAX)
            await asyncio.sleep(for_s)
            return bool(json.loads(answer.data).get("success"))
        except nats.errors.Error:
            return False
        finally:
            await nc.close()

    async def carry_out_all(self, acts: Iterable[Act]) -> list[Act]:
        """Do each at its time, counted from now; those that hit."""
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def later(act: Act) -> bool:
            await asyncio.sleep(began + act.at_s - loop.time())
            return await self.carry_out(act)

        async with asyncio.TaskGroup() as group:
            doing = [(act, group.create_task(later(act))) for act in acts]
        return [act for act, task in doing if task.result()]

    def troubles(self) -> list[str]:
        """What processes did that nobody had asked for; but Postgres may not be able to start at once again."""
        judged = (process for name, process in self.processes.items() if name != "postgres")
        return [trouble for process in judged for trouble in process.troubles]

    async def end(self) -> list[str]:
        """Stop the services as an operator does and the servers at once; what is still alive then."""
        await asyncio.gather(*(self.processes[name].ask_to_stop() for name in SERVICES))
        await self.close()
        return await left_alive(self._folder)

    async def close(self) -> None:
        """End whatever still runs."""
        await self.processes["postgres"].ask_to_stop()  # killed, it would leave its shared memory behind
        await asyncio.gather(*(process.end() for process in self.processes.values()))
        await asyncio.gather(*(link.close() for link in (*self.links.values(), *self.routes.values())))


async def _break(links: Iterable[Link], how: Callable[[Link], None], for_s: float) -> bool:
    links = list(links)
    before = sum(link.hurt for link in links)
    try:
        for link in links:
            how(link)
        await asyncio.sleep(for_s)
        return sum(link.hurt for link in links) > before
    finally:
        for link in links:
            link.heal()


async def _until(answers: Callable[[], Awaitable[bool]]) -> None:
    while not await answers():
        await asyncio.sleep(POLL_S)


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(LOOPBACK, port)
    except OSError:
        return False
    writer.close()
    return True


@asynccontextmanager
async def world(ack_wait_s: float | None, accept_s: float, brokers: int) -> AsyncIterator[World]:
    """A world while the block runs, with one broker or three; ingest waits for it for `accept_s`.

    Whoever wants to know what is left of it calls `end` before.
    """
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(data_folder())
        spool = await stack.enter_async_context(disk(folder / "spool"))
        slack = stack.enter_context(SlackDouble(default=Reply(after_s=SLACK_S)))
        made = World(folder, spool, slack, accept_s, brokers)
        try:
            await made.start(ack_wait_s)
            yield made
        finally:
            await made.close()
