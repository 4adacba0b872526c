"""Wires the door: which sources are open, with which secrets, on which ports."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.js.errors import APIError, NotFoundError

from contracts.delivery import Delivery
from contracts.ssot import Ssot
from providers.port import Secret, Source
from providers.registry import sources
from runtime import bus, process, ssot, streams
from runtime.audit import broker as audit
from runtime.audit import disk
from runtime.audit.finding import tell
from runtime.settings import Secrets, Settings
from services.ingest.group_commit import store_by
from services.ingest.limits import Limits
from services.ingest.receive import Endpoint, Receiver
from services.ingest.seldom import Seldom
from services.ingest.spool import Spool
from services.ingest.traces import traced_app, traced_store


async def main(given: Settings, log: Any, stopping: asyncio.Event) -> None:
    """Run until `stopping`; requests in hand are finished."""
    declared = ssot.load(given.odooops_ssot_dir)
    endpoints = endpoints_of(sources(declared).values(), log)
    spool = Spool(given.odooops_spool_dir, log) if given.odooops_spool_dir else None
    receiver = Receiver(endpoints, log, spool, limits_of(declared), given.odooops_trusted_proxies)
    broker = Broker(given.nats_for("ingest"), log)
    haste = Haste()

    async def leave() -> None:
        haste.begin()
        await receiver.leave()

    async def store_what_comes() -> None:
        store = await broker.connect()
        receiver.store = haste.of(store)
        draining = [spool.keep_draining(store)] if spool else []
        await asyncio.gather(broker.audit(given.odooops_spool_dir), *draining)

    storing = asyncio.create_task(store_what_comes())
    try:
        # Served before the broker is there: what comes is spooled, and /readyz says what is missing.
        async with (
            process.serve_http(
                traced_app(receiver, endpoints),
                given.odooops_host,
                given.odooops_port,
                given.odooops_listen_fd,
                leave,
            ),
            process.serve_ops(given, broker.problems),
        ):
            log.info(
                "listening",
                host=given.odooops_host,
                port=given.odooops_port,
                sources=sorted(each.source.name for each in endpoints if not each.closed),
            )
            waiting = asyncio.create_task(stopping.wait())
            await asyncio.wait({storing, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if storing.done():
                storing.result()  # raises what no repetition mends
                await waiting
    finally:
        storing.cancel()
        await asyncio.wait({storing})
        await broker.close()


class Broker:
    """The connection, from the first attempt on, and why there is none."""

    def __init__(self, url: str, log: Any) -> None:
        self._url = url
        self._log = log
        self._seldom = Seldom(log)
        self._client: Client | None = None
        self._trouble = "not reached yet"
        self._closing = False

    async def connect(self) -> bus.Store:
        """Wait for the broker as long as it takes; then it can store."""
        self._client = await bus.connect(self._url, "ingest", on_lost=self._lost, on_closed=self._given_up)
        return traced_store(store_by(self._client))

    async def audit(self, spool_dir: Path | None) -> None:
        """Say once which settings could lose deliveries."""
        assert self._client is not None
        found = await audit.told(self._client, (streams.DELIVERIES, streams.BODIES_STREAM))
        tell(self._log, [*found, *(disk.of_spool(spool_dir) if spool_dir else [disk.NO_SPOOL])])

    async def close(self) -> None:
        """End the connection, if there is one."""
        self._closing = True
        if self._client is not None:
            await self._client.close()

    async def problems(self) -> dict[str, str]:
        """What keeps us from storing."""
        if self._client is None or not self._client.is_connected:
            return {"broker": f"not connected: {self._trouble}"}
        try:
            async with asyncio.timeout(streams.CONNECT_S_MAX):
                for stream in (streams.DELIVERIES, streams.BODIES_STREAM):
                    await self._client.jetstream().stream_info(stream)
        except NotFoundError:
            return {"broker": f"the stream {stream} is missing: run `python -m runtime.provision`"}
        except TimeoutError:
            return {"broker": f"no answer within {streams.CONNECT_S_MAX:g} s"}
        except (nats.errors.Error, APIError, OSError) as error:
            return {"broker": f"{stream}: {error}"}
        return {}

    async def _lost(self, reason: str) -> None:
        if not self._closing:
            self._trouble = reason
            self._seldom.warning("broker lost", reason=reason)

    def _given_up(self) -> None:
        if not self._closing:
            process.lost("the broker's client has given up")


class Haste:
    """Once the process is to stop, the broker is waited for no longer than leaves time for the spool."""

    def __init__(self) -> None:
        self._until: float | None = None
        self._waiting: set[asyncio.Timeout] = set()

    def of(self, store: bus.Store) -> bus.Store:
        """`store`, which then raises BrokerAway where it has to be cut off."""

        async def hasty(delivery: Delivery, wait_s: float) -> bus.Ack:
            waiting = asyncio.timeout_at(self._until)
            self._waiting.add(waiting)
            try:
                async with waiting:
                    return await store(delivery, wait_s)
            except TimeoutError:
                raise bus.BrokerAway("the broker did not acknowledge in time") from None
            finally:
                self._waiting.discard(waiting)

        return hasty

    def begin(self) -> None:
        """From here on."""
        self._until = asyncio.get_running_loop().time() + streams.LEAVE_STORE_S_MAX
        for each in self._waiting:
            each.reschedule(self._until)


def limits_of(declared: Ssot) -> Limits:
    """What SSOT lets sources and addresses ask."""
    usual = declared.limits
    own = {name: file.limits or usual.sources for name, file in declared.providers.items()}
    return Limits(own, usual.addresses)


def endpoints_of(sources: Iterable[Source], log: Any) -> list[Endpoint]:
    """The sources that take requests; those that are closed or unsigned are named in the log."""
    endpoints = [
        Endpoint(source, secrets_of(source, log)) for source in sources if source.file.endpoint is not None
    ]
    for endpoint in endpoints:
        name = endpoint.source.name
        if endpoint.closed:
            log.warning("source closed", source=name, reason=endpoint.closed)
        elif endpoint.source.file.unsigned:
            log.warning("this source is unsigned: anybody can write into its log", source=name)
    return endpoints


def secrets_of(source: Source, log: Any) -> Callable[[], list[Secret]]:
    """The secrets of a source as they are now: files of secrets are read again when they change."""

    def changed(names: list[str], trouble: str | None) -> None:
        if trouble is None:
            log.info("secrets read again", source=source.name, secrets=names)
        else:
            log.error("secrets not read again, the old ones stay", source=source.name, reason=trouble)

    kept = Secrets(source.file.secrets, changed)
    return lambda: [Secret(name, value) for name, value in kept.current()]
