"""What a provider must supply: how its requests are verified and what its deliveries mean. No I/O.

A provider is a value. `runtime` and `services` drive it; it never sees a socket, a clock or the environment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from contracts.delivery import Delivery
from contracts.envelope import Event


class Refused(Exception):
    """A request that is not taken. `status` is the HTTP answer, `reason` a slug, the message one sentence."""

    def __init__(self, status: int, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.reason = reason


class Ignored(Exception):
    """A delivery that is understood and carries nothing for us. The reason is a slug, e.g. `no_such_event`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Unintelligible(Exception):
    """A delivery to be parked. The reason is a slug, e.g. `shape_mismatch`; the message says what is wrong."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret and the name it goes by in tables and logs. The value is never shown."""

    name: str
    value: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What verification found out about a request whose body may be stored."""

    identity: str
    kind: str
    verified_by: str | None


class Verification(Protocol):
    """One request being verified while its body streams in."""

    def update(self, chunk: bytes) -> None:
        """Take the next bytes of the raw body."""

    def finish(self, body: bytes) -> Receipt:
        """Judge the whole request; `body` is all chunks joined. Raises Refused."""


Verify = Callable[[Mapping[str, str], Sequence[Secret]], Verification]
"""Opens the verification of a request, given its headers (lower-cased names) and the secrets that may have
signed it. Raises Refused at once where the headers alone decide."""

Normalize = Callable[[Delivery], Iterable[Event]]
"""What a delivery means, in order. Raises Ignored or Unintelligible. Pure: equal deliveries, equal events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An HTTP answer in JSON."""

    status: int
    body: Mapping[str, object]
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What became of a delivery at the door: stored at `seq`, or known to the broker already."""

    delivery: Delivery
    seq: int
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request was, besides its body: `method` as sent, `headers` by lower-cased name."""

    method: str
    headers: Mapping[str, str]


ShapeAnswer = Callable[[Stored | Refused, Asked], Answer]
"""The answer to what became of a request. Any method but POST comes here as Refused(405): a provider whose
sender asks before it posts (OPTIONS) answers that here, from the headers; one whose sender wants a word of its
body back finds the body in `Stored.delivery`."""


def answer(outcome: Stored | Refused, asked: Asked) -> Answer:
    """The answer that a sender gets unless its provider shapes its own."""
    if isinstance(outcome, Stored):
        return Answer(
            status=200,
            body={
                "ok": True,
                "delivery": outcome.delivery.name,
                "seq": outcome.seq,
                "duplicate": outcome.duplicate,
            },
        )
    return Answer(
        status=outcome.status,
        body={"ok": False, "error": str(outcome), "code": outcome.status, "reason": outcome.reason},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One sender of deliveries. `headers` are the request headers that its deliveries keep, lower-cased."""

    name: str
    headers: tuple[str, ...]
    verify: Verify
    normalize: Normalize
    request_headers: Callable[[bytes, Secret, str, str], Mapping[str, str]]
    """All headers of the request by which the sender would deliver this body, as this event (or kind) and under
    this delivery id: for the CLI's `send`, the demo and the tests."""
    answer: ShapeAnswer = answer
