"""Verify a request from Mailgun: HMAC-SHA256 of timestamp and token, which stand in the body beside their signature.

The event is not signed: who has seen one request can attach its signature to any event. What protects is HTTPS, the
age of the timestamp, and the token as identity: the first body of a token counts, any other ends as a conflict.
https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/securing-webhooks
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode

from pydantic import BaseModel, ConfigDict, ValidationError

from contracts.delivery import MalformedName, media_type, require_identity, subject_token
from contracts.signing import first_equal
from contracts.text import NotJson, decode, parse
from providers.mailgun.body import FORM_TYPE, JSON_TYPE, MalformedForm, form_of
from providers.mailgun.options import MailgunOptions
from providers.port import (
    Composed,
    Parcel,
    Receipt,
    Refused,
    Request,
    Secret,
    Source,
    problems_of,
)

CONTENT_TYPE = "content-type"
KEPT_HEADERS = (CONTENT_TYPE,)

DIGEST = "sha256"
BODY_BYTES_MAX = 256_000
"""An event has at most some 25 KB: a stored mail is named by its address and not inlined. The body has to be read
before anybody is known, so it may not be large."""
AHEAD_S_MAX = 300
"""How far Mailgun's clock may be ahead of ours."""
_TIMESTAMP = re.compile("[0-9]{10}")
"""Ten digits until the year 2286. Nothing separates timestamp and token in what is signed, so that a digit could be
moved from one to the other and make another token: a fixed length forbids it."""


class _Upstream(BaseModel):
    # Mailgun writes the timestamp as a text and documents a number.
    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
        coerce_numbers_to_str=True,
        alias_generator=lambda name: name.replace("_", "-"),
    )


class Signature(_Upstream):
    """A signed pair. `parent_signature` is over the same pair, with the key of a subaccount's parent."""

    timestamp: str
    token: str
    signature: str
    parent_signature: str | None = None


class _Named(_Upstream):
    event: str | None = None


class _Notification(_Upstream):
    signature: Signature | None = None
    event_data: _Named | None = None


def sign(timestamp: str, token: str, secret: Secret) -> str:
    """The signature that Mailgun would put on a pair."""
    return hmac.digest(secret.value, (timestamp + token).encode(), DIGEST).hex()


def compose(parcel: Parcel, source: Source, secret: Secret) -> Composed:
    """Mailgun's request for an event, a recorded request or a recorded form, signed anew; the delivery is the token.

    Raises ValueError for what is none of them.
    """
    timestamp = str(int(parcel.at.timestamp()))
    signature = {
        "timestamp": timestamp,
        "token": parcel.delivery,
        "signature": sign(timestamp, parcel.delivery, secret),
    }
    try:
        said = decode(parcel.body)
    except NotJson:
        return Composed(headers={CONTENT_TYPE: FORM_TYPE}, body=_form(parcel.body, signature))
    if not isinstance(said, dict):
        raise NotJson("this is no event of Mailgun's")
    event = said.get("event-data", said)
    body = json.dumps({"signature": signature, "event-data": event}).encode()
    return Composed(headers={CONTENT_TYPE: JSON_TYPE}, body=body)


def _form(body: bytes, signature: dict[str, str]) -> bytes:
    form_of(body)
    kept = [pair for pair in parse_qsl(body.decode(), keep_blank_values=True) if pair[0] not in signature]
    return urlencode([*kept, *signature.items()]).encode()


def open_verification(request: Request, source: Source, secrets: Sequence[Secret]) -> SignedPair:
    """Begin to verify a request; refuses at once what is neither JSON nor a form."""
    if media_type(request.headers.get(CONTENT_TYPE, "")) not in (JSON_TYPE, FORM_TYPE):
        raise Refused(
            400, "unsupported_content_type", f"The content type has to be {JSON_TYPE} or {FORM_TYPE}."
        )
    return SignedPair(request, source.options, secrets)


