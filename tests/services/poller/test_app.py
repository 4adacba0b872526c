"""The poller as a service: what it polls when, beside others, and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest
import structlog
from prometheus_client import REGISTRY

from contracts.delivery import TRACEPARENT
from providers.polling import Polling, Scope
from runtime import embedded, streams, tracing
from runtime.settings import Settings
from services.poller import app, turn
from services.poller.app import Schedule, poll, polled, problems
from services.poller.turn import Work
from tests import api as apis
from tests.api import by_link, too_many
from tests.otlp_double import OtlpDouble
from tests.providers.driving import source_of
from tests.services.poller.running import Shop, eventually, statuses
from tests.services.poller.shop import EVERY_S, SECRET, TOKEN, scope, shop

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET, TOKEN)


def schedule(store: Shop, work: Work, *scopes: Scope) -> Schedule:
    chosen = scopes or (scope(),)
    return Schedule(work, store.source(*chosen), chosen)


async def test_each_scope_is_polled_when_it_is_due_and_not_before(store: Shop) -> None:
    store.api.routes["/things"] = by_link([{"id": 1}])
    often = Scope(name="often", parts=scope().parts, every_s=60)
    due = schedule(store, store.work(), scope("all"), often)
    wait_s = await due.round()
    assert app.AGAIN_S <= wait_s <= app.LOOK_S_MAX
    assert [end.scope for end in await store.ends()] == ["all", "often"]
    assert [end.stale_after_s for end in await store.ends()] == [3 * EVERY_S + 120, 300]
    assert {start.triggered_by for start in await store.starts()} == {"cron"}
    await due.round()
    # Neither is polled by another process: the lease says when the last run began.
    await schedule(store, store.work("other"), scope("all"), often).round()
    assert len(await store.starts()) == 2


async def test_when_a_scope_was_last_polled_with_success_is_known_by_any_poller(store: Shop) -> None:
    def told(name: str) -> float | None:
        return REGISTRY.get_sample_value(
            f"odooops_poller_{name}_seconds", {"source": "shop", "scope": "told"}
        )

    store.api.routes["/things"] = by_link([{"id": 1}])
    await schedule(store, store.work(), scope("told")).round()
    succeeded = told("last_success_timestamp")
    (end,) = await store.ends()
    assert EVERY_S == told("interval")
    assert succeeded is not None
    assert abs(end.finished_at.timestamp() - succeeded) < 1.0
    # Another process reads it from the lease, and does not take its own start for a success.
    await schedule(store, store.work("other"), scope("told")).round()
    assert succeeded == told("last_success_timestamp")


async def test_what_a_poll_stores_begins_a_trace_each(store: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    store.api.routes["/things"] = by_link([{"id": 1}])
    with OtlpDouble() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        tracing.start("poller", Settings(), structlog.get_logger())
        await schedule(store, store.work()).round()
        await asyncio.to_thread(tracing.stop)

    info = await store.broker.js.stream_info(streams.DELIVERIES)
    stored = [
        await store.broker.js.get_msg(streams.DELIVERIES, seq) for seq in range(1, info.state.last_seq + 1)
    ]
    assert [f"00-{span.trace_id}-{span.span_id}-01" for span in collector.spans] == [
        (each.headers or {})[TRACEPARENT] for each in stored
    ]
    assert {("publish DELIVERIES", "")} == {(span.name, span.parent_id) for span in collector.spans}
    assert len(stored) == len({span.trace_id for span in collector.spans}) > 2


async def test_a_poller_that_starts_anew_takes_its_start_for_no_success_of_a_scope_that_fails(
    store: Shop,
) -> None:
    def told() -> float | None:
        labels = {"source": "shop", "scope": "fails"}
        return REGISTRY.get_sample_value("odooops_poller_last_success_timestamp_seconds", labels)

    store.api.routes["/things"] = apis.NOT_FOUND
    await schedule(store, store.work(), scope("fails")).round()
    (first,) = await store.starts()
    assert first.started_at.timestamp() == told()
    await schedule(store, store.work("other"), scope("fails")).round()
    assert first.started_at.timestamp() == told()


async def test_two_pollers_at_once_make_one_run(store: Shop) -> None:
    store.api.routes["/things"] = apis.HANGS
    pollers = [asyncio.create_task(schedule(store, store.work(f"{n}")).round()) for n in range(2)]
    await asyncio.to_thread(store.api.wait, "/things")
    done, _ = await asyncio.wait(pollers, return_when=asyncio.FIRST_COMPLETED)
    assert len(done) == 1
    store.api.next("/things", *[apis.NOT_FOUND] * 5)
    store.api.release()
    await asyncio.gather(*pollers)
    assert statuses(await store.ends()) == ["failed"]
    assert len(await store.starts()) == 1


async def test_a_run_that_was_cut_off_is_closed_and_the_scope_polled_when_it_is_due(store: Shop) -> None:
    store.api.routes["/things"] = by_link([{"id": 1}])
    crashed, alive = store.work("crashed"), schedule(store, store.work("alive", lease_s=0.2))
    ordered, _ = store.ordered(scope(), crashed)
    assert await turn.begin(crashed, ordered, await crashed.leases.look("shop", "all"))

    async def closed() -> bool:
        await alive.round()
        return len(await store.ends()) == 1

    await eventually(closed)
    (end,) = await store.ends()
    assert (end.run_id, end.status) == (ordered.run_id, "failed")
    # As after any run that failed, the next one is not due at once.
    assert len(await store.starts()) == 0


async def test_an_interrupted_run_is_made_up_for_at_once(store: Shop) -> None:
    store.api.routes["/things"] = apis.HANGS
    running = asyncio.create_task(schedule(store, store.work("one")).round())
    await asyncio.to_thread(store.api.wait, "/things")
    running.cancel()
    await asyncio.wait({running})
    store.api.routes["/things"] = by_link([{"id": 1}])
    await schedule(store, store.work("other")).round()
    assert statuses(await store.ends()) == ["failed", "success"]


async def test_no_scope_of_an_api_that_wants_to_be_left_alone_is_polled_meanwhile(store: Shop) -> None:
    store.api.routes["/things"] = too_many(900)
    due = schedule(store, store.work(), scope("one"), scope("other"))
    assert 890 < await due.round() <= 900
    assert (store.api.count(), [end.scope for end in await store.ends()]) == (1, ["one"])


async def test_a_source_begins_to_be_polled_when_its_secret_is_there(
    store: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store.api.routes["/things"] = by_link([{"id": 1}])
    monkeypatch.delenv(SECRET)
    file = tmp_path / "token"
    monkeypatch.setenv(f"{SECRET}_FILE", str(file))
    due = schedule(store, store.work())
    for _ in range(2):
        assert await due.round() == app.LOOK_S_MAX
    file.write_text("")
    await due.round()
    assert [line["reason"] for line in store.lines] == [
        f"{SECRET}_FILE names a file that cannot be read: No such file or directory",
        f"not polled: set {SECRET} (or {SECRET}_FILE)",
    ]
    file.write_text(f"{TOKEN}\n")
    await due.round()
    assert statuses(await store.ends()) == ["success"]
    assert store.lines[2]["event"] == "polled from now on"
    assert TOKEN not in repr(store.lines)


async def test_trouble_with_the_broker_is_waited_for(store: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    store.api.routes["/things"] = by_link([{"id": 1}])
    monkeypatch.setattr(app, "AGAIN_S", 0.05)
    info = await store.broker.js.stream_info("KV_POLLER")
    await store.broker.js.delete_stream("KV_POLLER")
    polling = asyncio.create_task(poll(store.work(), [(store.source(), (scope(),))]))

    async def said() -> bool:
        return any(line["event"] == "will try again" for line in store.lines)

    await eventually(said)
    assert "broker" in await problems(store.nc)
    await store.broker.js.add_stream(info.config)

    async def ended() -> bool:
        return len(await store.ends()) == 1

    await eventually(ended)
    assert await problems(store.nc) == {}
    polling.cancel()
    await asyncio.wait({polling})


def test_sources_that_are_not_polled_are_named_with_the_fix() -> None:
    lines: list[dict[str, Any]] = []

    def hear(logger: Any, method: str, line: MutableMapping[str, Any]) -> str:
        lines.append(dict(line))
        raise structlog.DropEvent

    whole = shop("https://shop.example", name="whole")
    without_api = source_of(whole.provider, "without_api")
    empty = shop("https://shop.example", name="empty", polling=Polling(scopes=lambda source: []))
    found = polled([whole, without_api, empty], structlog.wrap_logger(None, [hear]))
    assert ["whole"] == [source.name for source, _ in found]
    assert [("empty", "not polled: name what to poll in the options of ssot/providers/empty.yaml")] == [
        (line["source"], line["reason"]) for line in lines
    ]


def start(environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "services.poller"]
    with log.open("wb") as written:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=written)


async def test_the_process_starts_says_how_it_is_and_stops(store: Shop, tmp_path: Path) -> None:
    port = embedded.free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("NATS_", "ODOOOPS_"))},
        "NATS_URL_POLLER": store.broker.url("poller"),
        "ODOOOPS_OPS_PORT": str(port),
        "ODOOOPS_SSOT_DIR": str(ROOT / "ssot"),
    }
    log = tmp_path / "log"
    process = start(environment, log)
    try:

        async def ready() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                answer = await store.http.send("GET", f"http://127.0.0.1:{port}/readyz", repeatable=False)
            except Exception:
                return False
            return answer.status == 200

        await eventually(ready)
        metrics = await store.http.send("GET", f"http://127.0.0.1:{port}/metrics", repeatable=False)
        assert b"odooops_poller_runs_total" in metrics.body
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 10) == 0
    finally:
        process.kill()
        process.wait()
    assert '"stopped"' in log.read_text()
