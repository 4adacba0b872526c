"""`odooops deliveries`: what came in and what became of it, from the ledger and from the log itself."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import nats.errors
from nats.js.errors import APIError
from sqlalchemy import text

from cli import reach, terminal
from cli.asked import Filters
from cli.database import READER, DatabaseAway, DatabaseRefused, reading
from cli.reach import Servers, Trouble
from contracts.delivery import Delivery, UnreadableDelivery
from runtime import bus, ssot
from runtime.bus import BrokerAway, LogTrimmed
from runtime.settings import BadSettings

BODY_SHOWN_CHARS_MAX = 20_000
REFS_SHOWN_MAX = 3
SAID_BY_OPERATORS = ("discarded", "redacted")
"""States in which the ledger keeps why an operator said so in the place of an error."""
NAME_CHARS = 18
LISTED = ("seq", "received", "delivery", "kind", "status", "reason", "refs")
STATEMENT_MS_MAX = 10_000
SEQ_MAX = 2**63 - 1

_AGE = re.compile(r"(\d{1,6})\s*(s|m|h|d|w)")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

_NOBODY = {"webhook": "nobody: the source is unsigned"}
_COLUMNS = (
    "source, identity, kind, via, status, reason, refs, received_at, verified_by, body_bytes, body_sha256, "
    "stream_seq, last_seq, attempts, first_tried_at, last_error"
)
_LIST = f"""
SELECT {_COLUMNS} FROM ops.deliveries
WHERE (CAST(:source AS text) IS NULL OR source = :source)
  AND (CAST(:status AS text) IS NULL OR status = :status)
  AND (CAST(:since AS timestamptz) IS NULL OR received_at >= :since)
  AND (CAST(:ref AS text) IS NULL OR refs @> ARRAY[:ref])
ORDER BY received_at DESC, stream_seq DESC
LIMIT :limit
"""  # noqa: S608  # the columns are ours
_BY_SEQ = f"SELECT {_COLUMNS} FROM ops.deliveries WHERE stream_seq = :seq OR last_seq = :seq"  # noqa: S608
_BY_NAME = f"""
SELECT {_COLUMNS} FROM ops.deliveries WHERE source = :source AND identity = :identity ORDER BY stream_seq
"""  # noqa: S608
_SOURCES = "SELECT DISTINCT source FROM ops.deliveries"


class NoSuchDelivery(Trouble):
    """a delivery that was asked for is not there"""


async def list_(servers: Servers, filters: Filters, as_json: bool) -> None:
    """Print the newest deliveries first."""
    await require_source(servers, filters.source)
    rows = await _ask(
        servers,
        _LIST,
        {
            "source": filters.source,
            "status": filters.status,
            "since": filters.since,
            "ref": filters.ref,
            "limit": filters.limit + 1,
        },
    )
    more, rows = len(rows) > filters.limit, rows[: filters.limit]
    if as_json:
        terminal.print_json(rows)
    else:
        terminal.console().print(terminal.table(LISTED, (listed(row) for row in rows)))
        terminal.console().print(f"({len(rows)} deliver{'y' if len(rows) == 1 else 'ies'})")
    if more:
        terminal.say(f"there are more than {filters.limit}: narrow the filters, or give --limit")


def listed(row: dict[str, Any]) -> tuple[object, ...]:
    """A row of the ledger in the columns LISTED."""
    refs = row["refs"] or []
    shown = refs[:REFS_SHOWN_MAX] + (
        [f"and {len(refs) - REFS_SHOWN_MAX} more"] if len(refs) > REFS_SHOWN_MAX else []
    )
    name = f"{row['source']}:{row['identity']}"
    return (
        row["stream_seq"],
        row["received_at"],
        name,
        row["kind"],
        row["status"],
        row["reason"],
        shown or None,
    )


async def show(servers: Servers, name: str, as_json: bool, raw: bool) -> None:
    """Print what the ledger says of a delivery, and the delivery itself as the log holds it."""
    require_name(name)
    entries, doubt = await known(servers, name)
    sequences = [int(name)] if is_sequence(name) else [row["stream_seq"] for row in entries]
    if not sequences and doubt is not None:
        raise DatabaseAway(f"{doubt}; without the ledger a delivery is found by its sequence only")
    if not sequences:
        raise NoSuchDelivery(
            f"the ledger has no delivery {name}: see `odooops deliveries list`, or the projector has not come "
            "to it yet (`odooops status` shows the lag)"
        )
    found = [await stored(servers, seq) for seq in sequences]
    if not entries and isinstance(found[0], str):
        raise NoSuchDelivery(f"{doubt or f'the ledger has no delivery {name}'}; of the log: {found[0]}")
    if raw:
        _write_raw(found)
        return
    rows: list[dict[str, Any] | None] = [*entries] or [None]
    pairs = list(zip(rows, found, strict=False))
    if as_json:
        terminal.print_json([{"ledger": row, "stored": stored_as_json(each)} for row, each in pairs])
        return
    for row, each in pairs:
        print_ledger(row, doubt)
        print_stored(each)


def since(given: str, now: datetime, option: str = "--since") -> datetime:
    """A moment: an age like `90m`, `2d`, or a date or time in ISO 8601 (UTC unless it says otherwise)."""
    age = _AGE.fullmatch(given.strip())
    try:
        if age is not None:
            return now - timedelta(**{_UNITS[age[2]]: int(age[1])})
        moment = datetime.fromisoformat(given.strip())
    except (ValueError, OverflowError):
        raise BadSettings(
            f"{option} {given}: give an age like 90m, 6h or 2d, or a time like 2026-01-31T12:00"
        ) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _declared(servers: Servers) -> set[str]:
    """The sources that SSOT declares."""
    return set(ssot.load_providers(reach.ssot_dir(servers.settings)))


async def require_source(servers: Servers, source: str | None) -> None:
    """Raise BadSettings where `source` is none of the providers and the ledger has nothing of it either."""
    declared = _declared(servers)
    if source is None or source in declared:
        return
    known = declared | {row["source"] for row in await _ask(servers, _SOURCES, {})}
    if source not in known:
        raise BadSettings(f"no source is called {source}: known are {', '.join(sorted(known))}")


def require_name(name: str) -> None:
    """Raise BadSettings where `name` is neither a sequence nor SOURCE:IDENTITY."""
    if is_sequence(name):
        digits = name.lstrip("0")
        if not digits or len(digits) > len(str(SEQ_MAX)) or int(digits) > SEQ_MAX:
            raise BadSettings(f"{name[:40]} is no sequence: one is 1 to {SEQ_MAX}")
    elif ":" not in name:
        raise BadSettings(f"{name} is neither a sequence nor SOURCE:IDENTITY: try github:{name}")


def is_sequence(name: str) -> bool:
    """Whether a delivery is named by its place in the log."""
    return name.isascii() and name.isdigit()


async def _ask(servers: Servers, statement: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    async with reading(servers, STATEMENT_MS_MAX) as connection:
        found = await connection.execute(text(statement), values)
        return [dict(row) for row in found.mappings()]


async def known(servers: Servers, name: str) -> tuple[list[dict[str, Any]], str | None]:
    """The ledger's rows for a delivery, and what kept us from reading them, if anything did."""
    try:
        if is_sequence(name):
            return await _ask(servers, _BY_SEQ, {"seq": int(name)}), None
        source, _, identity = name.partition(":")
        return await _ask(servers, _BY_NAME, {"source": source, "identity": identity}), None
    except (DatabaseAway, DatabaseRefused) as error:
        return [], str(error)


