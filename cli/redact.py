"""`odooops redact`: shows what would be erased, asks, erases it, and says what is out of its reach."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import nats.errors
import typer
from nats.js.errors import APIError

from cli import deliveries, terminal
from cli.reach import Servers, Trouble
from cli.work import who, working
from runtime.bus import BrokerAway
from services.projector import redact
from services.projector.redact import Disagreement, Done, Notice, Plan, Selection, Target

SHOWN_MAX = 50
"""Lines of each list; with --json a list has JSON_MAX entries at most."""
JSON_MAX = 1_000

NOT_KNOWN_BY_REF = (
    "deliveries that were parked, ignored, in conflict or discarded are not known by what they were about: name each"
    " by --delivery"
)
OUT_OF_REACH = (
    "messages in Slack: delete them there, those posted are listed with channel and ts",
    "subscribers of EVENTS that have read the events, and what senders and providers keep themselves",
    "backups, archives and snapshots of the log, of the database and of disks, and brokers' replicas that are down",
    "pieces of a large body whose storing was cut off before it had a name",
    "the database's own files: rows that were replaced lie there until VACUUM, and in its WAL until that is recycled",
    "refs, identities and hashes: they stay in the ledger, listings, operators' words and the poller's memory",
    "what was printed on terminals, and logs of proxies before ingest",
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the operator asked for."""

    ref: str | None
    delivery: str | None
    why: str
    dry_run: bool
    yes: bool

    def selection(self) -> Selection:
        """Which deliveries that are; raises BadSettings where a delivery is named by nothing that can name one."""
        if self.ref is not None:
            return redact.of_ref(self.ref)
        name = self.delivery or ""
        deliveries.require_name(name)
        if deliveries.is_sequence(name):
            return redact.of_sequence(int(name))
        source, _, identity = name.partition(":")
        return redact.of_delivery(source, identity)


async def run(servers: Servers, wanted: Wanted, as_json: bool) -> None:
    """Erase what is wanted; without --yes only after a person at a terminal has agreed."""
    selection = wanted.selection()
    asks = not (wanted.yes or wanted.dry_run)
    if asks and not sys.stdin.isatty():
        raise Trouble(
            "erasing cannot be undone and nobody can be asked here: see --dry-run first, then give --yes"
        )
    try:
        async with working(servers) as work:
            plan = await redact.look(work, selection)
            if not plan.targets and not plan.notices:
                raise Trouble(_nothing(wanted))
            if not as_json:
                _print_plan(plan)
            elif wanted.dry_run:
                terminal.print_json(_plan_as_json(plan))
            if wanted.dry_run:
                return
            if asks and not await asyncio.to_thread(typer.confirm, "Erase all of this, for good?", err=True):
                raise Trouble("nothing was erased")
            done = await redact.redact(work, plan, who(), wanted.why)
    except Disagreement as error:
        raise Trouble(str(error)) from None
    except (nats.errors.Error, APIError) as error:
        raise BrokerAway(
            f"the broker did not do all of it, run this again: {str(error) or type(error).__name__}"
        ) from None
    if as_json:
        terminal.print_json({**_plan_as_json(plan), **asdict(done), "out_of_reach": OUT_OF_REACH})
    else:
        _print_done(plan, done)


def _nothing(wanted: Wanted) -> str:
    if wanted.ref is not None:
        return f"the ledger has no delivery about {wanted.ref}: {NOT_KNOWN_BY_REF}"
    return (
        f"the ledger has no delivery {wanted.delivery} whose body can be erased: see `odooops deliveries list`, or the"
        " projector has not come to it yet; what operators said stays"
    )


def _print_plan(plan: Plan) -> None:
    out = terminal.console()
    columns = ("seq", "received", "delivery", "kind", "status", "copies", "body")
    out.print(terminal.table(columns, (_listed(plan, each) for each in plan.targets[:SHOWN_MAX])))
    _more(plan.targets)
    out.print(
        f"bodies: {len(plan.targets)}, places in the log: {len(plan.sequences)}, events: {len(plan.events)},"
        f" the notifier's messages: {len(plan.notices)}"
    )
    if plan.shared:
        out.print()
        rows = ((each.ref, each.others, each.trimmed) for each in plan.shared[:SHOWN_MAX])
        out.print(terminal.table(("folded anew", "from other deliveries", "no longer in the log"), rows))
        _more(plan.shared)
    if any(each.trimmed for each in plan.shared):
        terminal.say(
            "what deliveries stated that are no longer in the log goes from the rows of these refs too"
        )
    if plan.selection.ref is not None:
        terminal.say(NOT_KNOWN_BY_REF)


def _listed(plan: Plan, target: Target) -> tuple[object, ...]:
    return (
        target.stream_seq,
        target.received_at,
        target.name,
        target.kind,
        target.status,
        len(plan.copies[target.key]),
        None if target.body_bytes is None else terminal.size(target.body_bytes),
    )


def _more(all_of_them: Sequence[object]) -> None:
    if len(all_of_them) > SHOWN_MAX:
        terminal.console().print(f"  … and {len(all_of_them) - SHOWN_MAX:,} more")


def _print_done(plan: Plan, done: Done) -> None:
    out = terminal.console()
    out.print()
    out.print(terminal.table(("erased from", "things"), done.counts.items()))
    for note in done.notes:
        terminal.say(note)
    posted = _posted(plan.notices)
    if posted:
        out.print()
        rows = ((each.destination, each.channel, each.slack_ts, each.ref) for each in posted[:JSON_MAX])
        out.print(terminal.table(("posted to", "channel", "ts", "about"), rows))
    out.print("\nout of reach:")
    for place in OUT_OF_REACH:
        out.print(f"  {place}", soft_wrap=True)


def _posted(notices: Sequence[Notice]) -> list[Notice]:
    """Those that stand in Slack, or may: what ended without an answer was perhaps posted."""
    return [each for each in notices if each.status in ("posted", "posting")]


def _plan_as_json(plan: Plan) -> dict[str, Any]:
    return {
        "bodies": len(plan.targets),
        "places_in_the_log": len(plan.sequences),
        "events": len(plan.events),
        "messages": [asdict(each) for each in plan.notices[:JSON_MAX]],
        "deliveries": [
            {**asdict(each), "sequences": sorted(plan.copies[each.key])} for each in plan.targets[:JSON_MAX]
        ],
        "refolded": [asdict(each) for each in plan.shared[:JSON_MAX]],
    }
