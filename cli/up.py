"""`odooops up`: the servers where none are given, the migrations, and the services, kept until Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from cli import reach, terminal
from cli.check import UNSIGNED
from providers.polling import why_not_polled
from providers.registry import sources
from runtime import embedded, ports, settings, ssot, state, streams, supervisor
from runtime.embedded import DATABASE_USERS, LOOPBACK, MIGRATOR
from runtime.permissions import USERS
from runtime.settings import BadSettings, Settings
from runtime.state import State
from runtime.supervisor import Child, Supervisor

SERVICES = ("ingest", "projector", "notifier")
POLLER = "poller"
"""Started only where there is something to poll."""
PORT_MAX = 65_535
LEVEL_SERVICE = 1
"""Above the servers, whose level is 0."""
PORTS_TRIED_MAX = 50
SECRET_BYTES = 32
SERVER_ADDRESSES = ("NATS_URL", "DATABASE_URL")
SLACK_SECRETS = ("SLACK_BOT_TOKEN", "SLACK_WEBHOOK_URL")

A = TypeVar("A")
B = TypeVar("B")

Then = Callable[[State], Awaitable[None]]
"""What follows once everything is ready."""


def run(data_dir: Path, port: int | None, then: Then | None = None, *, unpark: bool = False) -> None:
    """Keep everything running on `data_dir` until Ctrl-C or SIGTERM; `unpark` retries what is parked."""
    loaded = settings.load()
    folder = data_dir.resolve()
    with state.owned(folder) as descriptor, ExitStack() as held:
        asyncio.run(_serve(Start(folder, loaded, port, held, descriptor, unpark=unpark), then))


async def _serve(start: Start, then: Then | None) -> None:
    stopping = asyncio.Event()

    def stop() -> None:
        if stopping.is_set():
            terminal.say("killing what still runs")
            start.supervisor.kill()
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup keeps us running
            loop.add_signal_handler(number, stop)

    async def work() -> None:
        terminal.say(f"starting, with data in {start.data_dir}")
        running = await start.everything()
        sys.stdout.write(f"ready {running.http_url}\n")
        sys.stdout.flush()
        terminal.say(f"logs are in {running.log_dir}; stop with Ctrl-C")
        if then is not None:
            await then(running)
        await stopping.wait()

    working, stopped = asyncio.create_task(work()), asyncio.create_task(stopping.wait())
    await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if stopping.is_set():
        working.cancel()
        terminal.say("stopping (Ctrl-C once more kills)")
    stopping.set()
    try:
        await asyncio.wait({working})
        await start.supervisor.stop()
    finally:
        start.supervisor.kill()
    if not working.cancelled():
        working.result()
    terminal.say("stopped, nothing is left running")


class Start:
    """One start: what was found out on the way, and the supervisor of what was started."""

    def __init__(
        self,
        data_dir: Path,
        loaded: Settings,
        port: int | None,
        held: ExitStack,
        descriptor: int,
        *,
        unpark: bool = False,
    ) -> None:
        self.data_dir = data_dir
        self.settings = loaded
        self.supervisor = Supervisor(data_dir / "logs", terminal.say, self._spawned, (descriptor,))
        self._held = held
        self._ssot_dir = reach.ssot_dir(loaded)
        self._sources = sources(ssot.load(self._ssot_dir))
        files = [source.file for source in self._sources.values()]
        self._secret_names = [name for file in files for name in file.secrets]
        self._api_secret_names = [file.api.secret for file in files if file.api is not None]
        self.not_polled = self._why_not_polled()
        polled = len(self.not_polled) < len(self._api_secret_names)
        self.services = (*SERVICES, POLLER) if polled else SERVICES
        self._given_nats = _given_nats(loaded, polled)
        self._given_database = _given_database(loaded)
        self._flags = {"projector": ["--unpark"]} if unpark else {}
        self._host = loaded.odooops_host
        self._door = self._choose_door(port)
        self._port: int = self._door.getsockname()[1]
        self.ops_ports = self._hold_ops_ports()
        self._secret_files: dict[str, str] = {}
        self._closed_sources: dict[str, str] = {}
        self._state: State | None = None

    async def everything(self) -> State:
        """Start all that is needed; returns when all of it is ready."""
        passwords = embedded.credentials(self.data_dir)
        if not (self._given_nats and self._given_database):
            self._secret_files = self._webhook_secrets()
        self._closed_sources = self._without_secret()
        for source, missing in self._closed_sources.items():
            terminal.say(f"{source} is closed: set {missing}")
        for source, declared in self._sources.items():
            if declared.file.unsigned:
                terminal.say(f"{source} is {UNSIGNED}")
        # Ingest needs the broker and nothing else: it takes deliveries while the database still starts.
        nats, database = await _together(
            self._broker(passwords["nats"]), self._database(passwords["postgres"])
        )
        await self.supervisor.start(
            *(
                self._service(name, _addresses(name, nats, database))
                for name in self.services
                if name != "ingest"
            )
        )
        self._state = State(
            pid=os.getpid(),
            started_at=datetime.now(UTC),
            http_url=f"http://{_reachable(self._host)}:{self._port}",
            nats=nats,
            database=database,
            ops_host=_reachable(self.settings.odooops_ops_host),
            ops_ports=self.ops_ports,
            pids=self.supervisor.pids,
            secret_files=self._secret_files,
            closed_sources=self._closed_sources,
            not_polled=self.not_polled,
            log_dir=str(self.data_dir / "logs"),
            embedded_nats=not self._given_nats,
            embedded_database=not self._given_database,
        )
        state.write(self.data_dir, self._state)
        return self._state

    async def _broker(self, passwords: Mapping[str, str]) -> dict[str, str]:
        """The broker's address for each user; its streams are there, and ingest fills them."""
        if self._given_nats:
            addresses = self._given_nats
        else:
            port = embedded.free_port()
            argv = await asyncio.to_thread(embedded.prepare_nats, self.data_dir, port, passwords)
            await self.supervisor.start(
                Child(
                    name="nats", argv=argv, env=self.env("server"), ready=lambda: embedded.nats_answers(port)
                )
            )
            addresses = {user: embedded.nats_url(port, user, passwords) for user in USERS}
        async with reach.broker(addresses["operator"], "operator") as client:
            for drift in await streams.provision(client.jetstream(), self.settings.nats_replicas):
                terminal.say(f"a setting is not ours, left as it is: {drift}")
        files = {f"{name}_FILE": path for name, path in self._secret_files.items()}
        own = {
            "NATS_URL_INGEST": addresses["ingest"],
            "ODOOOPS_PORT": str(self._port),
            "ODOOOPS_LISTEN_FD": str(self._door.fileno()),
            "ODOOOPS_SPOOL_DIR": str(self.settings.odooops_spool_dir or self.data_dir / "spool"),
            **files,
        }
        await self.supervisor.start(self._service("ingest", own, [self._door.fileno()]))
        return addresses

    async def _database(self, passwords: Mapping[str, str]) -> dict[str, str]:
        """The database's address for each user; its tables are up to date."""
        if self._given_database:
            await self._migrate(self.settings.migrator_database())
            return self._given_database
        port = embedded.free_port()
        argv = await asyncio.to_thread(embedded.prepare_postgres, self.data_dir, port, passwords)
        await self.supervisor.start(
            Child(
                name="postgres",
                argv=argv,
                env=self.env("server"),
                ready=lambda: embedded.postgres_answers(port, passwords),
                # A fast shutdown: at SIGTERM it would wait for every client to leave.
                stop_signal=signal.SIGINT,
            )
        )
        await embedded.bootstrap(port, passwords)
        await self._migrate(embedded.database_url(port, MIGRATOR, passwords))
        await embedded.make_logins(port, passwords)
        return {user: embedded.database_url(port, user, passwords) for user in DATABASE_USERS}

    async def _migrate(self, url: str) -> None:
        await self.supervisor.run(
            "migrations", _python("migrations"), self.env("migrations", {"DATABASE_URL": url}), LEVEL_SERVICE
        )

    def _service(self, name: str, own: Mapping[str, str], fds: Sequence[int] = ()) -> Child:
        host, ops_port = _reachable(self.settings.odooops_ops_host), self.ops_ports[name]

        async def ready() -> bool:
            return await ports.problems_at(host, ops_port) == {}

        return Child(
            name=name,
            level=LEVEL_SERVICE,
            argv=[*_python(f"services.{name}"), *self._flags.get(name, ())],
            env=self.env(name, {"ODOOOPS_OPS_PORT": str(ops_port), **own}),
            ready=ready,
            fds=fds,
        )

    def env(self, name: str, own: Mapping[str, str] | None = None) -> dict[str, str]:
        """What a process needs to know and nothing more: no address of another, no secret that it has no use for."""
        without = list(SERVER_ADDRESSES)
        without += [] if name == "notifier" else SLACK_SECRETS
        shared = {
            # The processes run the code that this command is of, wherever they are started.
            "PYTHONPATH": str(reach.ROOT),
            "ODOOOPS_DATA_DIR": str(self.data_dir),
            "ODOOOPS_SSOT_DIR": str(self._ssot_dir),
        }
        made = supervisor.environment(without, {**shared, **(own or {})})
        uses = {"ingest": self._secret_names, POLLER: self._api_secret_names}.get(name, [])
        others = {*self._secret_names, *self._api_secret_names}.difference(uses)
        return {key: value for key, value in made.items() if key.removesuffix("_FILE") not in others}

    def _webhook_secrets(self) -> dict[str, str]:
        """The files of secrets made for this folder, by the secret's name; made where a source has none at all.

        Senders know a secret that was made once: it counts beside any other of the source, until its own
        variable is set.
        """
        files = {}
        for source in self._sources.values():
            names = source.file.secrets
            name = next(iter(names), None)
            if name is None or os.environ.get(name) or os.environ.get(f"{name}_FILE"):
                continue
            path = self.data_dir / "secrets" / name.lower()
            if not path.exists():
                if settings.secret_values(names):
                    continue
                made = source.provider.new_secret(secrets.token_bytes(SECRET_BYTES))
                embedded.write_private(path, made + "\n")
            files[name] = str(path)
        return files

    def _without_secret(self) -> dict[str, str]:
        """The sources that ingest will keep closed, each with the variable that opens it."""
        return {
            name: names[0]
            for name, source in self._sources.items()
            if (names := source.file.secrets) and not source.file.unsigned
            if names[0] not in self._secret_files and not settings.secret_values(names)
        }

    def _why_not_polled(self) -> dict[str, str]:
        """Why a source whose file names an API is not polled, and the fix, by source."""
        found = {}
        for name, source in self._sources.items():
            api = source.file.api
            reason = api and why_not_polled(source, bool(settings.secret_values([api.secret])))
            if reason:
                found[name] = reason
        return found

    def _choose_door(self, asked: int | None) -> socket.socket:
        """The socket on which ingest listens: ours, so that a restart of ingest refuses no connection."""
        if asked is None and "odooops_port" in self.settings.model_fields_set:
            asked = self.settings.odooops_port
        first = self.settings.odooops_port if asked is None else asked
        for port in range(first, first + (PORTS_TRIED_MAX if asked is None else 1)):
            listener = ports.listen(self._host, port)
            if listener is not None:
                if port != first:
                    terminal.say(f"port {first} is in use, taking {port}")
                return self._held.enter_context(listener)
        if asked is not None:
            raise BadSettings(f"port {asked} is in use: give another by --port")
        raise BadSettings(f"ports {first} to {port} are in use: give a free one by --port")

    def _hold_ops_ports(self) -> dict[str, int]:
        """Of each service: ODOOOPS_OPS_PORT and those behind it, so that Prometheus finds them again; else any."""
        first, found = self.settings.odooops_ops_port, {}
        for n, service in enumerate(self.services):
            port = first + n if first else 0
            holder = ports.reserve(self.settings.odooops_ops_host, port) if port <= PORT_MAX else None
            if holder is None:
                raise BadSettings(
                    f"ODOOOPS_OPS_PORT is {first}: port {port}, for {service}, cannot be had:"
                    f" name the first of {len(self.services)} free ones"
                )
            self._held.enter_context(holder)
            found[service] = holder.getsockname()[1]
        return found

    def _spawned(self) -> None:
        if self._state is not None:
            self._state = self._state.model_copy(update={"pids": self.supervisor.pids})
            state.write(self.data_dir, self._state)


