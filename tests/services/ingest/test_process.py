"""The process, `python -m services.ingest`: how it starts, stops, dies, and what it says about itself."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from cli import status
from cli.report import Report
from runtime import embedded, streams
from services.ingest import segments
from tests.processes import Forked, Started, forked
from tests.services.ingest.door import (
    BODY,
    HOST,
    PATH,
    SECRET,
    eventually,
    line_to,
    request,
    shows_no_secret,
    signed,
    stored,
)
from tests.services.ingest.own_broker import OwnBroker

if TYPE_CHECKING:
    from tests.conftest import Broker

pytestmark = pytest.mark.anyio

HURRY = "TEST_HURRY"
NUMBERS = itertools.count()
HURRIED = """
import runpy
from runtime import process, streams
streams.LEAVE_STORE_S_MAX = 0.2
process.STOP_S_MAX = 0.5
runpy.run_module("services.ingest", run_name="__main__")
"""
"""Python that runs the module with less patience at its end."""
STOP_S_MAX = 10.0


@dataclass
class Ingest:
    """A process and its two ports."""

    process: Forked
    port: int
    ops_port: int

    async def post(self, **how: Any) -> httpx.Response:
        """A genuine request."""
        async with httpx.AsyncClient(timeout=20) as client:
            url = f"http://{HOST}:{self.port}{PATH}"
            return await client.post(url, content=BODY, headers=signed(**how))

    async def ops(self, path: str) -> httpx.Response:
        """What the ops port says."""
        async with httpx.AsyncClient(timeout=20) as client:
            return await client.get(f"http://{HOST}:{self.ops_port}{path}")

    async def problems(self) -> dict[str, str] | None:
        """What /readyz names; None while nobody answers."""
        try:
            answer = await self.ops("/readyz")
        except httpx.TransportError:
            assert self.process.exitcode is None, self.process.said()
            return None
        said: dict[str, Any] = answer.json()
        assert (said["ok"], answer.status_code) == ((False, 503) if said["problems"] else (True, 200))
        return dict(said["problems"])

    async def ready(self) -> None:
        """Wait until nothing is wrong."""

        async def well() -> bool:
            return await self.problems() == {}

        await eventually(well)

    async def holds(self, count: int) -> None:
        """Wait until this many bytes of bodies are in memory."""

        async def held() -> bool:
            return f"odooops_ingest_body_bytes {count}.0" in (await self.ops("/metrics")).text

        await eventually(held)

    async def listens(self) -> bool:
        """Whether the public port takes connections."""
        try:
            async with line_to(self.port):
                return True
        except OSError:
            return False

    async def stopped(self) -> int:
        """Wait for the end of the process; its exit code."""
        return await self.process.ended(STOP_S_MAX)


@contextmanager
def ingest(
    tmp_path: Path, url: str | None, env: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Ingest]:
    """The process while the block runs; afterwards its log is looked through for secrets."""
    environment = {
        "PATH": os.environ["PATH"],
        "ODOOOPS_PORT": str(embedded.free_port()),
        "ODOOOPS_OPS_PORT": str(embedded.free_port()),
        SECRET.name: SECRET.value.decode(),
        **({} if url is None else {"NATS_URL_INGEST": url}),
        **env,
    }
    port, ops_port = int(environment["ODOOOPS_PORT"]), int(environment["ODOOOPS_OPS_PORT"])
    # Who is cut off at the end is answered while Python ends, which a fork does not.
    program, kind = (["-c", HURRIED], Started) if env.get(HURRY) else (["-m", "services.ingest"], Forked)
    with forked(program, environment, tmp_path / f"ingest-{next(NUMBERS)}", kind) as process:
        yield Ingest(process, port, ops_port)
    shows_no_secret(process.said())
    assert "Traceback" not in process.said()


async def failed(running: Ingest) -> str:
    """The one line that the process leaves when it cannot start."""
    assert await running.stopped() == 2
    lines = running.process.said().splitlines()
    (said,) = [line for line in lines if not line.startswith("{")]
    return said


async def test_it_serves_and_stops(broker: Broker, tmp_path: Path) -> None:
    with ingest(tmp_path, broker.url("ingest")) as running:
        await running.ready()
        assert (await running.post()).json() == {
            "ok": True,
            "delivery": "github:d-1",
            "seq": 1,
            "duplicate": False,
        }
        assert (await running.post()).json()["duplicate"] is True
        metrics = (await running.ops("/metrics")).text
        for reason in ("stored", "duplicate"):
            labels = f'reason="{reason}",source="github",status="200"'
            assert f"odooops_ingest_requests_total{{{labels}}} 1.0" in metrics
        assert "odooops_ingest_body_bytes 0.0" in metrics
        assert (await running.ops("/healthz")).json() == {"ok": True}
        running.process.signal(signal.SIGTERM)
        assert await running.stopped() == 0
        events = [json.loads(line)["event"] for line in running.process.said().splitlines()]
        # The repository's own SSOT declares more sources than this test has secrets for, and it has no spool.
        told = [event for event in events if event not in ("source closed", "settings")]
        assert told == ["starting", "listening", "stopped"]


async def test_it_starts_again_at_once_on_the_same_port(broker: Broker, tmp_path: Path) -> None:
    with ingest(tmp_path, broker.url("ingest")) as running:
        await running.ready()
        async with line_to(running.port) as line:
            await line.send(request())
            assert (await line.reply()).status == 200
            running.process.signal(signal.SIGTERM)
            assert await line.closed()
            assert await running.stopped() == 0
    with ingest(tmp_path, broker.url("ingest"), {"ODOOOPS_PORT": str(running.port)}) as again:
        await again.ready()
        assert (await again.post()).json()["duplicate"] is True


async def test_accepting_needs_no_postgres(broker: Broker, tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as postgres:
        url = f"postgresql://nobody@{HOST}:{postgres.getsockname()[1]}/none"
        url_ingest = broker.url("ingest")
        with ingest(tmp_path, url_ingest, {"DATABASE_URL": url, "DATABASE_URL_PROJECTOR": url}) as running:
            await running.ready()
            assert (await running.post()).status_code == 200
        postgres.settimeout(0)
        with pytest.raises(BlockingIOError):
            postgres.accept()


async def test_a_stop_finishes_the_requests_in_hand(stoppable: OwnBroker, tmp_path: Path) -> None:
    await stoppable.start()
    async with stoppable.operator() as js:
        with ingest(tmp_path, stoppable.url("ingest")) as running:
            await running.ready()
            stoppable.pause()
            waiting = [asyncio.create_task(running.post(delivery=str(n))) for n in range(20)]
            async with line_to(running.port) as half:
                await half.send(request(sent=10, delivery="half"))
                await running.holds(20 * len(BODY) + 10)
                began = time.monotonic()
                running.process.signal(signal.SIGTERM)

                async def deaf() -> bool:
                    return not await running.listens()

                await eventually(deaf)
                stoppable.resume()
                await half.send(BODY[10:])
                assert (await half.reply()).status == 200
                assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}
            assert await running.stopped() == 0
            assert time.monotonic() - began < STOP_S_MAX
        assert len(await stored(js)) == 21


async def test_a_stop_does_not_wait_for_ever_and_the_spool_gets_what_the_broker_does_not_take(
    stoppable: OwnBroker, tmp_path: Path
) -> None:
    await stoppable.start()
    hurried = {HURRY: "1", "ODOOOPS_SPOOL_DIR": str(tmp_path / "spool")}
    async with stoppable.operator() as js:
        with ingest(tmp_path, stoppable.url("ingest"), hurried) as running:
            await running.ready()
            async with (
                line_to(running.port) as line,
                line_to(running.port) as never,
                line_to(running.port) as silent,
            ):
                await line.send(request(delivery="first"))
                assert (await line.reply()).json()["seq"] == 1
                await never.send(request(sent=10))
                await silent.send(b"POST /webhooks")
                await running.holds(10)
                stoppable.pause()
                await line.send(request(delivery="second"))
                running.process.signal(signal.SIGTERM)
                spooled = {"ok": True, "delivery": "github:second", "spooled": True}
                assert (await line.reply()).json() == spooled
                stoppable.resume()
                answer = await never.reply()
                assert (answer.status, answer.json()["reason"]) == (503, "stopping")
                assert answer.headers["retry-after"] == str(streams.RETRY_AFTER_S)
                assert await running.stopped() == 0
        assert [each.identity for each in await stored(js)] in (["first"], ["first", "second"])


async def test_a_stop_before_the_broker_was_reached(tmp_path: Path) -> None:
    with ingest(tmp_path, f"nats://{HOST}:{embedded.free_port()}") as running:
        await eventually(running.listens)
        running.process.signal(signal.SIGINT)
        assert await running.stopped() == 0


async def test_killed_amid_requests_it_loses_and_doubles_nothing(broker: Broker, tmp_path: Path) -> None:
    ids = [f"n-{n}" for n in range(600)]
    numbers = itertools.count()
    acknowledged: set[str] = set()
    enough = asyncio.Event()

    async def sender(port: int) -> None:
        """Send ids in turn on one connection until it breaks."""
        async with line_to(port) as line:
            while (n := next(numbers)) < len(ids):
                await line.send(request(delivery=ids[n]))
                answer = await line.reply()
                assert answer.status == 200
                acknowledged.add(ids[n])
                if len(acknowledged) >= 200:
                    enough.set()

    with ingest(tmp_path, broker.url("ingest")) as running:
        await running.ready()
        senders = [asyncio.create_task(sender(running.port)) for _ in range(32)]
        await enough.wait()
        running.process.kill()
        broken = await asyncio.gather(*senders, return_exceptions=True)
        assert any(isinstance(end, OSError | asyncio.IncompleteReadError) for end in broken)
    with ingest(tmp_path, broker.url("ingest"), {"ODOOOPS_PORT": str(running.port)}) as again:
        await again.ready()
        before = {delivery.identity for delivery in await stored(broker.js)}
        assert acknowledged <= before
        unanswered = [delivery for delivery in ids if delivery not in acknowledged]
        answers = []
        async with line_to(again.port) as line:
            for delivery in unanswered:
                await line.send(request(delivery=delivery))
                answers.append(await line.reply())
        assert {answer.status for answer in answers} == {200}
        known = {d for d, answer in zip(unanswered, answers, strict=True) if answer.json()["duplicate"]}
        assert known == before - acknowledged
    assert sorted(delivery.identity for delivery in await stored(broker.js)) == sorted(ids)


async def test_readyz_says_what_is_wrong(stoppable: OwnBroker, tmp_path: Path) -> None:
    with ingest(tmp_path, stoppable.url("ingest")) as running:

        async def disconnected() -> bool:
            return str((await running.problems() or {}).get("broker")).startswith("not connected: ")

        await eventually(disconnected)
        answer = await running.post()
        assert (answer.status_code, answer.json()["reason"]) == (503, "broker_away")
        assert answer.headers["retry-after"] == str(streams.RETRY_AFTER_S)

        await stoppable.start()

        async def reached() -> bool:
            return "is missing" in str(await running.problems())

        await eventually(reached)
        async with stoppable.operator():
            await running.ready()
            assert (await running.post()).status_code == 200
            stoppable.pause()

            # What it had in hand when it was stopped, it may have answered yet.
            async def unanswered() -> bool:
                return await running.problems() == {"broker": "no answer within 2 s"}

            await eventually(unanswered)
            stoppable.resume()
            await running.ready()
            stoppable.kill()
            await eventually(disconnected)
            assert (await running.ops("/healthz")).status_code == 200
            await stoppable.start()
            await running.ready()
            assert (await running.post()).json()["duplicate"] is True


async def test_a_wrong_password_is_said_and_not_shown(broker: Broker, tmp_path: Path) -> None:
    url = httpx.URL(broker.url("ingest")).copy_with(username="ingest", password="a-wrong-word")
    with ingest(tmp_path, str(url)) as running:

        async def told() -> bool:
            return "Authorization" in str(await running.problems())

        await eventually(told)
        running.process.signal(signal.SIGTERM)
        assert await running.stopped() == 0
        assert "a-wrong-word" not in running.process.said()


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ({}, "ingest: neither NATS_URL_INGEST nor NATS_URL is set"),
        (
            {"NATS_URL": "nats://ingest:pass/word@broker:4222"},
            "ingest: NATS_URL_INGEST, or else NATS_URL, is no address like nats://user:password@host:4222",
        ),
        ({"ODOOOPS_LOG_FORMAT": "xml"}, "ingest: wrong settings: ODOOOPS_LOG_FORMAT: "),
        ({"ODOOOPS_SSOT_DIR": "/nowhere"}, "ingest: /nowhere/providers: holds no YAML file"),
        (
            {"GITHUB_WEBHOOK_SECRET_FILE": "/nowhere/secret"},
            "ingest: GITHUB_WEBHOOK_SECRET_FILE names a file that cannot be read: No such file or directory",
        ),
        ({"NATS_URL": "nats://broker:1", "ODOOOPS_HOST": "192.0.2.1"}, "ingest: cannot listen on 192.0.2.1:"),
    ],
)
async def test_a_wrong_setting_is_one_sentence(tmp_path: Path, env: dict[str, str], sentence: str) -> None:
    with ingest(tmp_path, None, env) as running:
        said = await failed(running)
    assert said.startswith(sentence)
    assert "pass/word" not in said


@pytest.mark.parametrize("variable", ["ODOOOPS_PORT", "ODOOOPS_OPS_PORT"])
async def test_a_port_in_use_is_one_sentence(broker: Broker, tmp_path: Path, variable: str) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with ingest(tmp_path, broker.url("ingest"), {variable: str(port)}) as running:
            assert await failed(running) == f"ingest: cannot listen on {HOST}:{port}: Address already in use"


async def test_two_of_them_do_not_share_a_port(broker: Broker, tmp_path: Path) -> None:
    with ingest(tmp_path, broker.url("ingest")) as first:
        await first.ready()
        with ingest(tmp_path, broker.url("ingest"), {"ODOOOPS_PORT": str(first.port)}) as second:
            assert "Address already in use" in await failed(second)


def listeners() -> set[str]:
    """The addresses that this machine listens on, as the kernel writes them."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[1] for row in rows if row[3] == "0A"}


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's list of sockets is Linux's")
async def test_by_default_the_ops_port_is_for_this_machine_only(broker: Broker, tmp_path: Path) -> None:
    with ingest(tmp_path, broker.url("ingest"), {"ODOOOPS_HOST": "0.0.0.0"}) as running:
        await running.ready()
        listening = listeners()
        assert f"00000000:{running.port:04X}" in listening
        assert f"0100007F:{running.ops_port:04X}" in listening
        assert f"00000000:{running.ops_port:04X}" not in listening


