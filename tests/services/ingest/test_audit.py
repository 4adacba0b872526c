"""At its start ingest says which settings could lose deliveries; it asks the broker alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runtime import streams
from services.ingest.app import Broker as Connection
from tests.conftest import Broker

pytestmark = pytest.mark.anyio


class Log:
    """Keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[dict[str, Any]] = []

    def warning(self, event: str, **words: Any) -> None:
        self.warnings.append({"event": event, **words})


async def said(broker: Broker, spool_dir: Path | None) -> list[tuple[str, str]]:
    log = Log()
    connection = Connection(broker.url("ingest"), log)
    await connection.connect()
    try:
        await connection.audit(spool_dir)
    finally:
        await connection.close()
    return [(each["severity"], each["part"]) for each in log.warnings]


async def test_an_ingest_as_it_should_be_says_nothing(broker: Broker, tmp_path: Path) -> None:
    assert await said(broker, tmp_path) == []


async def test_an_ingest_names_what_could_lose_deliveries(broker: Broker) -> None:
    info = await broker.js.stream_info(streams.BODIES_STREAM)
    await broker.js.update_stream(info.config, discard="old", max_bytes=1 << 30)
    assert await said(broker, None) == [("error", f"stream {streams.BODIES_STREAM}"), ("warning", "spool")]
