"""What the conformance suite needs of a provider: each has a `tests/providers/<name>/cases.py` with one CASE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from contracts.delivery import Delivery, Via
from providers.port import Secret, Source
from tests.providers.driving import delivery_of


@dataclass(frozen=True)
class Sample:
    """One recorded body. `event` is what its sender calls it, `kind` what the log calls it (`event` unless given)."""

    name: str
    body: bytes = field(repr=False)
    event: str
    kind: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    """The headers that the log keeps with it."""
    via: Via = "webhook"


@dataclass(frozen=True)
class Case:
    """A provider as one source of it would be declared, and everything recorded of it."""

    source: Source
    samples: Sequence[Sample]
    secret: Secret | None = None
    """None where it sends no requests."""
    signs_the_body: bool = True
    """False where whoever knows a header or a token may attach it to any body."""

    def delivery(self, sample: Sample, body: bytes | None = None, seq: int = 1) -> Delivery:
        """A sample as the log would hold it, perhaps with another body."""
        return delivery_of(
            self.source,
            sample.kind or sample.event,
            sample.body if body is None else body,
            headers=sample.headers,
            identity=f"id-{sample.name}",
            via=sample.via,
            seq=seq,
        )
