"""A run from the lease to the last word: begun, kept alive, cut off where it has to be, closed in any case."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from nats.js import JetStreamContext
from prometheus_client import Counter, Histogram

from contracts import own
from contracts.polls import PollFinished, moment_of_cut_off
from providers.polling import Scope
from providers.port import Source
from runtime import bus
from runtime.bucket import Bucket
from runtime.bus import BrokerAway, LogFull
from runtime.http import HttpClient
from runtime.settings import secret_values
from services.poller.asking import Asker
from services.poller.lease import Held, Leases, Record, Seen
from services.poller.memory import Memory
from services.poller.pace import Limits
from services.poller.run import Order, Report, Run, facts, place_of, provider_of

CLOSE_S_MAX = 5.0
"""For the last words of a run that is cut off: a service promises to stop within 10 s."""

RUNS = Counter("odooops_poller_runs_total", "Runs, by how they ended", ["source", "status"])
ITEMS = Counter("odooops_poller_items_total", "Things that runs saw", ["source", "what"])
RUN_SECONDS = Histogram(
    "odooops_poller_run_seconds", "From start to end", ["source"], buckets=(0.1, 0.5, 1, 5, 15, 60, 180, 600)
)
_COUNTED = ("seen", "new", "changed", "gone")


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What runs work with."""

    js: JetStreamContext
    http: HttpClient
    bucket: Bucket
    leases: Leases
    log: Any
    limits: Limits = field(default_factory=Limits)


def secret_of(source: Source) -> bytes | None:
    """The secret that a source's API is asked with, as it is now; None where none is set. Raises BadSettings."""
    assert source.file.api is not None
    found = secret_values([source.file.api.secret])
    return found[0][1] if found else None


def order(
    source: Source, scope: Scope, triggered_by: str, since: datetime | None = None, *, dry_run: bool = False
) -> Order:
    """A run of its own, that begins now."""
    return Order(
        source=source,
        scope=scope,
        run_id=str(uuid4()),
        triggered_by=triggered_by,
        started_at=datetime.now(UTC),
        since=since,
        dry_run=dry_run,
    )


def prepare(work: Work, order: Order, secret: bytes) -> Run:
    """A run that has not begun; raises BadSettings for a secret that cannot be shown."""
    source = order.source
    assert source.file.api is not None and source.provider.polling is not None
    asker = Asker(work.http, source.name, source.file.api, source.provider.polling, secret, work.limits)
    memory = Memory(work.bucket, source.name, dry_run=order.dry_run)
    return Run(work.js, memory, asker, order)


async def begin(work: Work, order: Order, seen: Seen) -> Held | None:
    """The lease for a run; None where somebody else was faster. Raises BrokerAway."""
    return await work.leases.take(
        seen,
        order.source.name,
        order.scope.name,
        run_id=order.run_id,
        triggered_by=order.triggered_by,
        started_at=order.started_at,
    )


async def carry_out(work: Work, order: Order, run: Run, held: Held) -> Report:
    """Drive a run while its lease is ours, and close it. Cancelling cuts it off, and it is closed first."""
    log = work.log.bind(source=order.source.name, scope=order.scope.name, run_id=order.run_id)
    driving = asyncio.create_task(run.drive())
    keeping = asyncio.create_task(held.keep())
    cancelled = False
    try:
        await asyncio.wait({driving, keeping}, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        cancelled = True
    ended_by_itself, lost = driving.done(), keeping.done()
    for task in (driving, keeping):
        task.cancel()
    await asyncio.wait({driving, keeping})
    for task in (driving, keeping):
        if not task.cancelled():
            task.exception()  # looked at, or Python complains of one that nobody has seen
    interrupted = True
    if ended_by_itself:
        interrupted = _note_end(driving, run, log)
    elif cancelled:
        run.cut_off("stopped", "the poller was stopped")
    elif lost:
        run.cut_off("lease_lost", "the broker did not take our sign of life, or somebody else took over")
    await _close(order, run, held, log, interrupted=interrupted)
    if cancelled:
        raise asyncio.CancelledError
    return run.report


def _note_end(driving: asyncio.Task[None], run: Run, log: Any) -> bool:
    """Cut the run off where it ended by an error; whether that was none of the API's."""
    error = driving.exception()
    match error:
        case None:
            return False
        case BrokerAway():
            run.cut_off("broker_away", str(error))
        case LogFull():
            run.cut_off("log_full", str(error))
        case _:
            log.error("a mistake of ours", error=type(error).__name__, place=place_of(error))
            run.cut_off("crashed", f"{type(error).__name__} {place_of(error)}")
            return False
    return True


async def _close(order: Order, run: Run, held: Held, log: Any, *, interrupted: bool) -> None:
    report, source = run.report, order.source.name
    now = max(datetime.now(UTC), order.started_at)
    status = "interrupted" if interrupted else report.status
    assert status != "running"
    try:
        async with asyncio.timeout(CLOSE_S_MAX):
            await run.finish()
            await held.release(held.record.end(now, status, report.not_before))
    except (BrokerAway, LogFull, TimeoutError) as error:
        # Whoever finds the lease abandoned says that the run has ended.
        log.warning("a run could not be closed", reason=str(error) or type(error).__name__)
    seconds = (now - order.started_at).total_seconds()
    RUNS.labels(source, report.status).inc()
    RUN_SECONDS.labels(source).observe(seconds)
    for what in _COUNTED:
        ITEMS.labels(source, what).inc(report.counts[what])
    tell = {"success": log.info, "partial": log.warning}.get(report.status, log.error)
    tell("polled", status=report.status, seconds=round(seconds, 1), error=report.error, counts=report.counts)


async def bury(work: Work, source: Source, seen: Seen) -> Seen | None:
    """Close a run whose poller is gone; None where it lives after all. Raises BrokerAway or LogFull."""
    assert seen.record is not None and seen.abandoned_at is not None
    # Said before the lease is ours: a crash in between says it twice, the other way round nobody would. Where the
    # lease cannot be written, this is tried again and again: hence by the same words.
    end = _cut_off(source, seen.record, seen.abandoned_at)
    await bus.store_delivery(work.js, own.delivery_of(end, "poll", seen.abandoned_at))
    buried = await work.leases.bury(seen, seen.abandoned_at)
    work.log.warning(
        "a run was cut off", source=source.name, scope=seen.record.scope, run_id=seen.record.run_id
    )
    return buried


def _cut_off(source: Source, left: Record, now: datetime) -> PollFinished:
    noticed_at = max(now, left.started_at)
    return PollFinished(
        **facts(source.name, left.run_id),
        moment=moment_of_cut_off(noticed_at),
        occurred_at=noticed_at,
        scope=left.scope,
        triggered_by=left.triggered_by,
        status="failed",
        started_at=left.started_at,
        provider=provider_of(source),
        finished_at=noticed_at,
        error=f"cut off: its poller ({left.owner}) gave no sign of life any more",
    )
