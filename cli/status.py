"""`odooops status`: everything that is known about the servers, and plainly what is not."""

from __future__ import annotations

import asyncio
import math
import os
from collections import Counter as Tally
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import nats.errors
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, StreamInfo
from nats.js.errors import APIError, NotFoundError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from cli import freshness, reach, terminal
from cli.check import UNSIGNED
from cli.database import READER, DatabaseAway, DatabaseRefused, reading, reason
from cli.reach import Servers
from cli.report import WORDS, Report, Word, ago
from contracts.ledger import REF_HASH_CHARS
from contracts.ssot import BadSsot
from migrations.__main__ import head
from providers.registry import sources
from runtime import ports, ssot, streams
from runtime.bus import BrokerAway
from runtime.settings import BadSettings
from runtime.state import State
from services.projector.fingerprint import fingerprints, recorded
from services.projector.shadow import About, ours
from services.projector.work import running

STREAM_WARNING_FRACTION = 0.80
"""From here on the log is called nearly full: when it is full, only the spool takes deliveries."""
STREAM_BAD_FRACTION = 0.95
LAG_WARNING_COUNT = 10_000
STATEMENT_MS_MAX = 5_000
SHOWN_STREAMS = (
    streams.DELIVERIES,
    streams.EVENTS,
    streams.BODIES_STREAM,
    streams.ARTIFACTS_STREAM,
    streams.POLLER_STREAM,
)

WAITING = {"parked": "odooops parked list", "conflict": "odooops deliveries list --status conflict"}
"""What waits for an operator, by its state in the ledger, and what lists it."""

CLOSED = "odooops_ingest_closed"
REQUESTS = "odooops_ingest_requests_total"
SPOOL = "odooops_ingest_spool_bytes"
DAMAGED = "odooops_ingest_spool_damaged_bytes"
"""Metrics of ingest: services.ingest.receive and spool."""


async def run(servers: Servers, as_json: bool) -> bool:
    """Print the state of everything; whether all is known and nothing is bad."""
    report = await look(servers)
    well = WORDS.index(report.worst) < WORDS.index("unknown")
    if as_json:
        checks = [asdict(line) for line in report.lines]
        terminal.print_json(
            {
                "state": report.worst,
                "ok": well,
                "checked_at": datetime.now(UTC),
                "checks": checks,
                **report.facts,
            }
        )
        return well
    rows = [(line.part, line.state, line.text) for line in report.lines]
    terminal.console().print(terminal.table(("part", "state", "what"), rows, cell_chars_max=400))
    terminal.console().print(f"\nall together: {report.worst}")
    return well


async def look(servers: Servers) -> Report:
    """Ask services, database and broker."""
    known = servers.known_state
    services, broker, database = Report(), Report(), Report()
    await asyncio.gather(_services(known, services), _database(servers, known, database))
    _unsigned(servers, services)
    # After the database: what the ledger knows must by then be in the log.
    await _broker(servers, known, broker)
    whole = Report()
    for each in (services, broker, database):
        whole.lines += each.lines
        whole.facts |= each.facts
    await _compare(servers, whole)
    return whole


async def _compare(servers: Servers, report: Report) -> None:
    """A ledger that has read further than the log reaches belongs to another log, or that one was lost.

    One that has read less than what is acknowledged was lost itself, or is an older one that was put back.
    """
    read = report.facts.pop("ledger_last_seq", None)
    projector = (report.facts["consumers"] or {}).get(streams.PROJECTOR)
    done = projector["acknowledged_upto"] if projector is not None else 0
    if report.facts["ledger"] is not None and done > (read or 0) and done > await _read_upto(servers, done):
        report.add(
            "log and ledger",
            "bad",
            f"the projector has acknowledged up to {done}, the ledger ends at {read or 0}: rows were lost, and"
            " nothing folds them again by itself: run `odooops rebuild`",
        )
    log = (report.facts["streams"] or {}).get(streams.DELIVERIES)
    if read is not None and log is not None and read > log["last_seq"]:
        report.add(
            "log and ledger",
            "bad",
            f"the ledger has read up to {read}, the log ends at {log['last_seq']}: it was lost, or this is another",
        )


