"""`odooops doctor`: settings that could lose data, what they could lose, and how they are mended."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from sqlalchemy.exc import SQLAlchemyError

from cli import reach, terminal
from cli.database import READER, DatabaseAway, DatabaseRefused, reading, reason
from cli.reach import Servers
from cli.work import OPERATOR
from runtime import streams
from runtime.audit import asking, broker, catalog, clock, disk, postgres
from runtime.audit.clock import Reading
from runtime.audit.finding import Finding, not_asked, worst_first
from runtime.bus import BrokerAway
from runtime.settings import BadSettings
from runtime.state import State

STATEMENT_MS_MAX = 8_000
SERVER_S_MAX = 10.0
"""For all that one server is asked; one that stops answering in between must not hold up the rest."""
SENTENCE_INDENT = "    "


@dataclass(slots=True)
class Seen:
    """What was found so far, and what the judgement of the broker takes from the database."""

    findings: list[Finding] = field(default_factory=list)
    clocks: dict[str, Reading] = field(default_factory=dict)
    ledger_seq: int | None = None
    """The last sequence that the ledger knows; None where the database did not tell."""


@dataclass(frozen=True, slots=True)
class Mended:
    """What `--mend` did and what it did not, with the reason."""

    done: Sequence[str] = ()
    left: Sequence[str] = ()


async def run(servers: Servers, *, mend: bool, limits: bool, as_json: bool) -> bool:
    """Print what was found; whether nothing of it is an error, and all was mended that was to be."""
    known = servers.known_state
    seen = Seen()
    # Before the broker: what the ledger knows must by then be in the log.
    await _database(servers, seen)
    mended = await _mend(servers, seen.ledger_seq, limits=limits) if mend else Mended()
    await _broker(servers, seen)
    found = worst_first([*seen.findings, *clock.findings(seen.clocks), *_disks(servers, known)])
    ok = not mended.left and all(each.level != "error" for each in found)
    if as_json:
        terminal.print_json(
            {
                "ok": ok,
                "checked_at": datetime.now(UTC),
                "mended": mended.done,
                "not_mended": mended.left,
                "findings": [asdict(each) for each in found],
            }
        )
        return ok
    if mend and not mended.done and not mended.left:
        terminal.say("there was nothing to set back")
    for sentence in (*mended.done, *(f"not mended: {each}" for each in mended.left)):
        terminal.say(sentence)
    for finding in found:
        _print(finding)
    if not found:
        terminal.console().print("nothing was found that could lose data")
    return ok


def _print(finding: Finding) -> None:
    """As a block of lines, none of which is folded or cut: the last one is there to be copied."""
    lines = (
        f"{finding.level:<8} {finding.part}: {finding.says}",
        f"{SENTENCE_INDENT}could lose: {finding.could_lose}",
        f"{SENTENCE_INDENT}mend: {finding.mend}",
    )
    for line in lines:
        terminal.console().print(terminal.clean(line), soft_wrap=True)


async def _database(servers: Servers, seen: Seen) -> None:
    try:
        async with asyncio.timeout(SERVER_S_MAX), reading(servers, STATEMENT_MS_MAX) as connection:
            facts = await catalog.ask(connection)
            seen.findings += postgres.findings(facts)
            seen.clocks["the database"] = facts.clock
            try:
                seen.ledger_seq = await catalog.ledger_seq(connection)
            except SQLAlchemyError as error:
                seen.findings.append(not_asked("ledger", reason(error)))
    except (DatabaseAway, DatabaseRefused, BadSettings, TimeoutError) as error:
        seen.findings.append(_away("database", error))


async def _broker(servers: Servers, seen: Seen) -> None:
    try:
        async with asyncio.timeout(SERVER_S_MAX), reach.broker(servers.nats(READER), READER) as client:
            facts = await asking.ask(
                client, asking.ALL, replicas=servers.settings.nats_replicas, thorough=True
            )
            seen.findings += broker.findings(facts, datetime.now(UTC), seen.ledger_seq)
            seen.clocks |= broker.clocks(facts)
    except (BrokerAway, BadSettings, *asking.FAULTS) as error:
        seen.findings.append(_away("broker", error))


def _away(part: str, error: Exception) -> Finding:
    silent = isinstance(error, TimeoutError) or not str(error)
    said = "answers at first, and then no longer" if silent else str(error)
    return Finding("error", part, said, "not known: its settings could not be asked for", "odooops status")


def _disks(servers: Servers, known: State | None) -> list[Finding]:
    found = []
    if known is not None and (known.embedded_nats or known.embedded_database):
        found += disk.of_data_folder(servers.data_dir, disk.free_bytes(servers.data_dir))
    if known is None or not known.embedded_database:
        found.append(disk.DATABASE_UNSEEN)
    spool = servers.data_dir / "spool"
    if servers.settings.odooops_spool_dir is not None:
        found += disk.of_spool(servers.settings.odooops_spool_dir)
    elif known is None:
        found.append(disk.SPOOL_UNSEEN)
    elif spool.is_dir():
        found += disk.of_spool(spool)
    return found


async def _mend(servers: Servers, ledger_seq: int | None, *, limits: bool) -> Mended:
    """Make what is missing and set back what drifted, as the operator.

    A log that is lost is not made anew: it would count from 1 again, beside a ledger that knows those sequences.
    """
    replicas = servers.settings.nats_replicas
    log = f"stream {streams.DELIVERIES}"
    try:
        async with reach.broker(servers.nats(OPERATOR), OPERATOR) as client:
            async with asyncio.timeout(SERVER_S_MAX):
                asked = await asking.ask(client, asking.ALL, servers=False, replicas=replicas, limits=limits)
            drift, lost = asked.drift, ledger_seq != 0 and streams.missing(log) in asked.drift
            if lost:
                of_log = {each.where for each in streams.all_made() if each.stream == streams.DELIVERIES}
                drift = [each for each in drift if each.where not in of_log]
            done, left = await streams.mend(client, drift, replicas)
    except (BrokerAway, BadSettings, *asking.FAULTS) as error:
        return Mended(left=[_away("broker", error).says])
    except streams.HalfRestored as error:
        return Mended(left=[str(error)])
    if lost:
        knows = "may know" if ledger_seq is None else "knows"
        left.append(f"{log} is missing, and the ledger {knows} deliveries of it: restore it from a backup")
    return Mended(done, left + [f"{where}: {error}" for where, error in asked.silent.items()])
