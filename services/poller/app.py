"""Wires the poller: which sources are polled, when, and how the process starts and ends.

Sources are polled side by side, the scopes of one source one after the other: they share its API's limits.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.js.errors import APIError
from prometheus_client import Gauge

from providers.polling import Scope, why_not_polled
from providers.port import Source
from providers.registry import sources
from runtime import bus, process, ssot, streams
from runtime.audit import broker as audited_broker
from runtime.audit.finding import tell
from runtime.bucket import Bucket
from runtime.bus import BrokerAway, LogFull
from runtime.http import HttpClient
from runtime.settings import BadSettings, Settings
from services.poller import turn
from services.poller.lease import Leases, Record
from services.poller.pace import due_in_s, interval_s
from services.poller.run import Order, Report, Run
from services.poller.turn import Work

USER = "poller"
CRON = "cron"
SOURCES_AT_ONCE = 8
LOOK_S_MAX = 30.0
"""How soon it is noticed that a secret was set, or that another poller's lease is abandoned."""
SUCCEEDED = Gauge(
    "odooops_poller_last_success_timestamp_seconds",
    "When a scope was last polled with success, by any poller; before the first, when it was first tried",
    ["source", "scope"],
)
EVERY = Gauge("odooops_poller_interval_seconds", "How often a scope is to be polled", ["source", "scope"])

AGAIN_S = 5.0
"""After trouble with the broker, and between two runs over one scope at least."""


async def main(settings: Settings, log: Any, stopping: asyncio.Event) -> None:
    """Run until `stopping`; a run in hand is cut off and closed."""
    declared = sources(ssot.load(settings.odooops_ssot_dir)).values()
    leaving = False

    async def lost(reason: str) -> None:
        if not leaving:
            log.warning("broker lost", reason=reason)

    def given_up() -> None:
        if not leaving:
            process.lost("the broker's client has given up")

    connecting = asyncio.create_task(bus.connect(settings.nats_for(USER), USER, lost, given_up))
    if not await process.before_stop(connecting, stopping):
        return
    nc = connecting.result()
    try:
        async with HttpClient() as http, process.serve_ops(settings, lambda: problems(nc)):
            js = nc.jetstream()
            bucket = Bucket(js)
            leases = Leases(bucket, owner=f"{socket.gethostname()}:{os.getpid()}")
            work = Work(js=js, http=http, bucket=bucket, leases=leases, log=log)
            polling = asyncio.create_task(poll_and_audit(work, nc, polled(declared, log)))
            if await process.before_stop(polling, stopping):
                polling.result()
                await stopping.wait()  # nothing to poll is no reason to end
            await asyncio.wait({polling})
    finally:
        leaving = True
        await nc.close()


async def poll_and_audit(work: Work, nc: Client, polled: Iterable[tuple[Source, Sequence[Scope]]]) -> None:
    """Poll all of it for ever; meanwhile say once which settings could lose what is found."""
    await asyncio.gather(poll(work, polled), audit(nc, work.log))


async def audit(nc: Client, log: Any) -> None:
    """Say once which settings of the broker could lose what is found; its clock is compared with ours, too.

    When something was read, by our clock, decides whether it is newer than what a webhook said.
    """
    names = (streams.DELIVERIES, streams.BODIES_STREAM, streams.POLLER_STREAM)
    tell(log, await audited_broker.told(nc, names, servers=False))


async def problems(nc: Client) -> dict[str, str]:
    """What keeps us from storing and remembering."""
    if not nc.is_connected:
        return {"broker": "not connected"}
    try:
        async with asyncio.timeout(streams.CONNECT_S_MAX):
            for stream in (streams.DELIVERIES, streams.POLLER_STREAM):
                await nc.jetstream().stream_info(stream)
    except TimeoutError:
        return {"broker": f"no answer within {streams.CONNECT_S_MAX:g} s"}
    except (nats.errors.Error, APIError, OSError) as error:
        return {"broker": f"{stream}: {error}"}
    return {}


def polled(declared: Iterable[Source], log: Any) -> list[tuple[Source, Sequence[Scope]]]:
    """The sources that have something to poll, with it; why others that name an API have not is said in the log.

    Whether a secret is set is looked at before each run: it may be by then.
    """
    found = []
    for source in declared:
        if source.file.api is None:
            continue
        why = why_not_polled(source, secret_set=True)
        if why is None:
            found.append((source, scopes_of(source)))
        else:
            log.info("not polled", source=source.name, reason=why)
    return found


