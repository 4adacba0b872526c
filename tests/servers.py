"""The real servers that tests run against: embedded, in containers, or at given addresses (SERVERS=…)."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import nats

from migrations.__main__ import upgrade
from runtime import embedded
from runtime.permissions import USERS, inbox_prefix
from runtime.supervisor import dies_with_us

START_S_MAX = 30.0
STOP_S_MAX = 20.0
POLL_S = 0.02
MEMORY = Path("/dev/shm")
MEMORY_BYTES_MIN = 4 << 30
TEMPLATE = "odooops_template"
SUBSCRIBER = "deploys"
"""A user of the broker who is none of our services."""


@dataclass(frozen=True)
class Nats:
    """A broker with one user per service."""

    address: Callable[[str], str]

    def url(self, user: str) -> str:
        return self.address(user)


@dataclass(frozen=True)
class Postgres:
    """A cluster with the roles made, a migrated template database, and a login per service."""

    address: Callable[[str, str], str]
    """From user and database to an address; the user `admin` may create databases."""

    def url(self, user: str, database: str) -> str:
        return self.address(user, database)

    def execute(self, *statements: str, database: str = "postgres") -> None:
        """Run statements as the admin, each on its own."""

        async def run() -> None:
            connection = await asyncpg.connect(self.url("admin", database))
            try:
                for statement in statements:
                    await connection.execute(statement)
            finally:
                await connection.close()

        asyncio.run(run())

    def prepare(self, passwords: dict[str, str]) -> None:
        """Migrate the template database and make the logins."""
        self.execute(f"DROP DATABASE IF EXISTS {TEMPLATE} WITH (FORCE)", f"CREATE DATABASE {TEMPLATE}")
        upgrade(self.url("admin", TEMPLATE))
        for user in embedded.DATABASE_USERS:
            login = embedded.login_of(user)
            self.execute(
                f"DO $$ BEGIN CREATE ROLE {login} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
                f"ALTER ROLE {login} PASSWORD '{passwords[user]}'",
                f"GRANT odooops_{user} TO {login}",
            )


@dataclass(frozen=True)
class Database:
    """A migrated database of one test's own."""

    server: Postgres
    name: str

    def url(self, user: str) -> str:
        """Its address for a service's login, or for `admin`."""
        return self.server.url(user, self.name)


