"""Verify a request from GitHub: HMAC-SHA256 of the raw body, keyed with the hook's secret.

The signature is judged before a word is said about the rest: a stranger learns nothing but that it was wrong.
https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, Sequence

from contracts.delivery import MalformedName, media_type, require_ascii, require_identity, subject_token
from contracts.signing import Algorithm, Macs
from contracts.text import NotJson, require_object
from providers.github.body import FORM_TYPE, JSON_TYPE, MalformedForm, form_payload
from providers.port import Composed, Parcel, Receipt, Refused, Request, Secret, Source

SIGNATURE = "x-hub-signature-256"
DELIVERY = "x-github-delivery"
EVENT = "x-github-event"
HOOK = "x-github-hook-id"
CONTENT_TYPE = "content-type"
KEPT_HEADERS = (EVENT, HOOK, CONTENT_TYPE)

DIGEST: Algorithm = "sha256"
PREFIX = "sha256="
_SIGNATURE = re.compile(PREFIX + "[0-9a-f]{64}")
"""Lower-case, as GitHub writes it. SHA-1 (`X-Hub-Signature`) is never looked at."""


def sign(body: bytes, secret: Secret) -> dict[str, str]:
    """The signature that GitHub would put on `body`."""
    return {SIGNATURE: PREFIX + hmac.digest(secret.value, body, DIGEST).hex()}


def compose(parcel: Parcel, source: Source, secret: Secret) -> Composed:
    """GitHub's request for a JSON text."""
    headers = {CONTENT_TYPE: JSON_TYPE, EVENT: parcel.event, DELIVERY: parcel.delivery}
    return Composed(headers={**headers, **sign(parcel.body, secret)}, body=parcel.body)


def open_verification(request: Request, source: Source, secrets: Sequence[Secret]) -> SignedRequest:
    """Begin to verify a request; refuses at once what is not signed at all."""
    claimed = request.headers.get(SIGNATURE)
    if claimed is None:
        raise Refused(401, "missing_signature", "The header X-Hub-Signature-256 is missing.")
    if not _SIGNATURE.fullmatch(claimed):
        raise _bad_signature()
    return SignedRequest(request.headers, claimed, secrets)


class SignedRequest:
    """A request with a signature, and one HMAC for each secret that may have made it."""

    __slots__ = ("_claimed", "_headers", "_macs")

    def __init__(self, headers: Mapping[str, str], claimed: str, secrets: Sequence[Secret]) -> None:
        self._headers = headers
        self._claimed = claimed.removeprefix(PREFIX)
        self._macs = Macs(((secret.name, secret.value) for secret in secrets), DIGEST)

    def update(self, chunk: bytes) -> None:
        """Take the next bytes of the raw body."""
        self._macs.update(chunk)

    def finish(self, body: bytes) -> Receipt:
        """The receipt of a request that is GitHub's and well formed; raises Refused for any other."""
        verified_by = self._macs.signer([self._claimed], "hex")
        if verified_by is None:
            raise _bad_signature()
        identity = _identity(self._headers)
        kind = _kind(self._headers)
        for name in KEPT_HEADERS:
            _ascii(self._headers.get(name, ""), name)
        _require_payload(self._headers.get(CONTENT_TYPE, ""), body)
        return Receipt(identity=identity, kind=kind, verified_by=verified_by)


def _bad_signature() -> Refused:
    return Refused(401, "bad_signature", "The signature does not fit the body.")


def _identity(headers: Mapping[str, str]) -> str:
    value = headers.get(DELIVERY)
    if value is None:
        raise Refused(400, "missing_delivery_id", "The header X-GitHub-Delivery is missing.")
    try:
        return require_identity(_ascii(value, DELIVERY))
    except MalformedName as error:
        raise Refused(400, "bad_delivery_id", f"The header X-GitHub-Delivery is unusable: {error}.") from None


def _kind(headers: Mapping[str, str]) -> str:
    value = headers.get(EVENT)
    if value is None:
        raise Refused(400, "missing_event", "The header X-GitHub-Event is missing.")
    try:
        return subject_token(_ascii(value, EVENT))
    except MalformedName as error:
        raise Refused(400, "bad_event", f"The header X-GitHub-Event is unusable: {error}.") from None


def _ascii(value: str, name: str) -> str:
    try:
        return require_ascii(value)
    except MalformedName:
        raise Refused(400, "header_not_ascii", f"The header {name} is not printable ASCII.") from None


def _require_payload(content_type: str, body: bytes) -> None:
    """Refuse a body that does not hold one JSON object in the way its content type says."""
    kind = media_type(content_type)
    if kind == JSON_TYPE:
        try:
            require_object(body)
        except NotJson as error:
            raise Refused(400, "malformed_json", f"The body cannot be read: {error}.") from None
    elif kind == FORM_TYPE:
        try:
            require_object(form_payload(body))
        except (MalformedForm, NotJson) as error:
            raise Refused(400, "malformed_form", f"The form cannot be read: {error}.") from None
    else:
        raise Refused(
            400, "unsupported_content_type", f"The content type has to be {JSON_TYPE} or {FORM_TYPE}."
        )
