"""The services of compose.yaml without containers: three brokers, Postgres, and a webhook that becomes a row."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import httpx
import pytest

from runtime import embedded
from tests.deploy import brokers, composed
from tests.deploy.composed import Place
from tests.samples import body
from tests.servers import _embedded_postgres, in_thread

pytestmark = pytest.mark.anyio

WAIT_S_MAX = 30.0
STOP_S_MAX = 15.0
POLL_S = 0.05
SERVICES = ("ingest", "projector", "notifier", "poller")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with brokers.running(3) as cluster, _embedded_postgres() as (port, passwords):
        # As in compose.yaml, the migrator has the password of its secret file; here it is no superuser.
        migrator = cluster.secrets["database_url"].split(":")[2].partition("@")[0]
        in_thread(lambda: asyncio.run(embedded.bootstrap(port, {**passwords, embedded.MIGRATOR: migrator})))
        secrets = tmp_path / "secrets"
        secrets.mkdir()
        for name, value in cluster.secrets.items():
            user = name.removeprefix("nats_url_")
            here = cluster.url(user) if user != name else value
            here = here.replace("@postgres:5432/", f"@{embedded.LOOPBACK}:{port}/")
            (secrets / name).write_text(f"{here}\n" if here else "")
        variables = {
            "ODOOOPS_HOST": embedded.LOOPBACK,
            "ODOOOPS_PORT": str(embedded.free_port()),
            "ODOOOPS_SPOOL_DIR": str(tmp_path / "spool"),
        }
        ops_ports = {service: embedded.free_port() for service in SERVICES}
        yield Place(composed.make_image(tmp_path / "image"), secrets, ops_ports, variables)


async def test_services_are_healthy_once_they_are_there_and_a_signed_webhook_becomes_a_row(
    place: Place,
) -> None:
    for name in ("migrate", "provision", "migrate", "provision"):
        assert (0, "") == await ended(await place.start(name))
    assert [False] * len(SERVICES) == [await place.healthy(name) for name in SERVICES]
    async with running(place):
        for name in SERVICES:
            await eventually(lambda name=name: place.healthy(name))  # type: ignore[misc]
        sent = body("issues.opened.15")
        secret = (place.secrets / "github_webhook_secret").read_text().strip().encode()
        async with httpx.AsyncClient() as client:
            answered = await client.post(
                f"http://{embedded.LOOPBACK}:{place.variables['ODOOOPS_PORT']}/webhooks/github",
                content=sent,
                headers={
                    "content-type": "application/json",
                    "x-github-event": "issues",
                    "x-github-delivery": "0b989ba4-242f-11e5-81e1-c7b6966d2516",
                    "x-hub-signature-256": "sha256=" + hmac.new(secret, sent, hashlib.sha256).hexdigest(),
                },
            )
        assert 200 <= answered.status_code < 300, answered.text
        await a_door_opens_when_its_secret_is_filled_in(place)
        reader = await asyncpg.connect((place.secrets / "database_url_reader").read_text().strip())

        async def projected() -> bool:
            return bool(
                "projected"
                == await reader.fetchval("SELECT status FROM ops.deliveries WHERE source = 'github'")
            )

        await eventually(projected)
        assert 1 == await reader.fetchval("SELECT count(*) FROM ops.work_items")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await reader.execute("DELETE FROM ops.work_items")
        await reader.close()
        code, said = await ended(await place.start("odooops", "status"))
        assert 0 == code, said


async def a_door_opens_when_its_secret_is_filled_in(place: Place) -> None:
    door = f"http://{embedded.LOOPBACK}:{place.variables['ODOOOPS_PORT']}/webhooks/vercel"
    body = b'{"id": "uzIsjpEXXOIphUOq", "type": "domain.created", "createdAt": 1764000000000, "payload": {}}'
    signature = hmac.new(b"made by Vercel", body, hashlib.sha1).hexdigest()
    async with httpx.AsyncClient() as client:

        async def knock() -> httpx.Response:
            return await client.post(door, content=body, headers={"x-vercel-signature": signature})

        closed = await knock()
        assert (404, "source_closed") == (closed.status_code, closed.json()["reason"])
        assert "VERCEL_WEBHOOK_SECRET" in closed.json()["error"]
        (place.secrets / "vercel_webhook_secret").write_text("made by Vercel\n")

        async def open_() -> bool:
            return (await knock()).status_code == 200

        await eventually(open_)


@asynccontextmanager
async def running(place: Place) -> AsyncIterator[None]:
    """The services, stopped as Docker stops them."""
    started = [await place.start(name) for name in SERVICES]
    try:
        yield
        for process in started:
            process.terminate()
        assert [0] * len(SERVICES) == [(await ended(process, STOP_S_MAX))[0] for process in started]
    finally:
        for process in started:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def ended(process: Process, wait_s: float = WAIT_S_MAX) -> tuple[int | None, str]:
    """Exit code and complaints of a process that ends by itself."""
    async with asyncio.timeout(wait_s):
        _, said = await process.communicate()
    return process.returncode, said.decode()


async def eventually(true: Callable[[], Awaitable[bool]]) -> None:
    """Ask until it is true: neither a health check nor a table gives a signal."""
    deadline = time.monotonic() + WAIT_S_MAX
    while not await true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {WAIT_S_MAX:g} s")
        await asyncio.sleep(POLL_S)
