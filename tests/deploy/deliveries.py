"""Deliveries to store: one that a message carries, one whose body goes into the object store in several pieces."""

from __future__ import annotations

import random
from datetime import UTC, datetime

from contracts.delivery import Delivery, body_sha256
from runtime import streams

SMALL = b'{"zen": "Keep it logically awesome."}'
LARGE = random.Random(95).randbytes(5 * streams.BODY_PIECE_BYTES // 2)  # does not compress: three pieces


def delivery(identity: str, body: bytes = SMALL) -> Delivery:
    """A delivery as ingest makes it."""
    return Delivery(
        source="github",
        identity=identity,
        kind="ping",
        via="webhook",
        received_at=datetime(2026, 11, 22, tzinfo=UTC),
        body=body,
        body_sha256=body_sha256(body),
    )