async def test_what_a_killed_process_had_spooled_is_named_by_status_and_stored_by_the_next(
    stoppable: OwnBroker, tmp_path: Path
) -> None:
    spool = {"ODOOOPS_SPOOL_DIR": str(tmp_path / "spool")}
    (tmp_path / "first").mkdir()
    with ingest(tmp_path / "first", stoppable.url("ingest"), spool) as first:
        await eventually(first.listens)
        for n in range(3):
            answer = await first.post(delivery=f"d-{n}")
            assert answer.json() == {"ok": True, "delivery": f"github:d-{n}", "spooled": True}
        report = Report()
        await status.spooled(HOST, first.ops_port, report)
        (line,) = report.lines
        assert (line.part, line.state) == ("spool", "warning")
        assert "bytes of deliveries wait to get into the log, 0% of its room" in line.text
        first.process.signal(signal.SIGKILL)
        await first.stopped()
    await stoppable.start()
    (tmp_path / "second").mkdir()
    async with stoppable.operator() as js:
        with ingest(tmp_path / "second", stoppable.url("ingest"), spool) as second:

            async def all_stored() -> bool:
                return len(await stored(js)) == 3

            await eventually(all_stored)
            report = Report()
            await status.spooled(HOST, second.ops_port, report)
            assert report.lines == []
            # Whoever adopted a damaged segment may be dead by now: it is still there.
            (tmp_path / "spool" / f"an-earlier-one{segments.DAMAGED}").write_bytes(b"torn")
            await status.spooled(HOST, second.ops_port, report)
            (line,) = report.lines
            assert (line.state, line.text.partition(":")[0]) == ("bad", "files *.damaged of 4 bytes")
        assert sorted(each.identity for each in await stored(js)) == ["d-0", "d-1", "d-2"]
