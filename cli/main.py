"""The operator's command. Whatever goes wrong ends here as one sentence on standard error.

Each command imports its own module when it is called: with all of them, every start would take a second longer.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache, partial
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer
from typer.exceptions import TyperException
from typer.main import get_command

from cli import terminal
from cli.asked import LIST_DEFAULT, LIST_MAX, ROWS_DEFAULT, ROWS_MAX, Filters, Form, Status
from cli.commands import backup, custody, drift, parked, polls, tables
from cli.options import EXIT_FAILED, AsJson, DataDir, OfSource, Port, Since, SsotDir, servers
from cli.reach import Trouble
from contracts.delivery import MalformedName, UnreadableDelivery
from contracts.ssot import BadSsot
from runtime.bus import BrokerAway, LogFull, LogTrimmed
from runtime.settings import DEFAULT_DATA_DIR, BadSettings
from runtime.state import NotRunning, Owned
from runtime.streams import HalfRestored
from runtime.supervisor import DidNotStart

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

KNOWN = (
    Trouble,
    BadSettings,
    BadSsot,
    BrokerAway,
    DidNotStart,
    HalfRestored,
    LogFull,
    LogTrimmed,
    MalformedName,
    NotRunning,
    Owned,
    UnreadableDelivery,
)
"""Exceptions whose message is the sentence for the operator."""

app = typer.Typer(
    name="odooops",
    help="The operations backend: webhooks in, a durable log, tables to ask.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
deliveries_app = typer.Typer(
    help="What came in, and what became of it.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(deliveries_app, name="deliveries")
ssot_app = typer.Typer(
    help="What the YAML under ssot/ declares.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(ssot_app, name="ssot")
contracts_app = typer.Typer(
    help="What others may rely on: events and HTTP.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(contracts_app, name="contracts")


@app.command("up")
def up_command(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    port: Port = None,
    unpark: Annotated[
        bool, typer.Option("--unpark", help="Retry the parked deliveries, as `parked retry --all` does.")
    ] = False,
) -> None:
    """Start everything and keep it running until Ctrl-C."""
    from cli import up

    up.run(data_dir, port, unpark=unpark)


@app.command("demo")
def demo_command(data_dir: DataDir = DEFAULT_DATA_DIR, port: Port = None) -> None:
    """Like up, with samples sent and shown."""
    from cli import demo

    demo.run(data_dir, port)


@app.command("status")
def status_command(
    context: typer.Context, data_dir: DataDir = DEFAULT_DATA_DIR, as_json: AsJson = False
) -> None:
    """Show how everything is.

    Services, broker, streams, lag, database, schema, ledger. The exit code is 1 where anything is bad or unknown.
    """
    from cli import status

    if not asyncio.run(status.run(servers(context, data_dir), as_json)):
        raise typer.Exit(EXIT_FAILED)


@app.command("doctor")
def doctor_command(
    context: typer.Context,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    mend: Annotated[
        bool, typer.Option("--mend", help="First set streams and consumers back to this version's settings.")
    ] = False,
    limits: Annotated[
        bool,
        typer.Option(
            "--limits", help="With --mend: max_age, max_bytes and max_msgs, too, which may be yours."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Look for settings that could lose data.

    Of broker, streams, consumers, database, roles, clocks and disks: what is wrong, what could be lost, and how it is
    mended. The exit code is 1 where an error is found, a server does not answer, or --mend could not mend all; 0 with
    warnings.
    """
    from cli import doctor

    if limits and not mend:
        raise typer.BadParameter("--limits belongs to --mend")
    looked = doctor.run(servers(context, data_dir), mend=mend, limits=limits, as_json=as_json)
    if not asyncio.run(looked):
        raise typer.Exit(EXIT_FAILED)


