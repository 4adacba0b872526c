"""`odooops restore`: a backup put into an empty system, of this version or of an earlier one.

Streams come first and the log last of them: whatever is delivered meanwhile is refused, or kept. Each is there whole or
not at all, and so are the tables; both are marked until the end, so that a restore that broke off goes on when it is
run again. The projector's consumer is made after the tables: whoever starts a projector before that lets it fold all of
the log, which is right, only long.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import nats.errors
from alembic.util import CommandError
from nats.aio.client import Client
from nats.js.errors import APIError, NotFoundError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from cli import manifest, reach, terminal
from cli.backup import Counting, opened, read, say, sentences
from cli.database import DatabaseAway, DatabaseRefused, reason
from cli.reach import REACH_S_MAX, Servers, Trouble, place
from cli.resting import Resting, resting
from cli.work import OPERATOR, Telling
from migrations.__main__ import knows, upgrade
from runtime import bundle, dump, postgres, snapshot, streams
from runtime.bus import BrokerAway
from services.projector.work import STATEMENT_S_MAX

CLOSED_SUBJECTS = ["restoring"]
NAMED_MAX = 4
SYNC_INTERVAL = "2m"
"""Of the folder's own broker meanwhile: it would else sync each message of a restored stream, six times as long."""
MISSING, EMPTY, RESTORED, FULL = "missing", "empty", "restored", "full"
"""How a stream is found."""


@dataclass(frozen=True, slots=True)
class Target:
    """An open backup, and the servers that it is put into."""

    backup: bundle.Reading
    nc: Client
    engine: AsyncEngine
    url: str
    replicas: int
    telling: Telling

    @property
    def id(self) -> str:
        """The backup's."""
        return str(self.backup.manifest["id"])


async def run(servers: Servers, file: Path, as_json: bool) -> None:
    """Restore `file`."""
    started, telling = monotonic(), Telling()
    try:
        with sentences(), opened(file) as backup:
            migration = backup.manifest["migration"]
            if not knows(migration):
                raise Trouble(
                    f"{file} is of a newer version, with migration {migration}: restore it by that version"
                )
            manifest.require_ours(backup)
            read(backup)
            async with _reached(servers) as found, _opened(found) as (nc, engine):
                replicas = servers.settings.nats_replicas
                await _restore(Target(backup, nc, engine, found.database, replicas, telling))
    finally:
        telling.end()
    _print(servers, backup.manifest, monotonic() - started, as_json)


@asynccontextmanager
async def _reached(servers: Servers) -> AsyncIterator[Resting]:
    """The given servers, else those of the data folder, which run while the block does."""
    if servers.in_folder:
        async with resting(servers.data_dir, SYNC_INTERVAL) as found:
            yield found
    else:
        yield Resting(servers.settings.nats_for(OPERATOR), servers.settings.migrator_database())


@asynccontextmanager
async def _opened(found: Resting) -> AsyncIterator[tuple[Client, AsyncEngine]]:
    engine = postgres.make_engine(found.database, "restore", STATEMENT_S_MAX)
    try:
        async with reach.broker(found.broker, OPERATOR) as client:
            try:
                async with asyncio.timeout(REACH_S_MAX), engine.connect():
                    pass
            except (OSError, TimeoutError, SQLAlchemyError) as error:
                raise DatabaseAway(
                    f"the database at {place(found.database)} does not answer: {reason(error)}"
                ) from None
            try:
                yield client, engine
            except (SQLAlchemyError, CommandError, ValueError) as error:
                raise DatabaseRefused(f"the database says: {reason(error)}") from None
            except (nats.errors.Error, APIError) as error:
                said = getattr(error, "description", None) or error or type(error).__name__
                raise BrokerAway(f"the broker at {place(found.broker)} says: {said}") from None
    finally:
        await engine.dispose()


async def _restore(target: Target) -> None:
    async with dump.connected(target.engine) as connection:
        marked, whole = await dump.mark(connection)
        loaded = marked == target.id
        if loaded and whole:
            await _take_marks_away(target)
            return
        filled = [] if loaded else await dump.filled(connection)
    entries = sorted(
        target.backup.manifest["streams"], key=lambda entry: entry["config"]["name"] == streams.DELIVERIES
    )
    standing = {
        entry["config"]["name"]: await _standing(target, entry["config"]["name"]) for entry in entries
    }
    if full := [name for name, state in standing.items() if state == FULL] + filled:
        more = f" and {len(full) - NAMED_MAX} more" if len(full) > NAMED_MAX else ""
        raise Trouble(
            f"this system is not empty: there is something in {', '.join(full[:NAMED_MAX])}{more}."
            " A backup is restored into an empty one only: another --data-dir, or other servers"
        )
    for entry in entries:
        if standing[entry["config"]["name"]] != RESTORED:
            await _restore_stream(target, entry, standing[entry["config"]["name"]])
    if not loaded:
        await _restore_tables(target)
    await asyncio.to_thread(upgrade, target.url)
    await _go_on(target)
    async with dump.connected(target.engine) as connection:
        await dump.set_mark(connection, target.id, whole=True)
    await _take_marks_away(target)


