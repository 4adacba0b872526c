"""`odooops secrets`: what a webhook secret vouched for, and no longer believing it."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import typer

from cli import reach, terminal
from cli.database import reading
from cli.deliveries import LISTED, listed, since
from cli.reach import Servers, Trouble
from cli.work import compared_as_json, print_compared, who, working
from runtime import ssot
from services.projector import leak
from services.projector.exclusions import Exclusion
from services.projector.leak import Audit, NotOurs, Span, Told, WrongSecret
from services.projector.work import Work

BEGINNING = "beginning"
"""Instead of a time: when it first vouched for anything."""
STATEMENT_MS_MAX = 60_000


async def audit(servers: Servers, asked: Span, limit: int, as_json: bool) -> None:
    """Print what a secret vouched for."""
    async with reading(servers, STATEMENT_MS_MAX) as connection:
        span = await _named(connection, servers, asked)
        found = await leak.audit(connection, span, limit)
    if as_json:
        terminal.print_json({"secret": span.secret, **asdict(found)})
    else:
        _print_audit(span, found)


async def exclude(
    servers: Servers, asked: Span, why: str, limit: int, *, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Say that what a secret vouched for is not to be believed, unless it is a dry run, and print what that changes.

    Without `yes` only after a person at a terminal has agreed. What was told to others is printed before: the tables
    forget it with the deliveries.
    """
    asks = not (yes or dry_run)
    now = datetime.now(UTC)
    async with working(servers) as work:
        try:
            exclusion = await _exclusion(work, servers, asked, now)
            async with work.engine.connect() as connection:
                before = await leak.already(connection, exclusion)
                told = await leak.told(connection, _span(exclusion), limit)
            if before is not None:
                _print_already(exclusion, before, as_json)
                return
            if asks and not sys.stdin.isatty():
                raise Trouble(
                    "an exclusion cannot be taken back and nobody can be asked here: see --dry-run first, then give"
                    " --yes"
                )
            deliveries, compared = await leak.without(work, exclusion, limit)
            first = False
            if not as_json:
                _print_told(told)
                print_compared(compared, ("would come", "would go", "would change"), "without them")
            if asks and not await _agreed(deliveries):
                raise Trouble("nothing was excluded")
            if not dry_run:
                stored = await leak.store(work, leak.said(exclusion, why, who(), now))
                first = await leak.fold(work, stored)
        except (NotOurs, WrongSecret) as error:
            raise Trouble(str(error)) from None
        async with work.engine.connect() as connection:
            discarded = await leak.excluded(connection, exclusion)
    if as_json:
        terminal.print_json(
            {
                **_as_json(exclusion),
                "dry_run": dry_run,
                "excluded_now": first,
                "deliveries": deliveries,
                "discarded": discarded,
                "told": asdict(told),
                "changes": compared_as_json(compared),
            }
        )
        return
    out = terminal.console()
    if dry_run:
        out.print(f"{terminal.deliveries(deliveries)} would be discarded; nothing was done", soft_wrap=True)
    elif first:
        out.print(f"{terminal.deliveries(discarded)} discarded, received {_times(exclusion)}", soft_wrap=True)
    else:
        _print_already(exclusion, None, as_json=False)


async def _agreed(deliveries: int) -> bool:
    question = f"Discard {terminal.deliveries(deliveries)}, for good?"
    return await asyncio.to_thread(typer.confirm, question, err=True)


async def _exclusion(work: Work, servers: Servers, asked: Span, now: datetime) -> Exclusion:
    async with work.engine.connect() as connection:
        span = await _named(connection, servers, asked)
        first_at = await leak.first_at(connection, span.secret)
    if first_at is None:
        raise Trouble(
            f"{span.secret} has vouched for no delivery in the ledger, so there is nothing to exclude"
            " (`odooops status` shows whether the projector lags)"
        )
    begins, ends = asked.since or first_at, asked.until or now
    if ends > now:
        raise Trouble(f"--until {terminal.moment(ends)} lies ahead: what will come cannot be judged yet")
    if begins >= ends:
        raise Trouble(f"--since {terminal.moment(begins)} is not before --until {terminal.moment(ends)}")
    return Exclusion(span.secret, begins, ends)


