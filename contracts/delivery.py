"""A delivery: what a sender gave us (or what we fetched), byte for byte, plus how we got it.

The wire form in the DELIVERIES stream is the untouched body, the subject (source and kind) and the message
headers below; `to_headers` and `from_message` are the only writer and reader of them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import field
from datetime import datetime
from typing import Literal, get_args

from contracts.record import record

Via = Literal["webhook", "poll", "cli", "job", "gate", "ssot"]
VIAS = frozenset(get_args(Via))

SUBJECT_ROOT = "deliveries"
TOKEN_CHARS_MAX = 64
IDENTITY_CHARS_MAX = 200
MESSAGE_ID_HASH_CHARS = 16

MESSAGE_ID = "Nats-Msg-Id"
IDENTITY = "Odooops-Identity"
VIA = "Odooops-Via"
RECEIVED_AT = "Odooops-Received-At"
VERIFIED_BY = "Odooops-Verified-By"
BODY_SHA256 = "Odooops-Body-Sha256"
BODY_OBJECT = "Odooops-Body-Object"
TRACEPARENT = "traceparent"
"""W3C's name: which span the delivery came in by. Only where that was traced."""
SENDER_PREFIX = "Sender-"

_OUTSIDE_TOKEN = re.compile(r"[^a-z0-9_-]")
_TOKEN = rf"[a-z0-9_-]{{1,{TOKEN_CHARS_MAX}}}"
_SUBJECT = re.compile(rf"{SUBJECT_ROOT}\.({_TOKEN})\.({_TOKEN}(?:\.{_TOKEN})*)")
_IDENTITY = re.compile(rf"[\x21-\x7e]{{1,{IDENTITY_CHARS_MAX}}}")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class MalformedName(ValueError):
    """a name that a sender gave cannot be used"""


class UnreadableDelivery(ValueError):
    """a message in DELIVERIES that OdooOps did not write"""


@record
class Delivery:
    """One delivery. `kind` is a dotted path of subject tokens; `headers` are the sender's, lower-cased."""

    source: str
    identity: str
    kind: str
    via: Via
    received_at: datetime
    body: bytes = field(repr=False)
    body_sha256: str
    verified_by: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    seq: int = 0
    """Sequence in DELIVERIES; 0 before it is stored."""
    trace: str | None = field(default=None, compare=False, repr=False)
    """The traceparent of the request or the poll, where that was traced. It is no part of what was delivered."""

    @property
    def name(self) -> str:
        """`source:identity`, what answers and logs call it."""
        return f"{self.source}:{self.identity}"

    @property
    def subject(self) -> str:
        """Where it is stored: `deliveries.<source>.<kind…>`."""
        return f"{SUBJECT_ROOT}.{self.source}.{self.kind}"

    @property
    def message_id(self) -> str:
        """What the broker knows a copy by: equal for equal identity and body only."""
        return f"{self.name}:{self.body_sha256[:MESSAGE_ID_HASH_CHARS]}"


def body_sha256(body: bytes) -> str:
    """The hash that the ledger knows a body by: SHA-256, 64 hex digits."""
    return hashlib.sha256(body).hexdigest()


def subject_token(text: str) -> str:
    """`text` as one subject token; raises MalformedName where none can be made of it."""
    token = _OUTSIDE_TOKEN.sub("_", text.lower())
    if not 0 < len(token) <= TOKEN_CHARS_MAX:
        raise MalformedName(f"a kind has 1 to {TOKEN_CHARS_MAX} characters, this one has {len(token)}")
    return token


def require_identity(text: str) -> str:
    """`text` if it can serve as an identity: 1 to 200 printable ASCII characters, no spaces."""
    if not _IDENTITY.fullmatch(text):
        raise MalformedName(
            f"a delivery id has 1 to {IDENTITY_CHARS_MAX} printable ASCII characters and no spaces"
        )
    return text


def require_ascii(text: str) -> str:
    """`text` if it may stand in a message header: printable ASCII."""
    if not _HEADER_VALUE.fullmatch(text):
        raise MalformedName("header text must be printable ASCII")
    return text


def media_type(content_type: str) -> str:
    """The media type of a Content-Type header, without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def to_headers(delivery: Delivery, body_object: str | None = None) -> dict[str, str]:
    """The message headers of `delivery`; `body_object` names the stored body where the message has none.

    Raises MalformedName for what no header can carry unchanged, line ends above all.
    """
    headers = {
        MESSAGE_ID: delivery.message_id,
        IDENTITY: require_identity(delivery.identity),
        VIA: delivery.via,
        RECEIVED_AT: delivery.received_at.isoformat(),
        BODY_SHA256: delivery.body_sha256,
    }
    if delivery.verified_by is not None:
        headers[VERIFIED_BY] = require_ascii(delivery.verified_by)
    if body_object is not None:
        headers[BODY_OBJECT] = require_ascii(body_object)
    if delivery.trace is not None:
        headers[TRACEPARENT] = require_ascii(delivery.trace)
    for name, value in delivery.headers.items():
        headers[SENDER_PREFIX + name] = require_ascii(value)
    return headers


def from_message(subject: str, headers: Mapping[str, str], body: bytes, seq: int) -> Delivery:
    """The delivery that `to_headers` wrote, its body at hand; raises UnreadableDelivery for any other."""
    matched = _SUBJECT.fullmatch(subject)
    if matched is None:
        raise UnreadableDelivery(f"the subject {subject!r} is not {SUBJECT_ROOT}.<source>.<kind>")
    source, kind = matched.groups()
    try:
        via = headers[VIA]
        if via not in VIAS:
            raise UnreadableDelivery(f"{VIA} is {via!r}")
        received_at = datetime.fromisoformat(headers[RECEIVED_AT])
        if received_at.tzinfo is None:
            raise UnreadableDelivery(f"{RECEIVED_AT} has no zone")
        if not _SHA256.fullmatch(headers[BODY_SHA256]):
            raise UnreadableDelivery(f"{BODY_SHA256} is not 64 hex digits")
        return Delivery(
            source=source,
            identity=require_identity(headers[IDENTITY]),
            kind=kind,
            via=via,  # type: ignore[arg-type]  # just compared with the literal's values
            received_at=received_at,
            body=body,
            body_sha256=headers[BODY_SHA256],
            verified_by=require_ascii(headers[VERIFIED_BY]) if VERIFIED_BY in headers else None,
            headers={
                name[len(SENDER_PREFIX) :].lower(): require_ascii(value)
                for name, value in headers.items()
                if name.startswith(SENDER_PREFIX)
            },
            seq=seq,
            trace=_trace(headers[TRACEPARENT]) if TRACEPARENT in headers else None,
        )
    except KeyError as missing:
        raise UnreadableDelivery(f"the header {missing} is missing") from None
    except ValueError as error:
        raise UnreadableDelivery(str(error)) from None


def _trace(said: str) -> str | None:
    """A traceparent of today's version; another is no reason not to read a delivery."""
    return said if _TRACEPARENT.fullmatch(said) else None