async def _read_upto(servers: Servers, unless_known: int) -> int:
    """How far the ledger has read by now: the projector may have gone on since it was asked for all else."""
    try:
        async with reading(servers, STATEMENT_MS_MAX) as connection:
            return (await connection.execute(text("SELECT max(last_seq) FROM ops.deliveries"))).scalar() or 0
    except (DatabaseAway, DatabaseRefused):
        return unless_known


async def _services(known: State | None, report: Report) -> None:
    """Whether each service answers on its ops port. Without a data folder nobody told us where that is."""
    report.facts |= {"services": None, "closed_sources": None}
    if known is None:
        report.add("services", "not asked", "the settings do not say where they run: ask each one's /readyz")
        return
    answers = await asyncio.gather(
        *(ports.problems_at(known.ops_host, port) for port in known.ops_ports.values())
    )
    report.facts["services"] = {}
    for (name, port), problems in zip(known.ops_ports.items(), answers, strict=True):
        pid = known.pids.get(name)
        report.facts["services"][name] = {
            "ready": problems == {},
            "problems": problems,
            "pid": pid,
            "ops_port": port,
        }
        if problems is None:
            report.add(name, "bad", f"does not answer on its port {port}: see {known.log_dir}/{name}.log")
        elif problems:
            report.add(
                name, "bad", "; ".join(f"{part}: {sentence}" for part, sentence in sorted(problems.items()))
            )
        else:
            where = f"{known.http_url}/webhooks/<source>" if name == "ingest" else f"ops port {port}"
            report.add(name, "ok", f"ready, process {pid}, {where}")
    await _doors(known, report)
    await spooled(known.ops_host, known.ops_ports["ingest"], report)


async def spooled(host: str, port: int, report: Report) -> None:
    """What waits on the disk of the ingest at this ops port until the broker takes it."""
    found = [await ports.metrics_at(host, port, name) for name in (SPOOL, DAMAGED)]
    if None in found:
        return  # that ingest does not answer was said already
    waiting, damaged = (sum(value for _, value in values or ()) for values in found)
    if math.isnan(waiting + damaged):
        report.facts["spool"] = None
        report.add("spool", "unknown", "ingest cannot read its folder: its log says why")
        return
    report.facts["spool"] = {"bytes": int(waiting), "damaged_bytes": int(damaged)}
    if damaged:
        sentence = f"files *.damaged of {damaged:,.0f} bytes: a part of each could not be read"
        report.add("spool", "bad", f"{sentence}, see docs/runbooks/spool.md")
    if waiting:
        share = (waiting + damaged) / streams.SPOOL_BYTES_MAX
        size = f"{waiting:,.0f} bytes of deliveries wait to get into the log, {share:.0%} of its room"
        report.add("spool", "bad" if share >= STREAM_BAD_FRACTION else "warning", size)


async def _doors(known: State, report: Report) -> None:
    """Which sources take nothing now, and which have refused all that came: a wrong secret looks like that."""
    closed = await ports.metrics_at(known.ops_host, known.ops_ports["ingest"], CLOSED)
    requests = await ports.metrics_at(known.ops_host, known.ops_ports["ingest"], REQUESTS)
    if closed is None or requests is None:
        return  # that ingest does not answer was said already
    report.facts["closed_sources"] = sorted(labels["source"] for labels, value in closed if value)
    for source in report.facts["closed_sources"]:
        report.add(f"{source}'s door", "warning", "closed: its secret is not set, or the file of it is empty")
    taken: Tally[str] = Tally()
    refused: dict[str, Tally[str]] = {}
    for labels, value in requests:
        if labels["status"].startswith("2"):
            taken[labels["source"]] += int(value)
        elif value and labels["source"] not in ("unknown", *report.facts["closed_sources"]):
            refused.setdefault(labels["source"], Tally())[labels["reason"]] += int(value)
    report.facts["refused"] = {source: dict(reasons) for source, reasons in sorted(refused.items())}
    for source, reasons in sorted(refused.items()):
        why = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
        if taken[source]:
            said = f"{sum(reasons.values())} refused and {taken[source]} taken since ingest started: {why}"
            report.add(f"{source}'s door", "ok", said)
        else:
            report.add(f"{source}'s door", "warning", f"all refused since ingest started: {why}")


