"""The projector goes on with the traces of what it folds, and makes no span of anything else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts import delivery as wire
from contracts.delivery import body_sha256
from contracts.envelope import TRACEPARENT
from runtime import tracing
from runtime.settings import Settings
from tests.conftest import Broker
from tests.otlp_double import OtlpDouble
from tests.samples import at, body, delivery
from tests.services.projector.running import clean_fold, events, project_all, store

pytestmark = pytest.mark.anyio


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[OtlpDouble]:
    with OtlpDouble() as double:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", double.endpoint)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        tracing.start("projector", Settings(), structlog.get_logger())
        yield double
        tracing.stop()


def trace_of(n: int) -> str:
    return f"00-{n:032x}-{n:016x}-01"


async def test_each_traced_delivery_of_a_batch_gets_its_own_span_and_says_what_became_of_it(
    broker: Broker, engine: AsyncEngine, collector: OtlpDouble
) -> None:
    first = delivery("workflow_run", body("workflow_run.completed.00"), 1)
    other = first.body + b" "
    conflict = replace(first, body=other, body_sha256=body_sha256(other), trace=trace_of(2))
    await store(broker, [replace(first, trace=trace_of(1)), conflict])
    copy = replace(first, trace=trace_of(3))
    headers = {name: value for name, value in wire.to_headers(copy).items() if name != wire.MESSAGE_ID}
    await broker.js.publish(copy.subject, copy.body, headers=headers)
    await store(broker, [at(first, 4, "not-traced")])
    await project_all(broker, engine)
    published = await events(broker)
    await asyncio.to_thread(collector.wait_for, 3, "odooops.seq")
    tracing.stop()

    spans = {span.trace_id: span for span in collector.spans if "odooops.seq" in span.attributes}
    assert [f"{n:032x}" for n in (1, 2, 3)] == sorted(spans)
    assert ["projected", "copy_or_conflict", "copy_or_conflict"] == [
        spans[f"{n:032x}"].attributes["odooops.status"] for n in (1, 2, 3)
    ]
    folded = spans[f"{1:032x}"]
    assert f"00-{folded.trace_id}-{folded.span_id}-01" in {each.get(TRACEPARENT) for each in published}


async def test_what_folds_again_makes_no_spans(
    broker: Broker, engine: AsyncEngine, collector: OtlpDouble
) -> None:
    first = delivery("workflow_run", body("workflow_run.completed.00"), 1)
    await store(broker, [replace(first, trace=trace_of(1))])
    await clean_fold(broker, engine)
    tracing.stop()

    assert [] == collector.spans
