"""What a delivery from Mailgun means: one step of one mail, the same by webhook and by the Events API."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from contracts.delivery import Delivery, media_type
from contracts.envelope import Event
from contracts.mail import (
    MailAccepted,
    MailClicked,
    MailComplained,
    MailDelivered,
    MailEvent,
    MailFailed,
    MailOpened,
    MailRejected,
    MailSeverity,
    MailStored,
    MailUnsubscribed,
)
from contracts.observation import observed_kind
from contracts.text import NotJson, parse
from contracts.version import from_micros, moment
from providers.mailgun.body import FORM_TYPE, MalformedForm, form_of
from providers.mailgun.forms import event_of, words_of
from providers.mailgun.payloads import EventData, Headers, Notification, Observed
from providers.mailgun.poll import EVENT, domain_of, ref_of
from providers.mailgun.verify import CONTENT_TYPE
from providers.port import Ignored, Source, Unintelligible, problems_of

PROVIDER = "mailgun"
MICROSECONDS = 1_000_000
RAW_BYTES_MAX = 24 * 1024
"""An event may have 64 KB as JSON, in which the quotes of `raw` are escaped. The delivery has all words."""

_WORDS = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False
)

SEVERITIES: Mapping[str | None, MailSeverity] = {"temporary": "temporary", "permanent": "permanent"}


@dataclass(frozen=True, slots=True)
class Said:
    """An event's fields, the provider's words, and the domain that they do not name themselves."""

    data: EventData
    words: Mapping[str, Any]
    domain: str | None


@dataclass(frozen=True, slots=True)
class Kind:
    """One event name: the event that it is, and what such an event states besides."""

    event: type[MailEvent]
    stated: Callable[[EventData], dict[str, Any]] = lambda data: {}


def _report(data: EventData) -> dict[str, Any]:
    status = data.delivery_status
    if status is None:
        return {}
    return {
        "code": status.code,
        "detail": status.message or status.description or None,
        "attempt_no": status.attempt_no,
    }


def _failure(data: EventData) -> dict[str, Any]:
    status = data.delivery_status
    return {
        **_report(data),
        "severity": SEVERITIES.get(data.severity, "unknown"),
        "reason": data.reason or None,
        "retry_after_s": status.retry_seconds if status else None,
    }


def _rejection(data: EventData) -> dict[str, Any]:
    reject = data.reject
    return {"detail": (reject.reason or reject.description or None) if reject else None}


KINDS: Mapping[str, Kind] = {
    "accepted": Kind(MailAccepted),
    "delivered": Kind(MailDelivered, _report),
    "failed": Kind(MailFailed, _failure),
    "opened": Kind(MailOpened),
    "clicked": Kind(MailClicked, lambda data: {"url": data.url or None}),
    "complained": Kind(MailComplained),
    "unsubscribed": Kind(MailUnsubscribed),
    "stored": Kind(MailStored),
    "rejected": Kind(MailRejected, _rejection),
}


def normalize(delivery: Delivery, source: Source) -> list[Event]:
    """The one event of a delivery; raises Ignored where it is none of ours, Unintelligible to have it parked."""
    try:
        said = _read(delivery, source)
        kind = KINDS.get(said.data.event)
        if kind is None:
            raise Ignored("no_such_event")
        return [_event(kind, said, delivery, source)]
    except (MalformedForm, NotJson) as error:
        raise Unintelligible(
            "not_json", f"The body of this {delivery.kind} cannot be read: {error}."
        ) from None
    except ValidationError as error:
        raise Unintelligible(
            "shape_mismatch", f"This is not a body of {delivery.kind}: {problems_of(error)}."
        ) from None


def _read(delivery: Delivery, source: Source) -> Said:
    """What a delivery says, however it came."""
    if delivery.kind == observed_kind(EVENT):
        shown = parse(Observed, delivery.body)
        return Said(EventData.model_validate(shown.item), shown.item, domain_of(shown.scope))
    declared: str | None = source.options.domain
    if media_type(delivery.headers.get(CONTENT_TYPE, "")) == FORM_TYPE:
        form = form_of(delivery.body)
        return Said(EventData.model_validate(event_of(form)), words_of(form), declared)
    words = parse(Notification, delivery.body).event_data
    return Said(EventData.model_validate(words), words, declared)


def _event(kind: Kind, said: Said, delivery: Delivery, source: Source) -> MailEvent:
    data = said.data
    domain = _domain(said)
    at = from_micros(_micros(data.timestamp_text))
    headers = (data.message.headers if data.message else None) or Headers()
    return kind.event(
        source=delivery.source,
        ref=ref_of(data, domain),
        moment=moment(at, 0),
        fact=data.id,
        occurred_at=at,
        env=source.environments.of(
            source=delivery.source,
            domain=domain,
            tag=data.tags or (),
            variable=_variables(data.user_variables or {}),
        ),
        provider=PROVIDER,
        domain=domain,
        provider_event_id=data.id,
        message_id=(headers.message_id or "").strip("<> ") or None,
        mail_subject=headers.subject or None,
        sender=(data.envelope.sender if data.envelope else None) or headers.from_ or None,
        recipient=_recipient(data, headers),
        transport=((data.envelope.transport if data.envelope else None) or data.method or "").lower() or None,
        tags=data.tags or [],
        test_mode=data.flags.is_test_mode if data.flags else None,
        raw=_raw(said.words),
        **kind.stated(data),
    )


def _domain(said: Said) -> str:
    """The sending domain: what the event says; else the poll's scope or the source's option.

    Envelope and headers are not asked: they name the domains of people's addresses, and often disagree.
    """
    domain = (said.data.domain.name if said.data.domain else None) or said.domain
    if domain is None:
        raise Unintelligible(
            "no_domain",
            "The event names no sending domain: name it as options.domain of this source.",
        )
    return domain.lower()


def _micros(seconds: str) -> int:
    """Microseconds of a decimal number of seconds; what is finer is cut off."""
    whole, _, fraction = seconds.partition(".")
    return int(whole) * MICROSECONDS + int(fraction[:6].ljust(6, "0"))


def _recipient(data: EventData, headers: Headers) -> str | None:
    """Rejected has none of its own, stored has a list."""
    listed = ", ".join((data.message.recipients or []) if data.message else [])
    return data.recipient or listed or headers.to or None


def _variables(variables: Mapping[str, Any]) -> list[str]:
    """`name=value` for each variable that is a scalar, for the rules of ssot/environments.yaml."""
    return [
        f"{name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in variables.items()
        if isinstance(value, (str, int, float))
    ]


def _raw(words: Mapping[str, Any]) -> str | None:
    try:
        text = _WORDS.encode(words)
    except (ValueError, RecursionError):
        raise Unintelligible(
            "shape_mismatch", "The event is nested too deep, or holds a number beyond all bounds."
        ) from None
    return text if len(text.encode()) <= RAW_BYTES_MAX else None
