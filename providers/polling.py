"""What a provider supplies so that its API can be polled, and the steps of a poll. No I/O.

A part of a poll is a generator: it yields what is to be done and is sent what came of it. So it reads like the
conversation that it is, while sockets, clocks, secrets, retries, limits and memory stay with whoever drives it
(services/poller). A step that fails is raised where it was yielded, as Failed: a part that lets it through ends there,
and the other parts of the run go on.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from contracts.envelope import Event
from contracts.text import NotJson, decode
from contracts.times import instant
from providers.port import Item, Source, Unintelligible


class Failed(Exception):
    """A step that could not be done. The reason is a slug, e.g. `http_403`; the message one sentence, no secrets."""

    def __init__(self, reason: str, sentence: str, status: int | None = None) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.status = status
        """The HTTP status of the answer, where there was one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request. It is sent a Reply.

    `path` begins with `/` and is put behind the API's address, or is a whole address of the same origin, as a page
    names the next one. An answer that is neither 2xx nor in `also` is Failed, after at most 5 attempts.
    """

    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    method: Literal["GET", "POST"] = "GET"
    also: frozenset[int] = frozenset()
    """Other statuses that are an answer, not a failure: 404 where a thing may be gone, 304 with `etag`."""
    etag: str | None = None
    """Sent as If-None-Match."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The answer to an Ask. Header names are lower-cased."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    asked_at: datetime
    fetched_at: datetime

    def json(self) -> Any:
        """The decoded body; raises Failed."""
        try:
            return decode(self.body)
        except (NotJson, RecursionError):
            raise Failed("not_json", "an answer is not JSON") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Show:
    """Things that were seen. Each whose content is not the one last stored becomes a delivery. It is sent None."""

    items: Sequence[Item]
    fetched_at: datetime
    listing: str | None = None
    """The scope whose whole listing shows them while they are there: Known has them from now on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A scope was read to its end: what it did not show is gone. It is sent None.

    Only for a listing that is known to be whole. `shown` has the refs by kind; a kind of which there is none has an
    empty list. `began_at` is when its first page was asked for.
    """

    scope: str
    shown: Mapping[str, Sequence[str]]
    began_at: datetime


@dataclass(frozen=True, slots=True)
class Known:
    """Which refs the last whole listing of this scope showed, and what was seen since that it would show.

    It is sent a frozenset, empty where nothing is known.
    """

    scope: str


@dataclass(frozen=True, slots=True)
class Say:
    """Something that we say ourselves: a health check's result, a figure, an alarm. It is sent None."""

    event: Event


@dataclass(frozen=True, slots=True)
class Keep:
    """What the part wants to know the next time, a JSON object of at most 64 KB. It is sent None.

    It is stored when all that was shown and said before is. A dry run, and a run with `since`, keep nothing.
    """

    state: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Warn:
    """Something that makes the run `partial` and does not end the part, in one sentence. It is sent None."""

    reason: str
    sentence: str


Step = Ask | Show | Listed | Known | Say | Keep | Warn
Steps = Generator[Step, Any, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a part is told when it begins."""

    source: Source
    scope: str
    started_at: datetime
    """When the run began."""
    since: datetime | None = None
    """From when on an operator wants things read again; None for what is due."""
    state: Mapping[str, Any] = field(default_factory=dict)
    """What the part kept last; empty the first time."""


Part = Callable[[Look], Steps]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What one run polls: `repos/<org>/<repo>`, `droplets`. Its parts, by name, are read one after the other."""

    name: str
    parts: Mapping[str, Part]
    every_s: int | None = None
    """How often it is due, where not as often as its source."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What an answer says of the requests that are left, of how many, and in how many seconds all are there again."""

    left: int
    of: int
    renewed_in_s: float


Allow = Callable[[Mapping[str, str], datetime], Allowance | None]
"""The allowance that the headers of an answer state, given when it was fetched; None where they state none."""


def no_allowance(headers: Mapping[str, str], fetched_at: datetime) -> Allowance | None:
    """For an API that states none."""
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Polling:
    """How an API is polled."""

    scopes: Callable[[Source], Sequence[Scope]]
    """What is to be polled of a source, by its options; nothing where they name nothing."""
    allowance: Allow = no_allowance
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent with each request: the version of the API."""


def why_not_polled(source: Source, secret_set: bool) -> str | None:
    """Why a source whose file names an API is not polled, and the fix, in one sentence; None where it is.

    `secret_set` says whether its API's secret is. Of a source without an API there is nothing to say: None.
    """
    api, polling = source.file.api, source.provider.polling
    if api is None or polling is None:
        return None
    missing = [] if secret_set else [f"set {api.secret} (or {api.secret}_FILE)"]
    if not polling.scopes(source):
        missing.append(f"name what to poll in the options of ssot/providers/{source.name}.yaml")
    return f"not polled: {', and '.join(missing)}" if missing else None


def ask(request: Ask) -> Generator[Step, Any, Reply]:
    """The reply to a request: `reply = yield from ask(Ask(path="/user"))`."""
    reply: Reply = yield request
    return reply


def shown(look: Look, kind: str, reply: Reply, listing: str | None = None) -> Show:
    """The step that shows the things of an answer, as the provider's `items` cuts it; raises Failed.

    `listing` is the scope that they were found in, where it is not the run's own, and whose listing shows them.
    """
    items = look.source.provider.items
    if items is None:
        raise Failed("no_items", f"{look.source.name} shows nothing by its API")
    try:
        found = items(kind, listing or look.scope, reply.body)
    except Unintelligible as error:
        raise Failed(error.reason, str(error), reply.status) from None
    return Show(items=found, fetched_at=reply.fetched_at, listing=listing)


def rate_limit(prefix: str = "x-ratelimit", *, of: int | None = None, counts_down: bool = False) -> Allow:
    """An allowance by the headers `<prefix>-limit`, `-remaining` and `-reset`, the last in seconds since 1970.

    `of` is the least that there is of an API that states no limit. With `counts_down`, the reset is in seconds.
    """

    def allowance(headers: Mapping[str, str], fetched_at: datetime) -> Allowance | None:
        left, limit = (_count(headers.get(f"{prefix}-{name}")) for name in ("remaining", "limit"))
        renewed_in_s = _renewed_in_s(headers.get(f"{prefix}-reset"), fetched_at, counts_down=counts_down)
        if left is None or renewed_in_s is None or (limit is None and of is None):
            return None
        return Allowance(left, max(left, of or 0) if limit is None else limit, max(0.0, renewed_in_s))

    return allowance


def _renewed_in_s(stated: str | None, fetched_at: datetime, *, counts_down: bool) -> float | None:
    if counts_down:
        return _count(stated)
    renewed_at = instant(stated, "s")
    return None if renewed_at is None else (renewed_at - fetched_at).total_seconds()


def _count(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 10 else None