def scopes_of(source: Source) -> Sequence[Scope]:
    """What is to be polled of a source, by its options."""
    assert source.provider.polling is not None
    return source.provider.polling.scopes(source)


async def poll(work: Work, polled: Iterable[tuple[Source, Sequence[Scope]]]) -> None:
    """Poll all of it for ever."""
    room = asyncio.Semaphore(SOURCES_AT_ONCE)
    async with asyncio.TaskGroup() as group:
        for source, scopes in polled:
            group.create_task(Schedule(work, source, scopes).keep(room))


class Schedule:
    """When the scopes of one source are polled."""

    def __init__(self, work: Work, source: Source, scopes: Sequence[Scope]) -> None:
        self._work = work
        self._source = source
        self._scopes = scopes
        self._log = work.log.bind(source=source.name)
        self._noted: set[str] = set()
        """The scopes of which it is known when they were polled."""
        self._why_not: str | None = None
        """Why it is not polled at present, as the log was told."""

    async def keep(self, room: asyncio.Semaphore) -> None:
        """Poll what is due, for ever."""
        while True:
            try:
                async with room:
                    wait_s = await self.round()
            except (BrokerAway, LogFull) as error:
                self._log.warning("will try again", reason=str(error))
                wait_s = AGAIN_S
            await asyncio.sleep(wait_s)

    async def round(self) -> float:
        """Poll what is due; in how many seconds to look again. Raises BrokerAway or LogFull."""
        wait_s = LOOK_S_MAX
        for scope in self._scopes:
            run = self._prepared(scope)
            if run is None:
                return LOOK_S_MAX
            scope_wait_s, report = await self._turn(scope, *run)
            if report is not None and report.not_before is not None:
                # The other scopes are asked for with the same secret, and under the same limit.
                return max(0.0, (report.not_before - datetime.now(UTC)).total_seconds())
            wait_s = min(wait_s, scope_wait_s)
        return wait_s

    async def _turn(self, scope: Scope, ordered: Order, run: Run) -> tuple[float, Report | None]:
        """In how many seconds a scope is due, after a run if it was."""
        source, leases = self._source, self._work.leases
        seen = await leases.look(source.name, scope.name)
        self._note(ordered, seen.record)
        if seen.abandoned:
            buried = await turn.bury(self._work, source, seen)
            seen = buried or await leases.look(source.name, scope.name)
        if seen.running:
            return leases.lease_s / 2, None
        wait_s = due_s(ordered, seen.record)
        if wait_s > 0:
            return wait_s, None
        held = await turn.begin(self._work, ordered, seen)
        if held is None:
            return LOOK_S_MAX, None
        report = await turn.carry_out(self._work, ordered, run, held)
        self._note(ordered, held.record)
        return max(due_s(ordered, held.record), AGAIN_S), report

    def _note(self, ordered: Order, last: Record | None) -> None:
        """Tell when a scope was last polled with success, by whichever poller."""
        source, scope = ordered.source.name, ordered.scope.name
        if scope not in self._noted:
            self._noted.add(scope)
            EVERY.labels(source, scope).set(ordered.every_s)
            SUCCEEDED.labels(source, scope).set_to_current_time()
        if last is not None and last.well_at is not None:
            SUCCEEDED.labels(source, scope).set(last.well_at.timestamp())

    def _prepared(self, scope: Scope) -> tuple[Order, Run] | None:
        """A run with the secret as it is now; None where there is none, and the log is told why, once."""
        run, why, tell = None, why_not_polled(self._source, secret_set=False), self._log.info
        try:
            secret = turn.secret_of(self._source)
            if secret is not None:
                ordered = turn.order(self._source, scope, CRON)
                run = ordered, turn.prepare(self._work, ordered, secret)
        except BadSettings as error:
            why, tell = str(error), self._log.warning
        if run is not None:
            if self._why_not is not None:
                self._log.info("polled from now on")
            self._why_not = None
        elif why != self._why_not:
            tell("not polled", reason=why)
            self._why_not = why
        return run


def due_s(ordered: Order, last: Record | None) -> float:
    """In how many seconds a scope is due, by what its lease says of the last run."""
    if last is None:
        return 0.0
    source, scope = ordered.source.name, ordered.scope.name
    interval = (
        0.0 if last.ended == "interrupted" else interval_s(source, scope, ordered.every_s, last.failures)
    )
    return due_in_s(last.started_at, interval, last.not_before, datetime.now(UTC))
