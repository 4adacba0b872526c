"""What became of a mail, as the service that carries it tells: one event per recipient and step.

`mail_subject`, `sender`, `recipient`, `detail`, `url` and `raw` are personal data. No summary may show them: the audit
stream's message is for every reader.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from contracts.envelope import Event, Level
from contracts.version import Int64

MailSeverity = Literal["temporary", "permanent", "unknown"]
"""`temporary`: the carrier tries again. `permanent`: it has given up."""

MESSAGE_ID_CHARS_MAX = 512
"""Far above what mail programs write, and below what an index of Postgres can hold in any alphabet."""
MessageId = Annotated[str, Field(max_length=MESSAGE_ID_CHARS_MAX)]


class MailEvent(Event):
    """One step of a mail. `ref` is the step: `mailgun:<domain>/<timestamp text>/<event id>`."""

    service: ClassVar[str] = "mail"

    provider: str
    """Who carries the mail: `mailgun`."""
    domain: str
    """The sending domain, in lower case."""
    provider_event_id: str
    """The provider's own name of the event; `ref` says within what it is unique."""
    message_id: MessageId | None = None
    """The mail's Message-ID without its angle brackets."""
    mail_subject: str | None = None
    sender: str | None = None
    recipient: str | None = None
    """Whom this step is about; all recipients, separated by commas, where it is about the mail as a whole."""
    transport: str | None = None
    """How the mail travelled, in the provider's word: `smtp`, `http`. Host and port are in no event."""
    tags: list[str] = []
    test_mode: bool | None = None
    """True where the provider only pretends to deliver."""
    raw: str | None = None
    """The provider's own words about this step, as a JSON text; null where they are too long to be handed on."""

    @property
    def correlation(self) -> str | None:
        return self.message_id

    @property
    def summary(self) -> str:
        return f"{self.domain}: mail {self.type.partition('.')[2]}"


class MailAccepted(MailEvent):
    """The provider took the mail and will try to deliver it."""

    type: ClassVar[str] = "mail.accepted"


class DeliveryReport(MailEvent):
    """What the recipient's server answered."""

    code: Int64 | None = None
    """SMTP's code, or the provider's own beyond 600."""
    detail: str | None = None
    """The answer in words; it often names the recipient."""
    attempt_no: Int64 | None = None


class MailDelivered(DeliveryReport):
    """The recipient's server took the mail."""

    type: ClassVar[str] = "mail.delivered"


class MailFailed(DeliveryReport):
    """An attempt failed. Only `permanent` is the end of it."""

    type: ClassVar[str] = "mail.failed"

    severity: MailSeverity
    reason: str | None = None
    """The provider's word for the kind of failure: `bounce`, `suppress-bounce`, `generic`."""
    retry_after_s: Int64 | None = None

    @property
    def level(self) -> Level:
        return "warn" if self.severity == "temporary" else "error"

    @property
    def summary(self) -> str:
        return f"{self.domain}: mail failed, {self.severity} ({self.reason or 'no reason given'})"


class MailOpened(MailEvent):
    """A recipient opened the mail, as far as a picture in it can tell."""

    type: ClassVar[str] = "mail.opened"


class MailClicked(MailEvent):
    """A recipient followed a link of the mail."""

    type: ClassVar[str] = "mail.clicked"

    url: str | None = None


class MailComplained(MailEvent):
    """A recipient called the mail spam."""

    type: ClassVar[str] = "mail.complained"

    @property
    def level(self) -> Level:
        return "warn"


class MailUnsubscribed(MailEvent):
    """A recipient wants no more mail."""

    type: ClassVar[str] = "mail.unsubscribed"


class MailStored(MailEvent):
    """The provider keeps a mail that came in, to be fetched."""

    type: ClassVar[str] = "mail.stored"


class MailRejected(MailEvent):
    """The provider did not take the mail."""

    type: ClassVar[str] = "mail.rejected"

    detail: str | None = None
    """Why, in the provider's words."""

    @property
    def level(self) -> Level:
        return "error"
