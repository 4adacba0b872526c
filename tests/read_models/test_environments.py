"""ops.environments_now: a row for each environment, made of what other tables know, and NULL where they do not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts import own
from contracts.delivery import Delivery
from contracts.deployments import DeploymentStatusChanged
from contracts.health import HealthcheckCompleted
from contracts.polls import listing
from contracts.version import moment
from runtime.postgres import make_engine
from services.projector.understand import understand
from services.projector.write import Writer
from tests.providers.digitalocean.answers import observed
from tests.samples import SOURCES
from tests.servers import Database
from tests.tables import SQL

pytestmark = pytest.mark.anyio

NOW = datetime.now(UTC)
Engines = tuple[AsyncEngine, AsyncEngine]
DROPLET = {
    "id": 7,
    "name": "web-1",
    "status": "active",
    "tags": ["env:prod"],
    "networks": {"v4": [{"ip_address": "203.0.113.7", "type": "public"}], "v6": []},
}


@pytest.fixture
async def engines(database: Database, anyio_backend: object) -> AsyncIterator[Engines]:
    """The projector's and the reader's."""
    made = make_engine(database.url("projector"), "test"), make_engine(database.url("reader"), "test")
    yield made
    for engine in made:
        await engine.dispose()


def said(event: Any, seq: int) -> Delivery:
    return replace(own.delivery_of(event, "job", NOW), seq=seq)


def deployed(sha: str, at: datetime, status: str = "success") -> DeploymentStatusChanged:
    """A production deployment of a commit reached a status."""
    return DeploymentStatusChanged(
        source="github",
        ref=f"github:deployment/{sha}",
        moment=moment(at, 1),
        occurred_at=at,
        env="prod",
        repository="org/repo",
        deployment_id=1,
        environment="production",
        commit_sha=sha,
        status=status,
        provider_status=status,
    )


def checked(status: str, at: datetime, check: str = "http") -> HealthcheckCompleted:
    return HealthcheckCompleted.model_validate(
        {"env": "prod", "target": "web", "check_name": check, "status": status, "occurred_at": at}
    )


async def environments(engines: Engines, deliveries: Sequence[Delivery]) -> dict[str, dict[str, Any]]:
    """The view's rows by environment, after some deliveries."""

    async def unread(seq: int) -> Delivery:
        raise AssertionError(seq)

    writer = Writer(engines[0], SQL, SOURCES, unread)
    for delivery in deliveries:
        understood = understand(SOURCES, delivery)
        assert understood.status == "projected", understood.error
        await writer.fold([understood])
    async with engines[1].connect() as connection:
        found = await connection.execute(text("SELECT * FROM ops.environments_now"))
        return {row["env"]: dict(row) for row in found.mappings()}


async def test_nothing_known_is_unknown_and_not_fine(engines: Engines) -> None:
    found = await environments(engines, [])

    assert set(found) == {"prod", "stage", "dev"}
    assert {row["health"] for row in found.values()} == {"unknown"}
    assert {name: value for name, value in found["prod"].items() if value is not None} == {
        "env": "prod",
        "health": "unknown",
    }


async def test_an_environment_shows_host_commit_and_worst_health(
    engines: Engines,
) -> None:
    hour = timedelta(hours=1)
    found = await environments(
        engines,
        [
            observed("droplet", DROPLET, at=NOW - hour, seq=1),
            said(deployed("a" * 40, NOW - 3 * hour), 2),
            said(deployed("b" * 40, NOW - 2 * hour), 3),
            said(deployed("c" * 40, NOW - hour, "failed"), 4),
            said(checked("failing", NOW - 2 * hour), 5),
            said(checked("ok", NOW - hour), 6),
            said(checked("slow", NOW - 2 * hour, "database"), 7),
        ],
    )

    prod = found["prod"]
    assert prod["hosts"] == ["web-1 (203.0.113.7)"]
    assert prod["hosts_confirmed_at"] == NOW - hour
    assert (prod["commit_sha"], prod["deployed_at"]) == ("b" * 40, NOW - 2 * hour)
    assert (prod["health"], prod["checks"], prod["health_confirmed_at"]) == ("degraded", 2, NOW - 2 * hour)
    assert found["stage"]["hosts"] is None


async def test_a_host_that_is_gone_and_a_check_of_last_month_do_not_count(
    engines: Engines,
) -> None:
    [whole] = listing("digitalocean", "droplets", NOW, {"droplet": []})
    found = await environments(
        engines,
        [
            observed("droplet", DROPLET, at=NOW - timedelta(hours=1), seq=1),
            said(whole, 2),
            said(checked("ok", NOW - timedelta(days=30)), 3),
        ],
    )

    assert (found["prod"]["hosts"], found["prod"]["health"]) == (None, "unknown")
