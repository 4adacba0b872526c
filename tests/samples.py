"""Real GitHub deliveries as the log would hold them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from contracts.delivery import Delivery, body_sha256
from providers.registry import sources
from runtime import ssot

FIXTURES = Path(__file__).parent / "providers" / "github" / "fixtures"
SOURCES = sources(ssot.load(Path(__file__).parents[1] / "ssot"))
"""The sources as the repository's own SSOT declares them."""
RECEIVED_AT = datetime(2026, 11, 1, 12, tzinfo=UTC)


def paths(*events: str) -> list[Path]:
    """The recorded bodies of some events, or of all, in a fixed order."""
    return [path for path in sorted(FIXTURES.glob("*/*.json")) if not events or path.parent.name in events]


def body(name: str) -> bytes:
    """A recorded body by its file's name: `issues.opened.15`."""
    event = name.split(".")[0]
    return (FIXTURES / event / f"{name}.json").read_bytes()


def delivery(event: str, raw: bytes, seq: int, identity: str | None = None) -> Delivery:
    """`raw` as GitHub's delivery at `seq`."""
    return Delivery(
        source="github",
        identity=identity or f"guid-{seq}",
        kind=event,
        via="webhook",
        received_at=RECEIVED_AT,
        body=raw,
        body_sha256=body_sha256(raw),
        verified_by="GITHUB_WEBHOOK_SECRET",
        headers={"x-github-event": event, "content-type": "application/json"},
        seq=seq,
    )


def log(chosen: Sequence[Path], first_seq: int = 1) -> list[Delivery]:
    """One delivery for each recorded body, in the order given."""
    return [delivery(path.parent.name, path.read_bytes(), seq) for seq, path in enumerate(chosen, first_seq)]


def at(given: Delivery, seq: int, identity: str | None = None) -> Delivery:
    """The same delivery once more, elsewhere in the log, perhaps under another identity."""
    return replace(given, seq=seq, identity=identity or given.identity)
