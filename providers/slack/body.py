"""The bodies that Slack posts, and what each is: the signature does not cover the address, so content decides.

A form is a slash command, or holds an interaction as JSON in its field `payload`; JSON is of the Events API.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from pydantic import BaseModel, ConfigDict, ValidationError

from contracts.delivery import MalformedName, subject_token
from contracts.text import NotJson, parse

COMMAND = "command"
EVENT = "event"
INTERACTION = "interactivity"
SSL_CHECK = "ssl_check"
URL_VERIFICATION = "url_verification"
EVENT_CALLBACK = "event_callback"
FORM_FIELDS_MAX = 64
"""A slash command has about fifteen; a form with thousands is not worth reading."""


class NotSlacks(ValueError):
    """the body is nothing that Slack sends; the message is a sentence without values"""


class _Upstream(BaseModel):
    # Ids serve as identity only: a wrong one must not cost us the delivery, so they are of any type here.
    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)


class InnerEvent(_Upstream):
    type: str


class Outer(_Upstream):
    """A body of the Events API."""

    type: str
    event_id: Any = None
    event: InnerEvent | None = None


class Challenge(_Upstream):
    challenge: str


class Interaction(_Upstream):
    type: str
    trigger_id: Any = None


@dataclass(frozen=True, slots=True)
class Content:
    """What a body is (the kind of its delivery) and, where Slack names what must happen once, that name."""

    kind: str
    once: str | None


def content_of(body: bytes) -> Content:
    """What `body` is; raises NotSlacks. A form cannot begin with a brace: it would be percent-encoded."""
    try:
        return _of_json(body) if body.lstrip()[:1] == b"{" else _of_form(body)
    except NotJson as error:
        raise NotSlacks(f"The body cannot be read: {error}.") from None
    except ValidationError:
        raise NotSlacks("The body has no type.") from None
    except MalformedName as error:
        raise NotSlacks(f"The body's type is unusable: {error}.") from None


def challenge_of(body: bytes) -> str | None:
    """The word of a url_verification that Slack wants back."""
    try:
        return parse(Challenge, body).challenge
    except (NotJson, ValidationError):
        return None


def _of_json(body: bytes) -> Content:
    outer = parse(Outer, body)
    if outer.type == EVENT_CALLBACK and outer.event is not None:
        return Content(f"{EVENT}.{subject_token(outer.event.type)}", _name(outer.event_id))
    return Content(subject_token(outer.type), None)


def _of_form(body: bytes) -> Content:
    fields = _fields(body)
    if "payload" in fields:
        interaction = parse(Interaction, fields["payload"].encode())
        kind = f"{INTERACTION}.{subject_token(interaction.type)}"
        trigger = _name(interaction.trigger_id)
        return Content(kind, f"{kind}:{trigger}" if trigger else None)
    if "command" in fields:
        trigger = _name(fields.get("trigger_id"))
        return Content(COMMAND, f"{COMMAND}:{trigger}" if trigger else None)
    if fields.get("ssl_check") == "1":
        return Content(SSL_CHECK, None)
    raise NotSlacks("The form is neither a command nor an interaction.")


def _fields(body: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            body.decode(),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=FORM_FIELDS_MAX,
        )
    except ValueError:
        raise NotSlacks("The body is neither JSON nor a form of UTF-8 text.") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise NotSlacks("A field of the form stands twice.")
    return fields


def _name(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
