"""Parked deliveries: what could not be understood or written."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from cli.asked import LIST_DEFAULT, LIST_MAX
from cli.options import AsJson, DataDir, OfSource, Since, servers
from cli.reach import Trouble
from runtime.settings import DEFAULT_DATA_DIR

if TYPE_CHECKING:
    from services.projector.retry import Selection

Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME", help="Only these: each by its sequence, or as SOURCE:IDENTITY.", show_default=False
    ),
]
OfReason = Annotated[str | None, typer.Option(help="Only those parked for this, as shape_mismatch.")]
OfKind = Annotated[str | None, typer.Option(help="Only of this kind, as issues.")]
About = Annotated[
    str | None,
    typer.Option(
        help="Only those that today's code understands as about this. The ledger does not know of what is parked"
        " what it is about, so they are read."
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would become of them, and do nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Everything = Annotated[bool, typer.Option("--all", help="All that are parked.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        help="Deliveries that were set aside: look, retry, discard.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    app.add_typer(group, name="parked")
    group.command("list")(list_command)
    group.command("show")(show_command)
    group.command("retry")(retry_command)
    group.command("discard")(discard_command)


def list_command(
    context: typer.Context,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    source: OfSource = None,
    reason: OfReason = None,
    kind: OfKind = None,
    since: Since = None,
    ref: About = None,
    limit: Annotated[int, typer.Option(min=1, max=LIST_MAX)] = LIST_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List parked deliveries, the newest first.

    What today's code would make of them says `odooops parked retry --dry-run`.
    """
    from cli import parked

    chosen = _selection(source, reason, kind, since, ref)
    asyncio.run(parked.list_(servers(context, data_dir), chosen, limit, as_json))


def show_command(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="SEQ|SOURCE:IDENTITY")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Show one: why it is parked, what it holds, and what today's code would make of it."""
    from cli import parked

    asyncio.run(parked.show(servers(context, data_dir), name, as_json))


def retry_command(
    context: typer.Context,
    names: Names = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    everything: Everything = False,
    source: OfSource = None,
    reason: OfReason = None,
    kind: OfKind = None,
    since: Since = None,
    ref: About = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Give parked deliveries to today's code once more.

    Those that it understands go into the tables, and their events are published. The others stay parked, with today's
    reason. The exit code is 0 once all were tried, whatever became of them. Interrupted, it goes on when it is called
    again.
    """
    from cli import parked

    chosen = _selection(source, reason, kind, since, ref)
    _require_choice("retry", names, chosen, everything)
    parked.retry(servers(context, data_dir), names or (), chosen, dry_run=dry_run, yes=yes, as_json=as_json)


def discard_command(
    context: typer.Context,
    why: Annotated[str, typer.Option(help="Why, for whoever asks later.")],
    names: Names = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    everything: Everything = False,
    source: OfSource = None,
    reason: OfReason = None,
    kind: OfKind = None,
    since: Since = None,
    ref: About = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Give parked deliveries up: nothing is ever made of them.

    They stay in the log and in the ledger, as discarded, with who did it and why; a rebuild leaves them so. One in
    conflict with an earlier body can be discarded by its name, so that `status` no longer counts it.
    """
    from cli import parked

    chosen = _selection(source, reason, kind, since, ref)
    _require_choice("discard", names, chosen, everything)
    if not why.strip():
        raise typer.BadParameter("--why: say in a few words why")
    reached = servers(context, data_dir)
    parked.discard(reached, names or (), chosen, why.strip(), dry_run=dry_run, yes=yes, as_json=as_json)


def _selection(
    source: str | None, reason: str | None, kind: str | None, since: str | None, ref: str | None
) -> Selection:
    from cli import deliveries
    from services.projector.retry import Selection

    moment = None if since is None else deliveries.since(since, datetime.now(UTC))
    return Selection(source=source, reason=reason, kind=kind, since=moment, ref=ref)


def _require_choice(verb: str, names: list[str] | None, chosen: Selection, everything: bool) -> None:
    filters = (chosen.source, chosen.reason, chosen.kind, chosen.since, chosen.ref)
    if not names and not everything and not any(filters):
        raise Trouble(f"say what to {verb}: a sequence, SOURCE:IDENTITY, a filter, or --all")
