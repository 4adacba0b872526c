"""`odooops parked`: deliveries that could not be understood or written, and what to do about them."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import typer
from nats.js import JetStreamContext
from sqlalchemy.ext.asyncio import AsyncConnection

from cli import deliveries, reach, terminal
from cli.database import READER, DatabaseAway, reading
from cli.deliveries import NoSuchDelivery
from cli.reach import Servers, Trouble
from cli.work import who, working
from contracts.delivery import Delivery
from providers.port import Source
from providers.registry import sources
from runtime import bus, ssot
from services.projector import retry as retrying
from services.projector.retry import (
    NOT_IN_THE_LOG,
    CannotDiscard,
    Outcome,
    Parked,
    Selection,
    Share,
    portions,
    shares,
    today,
)
from services.projector.understand import REFOLD_IMPOSSIBLE, Understood, understand

STATEMENT_MS_MAX = 10_000
READ_MAX = 10_000
"""Parked deliveries that a list reads in search of a ref, the newest first."""
SHARES_SHOWN_MAX = 30
REFS_SHOWN_MAX = 20
EVENTS_SHOWN_MAX = 20
DISCARDABLE = ("parked", "conflict")

IN_WORDS = {
    "event_too_large": "an event of it would be larger than the broker takes",
    "future_time": "it speaks of a time more than 1 h after its receipt: somebody's clock is wrong",
    "impossible_time": "it speaks of a time that no calendar has",
    NOT_IN_THE_LOG: "the log no longer holds it: there is nothing to retry, discard it",
    "not_json": "its body is not JSON",
    "not_understood": "our code failed on it: a mistake of ours",
    "ref_too_long": "the name of what it is about is too long",
    REFOLD_IMPOSSIBLE: "it came late, another body of it stands, and what their rows would have to be made of anew is"
    " no longer in the log: what stands is left as it is, so discard it",
    "shape_mismatch": "its body has not the shape that its sender documents",
    "too_many_refs": "it is about more things than one delivery may be",
    "unknown_event": "no event of ours has this name",
    "unknown_kind": "no kind of this name is known",
    "unknown_source": "no file under ssot/providers declares its source",
    "unreadable": "it is no message that OdooOps wrote, or its large body is missing",
    "write_refused": "the database refused its rows",
}
"""What the reasons mean that the last error alone does not tell."""


async def list_(servers: Servers, selection: Selection, limit: int, as_json: bool) -> None:
    """Print the newest parked deliveries first; how many there are by source and reason, where not all are shown."""
    await deliveries.require_source(servers, selection.source)
    async with reading(servers, STATEMENT_MS_MAX) as connection:
        by = await shares(connection, selection)
        if selection.ref is None:
            rows, looked_at = await _newest(connection, selection, limit, _all)
        else:
            async with reach.broker(servers.nats(READER), READER) as client:
                about = _about(client.jetstream(), _sources(servers), selection)
                rows, looked_at = await _newest(connection, selection, limit, about)
    total = sum(each.count for each in by)
    if as_json:
        terminal.print_json(
            {"total": total, "by": [asdict(each) for each in by], "deliveries": [asdict(row) for row in rows]}
        )
    else:
        if selection.ref is None and total > len(rows):
            _print_shares(by)
        columns = ("seq", "received", "delivery", "kind", "reason", "error", "attempts")
        terminal.console().print(terminal.table(columns, (_listed(row) for row in rows)))
        of = f"{total:,} parked" if selection.ref is None else f"{looked_at:,} parked that were read"
        terminal.console().print(f"({len(rows)} of {of})")
    if selection.ref is None and total > len(rows):
        terminal.say(f"there are more than {limit}: narrow the filters, or give --limit")
    if selection.ref is not None and looked_at < total:
        terminal.say(
            f"only the newest {looked_at:,} of {total:,} were read: narrow the filters, or give --limit"
        )


Keep = Callable[[list[Parked]], Awaitable[list[Parked]]]
"""Those of some deliveries that are to be listed."""


async def _newest(
    connection: AsyncConnection, selection: Selection, limit: int, keep: Keep
) -> tuple[list[Parked], int]:
    """The newest of a selection, and how many had to be looked at."""
    found: list[Parked] = []
    looked_at = 0
    async for rows in portions(connection, selection, newest_first=True):
        found += await keep(rows)
        looked_at += len(rows)
        if len(found) >= limit or looked_at >= READ_MAX:
            break
    return found[:limit], looked_at


async def _all(rows: list[Parked]) -> list[Parked]:
    return rows


def _about(js: JetStreamContext, declared: Mapping[str, Source], selection: Selection) -> Keep:
    async def keep(rows: list[Parked]) -> list[Parked]:
        read = await today(declared, lambda seq: bus.read_delivery(js, seq), rows)
        return [row for row, each in zip(rows, read, strict=True) if selection.takes(each)]

    return keep


def _sources(servers: Servers) -> dict[str, Source]:
    return sources(ssot.load(reach.ssot_dir(servers.settings)))


def _listed(row: Parked) -> tuple[object, ...]:
    name = row.without_body.name
    return (row.stream_seq, row.received_at, name, row.kind, row.reason, row.last_error, row.attempts)


def _print_shares(by: Sequence[Share]) -> None:
    rows = [(each.source, each.reason, each.count) for each in by[:SHARES_SHOWN_MAX]]
    terminal.console().print(terminal.table(("source", "reason", "deliveries"), rows))
    if len(by) > SHARES_SHOWN_MAX:
        terminal.console().print(f"  … and {len(by) - SHARES_SHOWN_MAX} more sources and reasons")


async def show(servers: Servers, name: str, as_json: bool) -> None:
    """Print a delivery, why it is parked, and what today's code would make of it. Writes nothing."""
    declared, shown = _sources(servers), []
    for row in await _named(servers, name):
        stored = await deliveries.stored(servers, row["stream_seq"])
        made = understand(declared, stored) if isinstance(stored, Delivery) else None
        shown.append((row, stored, made))
    if as_json:
        terminal.print_json(
            [
                {
                    "ledger": row,
                    "in_words": IN_WORDS.get(row["reason"]),
                    "stored": deliveries.stored_as_json(stored),
                    "today": None if made is None else _made(made),
                }
                for row, stored, made in shown
            ]
        )
        return
    for row, stored, made in shown:
        deliveries.print_ledger(row, None)
        deliveries.print_pairs({"in words": IN_WORDS.get(row["reason"])})
        deliveries.print_stored(stored)
        _print_made(made)


