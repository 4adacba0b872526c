"""Tracing: one trace from a request over its row to Slack, and no trace that a sender asks for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from contracts import delivery as wire
from contracts import envelope
from runtime import embedded, ports, streams
from tests.conftest import Broker
from tests.e2e.test_path import Place, happening_now, until
from tests.otlp_double import OtlpDouble, Seen
from tests.samples import body
from tests.servers import Database
from tests.slack_double import CHANNEL, SlackDouble

pytestmark = pytest.mark.anyio

THEIRS = f"00-{'a' * 32}-{'b' * 16}-01"


@asynccontextmanager
async def storing(place: Place) -> AsyncIterator[None]:
    """An ingest that has reached the broker: one that only listens refuses, and makes other spans."""
    port = embedded.free_port()
    place.environment["ODOOOPS_OPS_PORT"] = str(port)
    async with place.service("ingest"):
        del place.environment["ODOOOPS_OPS_PORT"]

        async def ready() -> bool:
            return await ports.problems_at("127.0.0.1", port) == {}

        await until(ready, "ingest has reached the broker")
        yield


async def test_a_trace_goes_from_the_request_over_the_row_to_slack(
    broker: Broker, database: Database, tmp_path: Path
) -> None:
    with OtlpDouble() as collector, SlackDouble() as slack:
        place = Place(broker, database, slack, tmp_path)
        place.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.endpoint
        place.environment["OTEL_BSP_SCHEDULE_DELAY"] = "50"
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(httpx.AsyncClient(headers={"traceparent": THEIRS}))
            await stack.enter_async_context(storing(place))
            for name in ("projector", "notifier"):
                await stack.enter_async_context(place.service(name))
            assert 404 == (await client.post(place.url + "-not")).status_code
            await place.send(
                client, "workflow_run", happening_now(body("workflow_run.completed.00")), "guid-1"
            )
            await asyncio.to_thread(slack.wait_for_posts, 1)
            await asyncio.to_thread(collector.wait_for, 6)
        stored = await broker.js.get_msg(streams.DELIVERIES, 1)
        event = await broker.js.get_msg(streams.EVENTS, 1)

    spans = collector.spans
    (request,) = [span for span in spans if span.name == "POST /webhooks/github"]
    trace = [span for span in spans if span.trace_id == request.trace_id]
    below = {span.name: span for span in trace}
    row, told = below["process DELIVERIES"], below["process build.finished"]
    chain = [
        (request, ""),
        (below["publish DELIVERIES"], request.span_id),
        (row, request.span_id),
        (told, row.span_id),
        (below[f"post slack:{CHANNEL}"], told.span_id),
    ]
    assert [parent for _, parent in chain] == [span.parent_id for span, _ in chain]
    assert len(chain) == len(trace)
    assert ["ingest", "ingest", "projector", "notifier", "notifier"] == [
        span.service.removeprefix("odooops-") for span, _ in chain
    ]
    # What a sender says of tracing is linked to: it does not decide what is traced here.
    assert (("a" * 32, "b" * 16),) == request.links
    assert 200 == request.attributes["http.response.status_code"]
    assert "builds" in row.attributes["odooops.tables"].split(",")
    assert ("committed", "published") == row.events
    (batch,) = [span for span in spans if _is_batch(span)]
    assert ((request.trace_id, request.span_id),) == batch.links
    assert ((batch.trace_id, batch.span_id),) == row.links
    assert 0 == sum(span.failed for span in spans)
    # A stranger's request made none: there is the trace, and the batch.
    assert len(trace) + 1 == len(spans)
    assert f"00-{request.trace_id}-{request.span_id}-01" == (stored.headers or {})[wire.TRACEPARENT]
    assert f"00-{request.trace_id}-{row.span_id}-01" == (event.headers or {})[envelope.TRACEPARENT]


def _is_batch(span: Seen) -> bool:
    return "messaging.batch.message_count" in span.attributes


async def test_what_is_not_sampled_leaves_no_mark_in_the_log(
    broker: Broker, database: Database, tmp_path: Path
) -> None:
    with OtlpDouble() as collector, SlackDouble() as slack:
        place = Place(broker, database, slack, tmp_path)
        place.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.endpoint
        place.environment["OTEL_TRACES_SAMPLER"] = "always_off"
        async with httpx.AsyncClient(headers={"traceparent": THEIRS}) as client, storing(place):
            await place.send(client, "workflow_run", body("workflow_run.completed.00"), "guid-1")
        stored = await broker.js.get_msg(streams.DELIVERIES, 1)

    assert wire.TRACEPARENT not in (stored.headers or {})
    assert [] == collector.spans
