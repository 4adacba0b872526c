"""`odooops doctor`: settings that could lose data, what they could lose, and how they are mended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime

import nats.errors
from nats.js.errors import APIError

from cli import reach, terminal
from cli.database import READER, DatabaseAway, DatabaseRefused, reading
from cli.reach import Servers
from cli.work import OPERATOR
from runtime import streams
from runtime.audit import broker, disk, postgres
from runtime.audit.finding import Finding, worst_first
from runtime.bus import BrokerAway
from runtime.state import State
from runtime.streams import Drift

STATEMENT_MS_MAX = 30_000
SENTENCE_CHARS_MAX = 600
STREAMS = tuple(str(config.name) for config in streams.stream_configs(1))
CONSUMERS = tuple(str(config.durable_name) for _, config in streams.consumer_configs())


async def run(servers: Servers, *, mend: bool, as_json: bool) -> bool:
    """Print what was found; whether nothing of it is an error."""
    known = servers.known_state
    mended, refused = await _mend(servers) if mend else ([], [])
    found = await look(servers, known)
    ok = all(each.level != "error" for each in found)
    if as_json:
        terminal.print_json(
            {
                "ok": ok,
                "checked_at": datetime.now(UTC),
                "mended": [str(each) for each in mended],
                "not_mended": [f"{each}: {why}" for each, why in refused],
                "findings": [asdict(each) for each in found],
            }
        )
        return ok
    for each in mended:
        terminal.say(f"set back: {each}")
    for each, why in refused:
        terminal.say(f"the broker refuses to set it back: {each}: {why}")
    if found:
        rows = [(each.level, each.part, each.says, each.could_lose, each.mend) for each in found]
        columns = ("level", "part", "what is", "what could be lost", "how it is mended")
        terminal.print_rows(columns, rows, SENTENCE_CHARS_MAX)
    else:
        terminal.console().print("nothing was found that could lose data")
    return ok


async def look(servers: Servers, known: State | None) -> list[Finding]:
    """Ask broker and database with the reader's rights, and look at the disks that are seen from here."""
    found: list[Finding] = []
    ledger_seq = None
    try:
        async with reading(servers, STATEMENT_MS_MAX) as connection:
            found += postgres.findings(await postgres.ask(connection))
            ledger_seq = await postgres.ledger_seq(connection)
    except (DatabaseAway, DatabaseRefused) as error:
        found.append(_away("database", error))
    # After the database: what the ledger knows must by then be in the log.
    try:
        address = servers.nats(READER)
        async with reach.broker(address, READER) as client:
            asked = await broker.ask(
                client, STREAMS, CONSUMERS, replicas=servers.settings.nats_replicas, oldest=True
            )
            found += broker.findings(asked, datetime.now(UTC), ledger_seq)
    except (BrokerAway, nats.errors.Error, APIError) as error:
        found.append(_away("broker", error))
    return worst_first([*found, *_disks(servers, known)])


def _away(part: str, error: Exception) -> Finding:
    said = str(error) or type(error).__name__
    return Finding("error", part, said, "not known: its settings could not be asked for", "odooops status")


def _disks(servers: Servers, known: State | None) -> list[Finding]:
    found = []
    if known is not None and (known.embedded_nats or known.embedded_database):
        found += disk.of_data_folder(servers.data_dir, disk.free_bytes(servers.data_dir))
    if known is None or not known.embedded_database:
        found.append(
            Finding(
                "unknown",
                "disk of the database",
                "how much is free is not told by Postgres",
                "nothing: when it is full, Postgres stops, and deliveries wait in the log",
                "docker compose exec postgres df -h /var/lib/postgresql   # or df on its server",
            )
        )
    spool = servers.data_dir / "spool"
    if servers.settings.odooops_spool_dir is not None:
        found += disk.of_spool(servers.settings.odooops_spool_dir)
    elif known is not None and spool.is_dir():
        found += disk.of_spool(spool)
    return found


async def _mend(servers: Servers) -> tuple[Sequence[Drift], Sequence[tuple[Drift, str]]]:
    """Make what is missing and set back what drifted, as the operator."""
    address = servers.nats(OPERATOR)
    async with reach.broker(address, OPERATOR) as client:
        try:
            return await streams.mend(client.jetstream(), servers.settings.nats_replicas)
        except (nats.errors.Error, APIError) as error:
            raise BrokerAway(f"the broker at {reach.place(address)} says: {error}") from None
