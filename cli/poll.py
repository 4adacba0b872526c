"""`odooops poll`: run now what the poller runs when it is due, in this process and with the poller's login."""

from __future__ import annotations

import asyncio
import getpass
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from typer.exceptions import TyperException

from cli import reach, terminal
from cli.options import EXIT_FAILED
from cli.reach import Servers
from providers.polling import Scope, why_not_polled
from providers.port import Source
from providers.registry import sources
from runtime import ssot
from runtime.bucket import Bucket
from runtime.http import HttpClient
from runtime.settings import BadSettings
from services.poller import turn
from services.poller.app import scopes_of
from services.poller.asking import credentials
from services.poller.lease import Leases, Record, Seen
from services.poller.run import Report
from services.poller.turn import Work

USER = "poller"
MANUAL = "manual"
EXIT_USAGE = 2
LOOK_S = 1.0
"""How often it is looked whether a run in progress still gives signs of life."""
NAMED_MAX = 20


class NotPolled(TyperException):
    """nothing can be asked; the message says why, and the fix"""


class InProgress(Exception):
    """another run over the scope is alive"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be polled, and from when on."""

    source: str
    scope: str | None
    since: datetime | None
    dry_run: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one scope: a report, or why there was no run."""

    scope: str
    report: Report | None = None
    why_not: str = ""
    code: str = ""
    """A slug for `why_not`."""


async def run(servers: Servers, wanted: Wanted, as_json: bool) -> int:
    """Poll and print; the exit code. Raises NotPolled, where that is not printed as JSON.

    A run that is told to stop, by SIGTERM too, is cut off and closed: its lease would keep others off for a minute.
    """
    task = asyncio.current_task()
    if task is not None and threading.current_thread() is threading.main_thread():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        source = _source(servers, wanted.source)
        scopes, secret = _scopes(source, wanted.scope), _secret(source)
    except NotPolled as error:
        if not as_json:
            raise
        terminal.print_json({"ok": False, "source": wanted.source, "error": str(error), "code": "not_polled"})
        return EXIT_USAGE
    async with reach.broker(servers.nats(USER), USER) as client, HttpClient() as http:
        bucket = Bucket(client.jetstream())
        owner = f"{getpass.getuser()} at {socket.gethostname()}:{os.getpid()}"
        work = Work(
            js=client.jetstream(), http=http, bucket=bucket, leases=Leases(bucket, owner), log=_silent()
        )
        outcomes = await _poll(work, source, scopes, secret, wanted)
    if as_json:
        terminal.print_json(_as_json(source, outcomes))
    else:
        _print(outcomes)
    if any(each.report is not None and each.report.status != "success" for each in outcomes):
        return EXIT_FAILED
    return EXIT_USAGE if any(each.report is None for each in outcomes) else 0


def _source(servers: Servers, name: str) -> Source:
    """The source, if its API can be polled; raises NotPolled."""
    declared = sources(ssot.load(reach.ssot_dir(servers.settings)))
    known = {each.name: each for each in declared.values() if each.provider.polling is not None}
    if name not in known:
        raise NotPolled(f"no source that is polled is called {name}: known are {', '.join(sorted(known))}")
    if known[name].file.api is None:
        raise NotPolled(f"ssot/providers/{name}.yaml has no api: state base_url, auth and secret")
    why = why_not_polled(known[name], secret_set=True)
    if why is not None:
        raise NotPolled(why)
    return known[name]


def _secret(source: Source) -> bytes:
    """What the API is asked with; raises NotPolled."""
    assert source.file.api is not None
    try:
        secret = turn.secret_of(source)
        if secret is not None:
            credentials(source.file.api, secret)
            return secret
    except BadSettings as error:
        raise NotPolled(str(error)) from None
    raise NotPolled(why_not_polled(source, secret_set=False) or "")


def _scopes(source: Source, name: str | None) -> Sequence[Scope]:
    scopes = scopes_of(source)
    chosen = [scope for scope in scopes if name in (None, scope.name)]
    if not chosen:
        names = [scope.name for scope in scopes]
        more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
        raise NotPolled(f"{source.name} has no scope {name}: known are {', '.join(names[:NAMED_MAX])}{more}")
    return chosen


async def _poll(
    work: Work, source: Source, scopes: Sequence[Scope], secret: bytes, wanted: Wanted
) -> list[Outcome]:
    """One scope after the other; none after one that was told that the API's limit is reached."""
    outcomes: list[Outcome] = []
    limited: datetime | None = None
    for scope in scopes:
        if limited is not None:
            why = f"the API is not to be asked again before {terminal.moment(limited)}"
            outcomes.append(Outcome(scope=scope.name, why_not=why, code="rate_limited"))
            continue
        try:
            report = await _poll_scope(work, source, scope, secret, wanted)
        except InProgress as error:
            outcomes.append(Outcome(scope=scope.name, why_not=str(error), code="in_progress"))
            continue
        outcomes.append(Outcome(scope=scope.name, report=report))
        limited = report.not_before
    return outcomes