async def _standing(target: Target, stream: str) -> str:
    try:
        found = await snapshot.info(target.nc, stream)
    except NotFoundError:
        return MISSING
    if found["config"].get("metadata", {}).get(streams.RESTORING) == target.id:
        return RESTORED
    return FULL if found["state"]["messages"] else EMPTY


async def _restore_stream(target: Target, entry: Mapping[str, Any], standing: str) -> None:
    name = entry["config"]["name"]
    if standing == EMPTY:
        await _remove_empty(target, name)
    # A stream that was made wrong comes back right: later the broker would let nobody change these.
    config = {**entry["config"], **streams.FIXED, "num_replicas": target.replicas}
    for ours in streams.stream_configs(target.replicas):
        if ours.name == name and ours.compression:
            config["compression"] = ours.compression.value
    config["metadata"] = {**config.get("metadata", {}), streams.RESTORING: target.id}
    counting = Counting(f"restoring {name}", target.backup.manifest["parts"][entry["part"]]["bytes"])
    pieces = _told(target, counting, entry["part"])
    made = await snapshot.give(target.nc, config, entry["state"], pieces)
    # What was stored while the snapshot was taken may be in it beyond what it says.
    if made["state"]["last_seq"] < entry["state"]["last_seq"]:
        raise Trouble(
            f"{name} came back up to sequence {made['state']['last_seq']} of {entry['state']['last_seq']}:"
            " the backup is damaged, or the broker is older than the one that made it"
        )


async def _remove_empty(target: Target, name: str) -> None:
    """Make room for a stream; raises Trouble where something was stored in the one that is there."""
    config = (await snapshot.info(target.nc, name))["config"]
    closed = {**config, "subjects": CLOSED_SUBJECTS}
    await snapshot.ask(target.nc, f"{snapshot.API}.UPDATE.{name}", closed)
    # From now on nothing can be stored in it: who tries is told so, and tries again.
    if (await snapshot.info(target.nc, name))["state"]["messages"]:
        await snapshot.ask(target.nc, f"{snapshot.API}.UPDATE.{name}", config)
        raise Trouble(f"something was stored in {name} just now: stop the services, and use an empty system")
    await snapshot.ask(target.nc, f"{snapshot.API}.DELETE.{name}", b"")


def _told(target: Target, counting: Counting, part: str) -> Iterator[bytes]:
    for piece in target.backup.pieces(part):
        yield piece
        target.telling(counting.after(len(piece)))


async def _restore_tables(target: Target) -> None:
    """The tables by the migration of the backup, then its rows, all or none."""
    manifest = target.backup.manifest
    async with dump.connected(target.engine) as connection:
        if filled := await dump.drop_empty(connection):
            raise Trouble(f"rows came just now, in {', '.join(filled)}: stop the services")
    await asyncio.to_thread(upgrade, target.url, manifest["migration"])
    size = sum(manifest["parts"][entry["part"]]["bytes"] for entry in manifest["tables"])
    counting = Counting("restoring the tables", size)
    async with dump.connected(target.engine) as connection:
        await dump.load(connection, manifest["tables"], lambda part: _told(target, counting, part), target.id)


async def _go_on(target: Target) -> None:
    """Make what a backup does not hold or an earlier version did not have, and place the projector."""
    for drift in await streams.provision(target.nc.jetstream(), target.replicas, restoring=True):
        terminal.say(f"a setting is not ours, left as it is: {drift}")
    upto = target.backup.manifest["projected_upto"]
    if upto:
        subject = f"$JS.API.CONSUMER.RESET.{streams.DELIVERIES}.{streams.PROJECTOR}"
        await snapshot.ask(target.nc, subject, {"seq": upto + 1})


async def _take_marks_away(target: Target) -> None:
    """The tables' own as the last: by it, a run that broke off here is known to have done all else."""
    for entry in target.backup.manifest["streams"]:
        config = (await snapshot.info(target.nc, entry["config"]["name"]))["config"]
        if config.get("metadata", {}).pop(streams.RESTORING, None) is not None:
            await snapshot.ask(target.nc, f"{snapshot.API}.UPDATE.{config['name']}", config)
    async with dump.connected(target.engine) as connection:
        await dump.set_mark(connection, None)


def _print(servers: Servers, said: Mapping[str, Any], took_s: float, as_json: bool) -> None:
    log = next(e["state"] for e in said["streams"] if e["config"]["name"] == streams.DELIVERIES)
    rows = sum(entry["rows"] for entry in said["tables"])
    if as_json:
        restored = {"deliveries": log["messages"], "last_seq": log["last_seq"], "rows": rows}
        terminal.print_json({"id": said["id"], "made_at": said["made_at"], **restored})
        return
    say(
        f"restored in {took_s:.1f} s: {terminal.deliveries(log['messages'])} up to sequence {log['last_seq']},"
        f" {rows:,} rows, as they were at {said['made_at']}"
    )
    folder = f" --data-dir {shlex.quote(str(servers.data_dir))}" if servers.in_folder else ""
    say("next:")
    kept = f", into {servers.data_dir / 'secrets'}" if servers.in_folder else ""
    say(f"  put back the webhook secrets and API tokens, which no backup holds{kept}")
    say(f"  {f'odooops up{folder}' if servers.in_folder else 'start the services'}")
    say(f"  odooops verify{folder}")
