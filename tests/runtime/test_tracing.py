"""runtime/tracing.py: nothing without an endpoint, and no wait for a collector that is silent."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import structlog
from opentelemetry.trace import SpanKind
from structlog.testing import capture_logs

from runtime import tracing
from runtime.bus import Ack, BrokerAway
from runtime.settings import Settings
from services.ingest.traces import traced_app, traced_store
from tests.otlp_double import OtlpDouble
from tests.samples import body, delivery

LOG = structlog.get_logger()
SAMPLED, UNSAMPLED = f"00-{'a' * 32}-{'b' * 16}-01", f"00-{'a' * 32}-{'b' * 16}-00"


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[OtlpDouble]:
    with OtlpDouble(hangs=True) as double:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", double.endpoint)
        # Else its thread, which ends with the process only, would go on trying beside other tests.
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "256")
        monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "128")
        yield double


@pytest.mark.parametrize("environment", [{}, {"OTEL_SDK_DISABLED": "true"}], ids=["unset", "disabled"])
def test_without_an_endpoint_nothing_is_made(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")

    tracing.start("ingest", Settings(), LOG)

    async def app(*_: object) -> None: ...

    async def store(*_: object) -> tuple[int, bool]:
        return 1, False

    assert not tracing.on()
    assert app is traced_app(app, ())
    assert store is traced_store(store)
    with tracing.following(SAMPLED, "a span", SpanKind.CONSUMER, {}) as span:
        assert not span.is_recording()
        assert tracing.here() is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "99999"),
    ],
)
def test_a_wrong_variable_costs_the_traces_and_not_the_process(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv(name, value)
    with capture_logs() as lines:
        tracing.start("ingest", Settings(), LOG)

    assert not tracing.on()
    assert ["no traces are sent: one of OpenTelemetry's variables is wrong"] == [
        line["event"] for line in lines
    ]


def test_without_its_libraries_an_endpoint_is_answered_by_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with capture_logs() as lines:
        tracing.start("ingest", Settings(), LOG)

    assert not tracing.on()
    assert ["install odooops[otel]"] == [line["hint"] for line in lines]


def test_what_its_libraries_say_comes_as_lines_of_ours_seldom_and_without_the_collectors_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with OtlpDouble() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "a-token-that-nobody-may-see")
        with capture_logs() as lines:
            tracing.start("ingest", Settings(), LOG)
            for _ in range(3):
                logging.getLogger("opentelemetry.sdk").warning("the collector is away")
        tracing.stop()

    assert ["trouble with traces", "traces are sent", "trouble with traces"] == [
        line["event"] for line in lines
    ]
    assert "a-token" not in str(lines)


def test_the_spool_that_tries_again_and_again_makes_one_span_and_the_door_one_of_each_try(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    away = True

    async def store(*_: object) -> Ack:
        if away:
            raise BrokerAway("away")
        return 7, False

    first = replace(delivery("workflow_run", body("workflow_run.completed.00"), 1), trace=SAMPLED)
    with OtlpDouble() as collector:
        (tmp_path / "endpoint").write_text(collector.endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT_FILE", str(tmp_path / "endpoint"))
        tracing.start("ingest", Settings(), LOG)
        traced = traced_store(store)

        async def tried() -> Ack:
            return await traced(first, 1.0)

        with (
            pytest.raises(BrokerAway),
            tracing.following(SAMPLED, "the request", SpanKind.SERVER, {}),
        ):
            asyncio.run(tried())
        for _ in range(3):
            with pytest.raises(BrokerAway):
                asyncio.run(tried())
        away = False
        asyncio.run(tried())
        tracing.stop()

    stored = [span for span in collector.spans if span.name == "publish DELIVERIES"]
    assert [(True, None), (False, 7)] == [
        (span.failed, span.attributes.get("odooops.seq")) for span in stored
    ]


def test_a_silent_collector_holds_up_neither_the_work_nor_the_end(silent: OtlpDouble) -> None:
    tracing.start("ingest", Settings(), LOG)
    began = time.monotonic()
    for _ in range(3_000):
        with tracing.following(SAMPLED, "a span", SpanKind.CONSUMER, {}):
            pass
    worked_s = time.monotonic() - began
    tracing.stop()

    assert not tracing.on()
    assert worked_s < 2.0
    assert time.monotonic() - began - worked_s < tracing.STOP_S_MAX + 1.0


def test_a_block_that_fails_marks_its_span_by_the_kind_of_error_and_tells_none_of_its_words() -> None:
    with OtlpDouble() as collector, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        tracing.start("ingest", Settings(), LOG)
        with (
            pytest.raises(ValueError),
            tracing.following(SAMPLED, "a span", SpanKind.CONSUMER, {"a": 1}),
        ):
            raise ValueError("a sender's words")
        collector.wait_for(1)
        tracing.stop()

    (span,) = collector.spans
    assert span.failed
    assert {"a": 1, "error.type": "ValueError"} == span.attributes
    assert () == span.events
    assert ("a" * 32, "b" * 16) == (span.trace_id, span.parent_id)


@pytest.mark.parametrize(
    "said",
    [None, "", "x", UNSAMPLED, SAMPLED.replace("00-", "01-"), SAMPLED.replace("a", "0"), f"{SAMPLED}-x"],
)
def test_only_a_sampled_traceparent_of_todays_version_is_gone_on_with(said: str | None) -> None:
    assert tracing.read(said) is None


def test_a_traceparent_is_read_as_it_is_written() -> None:
    found = tracing.read(SAMPLED)
    assert found is not None
    assert ("a" * 32, "b" * 16) == (f"{found.trace_id:032x}", f"{found.span_id:016x}")
