"""The fields of Mailgun's events that we use, and no others. Webhook and Events API show an event alike.

Shapes: https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/webhook-payloads
Only `event`, `timestamp` and `id` are promised for every event; all else may be missing or null.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from contracts.mail import MESSAGE_ID_CHARS_MAX
from contracts.version import Int64
from providers.mailgun.options import DOMAIN_PATTERN

TIMESTAMP_S_MAX = 253_402_300_800
"""The end of the year 9999."""

DomainName = Annotated[str, StringConstraints(to_lower=True, pattern=DOMAIN_PATTERN)]


class Upstream(BaseModel):
    """Any object that Mailgun sends: names in lower case, their words joined by hyphens."""

    model_config = ConfigDict(
        extra="ignore", frozen=True, alias_generator=lambda name: name.rstrip("_").replace("_", "-")
    )


class Headers(Upstream):
    """Those of the mail. Opened, clicked and unsubscribed show the Message-ID alone."""

    message_id: str | None = Field(default=None, max_length=MESSAGE_ID_CHARS_MAX)
    subject: str | None = None
    from_: str | None = None
    to: str | None = None


class Message(Upstream):
    headers: Headers | None = None
    recipients: list[str] | None = Field(default=None, fail_fast=True)


class Envelope(Upstream):
    sender: str | None = None
    transport: str | None = None


class DeliveryStatus(Upstream):
    code: Int64 | None = None
    message: str | None = None
    description: str | None = None
    attempt_no: Int64 | None = None
    retry_seconds: Int64 | None = None


class Reject(Upstream):
    reason: str | None = None
    description: str | None = None


class Domain(Upstream):
    name: DomainName | None = None


class Flags(Upstream):
    is_test_mode: bool | None = None


class EventData(Upstream):
    """One event."""

    event: str
    id: str = Field(pattern=r"^[\x21-\x7e]{1,200}$")
    timestamp: float = Field(ge=0, lt=TIMESTAMP_S_MAX, allow_inf_nan=False)
    domain: Domain | None = None
    severity: str | None = None
    reason: str | None = None
    recipient: str | None = None
    method: str | None = None
    url: str | None = None
    tags: list[str] | None = Field(default=None, fail_fast=True)
    user_variables: dict[str, Any] | None = None
    envelope: Envelope | None = None
    message: Message | None = None
    delivery_status: DeliveryStatus | None = None
    reject: Reject | None = None
    flags: Flags | None = None

    @property
    def timestamp_text(self) -> str:
        """The timestamp as the one text that stands for it: shortest, without exponent, no zeros at its end.

        Mailgun's number is a double. Whoever prints it faithfully prints something that reads back as the same
        double, be it with more digits, with a zero at the end or as a whole number; so all of them give this text.
        """
        text = format(Decimal(repr(self.timestamp)), "f")
        return text.rstrip("0").rstrip(".") if "." in text else text


class Notification(Upstream):
    """A webhook's body. The event is kept whole: it is evidence."""

    event_data: dict[str, Any]


class Observed(Upstream):
    """An event that a poll found: see contracts/observation.py."""

    item: dict[str, Any]
    scope: str


class Paging(Upstream):
    """Addresses. There always is a next one: after the last page it shows an empty one."""

    next: str | None = None


class Page(Upstream):
    """An answer of the Events API."""

    items: list[dict[str, Any]] = Field(fail_fast=True)
    paging: Paging | None = None
