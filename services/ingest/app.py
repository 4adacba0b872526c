"""Wires the door: which sources are open, with which secrets, on which ports."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.js.errors import APIError, NotFoundError

from contracts.ssot import ProviderFile
from providers.port import Provider, Secret
from providers.registry import PROVIDERS
from runtime import bus, process, settings, ssot, streams
from runtime.settings import BadSettings, Settings
from services.ingest.receive import Endpoint, Receiver
from services.ingest.seldom import Seldom


async def main(given: Settings, log: Any, stopping: asyncio.Event) -> None:
    """Run until `stopping`; requests in hand are finished."""
    endpoints, closed = open_endpoints(PROVIDERS, ssot.load_providers(given.odooops_ssot_dir), log)
    receiver = Receiver(endpoints, closed, log)
    broker = Broker(given.nats_for("ingest"), log)
    connecting = asyncio.create_task(broker.connect(receiver))
    try:
        # Served before the broker is there: a sender is told to come again, and /readyz says what is missing.
        async with (
            process.serve_http(receiver, given.odooops_host, given.odooops_port),
            process.serve_ops(given, broker.problems),
        ):
            log.info("listening", host=given.odooops_host, port=given.odooops_port, sources=sorted(endpoints))
            waiting = asyncio.create_task(stopping.wait())
            await asyncio.wait({connecting, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if connecting.done():
                connecting.result()  # raises what no repetition mends
                await waiting
    finally:
        connecting.cancel()
        await asyncio.wait({connecting})
        await broker.close()


class Broker:
    """The connection, from the first attempt on, and why there is none."""

    def __init__(self, url: str, log: Any) -> None:
        self._url = url
        self._seldom = Seldom(log)
        self._client: Client | None = None
        self._trouble = "not reached yet"
        self._closing = False

    async def connect(self, receiver: Receiver) -> None:
        """Wait for the broker as long as it takes; then let `receiver` store."""
        self._client = await bus.connect(self._url, "ingest", on_lost=self._lost, on_closed=self._given_up)
        receiver.js = self._client.jetstream()

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


def open_endpoints(
    providers: Mapping[str, Provider], files: Mapping[str, ProviderFile], log: Any
) -> tuple[dict[str, Endpoint], dict[str, str]]:
    """The sources that have a secret or say that they cannot sign; and the others, with what is missing."""
    endpoints: dict[str, Endpoint] = {}
    closed: dict[str, str] = {}
    for name, file in files.items():
        provider = providers.get(name)
        if provider is None:
            raise BadSettings(
                f"ssot/providers/{name}.yaml: no provider is called {name}; known: {', '.join(providers)}"
            )
        secrets = [Secret(secret, value) for secret, value in settings.secret_values(file.secrets)]
        if secrets or file.unsigned:
            endpoints[name] = Endpoint(provider, secrets)
            if file.unsigned:
                log.warning("this source is unsigned: anybody can write into its log", source=name)
        else:
            wanted = file.secrets[0] if file.secrets else "a secret"
            closed[name] = f"{name} is closed: it has no secret, set {wanted} or {wanted}_FILE"
            log.warning("source closed", source=name, reason=closed[name])
    return endpoints, closed
