"""`odooops replay`: refold what a selection of deliveries touches, or only show what that would change."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from nats.nuid import NUID

from cli import terminal
from cli.deliveries import is_sequence, require_name
from cli.reach import Servers, Trouble
from cli.work import compared_as_json, print_compared, working
from services.projector import replay
from services.projector.preview import Previewed, look
from services.projector.replay import Selected, Selection
from services.projector.work import Work

DRY_RUN_MAX = 20_000
"""Deliveries whose effect a dry run works out: what they come to is in memory meanwhile."""
VERBS = ("would come", "would go", "would change")


@dataclass(frozen=True, slots=True)
class How:
    """How to replay. `limit` is how many differing rows of each model a dry run shows."""

    after: int
    publish: bool
    dry_run: bool
    rate_max: float | None
    limit: int
    as_json: bool


@dataclass(slots=True)
class Summary:
    """What has been done so far; `last` is the sequence up to which all that fits is done."""

    run: str
    last: int
    deliveries: int = 0
    read: int = 0
    refs: int = 0
    verdicts: int = 0
    events: int = 0

    def add(self, portion: replay.Portion) -> None:
        """Count one more portion."""
        self.last = portion.last
        self.deliveries += portion.count
        self.read += portion.read
        self.refs += portion.refs
        self.verdicts += portion.verdicts
        self.events += portion.events


def selection(
    *,
    source: str | None,
    kind: str | None,
    since: datetime | None,
    until: datetime | None,
    ref: str | None,
    names: Sequence[str],
) -> Selection:
    """What the command line selects; raises Trouble where that is everything, BadSettings for an odd name."""
    for name in names:
        require_name(name)
    sequences = tuple(int(name) for name in names if is_sequence(name))
    named = [name.partition(":") for name in names if not is_sequence(name)]
    made = Selection(
        source, kind, since, until, ref, sequences, tuple((source, name) for source, _, name in named)
    )
    if made.everything:
        raise Trouble("a replay of everything would be a rebuild: give a filter, or `odooops rebuild`")
    return made


async def run(servers: Servers, wanted: Selection, how: How) -> None:
    """Replay, or find out what that would change; then say so."""
    summary = Summary(NUID().next().decode(), how.after)
    shown: Previewed | None = None
    try:
        async with working(servers, how.rate_max) as work:
            async with work.engine.connect() as connection:
                selected = await replay.select(connection, wanted, how.after)
            if how.dry_run:
                shown = await _look(work, wanted, selected, how)
            else:
                publish_as = summary.run if how.publish else None
                async for portion in replay.replay(
                    work, wanted, selected, after=how.after, publish_as=publish_as
                ):
                    summary.add(portion)
    except (Exception, asyncio.CancelledError):
        if summary.deliveries:
            terminal.say(
                f"stopped, done up to sequence {summary.last}: go on with --after-seq {summary.last}"
            )
        raise
    if shown is not None:
        _print_preview(shown, selected, how.as_json)
    else:
        _print_summary(summary, selected, how)
    if not selected.count:
        terminal.say("no delivery that was projected or ignored fits: nothing to do")
    if selected.parked:
        terminal.say(
            f"parked and left alone, though they fit too: {terminal.deliveries(selected.parked)}, see"
            " `odooops parked retry`"
        )


async def _look(work: Work, wanted: Selection, selected: Selected, how: How) -> Previewed:
    async with work.engine.connect() as connection:
        entries = await replay.entries(connection, wanted, how.after, selected.last, DRY_RUN_MAX)
    return await look(work, entries, limit=how.limit)


def _print_preview(shown: Previewed, selected: Selected, as_json: bool) -> None:
    if as_json:
        terminal.print_json({"deliveries": selected.count, **preview_as_json(shown)})
    else:
        print_preview(shown)
        terminal.console().print(
            f"{terminal.deliveries(selected.count)} would be replayed; --publish would send {shown.events:,} events"
        )
    if selected.count > DRY_RUN_MAX:
        terminal.say(f"only the first {DRY_RUN_MAX:,} deliveries were looked at")


def _print_summary(summary: Summary, selected: Selected, how: How) -> None:
    if how.as_json:
        terminal.print_json({**asdict(summary), "parked": selected.parked})
    else:
        terminal.console().print(
            f"{terminal.deliveries(summary.deliveries)} replayed, {summary.read:,} read; "
            f"{summary.refs:,} refs refolded, {summary.verdicts:,} ended otherwise than before, "
            f"{summary.events:,} events published"
        )
    if summary.verdicts and not how.publish:
        terminal.say("of what is understood only now nobody has heard: --publish sends its events")


def print_preview(shown: Previewed) -> None:
    """The rows that would change, and what could not be compared."""
    print_compared(shown.compared, VERBS)
    if all(each.equal for each in shown.compared):
        terminal.console().print("no row would change")
    if shown.new:
        terminal.say(f"not in the database yet, hence not compared: {', '.join(shown.new)}")
    if shown.wide:
        terminal.say(f"too many deliveries are about these to compare them here: {', '.join(shown.wide)}")


def preview_as_json(shown: Previewed) -> dict[str, object]:
    """The same for programs."""
    return {
        "compared": compared_as_json(shown.compared),
        "read": shown.read,
        "events": shown.events,
        "not_compared": {"refs": list(shown.wide), "not_in_the_database": list(shown.new)},
    }
