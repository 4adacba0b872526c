"""`odooops archive`: a range of the log as a file, checked, and perhaps taken out of the log."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import nats.errors
from nats.js.errors import APIError

from cli import terminal
from cli.reach import Servers, Trouble
from cli.work import working
from runtime.bus import BrokerAway
from services.projector import archive
from services.projector.archive import Archived, NotArchived, NotTrimmed
from services.projector.work import alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Which deliveries: from a sequence, else the beginning, to a sequence, else to what was stored before a time."""

    from_seq: int | None
    until_seq: int | None
    before: datetime | None


async def run(servers: Servers, file: Path, wanted: Range, trim: bool, as_json: bool) -> None:
    """Write a range of the log to `file`; with `trim`, take it out of the log."""
    with _sentences():
        async with working(servers) as work, alone(work.engine):
            first, last = await archive.chosen(work, wanted.from_seq, wanted.until_seq, wanted.before)
            if trim:
                await archive.require_trimmable(work, first, last)
            archived = await archive.export(work, file, first, last)
            if not as_json:
                _print_archived(file, archived)
            begins = await archive.trim(work, archived) if trim else None
    _print_end(file, archived, begins, as_json)
    if not trim and not as_json:
        _say(f"to take them out of the log: odooops archive --check {shlex.quote(str(file))} --trim")


async def check(servers: Servers, file: Path, trim: bool, as_json: bool) -> None:
    """Read an archive from end to end and print what it holds; with `trim`, take that out of the log."""
    begins = None
    with _sentences():
        archived = archive.check(file)
        if not as_json:
            _print_archived(file, archived)
        if trim:
            async with working(servers) as work, alone(work.engine):
                begins = await archive.trim(work, archived)
    _print_end(file, archived, begins, as_json)


def _print_end(file: Path, archived: Archived, begins: int | None, as_json: bool) -> None:
    """Where the log begins once it was trimmed; for programs, everything."""
    if as_json:
        terminal.print_json(
            {
                "file": str(file),
                "deliveries": archived.count,
                "without_body": archived.missing,
                "first_seq": archived.first_seq,
                "last_seq": archived.last_seq,
                "log_begins_at": begins,
            }
        )
    elif begins is not None:
        _say(f"trimmed: the log begins at sequence {begins}")
        _say(
            "from now on rebuild takes over what rests on trimmed deliveries from the live tables as it is, verify"
            f" proves what came from sequence {begins} on; the rest is in the tables alone: back the database up"
        )


@contextmanager
def _sentences() -> Iterator[None]:
    try:
        yield
    except (NotArchived, NotTrimmed) as error:
        raise Trouble(str(error)) from None
    except (nats.errors.Error, APIError) as error:
        raise BrokerAway(f"the broker did not do it: {str(error) or type(error).__name__}") from None


def _print_archived(file: Path, archived: Archived) -> None:
    _say(
        f"{file}: {terminal.deliveries(archived.count)}, sequences {archived.first_seq} to {archived.last_seq},"
        f" {terminal.size(file.stat().st_size)}, read from end to end and found whole"
    )
    if archived.missing:
        _say(f"  of {archived.missing:,} the broker did not have the body any more")
    _say("  what `odooops redact` erases stays in such a file: keep it as you keep backups")


def _say(line: str) -> None:
    terminal.console().print(terminal.clean(line), soft_wrap=True)
