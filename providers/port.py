"""What a provider must supply: how its requests are verified and what its deliveries mean. No I/O.

A provider is a value. `runtime` and `services` drive it; it never sees a socket, a clock or the environment.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel, ValidationError

from contracts.delivery import Delivery
from contracts.envelope import Event
from contracts.ssot import Environments, ProviderFile, Strict

if TYPE_CHECKING:
    from providers.polling import Polling


class Refused(Exception):
    """A request that is not taken. `status` is the HTTP answer, `reason` a slug, the message one sentence."""

    def __init__(self, status: int, reason: str, sentence: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.reason = reason
        self.retry_after_s = retry_after_s
        """When it may come again; None where the status says it all."""


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
class Request:
    """A request without its body: `headers` by lower-cased name, `query` undecoded and without the `?`."""

    method: str
    headers: Mapping[str, str] = field(repr=False)
    query: str = field(default="", repr=False)
    received_at: datetime
    """When its head had arrived: what the age of a signature is measured by."""
    receipt_id: str
    """Made for this request alone: the identity of a delivery whose sender gives none and does not retry."""


class NoOptions(Strict):
    """The options of a provider that knows none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A sender as SSOT declares it. One provider may serve several: they share its code, not their secrets."""

    name: str
    provider: Provider
    file: ProviderFile
    options: Any
    """What `options` in its file says, as the model that its provider names."""
    environments: Environments = field(default_factory=Environments)


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


Verify = Callable[[Request, Source, Sequence[Secret]], Verification]
"""Opens the verification of a request, given the secrets that may have signed it. Raises Refused at once where
the head alone decides."""

Normalize = Callable[[Delivery, Source], Iterable[Event]]
"""What a delivery of a source means, in order. Raises Ignored or Unintelligible. Pure: equal deliveries of equal
sources, equal events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing that the answer of a provider's API shows.

    `body` is what may be stored of it: see contracts/observation.py.
    """

    ref: str
    kind: str
    body: bytes = field(repr=False)
    undated: bool = False
    """Whether it has no time of its own, though webhooks tell of it, too: then the same content is news again if a
    webhook said something else meanwhile, so a poll stores it each time."""


Items = Callable[[str, str, bytes], list[Item]]
"""The items of one page, given its kind (`droplets`), its scope and the answer's body; what must not be stored is
removed from them. Raises Unintelligible."""


Total = Callable[[bytes], int | None]
"""How many things the whole listing has, by the word of one of its pages; None where the page does not say. Raises
Unintelligible for an answer that is no page of a listing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """What is to be delivered as if by its sender: `event` is its name for the kind, `at` the time to sign with."""

    body: bytes = field(repr=False)
    event: str
    delivery: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Composed:
    """A request as its sender would make it. `query` is without the `?`."""

    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    query: str = field(default="", repr=False)


Compose = Callable[[Parcel, Source, Secret], Composed]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An HTTP answer in JSON."""

    status: int
    body: Mapping[str, object]
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What became of a delivery at the door: stored at `seq`, or known to the broker already, or in the spool."""

    delivery: Delivery
    seq: int | None
    """None where it is in the spool."""
    duplicate: bool


ShapeAnswer = Callable[[Stored | Refused, Request], Answer]
"""The answer to what became of a request. Any method but POST comes here as Refused(405); a provider whose sender
wants a word of its body back finds the body in `Stored.delivery`."""

Handshake = Callable[[Request, Source], Answer | None]
"""The answer to a sender that asks by OPTIONS whether it may post, as the source's options say. None where it asked
for something else."""


def answer(outcome: Stored | Refused, asked: Request) -> Answer:
    """The answer that a sender gets unless its provider shapes its own."""
    if isinstance(outcome, Stored):
        where = (
            {"spooled": True} if outcome.seq is None else {"seq": outcome.seq, "duplicate": outcome.duplicate}
        )
        return Answer(status=200, body={"ok": True, "delivery": outcome.delivery.name, **where})
    return Answer(
        status=outcome.status,
        body={"ok": False, "error": str(outcome), "code": outcome.status, "reason": outcome.reason},
    )


def no_problem(file: ProviderFile, options: Any) -> str | None:
    """For a provider whose options say by themselves whether they are right."""
    return None


PROBLEMS_SHOWN_MAX = 3


def problems_of(error: ValidationError) -> str:
    """Where a body differs from its model, by field and kind of problem, never by value."""
    problems = [
        f"{'.'.join(map(str, problem['loc'])) or 'the whole'} ({problem['type']})"
        for problem in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    shown = ", ".join(problems[:PROBLEMS_SHOWN_MAX])
    hidden = len(problems) - PROBLEMS_SHOWN_MAX
    return f"{shown} and {hidden} more" if hidden > 0 else shown


def secret_text(random: bytes) -> str:
    """A secret that is nothing but text: base64url without padding."""
    return urlsafe_b64encode(random).decode().rstrip("=")


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """The code for one kind of sender."""

    name: str
    headers: tuple[str, ...] = ()
    """Request headers that its deliveries keep, lower-cased; one that ends in `*` stands for all that begin so."""
    verify: Verify | None
    """None where it sends no requests."""
    normalize: Normalize
    compose: Compose | None
    """The request by which the sender would deliver a body: for the CLI's `send`, the demo and the tests."""
    answer: ShapeAnswer = answer
    answer_s_max: float | None = None
    """How long its sender waits for the answer, where that is less than the others do."""
    may_be_unsigned: bool = False
    """Whether its senders may be unable to prove who they are, so that a source may say `unsigned: true`."""
    new_secret: Callable[[bytes], str] = secret_text
    """A secret made of random bytes, in the form in which the sender takes it."""
    handshake: Handshake | None = None
    """None where its senders post without asking."""
    options: type[BaseModel] = NoOptions
    """What `options` in a source's file may say."""
    problem: Callable[[ProviderFile, Any], str | None] = no_problem
    """What does not fit between a source's file and its valid options, and the fix; None where all does."""
    items: Items | None = None
    """None where its API is not read."""
    total: Total | None = None
    """None where the pages of its listings do not say how many things there are."""
    polling: Polling | None = None
    """None where its API is not polled."""