def _made(made: Understood) -> dict[str, Any]:
    """What today's code makes of a delivery, for programs."""
    return {
        "status": made.status,
        "reason": made.reason,
        "error": made.error,
        "refs": list(made.refs),
        "events": [
            {"type": each.event.type, "ref": each.event.ref, "summary": each.event.summary}
            for each in made.statements
        ],
        "rows": dict(Counter(model for model, _ in made.rows)),
    }


def _print_made(made: Understood | None) -> None:
    out = terminal.console()
    if made is None:
        out.print("today's code cannot be asked: the delivery cannot be read")
        return
    out.print("by today's code", style="bold")
    events = [f"{each.event.type} of {each.event.ref}: {each.event.summary}" for each in made.statements]
    rows = Counter(model for model, _ in made.rows)
    deliveries.print_pairs(
        {
            "status": made.status,
            "reason": made.reason,
            "error": made.error,
            "refs": _some(made.refs, REFS_SHOWN_MAX) or None,
            "rows": [f"{count} of {model}" for model, count in sorted(rows.items())] or None,
        }
    )
    for event in _some(events, EVENTS_SHOWN_MAX):
        deliveries.print_pairs({"event": event})
    out.print()


def _some(values: Sequence[str], count_max: int) -> list[str]:
    more = len(values) - count_max
    return [*values[:count_max], f"and {more} more"] if more > 0 else list(values)


async def _named(servers: Servers, name: str) -> list[dict[str, Any]]:
    """The ledger's rows of a delivery; raises NoSuchDelivery where it has none."""
    deliveries.require_name(name)
    rows, doubt = await deliveries.known(servers, name)
    if doubt is not None:
        raise DatabaseAway(doubt)
    if not rows:
        raise NoSuchDelivery(f"the ledger has no delivery {name}: see `odooops parked list`")
    return rows


