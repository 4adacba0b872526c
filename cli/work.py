"""What commands that write share: the operator's connections, how far they are, and rows that differ."""

from __future__ import annotations

import asyncio
import getpass
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from time import monotonic
from typing import Any

import nats.errors
from nats.js.errors import APIError
from sqlalchemy.exc import SQLAlchemyError

from cli import reach, terminal
from cli.database import DatabaseAway, DatabaseRefused, reason
from cli.reach import REACH_S_MAX, Servers, Trouble, place
from providers.registry import sources
from read_models.registry import READ_MODELS
from runtime import postgres, ssot
from runtime.bus import BrokerAway
from services.projector.crew import ProcessFailed
from services.projector.retry import RetryRunning
from services.projector.rollback import NothingKept
from services.projector.shadow import Compared, Difference, InTheWay
from services.projector.work import (
    STATEMENT_S_MAX,
    Addresses,
    AnotherLog,
    Busy,
    Progress,
    RebuildRunning,
    Work,
)
from services.projector.write import RefoldTooWide

OPERATOR = "operator"
TELL_EVERY_S = 1.0
TELL_PIPED_EVERY_S = 15.0
VALUE_CHARS_MAX = 200
PERSONAL = "(personal)"
"""Stands for a value that is not shown."""


@asynccontextmanager
async def working(servers: Servers, rate_max: float | None = None) -> AsyncIterator[Work]:
    """The broker and the database with the operator's rights, today's sources, and a line that tells how far it is.

    Raises BrokerAway and DatabaseAway, and BrokerAway and DatabaseRefused for the block.
    """
    address, broker = servers.database(OPERATOR), servers.nats(OPERATOR)
    declared = sources(ssot.load(reach.ssot_dir(servers.settings)))
    engine = postgres.make_engine(address, "cli-operator", STATEMENT_S_MAX)
    telling = Telling()
    try:
        async with reach.broker(broker, OPERATOR) as client:
            try:
                async with asyncio.timeout(REACH_S_MAX), engine.connect():
                    pass
            except (OSError, TimeoutError, SQLAlchemyError) as error:
                raise DatabaseAway(
                    f"the database at {place(address)} does not answer: {reason(error)}"
                ) from None
            try:
                yield Work(client, engine, declared, telling, rate_max, Addresses(broker, address))
            except SQLAlchemyError as error:
                raise DatabaseRefused(f"the database says: {reason(error)}") from None
            except (
                AnotherLog,
                Busy,
                InTheWay,
                NothingKept,
                ProcessFailed,
                RebuildRunning,
                RefoldTooWide,
                RetryRunning,
            ) as error:
                raise Trouble(str(error)) from None
            except (nats.errors.Error, APIError) as error:
                said = error or type(error).__name__
                raise BrokerAway(f"the broker at {place(broker)} says: {said}") from None
    finally:
        telling.end()
        await engine.dispose()


class Telling:
    """Says on standard error how far something long is: one line that is written anew, or a line now and then."""

    def __init__(self) -> None:
        self._watched = sys.stderr.isatty()
        self._again_s = TELL_EVERY_S if self._watched else TELL_PIPED_EVERY_S
        self._told_at = monotonic()
        self._open = False

    def __call__(self, progress: Progress) -> None:
        if monotonic() - self._told_at < self._again_s:
            return
        self._told_at = monotonic()
        left = "" if progress.left_s is None else f", about {_span(progress.left_s)} left"
        line = f"odooops: {progress.phase}: {progress.done:,} of {progress.total:,}, {progress.rate:,.0f}/s{left}"
        sys.stderr.write(f"\r\x1b[K{line}" if self._watched else f"{line}\n")
        sys.stderr.flush()
        self._open = self._watched

    def end(self) -> None:
        """What is written next begins a line of its own."""
        if self._open:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._open = False


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def who() -> str:
    """The operator's login on this machine, as the one who decided something."""
    return getpass.getuser()


def print_compared(
    compared: Sequence[Compared], verbs: tuple[str, str, str], other: str = "by the log"
) -> None:
    """Each model whose rows differ, how, and some of the rows; `verbs` name what is missing, extra and changed.

    `other` says what the live rows are compared with.
    """
    out = terminal.console()
    rows = [
        (each.model, each.rows, each.missing, each.extra, each.changed) for each in compared if not each.equal
    ]
    if not rows:
        return
    out.print(terminal.table(("model", "rows", *verbs), rows))
    for each in compared:
        for difference in each.differences:
            _print_difference(each.model, difference, other)
        shown, differing = len(each.differences), each.missing + each.extra + each.changed
        if 0 < shown < differing:
            out.print(f"  … and {differing - shown:,} more rows of {each.model} that differ")


def _print_difference(model: str, difference: Difference, other: str) -> None:
    out = terminal.console()
    key = ", ".join(str(value) for value in difference.key.values())
    out.print(terminal.clean(f"{model} {key}"), style="bold", soft_wrap=True)
    if difference.live is None or difference.log is None:
        which, row = (
            (f"only {other}", difference.log) if difference.live is None else ("only live", difference.live)
        )
        stated = {name: value for name, value in (row or {}).items() if value not in (None, [])}
        out.print(terminal.clean(f"  {which}: {_short(stated)}"), soft_wrap=True)
        return
    for name, live in difference.live.items():
        line = f"  {name}: live {_short(live)}, {other} {_short(difference.log[name])}"
        out.print(terminal.clean(line), soft_wrap=True)


def _short(value: object) -> str:
    said = repr(value) if isinstance(value, str) else terminal.show(value)
    return said if len(said) <= VALUE_CHARS_MAX else said[: VALUE_CHARS_MAX - 1] + "…"


def without_personal(compared: Sequence[Compared]) -> tuple[Compared, ...]:
    """The same, with what only some readers may see left out: for output that others keep."""
    return tuple(
        replace(
            each,
            differences=tuple(
                replace(row, live=_hidden(each.model, row.live), log=_hidden(each.model, row.log))
                for row in each.differences
            ),
        )
        for each in compared
    )


def _hidden(model: str, row: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return row and {name: PERSONAL if name in _PERSONAL[model] else value for name, value in row.items()}


_PERSONAL = {model.name: {c.name for c in model.columns if c.personal} for model in READ_MODELS}


def compared_as_json(compared: Sequence[Compared]) -> list[Mapping[str, Any]]:
    """The same for programs."""
    return [
        {
            "model": each.model,
            "rows": each.rows,
            "missing": each.missing,
            "extra": each.extra,
            "changed": each.changed,
            "differences": [
                {"key": dict(row.key), "live": row.live, "log": row.log} for row in each.differences
            ],
        }
        for each in compared
    ]
