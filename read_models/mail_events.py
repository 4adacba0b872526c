"""ops.mail_events: one row per step of a mail. Steps never change, so every column is a fact of it."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated

from contracts.mail import (
    DeliveryReport,
    MailAccepted,
    MailClicked,
    MailComplained,
    MailDelivered,
    MailEvent,
    MailFailed,
    MailOpened,
    MailRejected,
    MailStored,
    MailUnsubscribed,
)
from contracts.record import record
from read_models.port import EARLIEST, FACT, KEY, KNOWN_BETTER, PERSONAL, Index, ReadModel, Statement, on


@record
class Mail:
    """One step. `ref` is made of domain, timestamp text and event id, so webhook and Events API give one row.

    Where two statements of one step differ, the least value stands: of environments any other before `unknown`.
    """

    ref: Annotated[str, KEY]
    source: Annotated[str | None, FACT] = None
    provider: Annotated[str | None, FACT] = None
    domain: Annotated[str | None, FACT] = None
    provider_event_id: Annotated[str | None, FACT] = None
    event: Annotated[str | None, FACT] = None
    """`accepted`, `delivered`, `failed` …"""
    env: Annotated[str | None, FACT] = None
    message_id: Annotated[str | None, FACT] = None
    subject: Annotated[str | None, FACT, PERSONAL] = None
    sender: Annotated[str | None, FACT, PERSONAL] = None
    recipient: Annotated[str | None, FACT, PERSONAL] = None
    transport: Annotated[str | None, FACT] = None
    stamp: Annotated[datetime | None, FACT] = None
    """The provider's time of the step."""
    severity: Annotated[str | None, FACT] = None
    reason: Annotated[str | None, FACT] = None
    code: Annotated[int | None, FACT] = None
    detail: Annotated[str | None, FACT, PERSONAL] = None
    attempt_no: Annotated[int | None, FACT] = None
    url: Annotated[str | None, FACT, PERSONAL] = None
    tags: Annotated[str | None, FACT] = None
    """A JSON list: a fact has to be a scalar."""
    test_mode: Annotated[bool | None, FACT] = None
    raw: Annotated[str | None, FACT, PERSONAL, KNOWN_BETTER] = None
    """The provider's own words as a JSON text; `raw::jsonb` to look into it."""
    received_at: Annotated[datetime | None, EARLIEST] = None


def _row(statement: Statement[MailEvent]) -> Mail:
    event = statement.event
    report = event if isinstance(event, DeliveryReport) else None
    failure = event if isinstance(event, MailFailed) else None
    return Mail(
        ref=event.ref,
        source=event.source,
        provider=event.provider,
        domain=event.domain,
        provider_event_id=event.provider_event_id,
        event=event.type.partition(".")[2],
        env=event.env,
        message_id=event.message_id,
        subject=event.mail_subject,
        sender=event.sender,
        recipient=event.recipient,
        transport=event.transport,
        stamp=event.occurred_at,
        severity=failure.severity if failure else None,
        reason=failure.reason if failure else None,
        code=report.code if report else None,
        detail=event.detail if isinstance(event, (DeliveryReport, MailRejected)) else None,
        attempt_no=report.attempt_no if report else None,
        url=event.url if isinstance(event, MailClicked) else None,
        tags=json.dumps(event.tags, ensure_ascii=False, separators=(",", ":")) if event.tags else None,
        test_mode=event.test_mode,
        raw=event.raw,
        received_at=statement.received_at,
    )


READ_MODEL = ReadModel(
    name="mail_events",
    row=Mail,
    folds=on(
        MailAccepted,
        MailDelivered,
        MailFailed,
        MailOpened,
        MailClicked,
        MailComplained,
        MailUnsubscribed,
        MailStored,
        MailRejected,
        fold=_row,
    ),
    ref_column="ref",
    indexes=(
        Index("mail_events_message_id", ("message_id",)),
        Index("mail_events_env", ("env", "stamp")),
        Index("mail_events_stamp", ("stamp",)),
    ),
)