@app.command("subscribe")
def subscribe_command(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its user and its durable consumer.")],
    subjects: Annotated[
        list[str], typer.Argument(metavar="SUBJECT…", help="What it is given, as events.deployment.>")
    ],
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Let a program of your own read events."""
    from cli import subscribe

    asyncio.run(subscribe.run(servers(context, data_dir), name, subjects))


@app.command("check")
def check_command(
    data_dir: DataDir = DEFAULT_DATA_DIR, directory: SsotDir = None, as_json: AsJson = False
) -> None:
    """Check what SSOT says, and name each secret that is missing.

    Needs no server. The exit code is 1 where anything is bad.
    """
    from cli import check, reach
    from runtime import settings

    if not check.run(directory or reach.ssot_dir(settings.load()), data_dir, as_json):
        raise typer.Exit(EXIT_FAILED)


@deliveries_app.command("list")
def list_command(
    context: typer.Context,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    source: OfSource = None,
    state: Annotated[Status | None, typer.Option("--status", help="Only those that ended like this.")] = None,
    since: Since = None,
    ref: Annotated[str | None, typer.Option(help="Only about this, as github:org/repo#7.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=LIST_MAX)] = LIST_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List deliveries, the newest first."""
    from cli import deliveries

    moment = None if since is None else deliveries.since(since, datetime.now(UTC))
    wanted = Filters(source, state, moment, ref, limit)
    asyncio.run(deliveries.list_(servers(context, data_dir), wanted, as_json))


@deliveries_app.command("show")
def show_command(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="SOURCE:IDENTITY|SEQ")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
    raw: Annotated[bool, typer.Option("--raw", help="Write the body alone, byte for byte.")] = False,
) -> None:
    """Show one delivery: its headers, its body, and what became of it."""
    from cli import deliveries

    asyncio.run(deliveries.show(servers(context, data_dir), name, as_json, raw))


