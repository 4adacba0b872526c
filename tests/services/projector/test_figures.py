"""What the projector tells of itself: how far it is behind, what waits for an operator, what became of deliveries."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import structlog
from prometheus_client import REGISTRY
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts import delivery as wire
from contracts.delivery import body_sha256
from runtime import bus, postgres, streams
from services.projector.app import Projector
from tests.conftest import Broker
from tests.samples import SOURCES, at, body, delivery
from tests.services.projector.running import project_all, store

pytestmark = pytest.mark.anyio

NOBODY = "postgresql://nobody:nothing@127.0.0.1:9/nowhere"


@pytest.fixture
async def projector(broker: Broker, engine: AsyncEngine) -> AsyncIterator[Projector]:
    """One that is asked and does no work."""
    nc = await bus.connect(broker.url("projector"), "projector")
    yield Projector(nc, engine, SOURCES, structlog.get_logger(), asyncio.Event())
    await nc.close()


def figure(name: str, **labels: str) -> float:
    found = REGISTRY.get_sample_value(name, labels)
    return 0.0 if found is None else found


def behind(stage: str) -> tuple[float, float]:
    return figure("odooops_lag_messages", stage=stage), figure("odooops_lag_seconds", stage=stage)


async def test_it_is_behind_by_what_it_has_not_folded_and_by_the_age_of_the_oldest(
    broker: Broker, engine: AsyncEngine, projector: Projector
) -> None:
    finished = delivery("workflow_run", body("workflow_run.completed.00"), 1)
    await store(broker, [finished])
    await project_all(broker, engine)
    await projector.measure()
    assert (0.0, 0.0) == behind("project") == behind("outbox")

    await store(broker, [at(finished, 2, "another"), at(finished, 3, "a-third")])
    oldest_at = (await broker.js.get_msg(streams.DELIVERIES, 2)).time
    await projector.measure()

    count, seconds = behind("project")
    assert 2 == count
    assert oldest_at is not None
    assert 0 < seconds <= (datetime.now(UTC) - oldest_at).total_seconds()
    await projector.measure()
    assert behind("project")[1] > seconds


async def test_what_waits_for_an_operator_is_counted(
    broker: Broker, engine: AsyncEngine, projector: Projector
) -> None:
    poison = delivery("issues", b'{"action": "opened", "issue": 7}', 0, "poison")
    await store(broker, [poison, at(poison, 0, "another")])
    await project_all(broker, engine)
    await projector.measure()

    assert 2 == figure("odooops_waiting_deliveries", status="parked")
    assert 0 == figure("odooops_waiting_deliveries", status="conflict")


async def test_what_cannot_be_known_is_not_shown_as_none(projector: Projector) -> None:
    projector.engine = postgres.make_engine(NOBODY, "test")
    await projector.nc.close()
    await projector.measure()

    for stage in ("project", "outbox"):
        assert all(math.isnan(value) for value in behind(stage))
    for status in ("parked", "conflict"):
        assert math.isnan(figure("odooops_waiting_deliveries", status=status))


async def test_deliveries_are_counted_by_what_the_ledger_says_of_them(
    broker: Broker, engine: AsyncEngine
) -> None:
    def counted() -> list[float]:
        return [
            figure("odooops_projector_deliveries_total", source="github", status=status)
            for status in ("projected", "copy", "conflict", "parked")
        ]

    before = counted()
    first = delivery("workflow_run", body("workflow_run.completed.00"), 1)
    other = first.body + b" "
    await store(broker, [first, replace(first, body=other, body_sha256=body_sha256(other))])
    headers = {name: value for name, value in wire.to_headers(first).items() if name != wire.MESSAGE_ID}
    await broker.js.publish(first.subject, first.body, headers=headers)
    await project_all(broker, engine)

    assert [1, 1, 1, 0] == [after - earlier for after, earlier in zip(counted(), before, strict=True)]
