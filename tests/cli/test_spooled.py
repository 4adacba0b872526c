"""What `odooops status` says about the spool."""

from __future__ import annotations

import math

import pytest

from cli import status
from cli.report import Report
from runtime import ports, streams

DAMAGED = "a part of each could not be read, see docs/runbooks/spool.md"

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("waiting", "damaged", "lines"),
    [
        (0, 0, []),
        (
            2_000_000,
            0,
            [("warning", "2,000,000 bytes of deliveries wait to get into the log, 0% of its room")],
        ),
        (
            streams.SPOOL_BYTES_MAX // 2,
            streams.SPOOL_BYTES_MAX // 2,
            [
                (
                    "bad",
                    "files *.damaged of 500,000,000 bytes: " + DAMAGED,
                ),
                ("bad", "500,000,000 bytes of deliveries wait to get into the log, 100% of its room"),
            ],
        ),
        (math.nan, math.nan, [("unknown", "ingest cannot read its folder: its log says why")]),
        (None, None, []),
    ],
)
async def test_what_waits_what_is_damaged_and_what_is_not_known_are_told_apart(
    monkeypatch: pytest.MonkeyPatch,
    waiting: float | None,
    damaged: float | None,
    lines: list[tuple[str, str]],
) -> None:
    values = {status.SPOOL: waiting, status.DAMAGED: damaged}

    async def metrics_at(host: str, port: int, name: str) -> list[tuple[dict[str, str], float]] | None:
        value = values[name]
        return None if value is None else [({}, value)]

    monkeypatch.setattr(ports, "metrics_at", metrics_at)
    report = Report()
    await status.spooled("127.0.0.1", 1, report)
    assert [(line.state, line.text) for line in report.lines] == lines
    assert {line.part for line in report.lines} <= {"spool"}
