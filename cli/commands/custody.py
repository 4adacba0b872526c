"""The log itself: erasing from it, taking old parts out of it, no longer believing a secret."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cli.asked import LIST_MAX
from cli.options import AsJson, DataDir, servers
from runtime.settings import DEFAULT_DATA_DIR

AUDIT_DEFAULT = 20


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("redact")(redact_command)
    app.command("archive")(archive_command)
    secrets_app = typer.Typer(
        help="The secrets of webhooks: what each vouched for.", no_args_is_help=True, rich_markup_mode=None
    )
    app.add_typer(secrets_app, name="secrets")
    secrets_app.command("audit")(audit_command)


def redact_command(
    context: typer.Context,
    why: Annotated[str, typer.Option(help="The reason. It is kept: without personal data.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
    ref: Annotated[
        str | None, typer.Option(help="Every delivery that said something about this, as github:org/repo#7.")
    ] = None,
    delivery: Annotated[
        str | None, typer.Option(metavar="SOURCE:IDENTITY|SEQ", help="This one, whatever became of it.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be erased, and erase nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Erase what deliveries said, for good.

    Their bodies in the log, and all that came of them; that they came stays in the ledger. May be run again at any
    time: what an interrupted run has left is erased then.
    """
    from cli import redact

    if (ref is None) == (delivery is None):
        raise typer.BadParameter("give either --ref or --delivery")
    if not why.strip():
        raise typer.BadParameter("--why is empty: the ledger keeps why something was erased")
    wanted = redact.Wanted(ref, delivery, why.strip(), dry_run, yes)
    asyncio.run(redact.run(servers(context, data_dir), wanted, as_json))


def audit_command(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="As verified_by has it; never a value.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
    since: Annotated[
        str | None,
        typer.Option(help="Only received since: an age like 90m or 2d, an ISO time, or beginning."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="Only received before: an age or an ISO time.  [default: now]")
    ] = None,
    exclude: Annotated[
        bool,
        typer.Option("--exclude", help="No longer believe them: discard them, and fold anew without them."),
    ] = False,
    why: Annotated[str | None, typer.Option(help="Why they are excluded; it is kept.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --exclude: show what would change, and do nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    limit: Annotated[
        int, typer.Option(min=1, max=LIST_MAX, help="How many of each list are shown.")
    ] = AUDIT_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Show which deliveries a secret vouched for, and what rests on them.

    When one has leaked: set the new value first, in the file of the secret, which is read again within a second.
    Then exclude what the old one vouched for since it may have been known, until the value was changed. Leave --until
    out where that was just now. What comes later under the same name counts.

    As in: odooops secrets audit GITHUB_WEBHOOK_SECRET --since 2d --exclude --why "it stood in a build log"

    Nothing leaves the log. An exclusion cannot be taken back.
    """
    from cli import secrets
    from services.projector.leak import Span

    if (why or dry_run or yes) and not exclude:
        raise typer.BadParameter("--why, --dry-run and --yes belong to --exclude")
    if exclude and since is None:
        raise typer.BadParameter(
            "--exclude needs --since: when may it have leaked first? Or --since beginning"
        )
    if exclude and not dry_run and not (why or "").strip():
        raise typer.BadParameter("--exclude needs --why")
    now = datetime.now(UTC)
    span = Span(name, secrets.moment(since, now, "--since"), secrets.moment(until, now, "--until"))
    reached = servers(context, data_dir)
    if exclude:
        work = secrets.exclude(reached, span, why or "", limit, dry_run=dry_run, yes=yes, as_json=as_json)
        asyncio.run(work)
    else:
        asyncio.run(secrets.audit(reached, span, limit, as_json))


def archive_command(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file, as deliveries-2026.jsonl.gz.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
    until_seq: Annotated[int | None, typer.Option(min=1, metavar="N", help="The last of them.")] = None,
    before: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Those stored before: an age like 90d, or an ISO time."),
    ] = None,
    from_seq: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="The first of them.  [default: the log's]")
    ] = None,
    trim: Annotated[bool, typer.Option("--trim", help="Then take them out of the log.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing: read FILE, and say whether it is whole.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write old deliveries to a file; with --trim, take them out.

    Every byte of them, each with a hash; the file has its name once it was read back. Only deliveries that the
    projector has done, and that are not parked, are taken out, and only from the beginning on. What stands in the
    tables stays there: rebuild takes it over as it is, and verify says from which sequence on it proves.
    """
    from cli import archive
    from cli.deliveries import since

    if check:
        if until_seq or before or from_seq:
            raise typer.BadParameter("--check reads all of FILE: leave the range out")
        asyncio.run(archive.check(servers(context, data_dir), file, trim, as_json))
        return
    if (until_seq is None) == (before is None):
        raise typer.BadParameter("give either --until-seq or --before")
    moment = None if before is None else since(before, datetime.now(UTC), "--before")
    wanted = archive.Range(from_seq=from_seq, until_seq=until_seq, before=moment)
    asyncio.run(archive.run(servers(context, data_dir), file, wanted, trim, as_json))