async def stored(servers: Servers, seq: int) -> Delivery | str:
    """The delivery at `seq` of the log, or why it cannot be shown."""
    try:
        async with reach.broker(servers.nats(READER), READER) as client:
            return await bus.read_delivery(client.jetstream(), seq)
    except LogTrimmed:
        return "it is not there: erased, trimmed, or never stored"
    except (BrokerAway, UnreadableDelivery) as error:
        return str(error)
    except (nats.errors.Error, APIError) as error:
        return f"the broker did not give it out: {str(error) or type(error).__name__}"


def print_ledger(row: dict[str, Any] | None, doubt: str | None) -> None:
    """Print what the ledger says of a delivery; `doubt` is why it could not be asked."""
    out = terminal.console()
    if row is None:
        why = doubt or "it is not in it: the projector has not come to it yet"
        out.print(terminal.clean(f"of the ledger: {why}"), soft_wrap=True)
        return
    out.print(terminal.clean(f"{row['source']}:{row['identity']}"), style="bold")
    again = row["last_seq"] if row["last_seq"] != row["stream_seq"] else None
    print_pairs(
        {
            "status": row["status"],
            "reason": row["reason"],
            "refs": row["refs"],
            "sequence": row["stream_seq"],
            "came again at": again,
            "attempts": row["attempts"],
            "first tried": row["first_tried_at"],
            "why" if row["status"] in SAID_BY_OPERATORS else "last error": row["last_error"],
        }
    )


def print_stored(stored: Delivery | str) -> None:
    """Print a delivery as the log holds it, or why it cannot be shown."""
    out = terminal.console()
    if isinstance(stored, str):
        out.print(terminal.clean(f"of the log: {stored}"), soft_wrap=True)
        out.print()
        return
    print_pairs(
        {
            "kind": stored.kind,
            "received": stored.received_at,
            "via": stored.via,
            "verified by": stored.verified_by or _NOBODY.get(stored.via, "the broker, which knows its users"),
            "body": f"{len(stored.body)} bytes, sha256 {stored.body_sha256}",
            **{f"  {name}": value for name, value in stored.headers.items()},
        }
    )
    shown = terminal.clean(_readable(stored.body), keep_lines=True)
    out.print()
    out.print(shown[:BODY_SHOWN_CHARS_MAX], soft_wrap=True)
    if len(shown) > BODY_SHOWN_CHARS_MAX:
        terminal.say(f"the body was cut after {BODY_SHOWN_CHARS_MAX} characters: --raw gives all of it")
    out.print()


def print_pairs(pairs: dict[str, object]) -> None:
    """Print names and values below each other, without those that are None."""
    for name, value in pairs.items():
        if value is not None:
            line = f"{terminal.clean(name):<{NAME_CHARS}} {terminal.clean(terminal.show(value))}"
            terminal.console().print(line, soft_wrap=True)


def _readable(body: bytes) -> str:
    """A JSON body indented, any other as text; bytes that are no text are escaped."""
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return body.decode(errors="backslashreplace")


def stored_as_json(stored: Delivery | str) -> dict[str, Any]:
    """The same for programs."""
    if isinstance(stored, str):
        return {"missing": stored}
    return {
        "seq": stored.seq,
        "source": stored.source,
        "identity": stored.identity,
        "kind": stored.kind,
        "via": stored.via,
        "received_at": stored.received_at,
        "verified_by": stored.verified_by,
        "headers": dict(stored.headers),
        "body_sha256": stored.body_sha256,
        "body": stored.body.decode(errors="backslashreplace"),
    }


def _write_raw(stored: Sequence[Delivery | str]) -> None:
    """One body, byte for byte, for a file or a pipe."""
    if len(stored) > 1:
        raise NoSuchDelivery(f"{len(stored)} bodies go by this name: choose one by its sequence")
    (only,) = stored
    if isinstance(only, str):
        raise NoSuchDelivery(only)
    sys.stdout.buffer.write(only.body)