def _unsigned(servers: Servers, report: Report) -> None:
    """The sources that anybody can write as; they are named wherever they are not to be forgotten."""
    report.facts["unsigned_sources"] = None
    try:
        declared = ssot.load_providers(reach.ssot_dir(servers.settings))
    except BadSettings as error:
        report.add("ssot", "unknown", f"{error}: run `odooops check`")
        return
    report.facts["unsigned_sources"] = sorted(name for name, file in declared.items() if file.unsigned)
    for name in report.facts["unsigned_sources"]:
        report.add(f"{name}'s door", "warning", UNSIGNED)


async def _broker(servers: Servers, known: State | None, report: Report) -> None:
    """Streams, consumers and their settings."""
    report.facts |= {"streams": None, "consumers": None, "settings_drift": None}
    address = servers.nats(READER)
    try:
        async with reach.broker(address, READER) as client:
            js = client.jetstream()
            report.add("broker", "ok", f"answers at {reach.place(address)}")
            await _streams(js, servers, known, report)
            await _consumers(js, report)
            drift = await streams.inspect(js, servers.settings.nats_replicas)
    except (BrokerAway, nats.errors.Error, APIError) as error:
        report.add("broker", "bad", str(error) or type(error).__name__)
        for part in ("streams", "consumers", "settings_drift"):
            if report.facts[part] is None:
                report.add(part.replace("_", " "), "unknown", "the broker did not tell")
        return
    report.facts["settings_drift"] = [str(each) for each in drift]
    if not drift:
        report.add("settings", "ok", "streams and consumers are set as this version sets them")
    for each in drift:
        said = f"{each}: `odooops doctor` says what that could lose"
        report.add("settings", "bad" if each.is_ == "missing" else "warning", said)


async def _streams(js: JetStreamContext, servers: Servers, known: State | None, report: Report) -> None:
    """How much each stream holds, and how near its end it is."""
    found: dict[str, Any] = {}
    account = await js.account_info()
    free = _disk_free(servers, known)
    for name in SHOWN_STREAMS:
        try:
            info = await js.stream_info(name)
        except NotFoundError:
            found[name] = None  # the comparison of settings names it as missing
            continue
        limit = _limit(info, account.limits.max_storage, account.storage, free)
        found[name] = {
            "messages": info.state.messages,
            "bytes": info.state.bytes,
            "first_seq": info.state.first_seq,
            "last_seq": info.state.last_seq,
            "limit_bytes": limit,
            "disk_free_bytes": free,
        }
        _room(name, info, limit, report)
    report.facts["streams"] = found


def _limit(info: StreamInfo, account_max: int, account_used: int, disk_free: int | None) -> int | None:
    """How many bytes the stream can come to hold: by its own limit, its account's, or the disk's; the least."""
    held = info.state.bytes
    limits = []
    if info.config.max_bytes is not None and info.config.max_bytes > 0:
        limits.append(info.config.max_bytes)
    if account_max > 0:
        limits.append(held + max(0, account_max - account_used))
    if disk_free is not None:
        limits.append(held + disk_free)
    return min(limits, default=None)


def _room(name: str, info: StreamInfo, limit: int | None, report: Report) -> None:
    held = info.state.bytes
    what = f"{info.state.messages} messages, {terminal.size(held)}"
    if limit is None:
        report.add(name, "not asked", f"{what}; no limit is set, and the broker's disk is not seen from here")
        return
    fraction = held / limit if limit else 1.0
    word: Word = "ok"
    advice = ""
    # A stream that makes room by itself is never full.
    if info.config.discard == DiscardPolicy.NEW and fraction >= STREAM_WARNING_FRACTION:
        word = "bad" if fraction >= STREAM_BAD_FRACTION else "warning"
        advice = ": make room before it is full, a full log takes no delivery"
    report.add(name, word, f"{what}, {fraction:.0%} of {terminal.size(limit)}{advice}")


