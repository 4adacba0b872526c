"""At its start ingest says which settings could lose deliveries; it asks the broker alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime import streams
from services.ingest.app import Broker as Connection
from tests.conftest import Broker
from tests.warned import Warned

pytestmark = pytest.mark.anyio


async def said(broker: Broker, spool_dir: Path | None) -> list[tuple[str, str]]:
    log = Warned()
    connection = Connection(broker.url("ingest"), log)
    await connection.connect()
    try:
        await connection.audit(spool_dir)
    finally:
        await connection.close()
    return log.parts


async def test_an_ingest_as_it_should_be_says_nothing(broker: Broker, tmp_path: Path) -> None:
    assert await said(broker, tmp_path) == []


async def test_an_ingest_names_what_could_lose_deliveries(broker: Broker) -> None:
    info = await broker.js.stream_info(streams.BODIES_STREAM)
    await broker.js.update_stream(info.config, discard="old", max_bytes=1 << 30)
    assert await said(broker, None) == [("error", f"stream {streams.BODIES_STREAM}"), ("warning", "spool")]
