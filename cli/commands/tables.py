"""The tables: fold them anew, compare them with the log, look at them as they were."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated

import typer

from cli.options import EXIT_FAILED, AsJson, DataDir, OfSource, Since, servers
from cli.reach import Trouble
from runtime.settings import DEFAULT_DATA_DIR

DIFFERENCES_SHOWN = 10
NEWEST_COUNT = 1_000
NEWEST_COUNT_MAX = 20_000

LIMIT_DEFAULT = 5
LIMIT_MAX = 1_000

Models = Annotated[
    list[str] | None, typer.Argument(metavar="MODEL", help="Only these tables, as builds.  [default: all]")
]
Rate = Annotated[
    float | None,
    typer.Option(
        min=1, metavar="N", help="At most so many deliveries per second, where the servers are to be spared."
    ),
]
Limit = Annotated[
    int, typer.Option(min=0, max=LIMIT_MAX, help="How many differing rows of each table are shown.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("replay")(replay_command)
    app.command("diff")(diff_command)
    app.command("rebuild")(rebuild_command)
    app.command("verify")(verify_command)


def replay_command(
    context: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="SEQ|SOURCE:IDENTITY", help="Only these deliveries.")
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    source: OfSource = None,
    kind: Annotated[
        str | None,
        typer.Option(help="Only of this kind, or of those that begin so: deployment, or observed.droplet."),
    ] = None,
    since: Since = None,
    until: Annotated[str | None, typer.Option(help="Only received before, said in the same way.")] = None,
    ref: Annotated[str | None, typer.Option(help="Only about this, as github:org/repo#7.")] = None,
    after_seq: Annotated[
        int, typer.Option(min=0, help="Go on after this sequence, where an earlier run has stopped.")
    ] = 0,
    publish: Annotated[
        bool, typer.Option("--publish", help="Send the events of these deliveries again, marked ce-replayed.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show which rows would change, and change nothing.")
    ] = False,
    rate: Annotated[
        float | None, typer.Option(min=1, help="Deliveries per second at most, to spare the servers.")
    ] = None,
    limit: Limit = DIFFERENCES_SHOWN,
    as_json: AsJson = False,
) -> None:
    """Fold anew what some deliveries are about, by today's code.

    Takes deliveries that were projected or ignored; parked ones are for `odooops parked retry`. Publishes nothing
    without --publish, not even what is understood only now.
    """
    from cli import replay
    from cli.deliveries import since as moment

    now = datetime.now(UTC)
    wanted = replay.selection(
        source=source,
        kind=kind,
        since=moment(since, now) if since else None,
        until=moment(until, now, "--until") if until else None,
        ref=ref,
        names=names or (),
    )
    how = replay.How(after_seq, publish, dry_run, rate, limit, as_json)
    asyncio.run(replay.run(servers(context, data_dir), wanted, how))


def diff_command(
    context: typer.Context,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    code: Annotated[
        bool, typer.Option("--code", help="Compare what this code makes of the log with the live tables.")
    ] = False,
    last: Annotated[
        int, typer.Option(min=1, max=NEWEST_COUNT_MAX, help="Look at so many of the newest deliveries.")
    ] = NEWEST_COUNT,
    limit: Limit = DIFFERENCES_SHOWN,
    as_json: AsJson = False,
) -> None:
    """Show which rows would change if this code were deployed.

    Reads the newest deliveries and whatever else is about the same things, and writes nothing. The exit code is 1
    where a row differs.
    """
    from cli import diff

    if not code:
        raise typer.BadParameter("say what to compare: --code")
    if not asyncio.run(diff.run(servers(context, data_dir), last, limit, as_json)):
        raise typer.Exit(EXIT_FAILED)


def rebuild_command(
    context: typer.Context,
    models: Models = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")
    ] = False,
    in_place: Annotated[
        bool,
        typer.Option(
            "--in-place", help="Replace differing rows where they are: no old tables, nothing is moved."
        ),
    ] = False,
    drop_old: Annotated[
        bool, typer.Option("--drop-old", help="Only drop the old tables that earlier rebuilds have kept.")
    ] = False,
    rollback: Annotated[
        bool,
        typer.Option("--rollback", help="Only put the newest old tables back, with all that has come since."),
    ] = False,
    as_of: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Only make the tables as they were, by what had been received: an ISO time."
        ),
    ] = None,
    as_of_seq: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Only make the tables as of this sequence.")
    ] = None,
    into: Annotated[
        str | None, typer.Option(metavar="SCHEMA", help="With --as-of: where to, as ops_asof.")
    ] = None,
    rate: Rate = None,
    limit: Limit = LIMIT_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Make the tables anew from the log, and put them in place.

    Everything goes on meanwhile, and readers notice nothing. Interrupted at any point, the tables are as they were.
    The old ones are kept in a schema ops_before_<time>.

    With --as-of or --as-of-seq the tables stay, and the schema that --into names gets those of then.
    """
    import uvloop

    from cli import rebuild

    past = as_of is not None or as_of_seq is not None
    if past != (into is not None):
        raise typer.BadParameter("--into belongs to --as-of or --as-of-seq, and they to it")
    if past and (dry_run or in_place or drop_old or rollback):
        raise typer.BadParameter(
            "tables of the past are made beside the live ones: leave the other options out"
        )

    if dry_run + in_place + drop_old + rollback > 1:
        raise typer.BadParameter("choose one of --dry-run, --in-place, --drop-old and --rollback")
    if models and (drop_old or rollback):
        raise typer.BadParameter("old tables are dropped or put back as they were kept: name no table")
    reached = servers(context, data_dir)
    if into is not None:
        from cli import as_of as then
        from cli.deliveries import since as moment

        now = datetime.now(UTC)
        until = moment(as_of, now, "--as-of") if as_of else None
        if until is not None and until > now:
            raise Trouble(f"--as-of {as_of} lies ahead: nobody knows the tables of then")
        uvloop.run(then.run(reached, until, as_of_seq, into, rate, models or (), as_json))
    elif drop_old:
        uvloop.run(rebuild.drop_old(reached, as_json))
    elif rollback:
        uvloop.run(rebuild.rollback(reached, rate, as_json))
    else:
        wanted = rebuild.Wanted(tuple(models or ()), rate, limit, dry_run, in_place)
        uvloop.run(rebuild.rebuild(reached, wanted, as_json))


def verify_command(
    context: typer.Context,
    models: Models = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    rate: Rate = None,
    limit: Limit = LIMIT_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Name each row that is not what the log says.

    The log is folded anew beside the tables, and compared with them; nothing is changed. The exit code is 1
    where one differs.
    """
    import uvloop

    from cli import rebuild

    wanted = rebuild.Wanted(tuple(models or ()), rate, limit, dry_run=True)
    if not uvloop.run(rebuild.verify(servers(context, data_dir), wanted, as_json)):
        raise typer.Exit(EXIT_FAILED)