def _disk_free(servers: Servers, known: State | None) -> int | None:
    """Free bytes where the embedded broker writes; of another broker's disk nothing is known here."""
    if known is None or not known.embedded_nats:
        return None
    space = os.statvfs(servers.data_dir)
    return space.f_bavail * space.f_frsize


async def _consumers(js: JetStreamContext, report: Report) -> None:
    """What waits for each consumer, and what it has in hand."""
    found: dict[str, Any] = {}
    for stream, config in streams.consumer_configs():
        name = str(config.durable_name)
        try:
            info = await js.consumer_info(stream, name)
        except NotFoundError:
            found[name] = None
            continue
        found[name] = {
            "stream": stream,
            "num_pending": info.num_pending,
            "num_ack_pending": info.num_ack_pending,
            "num_redelivered": info.num_redelivered,
            "num_waiting": info.num_waiting,
            "acknowledged_upto": info.ack_floor.stream_seq if info.ack_floor else 0,
        }
        if info.num_pending is None or info.num_ack_pending is None:
            report.add(f"{name}'s lag", "unknown", "the broker did not tell")
            continue
        behind = info.num_pending >= LAG_WARNING_COUNT
        report.add(
            f"{name}'s lag",
            "warning" if behind else "ok",
            f"{info.num_pending} wait in {stream}, {info.num_ack_pending} in hand",
        )
    report.facts["consumers"] = found


async def _database(servers: Servers, known: State | None, report: Report) -> None:
    """The ledger, the sources, the polls and the schema."""
    report.facts |= {"ledger": None, "sources": None, "migrations": None, **freshness.UNKNOWN}
    try:
        async with reading(servers, STATEMENT_MS_MAX) as connection:
            report.add("database", "ok", f"answers at {reach.place(servers.database(READER))}")
            await _schema(connection, report)
            await _ledger(connection, report)
            await freshness.look(servers, known, connection, report)
            await _rebuilds(connection, report)
            await _made_by(servers, connection, report)
    except (DatabaseAway, DatabaseRefused) as error:
        report.add("database", "bad", str(error))
        for part in ("migrations", "ledger", "sources", "polls"):
            report.add(part, "unknown", "the database did not tell")


async def _schema(connection: AsyncConnection, report: Report) -> None:
    expected = head()
    try:
        found = (await connection.execute(text("SELECT version_num FROM public.alembic_version"))).scalar()
    except DBAPIError as error:
        await connection.rollback()
        report.facts["migrations"] = {"revision": None, "head": expected}
        report.add("migrations", "unknown", f"{reason(error)}: run python -m migrations")
        return
    report.facts["migrations"] = {"revision": found, "head": expected}
    if found == expected:
        report.add("migrations", "ok", f"the schema is at {found}, the newest")
    else:
        report.add(
            "migrations",
            "bad",
            f"the schema is at {found}, this code at {expected}: run python -m migrations",
        )


async def _ledger(connection: AsyncConnection, report: Report) -> None:
    try:
        found = await connection.execute(
            text(
                "SELECT source, status, count(*), max(received_at), max(last_seq) FROM ops.deliveries GROUP BY 1, 2"
            )
        )
        rows = [tuple(row) for row in found]
    except DBAPIError as error:
        for part in ("ledger", "sources"):
            report.add(part, "unknown", reason(error))
        return
    counts: dict[str, int] = {}
    sources: dict[str, dict[str, Any]] = {}
    for source, status, count, last, _ in rows:
        counts[status] = counts.get(status, 0) + count
        seen = sources.setdefault(source, {"deliveries": 0, "last_received_at": None})
        seen["deliveries"] += count
        seen["last_received_at"] = max(filter(None, (seen["last_received_at"], last)), default=None)
    read = max((row[4] for row in rows if row[4] is not None), default=None)
    report.facts |= {"ledger": counts, "sources": sources, "ledger_last_seq": read}
    told = ", ".join(f"{count} {status}" for status, count in sorted(counts.items())) or "no delivery yet"
    if where := [f"`{command}`" for status, command in WAITING.items() if counts.get(status)]:
        report.add("ledger", "warning", f"{told}: see {' and '.join(where)}")
    else:
        report.add("ledger", "ok", told)
    again = (await connection.execute(text(_REDACTED_AGAIN))).scalar_one()
    report.facts["redacted_again"] = again
    if again:
        report.add(
            "redacted",
            "warning",
            f"{again} that were redacted came again, with their bodies: see `odooops deliveries list --status redacted`"
            " and run `odooops redact` once more",
        )
    for source, seen in sorted(sources.items()):
        last = ago(seen["last_received_at"])
        report.add(f"source {source}", "ok", f"{seen['deliveries']} deliveries, the last {last}")