class SignedPair:
    """A request whose body holds a signed pair of timestamp and token."""

    __slots__ = ("_options", "_request", "_secrets", "_seen")

    def __init__(self, request: Request, options: MailgunOptions, secrets: Sequence[Secret]) -> None:
        self._request = request
        self._options = options
        self._secrets = secrets
        self._seen = 0

    def update(self, chunk: bytes) -> None:
        """Count the next bytes of the raw body; nothing else can be done before its end."""
        self._seen += len(chunk)
        if self._seen > BODY_BYTES_MAX:
            raise Refused(413, "body_too_large", f"The body is larger than {BODY_BYTES_MAX} bytes.")

    def finish(self, body: bytes) -> Receipt:
        """The receipt of a request that is Mailgun's, recent and well formed; raises Refused for any other."""
        signature, event = self._read(body)
        if not _TIMESTAMP.fullmatch(signature.timestamp):
            raise Refused(400, "bad_timestamp", "The timestamp of the signature is not ten digits.")
        verified_by = _signer(signature, self._secrets)
        self._require_recent(int(signature.timestamp))
        return Receipt(identity=_identity(signature.token), kind=_kind(event), verified_by=verified_by)

    def _read(self, body: bytes) -> tuple[Signature, str | None]:
        """The signature and the event's name, from either kind of body."""
        if media_type(self._request.headers[CONTENT_TYPE]) == FORM_TYPE:
            return _from_form(body)
        try:
            said = parse(_Notification, body)
        except NotJson as error:
            raise Refused(400, "malformed_json", f"The body cannot be read: {error}.") from None
        except ValidationError as error:
            raise Refused(
                400, "shape_mismatch", f"This is no body of Mailgun's: {problems_of(error)}."
            ) from None
        if said.signature is None:
            raise _missing_signature()
        return said.signature, said.event_data.event if said.event_data else None

    def _require_recent(self, signed_at: int) -> None:
        age_s = self._request.received_at.timestamp() - signed_at
        if age_s > self._options.accepted_age_s:
            raise Refused(401, "stale_signature", "The timestamp of the signature is too old.")
        if age_s < -AHEAD_S_MAX:
            raise Refused(401, "signature_too_new", "The timestamp of the signature lies ahead of our clock.")


def _from_form(body: bytes) -> tuple[Signature, str | None]:
    try:
        form = form_of(body)
    except MalformedForm as error:
        raise Refused(400, "malformed_form", f"The form cannot be read: {error}.") from None
    # Variables of the mail are merged into the form: before these three fields, after all others.
    last: dict[str, Any] = {
        name: form[name][-1] for name in ("timestamp", "token", "signature") if name in form
    }
    if len(last) < 3:
        raise _missing_signature()
    last["parent-signature"] = form.get("parent-signature", [None])[-1]
    return Signature.model_validate(last), form.get("event", [None])[0]


def _signer(signature: Signature, secrets: Sequence[Secret]) -> str:
    """The name of the secret that made one of the signatures. Every pairing is tried, so that the time tells nothing.

    One that fits is enough: who receives for a subaccount may hold its key, or its parent's, or both.
    """
    claimed = [
        text.encode() for text in (signature.signature, signature.parent_signature) if text is not None
    ]
    # Anybody can sign with an empty key, so an empty secret verifies nothing.
    genuine = (
        (secret.name, sign(signature.timestamp, signature.token, secret).encode())
        for secret in secrets
        if secret.value
    )
    signer = first_equal(genuine, claimed)
    if signer is None:
        raise Refused(401, "bad_signature", "No signature fits the timestamp and the token.")
    return signer


def _missing_signature() -> Refused:
    return Refused(401, "missing_signature", "The body holds no timestamp, token and signature.")


def _identity(token: str) -> str:
    try:
        return require_identity(token)
    except MalformedName as error:
        raise Refused(400, "bad_token", f"The token is unusable: {error}.") from None


def _kind(event: str | None) -> str:
    if not event:
        raise Refused(400, "missing_event", "The body names no event.")
    try:
        return subject_token(event)
    except MalformedName as error:
        raise Refused(400, "bad_event", f"The event's name is unusable: {error}.") from None