def _python(module: str) -> list[str]:
    """The command that runs one of our modules, never one of the same name in the current folder (-P)."""
    return [sys.executable, "-P", "-m", module]


def _addresses(name: str, nats: Mapping[str, str], database: Mapping[str, str]) -> dict[str, str]:
    """The variables by which a service finds its servers."""
    own = {f"NATS_URL_{name.upper()}": nats[name]}
    return own | {f"DATABASE_URL_{name.upper()}": database[name]} if name in database else own


def _given_nats(loaded: Settings, polled: bool) -> dict[str, str]:
    """The broker's address for each user, where the settings give any; empty where they give none.

    One is enough: better to ask for the others than to mix the operator's servers with ours. The poller's is only
    asked for where it has something to do.
    """
    if not _any_set(loaded, "nats_url"):
        return {}
    needed = [user for user in USERS if user != POLLER or polled or loaded.nats_url or loaded.nats_url_poller]
    return {user: loaded.nats_for(user) for user in needed}


def _given_database(loaded: Settings) -> dict[str, str]:
    """The database's address for each user, likewise. The services' and the migrator's are needed."""
    if not _any_set(loaded, "database_url"):
        return {}
    loaded.migrator_database()
    needed = {user: loaded.database_for(user) for user in ("projector", "notifier")}
    others = {user: getattr(loaded, f"database_url_{user}") for user in DATABASE_USERS if user not in needed}
    return needed | {user: url.get_secret_value() for user, url in others.items() if url is not None}


def _any_set(loaded: Settings, kind: str) -> bool:
    return any(getattr(loaded, name) is not None for name in Settings.model_fields if name.startswith(kind))


def _reachable(host: str) -> str:
    """`host` as an address that can be asked."""
    return LOOPBACK if host in ("0.0.0.0", "::") else host  # noqa: S104  # compared, not bound


async def _together(first: Coroutine[Any, Any, A], second: Coroutine[Any, Any, B]) -> tuple[A, B]:
    """Both results; where one fails, the other is ended before this returns."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = group.create_task(first), group.create_task(second)
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return tasks[0].result(), tasks[1].result()