_REDACTED_AGAIN = f"""
SELECT count(*) FROM ops.deliveries AS d WHERE d.status = 'redacted' AND NOT EXISTS (
    SELECT FROM ops.deliveries AS w WHERE w.source = 'odooops'
    AND w.identity = format('redact:%s:%s:%s', d.stream_seq, left(d.body_sha256, {REF_HASH_CHARS}), d.last_seq)
)
"""  # noqa: S608  # a number of ours
"""Of which no word says that they were erased where they stand last."""


async def _rebuilds(connection: AsyncConnection, report: Report) -> None:
    """Whether a rebuild runs, what one left behind, and the old tables that are kept."""
    report.facts |= {"rebuild": None, "old_tables": None}
    try:
        runs = await running(connection)
        found = await ours(connection)
        sizes = {row.name: int(row.bytes) for row in await connection.execute(_SIZES, {"names": [*found]})}
    except DBAPIError as error:
        await connection.rollback()
        report.add("rebuild", "unknown", reason(error))
        return
    shadows = {name: about for name, about in found.items() if about.purpose == "rebuild"}
    report.facts["rebuild"] = {"running": runs, "left_behind": [] if runs else sorted(shadows)}
    if runs:
        since = "".join(f", into {name} since {_made_at(about)}" for name, about in shadows.items())
        report.add("rebuild", "ok", f"a rebuild, verification, redaction, archive or backup runs{since}")
    for name in () if runs else sorted(shadows):
        size = terminal.size(sizes.get(name, 0))
        said = f"{name} ({size}) is left of one that was killed: the next rebuild or verify removes it"
        report.add("rebuild", "warning", said)
    kept = {name: about for name, about in found.items() if about.purpose == "before"}
    report.facts["old_tables"] = {
        name: {"made_at": about.made_at, "models": about.models, "bytes": sizes.get(name, 0)}
        for name, about in kept.items()
    }
    for name, about in kept.items():
        size = terminal.size(sizes.get(name, 0))
        said = f"{name} of {_made_at(about)}, {size}: `odooops rebuild --drop-old` drops it"
        report.add("old tables", "ok", said)


def _made_at(about: About) -> str:
    return terminal.moment(datetime.fromisoformat(about.made_at))


_SIZES = text(
    "SELECT n.nspname AS name, sum(pg_total_relation_size(c.oid)) AS bytes FROM pg_class AS c"
    " JOIN pg_namespace AS n ON c.relnamespace = n.oid WHERE n.nspname = ANY(:names) AND c.relkind = 'r' GROUP BY 1"
)


async def _made_by(servers: Servers, connection: AsyncConnection, report: Report) -> None:
    """The models of which rows may be older than today's code and SSOT."""
    report.facts["older_models"] = None
    try:
        today = fingerprints(sources(ssot.load(reach.ssot_dir(servers.settings))))
        known = await recorded(connection)
    except DBAPIError as error:
        await connection.rollback()
        report.add("rows", "unknown", reason(error))
        return
    except (BadSettings, BadSsot) as error:
        report.add("rows", "unknown", f"{error}: run `odooops check`")
        return
    report.facts["older_models"] = older = [name for name in today if known.get(name, "") != today[name]]
    if not older:
        report.add("rows", "ok", "all made by today's code and SSOT")
    elif not known:
        report.add(
            "rows", "ok", "nobody has compared them with the log by today's code: `odooops verify` does"
        )
    else:
        report.add("rows", "warning", f"made by older code or SSOT: {', '.join(older)}. See `odooops verify`")
