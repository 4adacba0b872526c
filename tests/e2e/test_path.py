"""The whole path through the real processes: HTTP in, rows through Postgres, a message at Slack's door."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from providers.github.verify import compose
from providers.port import Parcel, Secret
from runtime import embedded, ports, streams
from tests.conftest import Broker
from tests.processes import Forked, forked
from tests.samples import SOURCES, body, paths
from tests.servers import Database
from tests.slack_double import CHANNEL, TOKEN, SlackDouble

pytestmark = pytest.mark.anyio

SECRET = Secret("GITHUB_WEBHOOK_SECRET", b'it\'s a "secret" with spaces')
DEADLINE_S = 30.0
ISSUE = paths("issues")[0].read_bytes()
BUILD = b"1589141559"
"""The run that workflow_run.completed.00 tells of."""
STOP_S_MAX = 10.0
STARTED = ("listening", "running", "messages go to")
"""What a service's log says when it works."""
POLL_S = 0.02
_TIMES = re.compile(rb"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@pytest.fixture
def slack() -> Iterator[SlackDouble]:
    with SlackDouble() as double:
        yield double


class Place:
    """Ingest, projector and notifier as processes, and what a test does with them."""

    def __init__(
        self,
        broker: Broker,
        database: Database,
        slack: SlackDouble,
        folder: Path,
        listening: socket.socket | None = None,
    ) -> None:
        self.folder = folder
        self.door = listening
        self.port: int = listening.getsockname()[1] if listening else embedded.free_port()
        self.url = f"http://127.0.0.1:{self.port}/webhooks/github"
        self.database = database
        self.environment = {
            "PATH": os.environ.get("PATH", ""),
            "NATS_URL_INGEST": broker.url("ingest"),
            "NATS_URL_PROJECTOR": broker.url("projector"),
            "NATS_URL_NOTIFIER": broker.url("notifier"),
            "DATABASE_URL_PROJECTOR": database.url("projector"),
            "DATABASE_URL_NOTIFIER": database.url("notifier"),
            "ODOOOPS_PORT": str(self.port),
            "GITHUB_WEBHOOK_SECRET": SECRET.value.decode(),
            "SLACK_BOT_TOKEN": TOKEN,
            "SLACK_CHANNEL": CHANNEL,
            "SLACK_API_URL": slack.api_url,
        }

    @asynccontextmanager
    async def service(self, name: str) -> AsyncIterator[None]:
        """A service while the block runs; at its end it stops by SIGTERM, cleanly."""
        with forked(["-m", f"services.{name}"], self.environment, self.folder / name) as process:
            yield
            process.signal(signal.SIGTERM)
            assert 0 == await process.ended(DEADLINE_S)

    def start(self, stack: ExitStack, name: str) -> Forked:
        """One more process of a service, killed with the stack."""
        folder = self.folder / f"{name}-{uuid.uuid4()}"
        listening = self.door if name == "ingest" else None
        return stack.enter_context(
            forked(["-m", f"services.{name}"], self.environment, folder, listening=listening)
        )

    async def send(self, client: httpx.AsyncClient, event: str, raw: bytes, guid: str) -> dict[str, Any]:
        """What ingest answers to a signed delivery."""
        parcel = Parcel(body=raw, event=event, delivery=guid, at=datetime.now(UTC))
        made = compose(parcel, SOURCES["github"], SECRET)
        answer = await client.post(self.url, content=raw, headers=made.headers)
        assert 200 == answer.status_code, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def listening(self, client: httpx.AsyncClient) -> bool:
        """Whether ingest answers."""
        try:
            return (await client.get(self.url.replace("/webhooks/github", "/healthz"))).is_success
        except httpx.TransportError:
            return False

    async def rows(self, query: str) -> list[asyncpg.Record]:
        """What a reader sees."""
        connection = await asyncpg.connect(self.database.url("reader"))
        try:
            found: list[asyncpg.Record] = await connection.fetch(query)
            return found
        finally:
            await connection.close()


async def events_of(broker: Broker) -> list[str]:
    """The ids of all events that were published, as often as they stand there."""
    count = (await broker.js.stream_info(streams.EVENTS)).state.last_seq
    found = [await broker.js.get_msg(streams.EVENTS, seq) for seq in range(1, count + 1)]
    return [str((message.headers or {})["ce-id"]) for message in found]


async def _works(process: Forked) -> bool:
    assert process.exitcode is None, process.said()
    return any(f'"event": "{words}"' in process.said() for words in STARTED)


async def _more_than(found: list[str], count: int) -> bool:
    return len(found) > count


async def until(holds: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait for what gives no signal, under a deadline."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not await holds():
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise AssertionError(f"{what}: not within {DEADLINE_S:.0f} s") from None


def happening_now(raw: bytes) -> bytes:
    """A recorded body with its times moved to now: Slack is told nothing that is older than an hour."""
    return _TIMES.sub(datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ").encode(), raw)


async def test_a_signed_webhook_becomes_rows_and_one_slack_message(
    broker: Broker, database: Database, slack: SlackDouble, tmp_path: Path
) -> None:
    place = Place(broker, database, slack, tmp_path)
    finished = happening_now(body("workflow_run.completed.00"))
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(httpx.AsyncClient())
        for name in ("ingest", "projector", "notifier"):
            await stack.enter_async_context(place.service(name))
        await until(lambda: place.listening(client), "ingest listens")

        first = await place.send(client, "workflow_run", finished, "guid-1")
        again = await place.send(client, "workflow_run", finished, "guid-1")
        await place.send(client, "workflow_run", finished, "guid-2")
        for path in paths("issues", "pull_request", "deployment", "deployment_status"):
            await place.send(client, path.parent.name, path.read_bytes(), str(uuid.uuid4()))
        await asyncio.to_thread(slack.wait_for_posts, 1)
        expected = 2 + len(paths("issues", "pull_request", "deployment", "deployment_status"))

        async def all_projected() -> bool:
            found = await place.rows("SELECT count(*) FROM ops.deliveries WHERE status = 'projected'")
            return bool(found[0][0] == expected)

        await until(all_projected, "every delivery is projected")
        builds = await place.rows("SELECT status, provider_conclusion, repository FROM ops.builds")
        events = await place.rows("SELECT event_type FROM ops.run_events WHERE ref LIKE 'github:run/%'")
        items = await place.rows("SELECT work_item_ref FROM ops.work_items")

    assert {"ok": True, "delivery": "github:guid-1", "seq": first["seq"], "duplicate": False} == first
    assert {**first, "duplicate": True} == again
    assert 1 == len(builds) == len(events) == len(slack.messages)
    assert builds[0]["repository"] in slack.messages[0]["text"]
    assert "github:Codertocat/Hello-World#1" in {row["work_item_ref"] for row in items}


async def test_accepting_needs_the_broker_only_and_the_rest_catches_up(
    broker: Broker, database: Database, slack: SlackDouble, tmp_path: Path
) -> None:
    place = Place(broker, database, slack, tmp_path)
    async with httpx.AsyncClient() as client, place.service("ingest"):
        await until(lambda: place.listening(client), "ingest listens")
        await asyncio.to_thread(
            database.server.execute, f"ALTER DATABASE {database.name} ALLOW_CONNECTIONS false"
        )
        async with place.service("projector"):
            for n, path in enumerate(paths("issues")):
                await place.send(client, "issues", path.read_bytes(), f"guid-{n}")
            await asyncio.to_thread(
                database.server.execute, f"ALTER DATABASE {database.name} ALLOW_CONNECTIONS true"
            )

            async def all_there() -> bool:
                found = await place.rows("SELECT count(*) FROM ops.deliveries")
                return bool(found[0][0] == len(paths("issues")))

            await until(all_there, "the rows are there")


async def test_a_rolling_restart_of_every_process_under_load_fails_no_request_and_tells_nothing_twice(
    broker: Broker, database: Database, slack: SlackDouble, tmp_path: Path
) -> None:
    listening = ports.listen("127.0.0.1", 0)
    assert listening is not None
    with listening, ExitStack() as stack:
        place = Place(broker, database, slack, tmp_path, listening)
        running = {name: place.start(stack, name) for name in ("ingest", "projector", "notifier")}
        answered: list[str] = []
        over = asyncio.Event()

        async def sender(client: httpx.AsyncClient) -> None:
            while not over.is_set():
                guid = str(uuid.uuid4())
                said = await place.send(client, "issues", ISSUE, guid)
                assert "seq" in said
                answered.append(guid)
                await asyncio.sleep(0.01)  # between what one sender has to say

        async def one_connection_each() -> None:
            while not over.is_set():
                async with httpx.AsyncClient(timeout=DEADLINE_S) as client:
                    said = await place.send(client, "issues", ISSUE, guid := str(uuid.uuid4()))
                    assert "seq" in said
                    answered.append(guid)

        async with httpx.AsyncClient(timeout=DEADLINE_S) as client, asyncio.TaskGroup() as group:
            await until(lambda: place.listening(client), "ingest listens")
            for _ in range(6):
                group.create_task(sender(client))
            for _ in range(2):
                group.create_task(one_connection_each())
            for n, (name, old) in enumerate(running.items()):
                build = happening_now(body("workflow_run.completed.00")).replace(
                    BUILD, BUILD[:-1] + b"%d" % n
                )
                await place.send(client, "workflow_run", build, guid := str(uuid.uuid4()))
                answered.append(guid)
                before = len(answered)
                new = place.start(stack, name)
                await until(lambda new=new: _works(new), f"the second {name} works")  # type: ignore[misc]
                old.signal(signal.SIGTERM)
                assert 0 == await old.ended(STOP_S_MAX)
                await until(lambda before=before: _more_than(answered, before), "requests are answered")  # type: ignore[misc]
            over.set()

        async def all_projected() -> bool:
            found = await place.rows("SELECT count(*) FROM ops.deliveries WHERE status = 'projected'")
            return bool(found[0][0] == len(answered))

        await until(all_projected, "every delivery is projected")
        ledger = await place.rows("SELECT identity, stream_seq = last_seq AS once FROM ops.deliveries")
        assert sorted(row["identity"] for row in ledger) == sorted(answered)
        assert all(row["once"] for row in ledger)
        await asyncio.to_thread(slack.wait_for_posts, len(running))
        assert len(slack.posts) == len(set(slack.ids)) == len(running)
        events = await events_of(broker)
        assert len(events) == len(set(events)) > len(running)
