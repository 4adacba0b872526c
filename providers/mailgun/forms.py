"""The form of webhooks from before 2018, told as an event of today.

It has no event id, so the token stands for one, and its whole seconds are those of the signature: such a webhook and
the same event of the Events API are two rows.
Fields as sent in practice: https://github.com/anymail/django-anymail (webhooks/mailgun.py, legacy events)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contracts.text import NotJson, decode
from providers.mailgun.body import Form
from providers.port import Unintelligible

FAILED = {"event": "failed", "severity": "permanent"}
EVENTS: Mapping[str, Mapping[str, str]] = {
    "bounced": {**FAILED, "reason": "bounce"},
    "dropped": FAILED,
}
"""What an old name is called today; the others have stayed as they were."""

SIGNED = frozenset({"timestamp", "token", "signature", "parent-signature"})
KNOWN = SIGNED | {
    "Message-Id", "X-Mailgun-Sid", "X-Mailgun-Tag", "attachment-count", "body-plain", "campaign-id", "campaign-name",
    "city", "client-name", "client-os", "client-type", "code", "country", "description", "device-type", "domain",
    "error", "event", "h", "ip", "mailing-list", "message-headers", "message-id", "notification", "reason",
    "recipient", "region", "tag", "url", "user-agent",
}  # fmt: skip
"""All other fields are variables of the mail."""


def event_of(form: Form) -> dict[str, Any]:
    """The `event-data` that says what `form` says; raises Unintelligible."""
    event = _first(form, "event")
    if event is None or "token" not in form or "timestamp" not in form:
        raise Unintelligible("shape_mismatch", "This form lacks its event, its token or its timestamp.")
    headers = _original_headers(_first(form, "message-headers"))
    code = _first(form, "code") or ""
    return {
        "event": event,
        "reason": _first(form, "reason"),
        **EVENTS.get(event, {}),
        "id": form["token"][-1],
        "timestamp": form["timestamp"][-1],
        "domain": {"name": _first(form, "domain")},
        "recipient": _first(form, "recipient"),
        "url": _first(form, "url"),
        "tags": form.get("tag") or form.get("X-Mailgun-Tag", []),
        "user-variables": {name: values[-1] for name, values in form.items() if name not in KNOWN},
        "message": {
            "headers": {
                "message-id": _first(form, "Message-Id")
                or _first(form, "message-id")
                or headers.get("message-id"),
                "subject": headers.get("subject"),
                "from": headers.get("from"),
                "to": headers.get("to"),
            }
        },
        "delivery-status": {
            "code": code if code.isdecimal() else None,
            "message": _first(form, "error") or _first(form, "notification"),
            "description": _first(form, "description"),
        },
    }


def words_of(form: Form) -> dict[str, list[str]]:
    """What `form` says, without the signature: it must not be found where the mail's story is read."""
    return {name: values for name, values in form.items() if name not in SIGNED}


def _first(form: Form, name: str) -> str | None:
    """Mailgun's own value: a variable of the same name comes after it."""
    return form[name][0] or None if name in form else None


def _original_headers(text: str | None) -> dict[str, str]:
    """The mail's headers by lower-cased name, from a JSON list of pairs; of equal ones the first."""
    if text is None:
        return {}
    try:
        pairs = decode(text.encode())
    except NotJson:
        raise Unintelligible("shape_mismatch", "The field message-headers is not JSON.") from None
    found: dict[str, str] = {}
    for pair in pairs if isinstance(pairs, list) else []:
        match pair:
            case [str(name), str(value)]:
                found.setdefault(name.lower(), value)
    return found
