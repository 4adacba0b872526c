"""Verify a request that carries CloudEvents, which define no signature: a bearer token, or Standard Webhooks.

Where a request is signed, the signature decides and no token is looked at. The token may stand in the address
(`access_token`), because the web-hook document asks for it; it is never logged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from contracts.delivery import body_sha256
from contracts.envelope import header_value
from contracts.external import kind_of
from contracts.signing import Macs, first_equal
from contracts.standard_webhooks import (
    SECRET_PREFIX,
    SYMMETRIC,
    BadHead,
    is_signed,
    sign,
    signed_head,
    symmetric_key,
)
from contracts.text import NotJson, document
from providers.cloudevents.events import (
    ATTRIBUTE_PREFIX,
    BATCH,
    CONTENT_TYPE,
    SPEC_VERSION,
    STRUCTURED,
    BadEvent,
    events_of,
    is_batch,
)
from providers.cloudevents.handshake import token_in
from providers.port import Composed, Parcel, Receipt, Refused, Request, Secret, Source, Verification

KEPT_HEADERS = (CONTENT_TYPE, f"{ATTRIBUTE_PREFIX}*")
AUTHORIZATION = "authorization"
SCHEME = "bearer"
BATCH_KIND = "batch"
OUR_SOURCE = "/odooops/send"
JSON_TYPE = "application/json"


def compose(parcel: Parcel, source: Source, secret: Secret) -> Composed:
    """The request of a sender: signed, where the secret is made for that. A body that is no CloudEvent becomes the
    data of one, in binary mode."""
    headers = _mode(parcel)
    if secret.value.startswith(SECRET_PREFIX.encode()):
        headers |= sign(parcel.delivery, parcel.at, parcel.body, secret.value)
    else:
        headers[AUTHORIZATION] = f"Bearer {secret.value.decode()}"
    return Composed(headers=headers, body=parcel.body)


def _mode(parcel: Parcel) -> dict[str, str]:
    try:
        value = document(parcel.body)
    except NotJson:
        value = None
    if isinstance(value, list):
        return {CONTENT_TYPE: BATCH}
    if isinstance(value, dict) and "specversion" in value:
        return {CONTENT_TYPE: STRUCTURED}
    attributes = {
        "specversion": SPEC_VERSION,
        "id": parcel.delivery,
        "source": OUR_SOURCE,
        "type": parcel.event,
    }
    return {
        CONTENT_TYPE: JSON_TYPE,
        **{ATTRIBUTE_PREFIX + name: header_value(text) for name, text in attributes.items()},
    }


def open_verification(request: Request, source: Source, secrets: Sequence[Secret]) -> Verification:
    """Begin to verify a request; refuses at once where a token, or the lack of one, decides."""
    if is_signed(request.headers):
        try:
            head = signed_head(request.headers, request.received_at, source.options.tolerance_s)
        except BadHead as bad:
            raise Refused(400 if bad.reason == "bad_delivery_id" else 401, bad.reason, str(bad)) from None
        keys = ((secret.name, symmetric_key(secret.value)) for secret in secrets)
        return SignedRequest(
            request.headers, Macs(keys, "sha256", head.signed_prefix), head.claims(SYMMETRIC)
        )
    return KnownSender(request.headers, _bearer(request, secrets))


class SignedRequest:
    """A request whose body is signed by Standard Webhooks, with a shared secret."""

    __slots__ = ("_claims", "_headers", "_macs")

    def __init__(self, headers: Mapping[str, str], macs: Macs, claims: Sequence[str]) -> None:
        self._headers = headers
        self._macs = macs
        self._claims = claims

    def update(self, chunk: bytes) -> None:
        """Take the next bytes of the raw body."""
        self._macs.update(chunk)

    def finish(self, body: bytes) -> Receipt:
        """The receipt of a signed request that carries CloudEvents."""
        verified_by = self._macs.signer(self._claims, "base64")
        if verified_by is None:
            raise Refused(401, "bad_signature", "No signature fits id, timestamp and body.")
        return _receipt(self._headers, body, verified_by)


class KnownSender:
    """A request with a valid token: its body is taken at its word."""

    __slots__ = ("_headers", "_verified_by")

    def __init__(self, headers: Mapping[str, str], verified_by: str) -> None:
        self._headers = headers
        self._verified_by = verified_by

    def update(self, chunk: bytes) -> None:
        """Nothing in the body proves anything."""

    def finish(self, body: bytes) -> Receipt:
        """The receipt of a request that carries CloudEvents."""
        return _receipt(self._headers, body, self._verified_by)


def _bearer(request: Request, secrets: Sequence[Secret]) -> str:
    """The name of the secret that the request shows; raises Refused."""
    scheme, _, token = request.headers.get(AUTHORIZATION, "").partition(" ")
    shown = token.strip() if scheme.lower() == SCHEME else token_in(request.query)
    if not shown:
        sentence = (
            "Send Authorization: Bearer, the parameter access_token, or the headers of Standard Webhooks."
        )
        raise Refused(401, "missing_token", sentence)
    name = first_equal(((each.name, each.value) for each in secrets if each.value), [shown.encode()])
    if name is None:
        raise Refused(401, "bad_token", "The token is none of ours.")
    return name


def _receipt(headers: Mapping[str, str], body: bytes, verified_by: str) -> Receipt:
    try:
        events = events_of(headers, body)
    except BadEvent as bad:
        raise Refused(bad.status, bad.reason, str(bad)) from None
    if is_batch(headers):
        # A batch has no id, and is sent again where we did not answer.
        return Receipt(identity=f"batch:{body_sha256(body)}", kind=BATCH_KIND, verified_by=verified_by)
    [event] = events
    return Receipt(identity=event.name, kind=kind_of(event.type), verified_by=verified_by)
