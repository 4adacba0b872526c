"""Proof that a request is Plane's, and what its delivery is called.

Plane signs the body alone: no time, and no headers. So what a delivery is comes from the body, never from
X-Plane-Event, and its identity too, since X-Plane-Delivery is new with each attempt.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from contracts.delivery import MalformedName, body_sha256, require_identity, subject_token
from contracts.signing import Algorithm, Macs
from contracts.text import NotJson, parse
from providers.port import Composed, Parcel, Receipt, Refused, Request, Secret, Source

SIGNATURE = "x-plane-signature"
DELIVERY = "x-plane-delivery"
EVENT = "x-plane-event"
CONTENT_TYPE = "content-type"
KEPT_HEADERS = (DELIVERY, EVENT)

DIGEST: Algorithm = "sha256"
JSON_TYPE = "application/json"
USER_AGENT = "Autopilot"
HOOK_PREFIX = "plane_wh_"
HOOK_HEX_CHARS = 32
VERSION_2 = "v2"
EVENT_TOKENS_MAX = 6

_SIGNATURE = re.compile("[0-9a-f]{64}")
_ENUM_NAME = re.compile(r"WebhookScope\.ScopeChoices\.([A-Z0-9_]+)")
"""The documentation prints the name of a Python enumeration where the event's name belongs."""


class Head(BaseModel):
    """What tells a delivery from others. `event_id` is what it is: a wrong one must not cost us the delivery."""

    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)

    event: str
    version: Any = None
    event_id: Any = None


def new_secret(random: bytes) -> str:
    """A secret in the form that Plane makes: the whole text is the key."""
    return HOOK_PREFIX + random.hex()[:HOOK_HEX_CHARS]


def compose(parcel: Parcel, source: Source, secret: Secret) -> Composed:
    """Plane's request for a JSON text."""
    headers = {
        CONTENT_TYPE: JSON_TYPE,
        "user-agent": USER_AGENT,
        DELIVERY: parcel.delivery,
        EVENT: parcel.event,
        SIGNATURE: hmac.digest(secret.value, parcel.body, DIGEST).hex(),
    }
    return Composed(headers=headers, body=parcel.body)


def open_verification(request: Request, source: Source, secrets: Sequence[Secret]) -> SignedRequest:
    """Begin to verify a request; refuses at once what is not signed at all."""
    claimed = request.headers.get(SIGNATURE)
    if claimed is None:
        raise Refused(401, "missing_signature", "The header X-Plane-Signature is missing.")
    if not _SIGNATURE.fullmatch(claimed):
        raise _bad_signature()
    return SignedRequest(claimed, secrets)


class SignedRequest:
    """A request with a signature, and one HMAC for each secret that may have made it."""

    __slots__ = ("_claimed", "_macs")

    def __init__(self, claimed: str, secrets: Sequence[Secret]) -> None:
        self._claimed = claimed
        self._macs = Macs(((secret.name, secret.value) for secret in secrets), DIGEST)

    def update(self, chunk: bytes) -> None:
        """Take the next bytes of the raw body."""
        self._macs.update(chunk)

    def finish(self, body: bytes) -> Receipt:
        """The receipt of a request that is Plane's and well formed; raises Refused for any other."""
        verified_by = self._macs.signer([self._claimed], "hex")
        if verified_by is None:
            raise _bad_signature()
        head = _head(body)
        return Receipt(identity=_identity(head, body), kind=kind_of(head.event), verified_by=verified_by)


def kind_of(event: str) -> str:
    """What the log calls an event: `issue` of v1, `workitem.updated` of v2; raises Refused."""
    printed = _ENUM_NAME.fullmatch(event)
    if printed:
        event = printed[1].lower().replace("work_item", "workitem", 1).replace("_", ".")
    tokens = event.split(".")
    if len(tokens) > EVENT_TOKENS_MAX:
        raise Refused(400, "bad_event", f"The event's name has more than {EVENT_TOKENS_MAX} parts.")
    try:
        return ".".join(subject_token(token) for token in tokens)
    except MalformedName as error:
        raise Refused(400, "bad_event", f"The event's name is unusable: {error}.") from None


def _head(body: bytes) -> Head:
    try:
        return parse(Head, body)
    except NotJson as error:
        raise Refused(400, "malformed_json", f"The body cannot be read: {error}.") from None
    except ValidationError:
        raise Refused(400, "missing_event", "The body is not an object with an event's name.") from None


def _identity(head: Head, body: bytes) -> str:
    """The id of the event in v2; in v1, which has none, the hash of the signed bytes.

    A retry repeats the bytes. Of one change of two fields, the webhooks differ by `activity`; two changes differ by
    `data.updated_at`; two hooks by `webhook_id`. So equal bytes are one fact, and no other body can claim its place.
    """
    if head.version == VERSION_2 and isinstance(head.event_id, str):
        try:
            return require_identity(head.event_id)
        except MalformedName:
            pass  # not an id: the bytes have to do
    return f"sha256-{body_sha256(body)}"


def _bad_signature() -> Refused:
    return Refused(401, "bad_signature", "The signature does not fit the body.")