async def _poll_scope(work: Work, source: Source, scope: Scope, secret: bytes, wanted: Wanted) -> Report:
    if wanted.dry_run:
        ordered = turn.order(source, scope, MANUAL, wanted.since, dry_run=True)
        rehearsed = turn.prepare(work, ordered, secret)
        await rehearsed.drive()
        return rehearsed.report
    seen = await _free(work, source, scope)
    ordered = turn.order(source, scope, MANUAL, wanted.since)
    run = turn.prepare(work, ordered, secret)
    held = await turn.begin(work, ordered, seen)
    if held is None:
        raise InProgress("another run has begun just now")
    return await turn.carry_out(work, ordered, run, held)


async def _free(work: Work, source: Source, scope: Scope) -> Seen:
    """The lease, once nobody holds it; raises InProgress where its holder gives a sign of life."""
    first = seen = await work.leases.look(source.name, scope.name)
    if first.running:
        terminal.say(
            f"{scope.name}: {_since(first.record)}; for at most {work.leases.lease_s:.0f} s it is looked whether it is"
            " still alive"
        )
    while seen.running and not seen.abandoned:
        if seen.revision != first.revision:
            raise InProgress(_since(seen.record))
        await asyncio.sleep(LOOK_S)
        seen = await work.leases.look(source.name, scope.name)
    if not seen.running:
        return seen
    buried = await turn.bury(work, source, seen)
    if buried is None:
        raise InProgress(_since(seen.record))
    return buried


def _since(record: Record | None) -> str:
    assert record is not None
    return f"a run of {record.owner} is in progress since {terminal.moment(record.started_at)}"


def _silent() -> Any:
    """What runs log, the command prints."""
    return structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
    )


def _print(outcomes: Sequence[Outcome]) -> None:
    out = terminal.console()
    for outcome in outcomes:
        report = outcome.report
        for note in report.notes if report else ():
            out.print(terminal.clean(note), soft_wrap=True)
        if report and report.notes_count > len(report.notes):
            out.print(f"… and {report.notes_count - len(report.notes):,} more")
    columns = ("scope", "status", "seen", "new", "changed", "gone", "calls")
    out.print(terminal.table(columns, [_row(outcome) for outcome in outcomes]))
    for outcome in outcomes:
        for trouble in outcome.report.troubles if outcome.report else ():
            out.print(terminal.clean(f"{outcome.scope} {trouble}"), soft_wrap=True)
        for alarm in outcome.report.alarms if outcome.report else ():
            out.print(terminal.clean(alarm), soft_wrap=True)
        if outcome.report is None:
            out.print(terminal.clean(f"{outcome.scope}: {outcome.why_not} ({outcome.code})"), soft_wrap=True)


def _row(outcome: Outcome) -> tuple[object, ...]:
    report = outcome.report
    if report is None:
        return (outcome.scope, "not polled", *[None] * 5)
    found = (report.new, report.changed, report.gone, report.calls)
    return (outcome.scope, report.status, report.seen.total(), *found)


def _as_json(source: Source, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    scopes = [_scope_as_json(outcome) for outcome in outcomes]
    return {"ok": all(scope["ok"] for scope in scopes), "source": source.name, "scopes": scopes}


def _scope_as_json(outcome: Outcome) -> dict[str, Any]:
    report = outcome.report
    if report is None:
        return {"ok": False, "scope": outcome.scope, "error": outcome.why_not, "code": outcome.code}
    return {
        "ok": report.status == "success",
        "scope": outcome.scope,
        "status": report.status,
        "counts": report.counts,
        "errors": [
            {"ok": False, "part": each.part, "error": each.sentence, "code": each.reason}
            for each in report.troubles
        ],
        "alarms": report.alarms,
        "notes": report.notes,
    }
