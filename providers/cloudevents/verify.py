"""Verify a request that carries CloudEvents, which define no signature: a bearer token, or Standard Webhooks.

A signature covers the body and no header. So it proves structured events and batches, which stand in the body
alone; in binary mode the attributes are headers, and a token has to be shown, signed or not. A signature that is there
has to fit. The token may stand in the address (`access_token`), because the web-hook document asks for it; it is never
logged.
"""

from __future__ import annotations

import json
from base64 import b64encode
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
    is_in_body,
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
    data of one: in structured mode where it is signed, else in binary mode."""
    whole = _whole(parcel.body)
    if secret.value.startswith(SECRET_PREFIX.encode()):
        headers = {CONTENT_TYPE: whole or STRUCTURED}
        body = parcel.body if whole else _enveloped(parcel)
        return Composed(headers=headers | sign(parcel.delivery, parcel.at, body, secret.value), body=body)
    shown = {AUTHORIZATION: f"Bearer {secret.value.decode()}"}
    return Composed(headers=shown | ({CONTENT_TYPE: whole} if whole else _binary(parcel)), body=parcel.body)


def _whole(body: bytes) -> str | None:
    """The content type of a body that holds all of its events; None for one that is but data."""
    try:
        value = document(body)
    except NotJson:
        return None
    if isinstance(value, list):
        return BATCH
    return STRUCTURED if isinstance(value, dict) and "specversion" in value else None


def _attributes(parcel: Parcel) -> dict[str, str]:
    return {
        "specversion": SPEC_VERSION,
        "id": parcel.delivery,
        "source": OUR_SOURCE,
        "type": parcel.event,
    }


def _binary(parcel: Parcel) -> dict[str, str]:
    given = {ATTRIBUTE_PREFIX + name: header_value(text) for name, text in _attributes(parcel).items()}
    return {CONTENT_TYPE: JSON_TYPE, **given}


def _enveloped(parcel: Parcel) -> bytes:
    data = {"data_base64": b64encode(parcel.body).decode()}
    return json.dumps(_attributes(parcel) | {"datacontenttype": JSON_TYPE} | data).encode()


def open_verification(request: Request, source: Source, secrets: Sequence[Secret]) -> Verification:
    """Begin to verify a request; refuses at once where a token, or the lack of one, decides."""
    token = _token(request)
    if is_signed(request.headers):
        try:
            head = signed_head(request.headers, request.received_at, source.options.tolerance_s)
        except BadHead as bad:
            raise Refused(400 if bad.reason == "bad_delivery_id" else 401, bad.reason, str(bad)) from None
        shown = None
        if not is_in_body(request.headers):
            if not token:
                sentence = (
                    f"A signature covers no header: send {STRUCTURED} or {BATCH}, or show a bearer token too."
                )
                raise Refused(401, "unsigned_attributes", sentence)
            shown = _bearer(token, secrets)
        keys = ((secret.name, symmetric_key(secret.value)) for secret in secrets)
        macs = Macs(keys, "sha256", head.signed_prefix)
        return SignedRequest(request.headers, macs, head.claims(SYMMETRIC), shown)
    if not token:
        sentence = (
            "Send Authorization: Bearer, the parameter access_token, or the headers of Standard Webhooks."
        )
        raise Refused(401, "missing_token", sentence)
    return KnownSender(request.headers, _bearer(token, secrets))


class SignedRequest:
    """A request whose body is signed by Standard Webhooks, with a shared secret. `shown` names the token that proves
    the headers, where events stand in them."""

    __slots__ = ("_claims", "_headers", "_macs", "_shown")

    def __init__(
        self, headers: Mapping[str, str], macs: Macs, claims: Sequence[str], shown: str | None
    ) -> None:
        self._headers = headers
        self._macs = macs
        self._claims = claims
        self._shown = shown

    def update(self, chunk: bytes) -> None:
        """Take the next bytes of the raw body."""
        self._macs.update(chunk)

    def finish(self, body: bytes) -> Receipt:
        """The receipt of a signed request that carries CloudEvents."""
        verified_by = self._macs.signer(self._claims, "base64")
        if verified_by is None:
            raise Refused(401, "bad_signature", "No signature fits id, timestamp and body.")
        return _receipt(self._headers, body, self._shown or verified_by)


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


def _token(request: Request) -> str | None:
    """The token that a request shows; empty or None where it shows none."""
    scheme, _, token = request.headers.get(AUTHORIZATION, "").partition(" ")
    return token.strip() if scheme.lower() == SCHEME else token_in(request.query)


def _bearer(token: str, secrets: Sequence[Secret]) -> str:
    """The name of the secret that `token` is; raises Refused."""
    name = first_equal(((each.name, each.value) for each in secrets if each.value), [token.encode()])
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