async def _named(connection: Any, servers: Servers, asked: Span) -> Span:
    files = ssot.load_providers(reach.ssot_dir(servers.settings)).values()
    declared = {name for file in files for name in file.secrets}
    try:
        return Span(await leak.name_of(connection, asked.secret, declared), asked.since, asked.until)
    except WrongSecret as error:
        raise Trouble(str(error)) from None


def moment(given: str | None, now: datetime, option: str) -> datetime | None:
    """The time that an option names; None where it is left out, or is the beginning."""
    return None if given in (None, BEGINNING) else since(str(given), now, option)


def _span(exclusion: Exclusion) -> Span:
    return Span(exclusion.secret, exclusion.since, exclusion.until)


def _print_audit(span: Span, found: Audit) -> None:
    out = terminal.console()
    for each in found.exclusions:
        line = f"not believed {_times(Exclusion(span.secret, each['since'], each['until']))}: {each['why']}"
        out.print(terminal.clean(f"{line} ({each['actor']})"), soft_wrap=True)
    if not found.deliveries:
        out.print(terminal.clean(f"{span.secret} has vouched for no delivery then"), soft_wrap=True)
        return
    out.print(
        terminal.table(
            ("source", "kind", "status", "reason", "deliveries"),
            [
                tuple(row[name] for name in ("source", "kind", "status", "reason", "deliveries"))
                for row in found.counts
            ],
        )
    )
    times = f"from {terminal.show(found.first_at)} to {terminal.show(found.last_at)}"
    out.print(
        terminal.clean(f"{span.secret} vouched for {terminal.deliveries(found.deliveries)}, {times}"),
        soft_wrap=True,
    )
    out.print(f"about {found.refs:,} refs, of which {found.alone:,} rest on them alone", soft_wrap=True)
    for ref in found.refs_alone:
        out.print(terminal.clean(f"  {ref}"), soft_wrap=True)
    _more(found.alone, len(found.refs_alone))
    _print_told(found.told)
    out.print()
    out.print(terminal.table(LISTED, (listed(row) for row in found.newest)))
    _more(found.deliveries, len(found.newest))


def _print_told(told: Told) -> None:
    out = terminal.console()
    if told.events:
        named = ", ".join(f"{count:,} {name}" for name, count in told.events.items())
        out.print(terminal.clean(f"subscribers were told, we cannot call it back: {named}"), soft_wrap=True)
    if told.messages:
        out.print(f"posted to Slack, to be mended there: {told.messages:,}")
        for row in told.posted:
            where = f"{row['channel']}/{row['slack_ts']}" if row["channel"] else row["destination"]
            out.print(terminal.clean(f"  {where}  {row['event_type']} {row['ref']}"), soft_wrap=True)
        _more(told.messages, len(told.posted))


def _print_already(exclusion: Exclusion, before: dict[str, Any] | None, as_json: bool) -> None:
    if as_json:
        terminal.print_json({**_as_json(exclusion), "excluded_now": False, "excluded_before": before})
        return
    by = (
        ""
        if before is None
        else f", by {before['actor']} at {terminal.moment(before['excluded_at'])}: {before['why']}"
    )
    line = f"{exclusion.secret} {_times(exclusion)} was excluded already{by}"
    terminal.console().print(terminal.clean(line), soft_wrap=True)


def _as_json(exclusion: Exclusion) -> dict[str, Any]:
    return {"secret": exclusion.secret, "since": exclusion.since, "until": exclusion.until}


def _times(exclusion: Exclusion) -> str:
    return f"from {terminal.moment(exclusion.since)} to {terminal.moment(exclusion.until)}"


def _more(count: int, shown: int) -> None:
    if count > shown:
        terminal.console().print(f"  … and {count - shown:,} more: --limit shows more of them")
