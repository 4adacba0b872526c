"""Real servers for every test that asks: started once per worker, streams and database new for each test."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import lru_cache

import pytest
from hypothesis import HealthCheck, settings
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import ServerError

from runtime import bus, ssot, streams
from tests import servers

PROVISION_S_MAX = 20.0

settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("ci")

# Nobody here speaks TLS, and to read the machine's certificates takes each HTTP client 20 ms.
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = os.devnull


# Each command that a test calls reads the same YAML.
ssot._parsed = lru_cache(ssot._parsed)

# What is made until all tests are collected stays to the end: to look for garbage in it takes a fifth of that time.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("SERVERS") == "urls" and (getattr(config.option, "numprocesses", 0) or 0) > 1:
        raise pytest.UsageError("SERVERS=urls: one broker cannot serve tests in parallel, run with -n 0")


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return ("asyncio", {"use_uvloop": True})


@pytest.fixture(scope="session")
def nats_server() -> Iterator[servers.Nats]:
    with servers.nats_server() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[servers.Postgres]:
    with servers.postgres_server() as server:
        yield server


@pytest.fixture
def database(postgres_server: servers.Postgres) -> Iterator[servers.Database]:
    with servers.fresh_database(postgres_server) as made:
        yield made


@dataclass(frozen=True)
class Broker:
    """A broker with the streams provisioned and empty. `nc` and `js` are the operator's."""

    server: servers.Nats
    nc: Client
    js: JetStreamContext

    def url(self, user: str) -> str:
        """Its address for a service's user."""
        return self.server.url(user)


@pytest.fixture
async def broker(nats_server: servers.Nats, anyio_backend: object) -> AsyncIterator[Broker]:
    nc = await bus.connect(nats_server.url("operator"), "operator")
    js = nc.jetstream()
    try:
        await _provision_anew(js)
        yield Broker(nats_server, nc, js)
    finally:
        await nc.close()


async def _provision_anew(js: JetStreamContext) -> None:
    """Empty streams. The server may still be removing the folder of the one that was deleted: then once more."""
    for stream in await js.streams_info():
        await js.delete_stream(str(stream.config.name))
    async with asyncio.timeout(PROVISION_S_MAX):
        while True:
            try:
                await streams.provision(js)
            except ServerError:
                await asyncio.sleep(0.05)
            else:
                return