def retry(
    servers: Servers, names: Sequence[str], selection: Selection, *, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Fold what today's code understands of the parked deliveries chosen; with `dry_run` only count."""
    chosen = asyncio.run(_chosen(servers, names, selection, "retried"))
    if dry_run:
        _print_outcome(asyncio.run(_look(servers, chosen)), dry_run=True, as_json=as_json)
        return
    if not names and not yes and not _confirmed(servers, chosen, "retry"):
        return
    outcome, ended = Outcome(), False
    try:
        asyncio.run(_retry(servers, chosen, outcome))
        ended = True
    finally:
        if ended or outcome.total:
            _print_outcome(outcome, dry_run=False, as_json=as_json)
        if not ended and outcome.total:
            terminal.say("stopped early: what was done stays done, the same command goes on with the rest")


async def _look(servers: Servers, selection: Selection) -> Outcome:
    async with working(servers) as work:
        return await retrying.look(work, selection)


async def _retry(servers: Servers, selection: Selection, outcome: Outcome) -> None:
    async with working(servers) as work:
        await retrying.retry(work, selection, outcome)


def discard(
    servers: Servers,
    names: Sequence[str],
    selection: Selection,
    why: str,
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Give up the deliveries chosen: they stay in the log, and nothing is ever made of them."""
    chosen = asyncio.run(_chosen(servers, names, selection, "discarded"))
    if not dry_run and not names and not yes and not _confirmed(servers, chosen, "discard"):
        return
    made = _count(servers, chosen, as_json) if dry_run else _discard(servers, chosen, why)
    count = asyncio.run(made)
    if as_json:
        terminal.print_json({"dry_run": dry_run, "deliveries": count})
    elif dry_run:
        terminal.console().print(f"{count:,} would be discarded: nothing done, this was a dry run")
    else:
        terminal.console().print(f"discarded {count:,}")


async def _count(servers: Servers, selection: Selection, as_json: bool) -> int:
    """How many are chosen, with how many of each source and reason printed where that needs no reading."""
    if selection.ref is not None:
        return (await _look(servers, selection)).total
    async with reading(servers, STATEMENT_MS_MAX) as connection:
        by = await shares(connection, selection)
    if by and not as_json:
        _print_shares(by)
    return sum(each.count for each in by)


async def _discard(servers: Servers, selection: Selection, why: str) -> int:
    async with working(servers) as work:
        try:
            return await retrying.discard(work, selection, why, who())
        except CannotDiscard as error:
            raise Trouble(str(error)) from None


async def _chosen(servers: Servers, names: Sequence[str], selection: Selection, what: str) -> Selection:
    """`selection`, of the deliveries that are named where any is. Raises Trouble for one that is not to be `what`."""
    await deliveries.require_source(servers, selection.source)
    if not names:
        return selection
    allowed = DISCARDABLE if what == "discarded" else selection.statuses
    sequences = []
    for name in names:
        rows = await _named(servers, name)
        fit = [row for row in rows if row["status"] in allowed]
        if not fit:
            raise Trouble(_not_so(rows[0], what))
        if len(fit) > 1:
            raise Trouble(f"{len(fit)} bodies go by {name}: choose one by its sequence")
        sequences.append(fit[0]["stream_seq"])
    return replace(selection, sequences=tuple(sequences), statuses=allowed)


def _not_so(row: dict[str, Any], what: str) -> str:
    name = f"{row['source']}:{row['identity']}"
    if what == "discarded" and row["status"] == "projected":
        return f"{name} is in the tables: only a parked or conflicting delivery can be discarded, see `odooops redact`"
    return f"{name} is {row['status']}, not parked: it cannot be {what}"


def _confirmed(servers: Servers, selection: Selection, verb: str) -> bool:
    """Whether the operator means all that a filter chose. Raises Trouble where nobody can be asked."""
    count = asyncio.run(_at_most(servers, selection))
    if not count:
        return True
    about = "" if selection.ref is None else f" those about {selection.ref} of"
    if not sys.stdin.isatty():
        raise Trouble(
            f"to {verb}{about} {terminal.deliveries(count)}, look at it with --dry-run, then give --yes"
        )
    return typer.confirm(terminal.clean(f"{verb}{about} {terminal.deliveries(count)}?"))


async def _at_most(servers: Servers, selection: Selection) -> int:
    async with reading(servers, STATEMENT_MS_MAX) as connection:
        return sum(each.count for each in await shares(connection, selection))


def _print_outcome(outcome: Outcome, *, dry_run: bool, as_json: bool) -> None:
    ends = sorted(outcome.ends.items(), key=lambda each: (each[0][0] == "parked", -each[1], str(each[0])))
    if as_json:
        terminal.print_json(
            {
                "dry_run": dry_run,
                "deliveries": outcome.total,
                "events": outcome.events,
                "ends": [{"status": status, "reason": reason, "count": n} for (status, reason), n in ends],
            }
        )
        return
    rows = [
        (f"still {status}" if status == "parked" else status, reason, count, IN_WORDS.get(reason or ""))
        for (status, reason), count in ends
    ]
    out = terminal.console()
    if rows:
        out.print(
            terminal.table(("becomes" if dry_run else "became", "reason", "deliveries", "in words"), rows)
        )
    counts = f"projected {outcome.count('projected'):,}, ignored {outcome.count('ignored'):,}"
    counts += f", still parked {outcome.count('parked'):,}, events {'to publish' if dry_run else 'published'}"
    out.print(f"{counts} {outcome.events:,}" + (": nothing done, this was a dry run" if dry_run else ""))