@app.command("send")
def send_command(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True)],
    event: Annotated[str, typer.Option(help="What it is called by its sender, as issues.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
    source: Annotated[str, typer.Option(help="Whose delivery it is.")] = "github",
    delivery: Annotated[str | None, typer.Option(help="Its id; a new one unless given.")] = None,
    secret_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="The variable that holds the secret to sign with.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="Where ingest is, if not on the data folder.")] = None,
) -> None:
    """Sign FILE as its sender would, and post it."""
    from cli import send

    parcel = send.Parcel(
        source=source, event=event, delivery=delivery or str(uuid4()), body=file.read_bytes()
    )
    if not send.run(servers(context, data_dir), parcel, url, secret_env):
        raise typer.Exit(EXIT_FAILED)


@app.command("trace")
def trace_command(
    context: typer.Context,
    wanted: Annotated[str, typer.Argument(metavar="REF|SHA|CORRELATION-ID")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Follow one commit, pull request, deployment or mail.

    Builds, jobs, deployments, work items, mail and messages, in the order in which they happened.
    """
    from cli import trace

    asyncio.run(trace.run(servers(context, data_dir), wanted, as_json))


@app.command("observe")
def observe_command(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Whose API answered, as digitalocean.")],
    kind: Annotated[str, typer.Argument(metavar="KIND", help="What it was asked for, as droplets.")],
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE",
            help="The answer, or each page of it; - or nothing reads it from standard input.",
            show_default=False,
        ),
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    scope: Annotated[
        str | None, typer.Option(help="The name of the listing, where it is not the kind's own.")
    ] = None,
    complete: Annotated[
        bool, typer.Option("--complete", help="This is the whole listing: what it does not show is gone.")
    ] = False,
    fetched_at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="When it answered: an age like 90m or 2d, or an ISO time. Else each FILE's own time of change.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be stored, and store nothing.")
    ] = False,
) -> None:
    """Store what an API has answered.

    As in: curl … | odooops observe digitalocean droplets --complete

    What was answered later counts, so a saved answer has the time at which its file was last changed; one that was
    copied since needs --fetched-at. Standard input has been fetched now.

    Passwords, and whatever else must not be stored, are removed first. An answer to a question with a filter is a
    listing of its own and needs a --scope.
    """
    from cli import observe
    from cli.deliveries import since

    for file in files or ():
        if file != observe.STDIN and not file.is_file():
            raise typer.BadParameter(f"there is no file '{file}'")
    given = observe.Answers(
        source=source,
        kind=kind,
        scope=scope or kind,
        files=files or [observe.STDIN],
        complete=complete,
        fetched_at=since(fetched_at, datetime.now(UTC), "--fetched-at") if fetched_at else None,
    )
    asyncio.run(observe.run(servers(context, data_dir), given, dry_run))


@app.command("sql")
def sql_command(
    context: typer.Context,
    statement: Annotated[str, typer.Argument(metavar="STATEMENT", help="One SELECT; - reads it from stdin.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=ROWS_MAX)] = ROWS_DEFAULT,
) -> None:
    """Ask the tables, as a reader who can change nothing.

    Tables are in the schemas ops and notify, as in: SELECT * FROM ops.builds
    """
    from cli import sql

    if as_json and as_csv:
        raise typer.BadParameter("choose --json or --csv")
    asked = sql.from_stdin() if statement == "-" else statement
    form = Form.JSON if as_json else Form.CSV if as_csv else Form.TABLE
    asyncio.run(sql.run(servers(context, data_dir), asked, form, limit))


@ssot_app.command("apply")
def apply_command(
    context: typer.Context,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    directory: SsotDir = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change, and deliver nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Tell the tables what the catalogues declare.

    Integrations, capabilities, starters. Only what differs is delivered.
    """
    from cli import catalogue, reach

    reached = servers(context, data_dir)
    asyncio.run(catalogue.run(reached, directory or reach.ssot_dir(reached.settings), dry_run, as_json))


@contracts_app.command("export")
def export_command(
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Where to; contracts/ unless given.", file_okay=False)
    ] = None,
    directory: SsotDir = None,
    stale: Annotated[
        bool, typer.Option("--check", help="Write nothing, name the files that are stale.")
    ] = False,
) -> None:
    """Write the event schemas, asyncapi.yaml and openapi.yaml.

    With --check the exit code is 1 where one is stale.
    """
    from cli import contracts, reach
    from runtime import settings

    declared = directory or reach.ssot_dir(settings.load())
    if not contracts.export(folder or contracts.FOLDER, declared, stale):
        raise typer.Exit(EXIT_FAILED)


@contracts_app.command("check")
def contracts_check_command(
    against: Annotated[
        str | None,
        typer.Option(metavar="GIT_REF", help="What to compare with.  [default: the newest tag, else HEAD]"),
    ] = None,
) -> None:
    """Compare the events with those of a release, and name what breaks.

    The exit code is 1 where anything does.
    """
    from cli import contracts

    if not contracts.check(against):
        raise typer.Exit(EXIT_FAILED)


tables.register(app)
custody.register(app)
backup.register(app)
parked.register(app)
drift.register(app)
polls.register(app)


_commands = cache(partial(get_command, app))
"""Made when the first is called: each function is asked for its parameters."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code. Errors that are known become one sentence, others keep their traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(
                errors="backslashreplace"
            )  # a terminal that cannot show a letter still gets the rest
    try:
        code = _commands()(args=arguments, standalone_mode=False)
        sys.stdout.flush()
    except typer.Abort:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has left; what Python flushes at its end would fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except TyperException as error:
        return _usage(error)
    except KNOWN as error:
        return _failed(str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _failed(f"{where}{error.strerror or type(error).__name__}")
    return code if isinstance(code, int) else 0


def _usage(error: TyperException) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":
        sys.stdout.write(f"{error}\n")  # its message is the help
    else:
        terminal.say(" ".join(error.format_message().split()))
    return EXIT_USAGE


def _failed(sentence: str) -> int:
    terminal.say(" ".join(sentence.split()))
    return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
