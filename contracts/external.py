"""What any other sender says: kept whole as a delivery, and told in one event."""

from __future__ import annotations

import hashlib
from typing import ClassVar

from pydantic import Field

from contracts.delivery import IDENTITY_CHARS_MAX, MalformedName, subject_token
from contracts.envelope import Event, header_value

KIND_CHARS_MAX = 200
TITLE_CHARS_MAX = 300
NAME_CHARS_MAX = 500
TOKENS_COUNT_MAX = 8
MESSAGE = "message"
"""The kind of what does not say what it is."""


class ExternalReceived(Event):
    """A sender that has no events of its own here said something. What it said is in the delivery.

    `ref` is the thing, where the source says how to find it (`grafana:disk-full`), else the message
    (`example:contact.created/msg_2b`); of CloudEvents `<source>:<ce-source>#<ce-id>`. Long ones end in a hash.
    """

    type: ClassVar[str] = "external.received"
    service: ClassVar[str] = "external"

    kind: str = Field(max_length=KIND_CHARS_MAX)
    """What the sender calls it: `contact.created`; `message` where it gives no name."""
    external_id: str | None = Field(default=None, max_length=NAME_CHARS_MAX)
    """The sender's own id of the message. Null where it gives none."""
    origin: str | None = Field(default=None, max_length=NAME_CHARS_MAX)
    """Which part of the sender said it: the `source` of a CloudEvent."""
    about: str | None = Field(default=None, max_length=NAME_CHARS_MAX)
    """What it is about, in the sender's words: the `subject` of a CloudEvent."""
    title: str | None = Field(default=None, max_length=TITLE_CHARS_MAX)
    """One line for people, where the source says which field holds it."""

    @property
    def summary(self) -> str:
        words = (f"{self.source}: {self.kind}", self.title or self.about)
        return ": ".join(word for word in words if word)


def cut(text: str | None, chars_max: int) -> str | None:
    """`text` as far as there is room for it; None for nothing."""
    return text[:chars_max] if text else None


def kind_of(word: str | None) -> str:
    """A sender's word for a kind as subject tokens, `contact.created`; `message` where none can be made of it."""
    if not word or len(word) > KIND_CHARS_MAX:
        return MESSAGE
    tokens = word.split(".")
    if len(tokens) > TOKENS_COUNT_MAX:
        return MESSAGE
    try:
        return ".".join(subject_token(token) for token in tokens)
    except MalformedName:
        return MESSAGE


def stable_name(*parts: str) -> str:
    """Any parts as one name that may be an identity and stand in a ref: equal for equal parts only.

    They are joined by `#` and percent-encoded where they are no printable ASCII; a long name becomes its hash.
    """
    name = "#".join([header_value(parts[0]), *(header_value(part).replace("#", "%23") for part in parts[1:])])
    if len(name) <= IDENTITY_CHARS_MAX:
        return name
    return f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"
