"""Events: typed, past-tense, provider-independent facts, and their CloudEvents 1.0 form on NATS.

An event's id derives from the fact alone, so that webhook, poll and re-delivery of one fact give one id.
Wire form: CloudEvents 1.0, NATS binary mode (`ce-*` headers, JSON data), by the CloudEvents NATS binding:
https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/nats-protocol-binding.md
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import quote
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict

from contracts.version import Moment

Level = Literal["debug", "info", "warn", "error"]
Env = Literal["prod", "stage", "dev", "unknown"]
"""Environments, by the rules of ssot/environments.yaml; `unknown` where none of them fits."""

SHORT_CHARS_MAX = 500
WORD_CHARS_MAX = 200
Short = Annotated[str, AfterValidator(lambda said: said[:SHORT_CHARS_MAX])]
"""A name that is looked up by, cut after 500 characters: an index takes 2.7 KB. The delivery has all of it."""
Word = Annotated[str, AfterValidator(lambda said: said[:WORD_CHARS_MAX])]
"""A name that is looked up by together with two others, cut after 200 characters."""

SUBJECT_ROOT = "events"
SPEC_VERSION = "1.0"
CONTENT_TYPE = "application/json"
NAMESPACE = UUID("6f7a1c52-9d0e-5a9b-8c53-0d1b8a6f4e21")
"""The uuid5 namespace of event ids. It never changes: every stored id depends on it."""

_UNSAFE_IN_HEADER = re.compile(r"[^!#$&-~]+")


_VARIANT = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))


def _uuid5(name: str) -> str:
    """`str(uuid5(NAMESPACE, name))` without making a UUID, which takes twice as long."""
    digits = hashlib.sha1(NAMESPACE.bytes + name.encode(), usedforsecurity=False).hexdigest()
    variant = _VARIANT[digits[16]]
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"


class Event(BaseModel):
    """What every event states. Subclasses add the family's fields and set `type`, `<family>.<verb>`."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True, defer_build=True)
    type: ClassVar[str]
    service: ClassVar[str]
    """Which part of the platform the family belongs to: `ci`, `deploy`, `work` …"""

    source: str
    """Which provider told us: `github`."""
    ref: str
    """Stable name of the thing that the event is about."""
    moment: Moment
    """When the fact was true, and how late in the thing's life: see contracts/version.py."""
    fact: str = ""
    """The provider's own event id, or what tells apart two facts of one type, ref and moment."""
    occurred_at: AwareDatetime
    """The provider's time of the fact; where it gives none, the time of receipt."""
    actor: Short | None = None
    """Who did it, by the provider's account name."""
    env: Env | None = None
    """The environment that it is about; null where the thing belongs to none."""

    @cached_property
    def id(self) -> str:
        """One id per fact: uuid5 of type, ref, moment and fact."""
        return _uuid5("\x1f".join((self.type, self.ref, repr(self.moment), self.fact)))

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy, with an id of its own where `update` makes it another fact."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("id", None)
        return copied

    @property
    def summary(self) -> str:
        """One line for a person who reads a log. May hold provider text: escape it where it is shown."""
        return self.type

    @property
    def level(self) -> Level:
        """How much a person should care."""
        return "info"

    @property
    def correlation(self) -> str | None:
        """What ties events of several things together: the commit, where there is one."""
        return None

    @property
    def subject(self) -> str:
        """Where it is published: `events.<family>.<verb>`."""
        return f"{SUBJECT_ROOT}.{self.type}"


_LEVELS: dict[str, Level] = {
    "failed": "error",
    "action_required": "warn",
    "cancelled": "warn",
    "unknown": "warn",
}


class RunEvent(Event):
    """An event about something that runs and ends: it belongs in `ops.run_events` too."""

    @property
    def step(self) -> str | None:
        """Which part of the run, where the event is about one part only."""
        return None

    @property
    def outcome(self) -> str | None:
        """The normalised state that the run is in by this event."""
        return None

    @property
    def level(self) -> Level:
        return _LEVELS.get(self.outcome or "", "info")


TRACEPARENT = "ce-traceparent"
"""CloudEvents' extension for distributed tracing: by which span it was published. Only where that was traced."""
REPLAYED = "ce-replayed"
"""Marks an event that was sent before: the replay by which an operator sent it again."""


def to_headers(event: Event, delivery: str, replayed: str | None = None) -> dict[str, str]:
    """The message headers of `event`, caused by `delivery` (`source:identity`).

    `replayed` is the run of a replay that sends it again: a message of its own with the id of the same fact.
    """
    if replayed is not None:
        again = {"Nats-Msg-Id": f"replay:{replayed}:{event.id}", REPLAYED: replayed}
        return {**to_headers(event, delivery), **again}
    return {
        "Nats-Msg-Id": event.id,
        # Libraries that know no CloudEvents, FastStream among them, decode by this one.
        "content-type": CONTENT_TYPE,
        "ce-specversion": SPEC_VERSION,
        "ce-id": event.id,
        "ce-source": header_value(f"odooops/{event.source}"),
        "ce-type": event.type,
        "ce-subject": header_value(event.ref),
        "ce-time": event.occurred_at.isoformat(),
        "ce-datacontenttype": CONTENT_TYPE,
        "ce-delivery": header_value(delivery),
    }


def header_value(text: str) -> str:
    """`text` as a CloudEvents header value: percent-encoded but for printable ASCII without space, `"` and `%`.

    Sent as it is, it would not arrive: the client strips it and turns line ends into spaces.
    """
    return _UNSAFE_IN_HEADER.sub(lambda unsafe: quote(unsafe[0], safe=""), text)