@contextmanager
def fresh_database(server: Postgres) -> Iterator[Database]:
    """A copy of the template, dropped afterwards with whoever is still connected."""
    name = f"test_{uuid.uuid4().hex}"
    # A template's own rights do not come along: the one that a migration gives is given again.
    grant = f"GRANT CREATE ON DATABASE {name} TO odooops_operator, odooops_owner"
    in_thread(server.execute, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY file_copy", grant)
    try:
        yield Database(server, name)
    finally:
        in_thread(server.execute, f"DROP DATABASE {name} WITH (FORCE)")


def in_thread(function: Callable[..., None], *arguments: str) -> None:
    """Call what runs an event loop of its own, even from within a running one."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(function, *arguments).result()


@contextmanager
def data_folder() -> Iterator[Path]:
    """A folder for servers' data, gone afterwards; in memory where there is room, for a database is 460 files."""
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MEMORY_BYTES_MIN
    with tempfile.TemporaryDirectory(prefix="odooops-", dir=MEMORY if roomy else None) as folder:
        yield Path(folder)


@contextmanager
def nats_server() -> Iterator[Nats]:
    """One broker, of the kind that SERVERS names."""
    kind = os.environ.get("SERVERS", "embedded")
    if kind == "urls":
        url = os.environ["NATS_URL"]
        yield Nats(lambda user: url)
    elif kind == "containers":
        with _nats_container() as server:
            yield server
    else:
        with _embedded_nats() as server:
            yield server


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """One prepared cluster, of the kind that SERVERS names."""
    kind = os.environ.get("SERVERS", "embedded")
    passwords = {user: f"test-{user}" for user in embedded.DATABASE_USERS}
    if kind == "urls":
        yield _prepared(os.environ["DATABASE_URL"], passwords)
    elif kind == "containers":
        from testcontainers.postgres import PostgresContainer

        with PostgresContainer("postgres:18", driver=None) as container:
            yield _prepared(container.get_connection_url(), passwords)
    else:
        with _embedded_postgres() as (port, made):
            server = Postgres(
                lambda user, database: embedded.database_url(
                    port, "postgres" if user == "admin" else user, made, database
                )
            )
            server.prepare(made)
            yield server


def _prepared(admin_url: str, passwords: dict[str, str]) -> Postgres:
    parts = urlsplit(admin_url)

    def address(user: str, database: str) -> str:
        if user == "admin":
            return urlunsplit(parts._replace(path=f"/{database}"))
        host = f"{parts.hostname}:{parts.port or 5432}"
        login = f"{embedded.login_of(user)}:{passwords[user]}"
        return urlunsplit(parts._replace(netloc=f"{login}@{host}", path=f"/{database}"))

    server = Postgres(address)
    server.prepare(passwords)
    return server


@contextmanager
def _embedded_nats() -> Iterator[Nats]:
    with data_folder() as folder:
        embedded.add_subscriber(folder, SUBSCRIBER)
        passwords = embedded.credentials(folder)["nats"]
        port = embedded.free_port()
        with _running(embedded.prepare_nats(folder, port, passwords), signal.SIGTERM, folder):
            server = Nats(lambda user: embedded.nats_url(port, user, passwords))
            _until(lambda: asyncio.run(_nats_answers(server.url("operator"))))
            yield server


@contextmanager
def _embedded_postgres() -> Iterator[tuple[int, dict[str, str]]]:
    with data_folder() as folder:
        passwords = embedded.credentials(folder)["postgres"]
        port = embedded.free_port()
        command = embedded.prepare_postgres(folder, port, passwords)
        # Nothing here outlives a crash of the machine.
        with _running([*command, "-c", "fsync=off"], signal.SIGINT, folder):
            admin = embedded.database_url(port, "postgres", passwords, "postgres")
            _until(lambda: asyncio.run(_postgres_answers(admin)))
            yield port, passwords


@contextmanager
def _nats_container() -> Iterator[Nats]:
    from testcontainers.core.container import DockerContainer

    passwords = dict.fromkeys((*USERS, SUBSCRIBER), "test")
    folder = Path(tempfile.mkdtemp(prefix="odooops-nats-"))
    embedded.prepare_nats(folder, 4222, passwords)
    config = folder / "nats" / "nats.conf"
    config.write_text(config.read_text().replace(f"{embedded.LOOPBACK}:4222", "0.0.0.0:4222"))
    config.chmod(0o644)
    container = (
        DockerContainer("nats:2.12").with_exposed_ports(4222).with_command("--config /nats.conf --sd /data")
    )
    container = container.with_volume_mapping(str(config), "/nats.conf")
    try:
        with container:
            host, port = container.get_container_host_ip(), container.get_exposed_port(4222)
            server = Nats(lambda user: f"nats://{user}:test@{host}:{port}")
            _until(lambda: asyncio.run(_nats_answers(server.url("operator"))))
            yield server
    finally:
        shutil.rmtree(folder)


@contextmanager
def _running(command: list[str], stop: signal.Signals, folder: Path) -> Iterator[None]:
    with open(folder / "server.log", "wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True, preexec_fn=dies_with_us(stop)
        )
    try:
        yield
    finally:
        process.send_signal(stop)
        try:
            process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _unheard(error: Exception) -> None:
    """A server that starts refuses connections: nothing to report."""


async def _nats_answers(url: str) -> bool:
    try:
        client = await nats.connect(
            url,
            allow_reconnect=False,
            connect_timeout=1,
            reconnect_time_wait=POLL_S,
            error_cb=_unheard,
            inbox_prefix=inbox_prefix("operator"),
        )
        try:
            await client.jetstream().account_info()
        finally:
            await client.close()
    except Exception:  # whatever a server that starts answers with, it is not ready
        return False
    return True


async def _postgres_answers(url: str) -> bool:
    try:
        await (await asyncpg.connect(url, timeout=2)).close()
    except (OSError, asyncpg.PostgresError, TimeoutError):
        return False
    return True


def _until(answers: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_S_MAX
    while not answers():
        if time.monotonic() > deadline:
            raise TimeoutError(f"a test server did not answer within {START_S_MAX:.0f} s")
        time.sleep(POLL_S)  # the servers give no signal but answering
