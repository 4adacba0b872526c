"""Verify a request from Vercel: HMAC-SHA1 of the raw body in hexadecimal digits, keyed with the webhook's secret.

SHA-1 is Vercel's choice; as the hash of an HMAC it is not known to be forgeable. What the delivery is called and what
kind it is stands in the body alone, so that both are signed too.
https://vercel.com/docs/webhooks#securing-webhooks
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence

from pydantic import ValidationError

from contracts.delivery import MalformedName, require_identity, subject_token
from contracts.signing import Algorithm, Macs
from contracts.text import NotJson, parse
from providers.port import Composed, Parcel, Receipt, Refused, Request, Secret, Source, problems_of
from providers.vercel.payloads import Envelope

SIGNATURE = "x-vercel-signature"
CONTENT_TYPE = "content-type"
JSON_TYPE = "application/json"

DIGEST: Algorithm = "sha1"
_SIGNATURE = re.compile("[0-9a-f]{40}")
KIND_TOKENS_COUNT_MAX = 8
"""The longest type that Vercel documents, `deployment.integration.action.cleanup`, has four."""


def sign(body: bytes, secret: Secret) -> dict[str, str]:
    """The signature that Vercel would put on `body`."""
    return {SIGNATURE: hmac.digest(secret.value, body, DIGEST).hex()}


def compose(parcel: Parcel, source: Source, secret: Secret) -> Composed:
    """Vercel's request for a JSON text, which says itself what it is and what it is called."""
    return Composed(headers={CONTENT_TYPE: JSON_TYPE, **sign(parcel.body, secret)}, body=parcel.body)


def open_verification(request: Request, source: Source, secrets: Sequence[Secret]) -> SignedRequest:
    """Begin to verify a request; refuses at once what is not signed at all."""
    claimed = request.headers.get(SIGNATURE)
    if claimed is None:
        raise Refused(401, "missing_signature", "The header x-vercel-signature is missing.")
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
        """The receipt of a request that is Vercel's and well formed; raises Refused for any other."""
        verified_by = self._macs.signer([self._claimed], "hex")
        if verified_by is None:
            raise _bad_signature()
        envelope = _envelope(body)
        return Receipt(identity=_identity(envelope.id), kind=_kind(envelope.type), verified_by=verified_by)


def _bad_signature() -> Refused:
    return Refused(401, "bad_signature", "The signature does not fit the body.")


def _envelope(body: bytes) -> Envelope:
    try:
        return parse(Envelope, body)
    except NotJson as error:
        raise Refused(400, "malformed_json", f"The body cannot be read: {error}.") from None
    except ValidationError as error:
        raise Refused(400, "no_envelope", f"This is no event of Vercel: {problems_of(error)}.") from None


def _identity(value: str) -> str:
    try:
        return require_identity(value)
    except MalformedName as error:
        raise Refused(400, "bad_delivery_id", f"The body's id is unusable: {error}.") from None


def _kind(value: str) -> str:
    tokens = value.split(".")
    if len(tokens) > KIND_TOKENS_COUNT_MAX:
        raise Refused(400, "bad_event", f"The body's type has more than {KIND_TOKENS_COUNT_MAX} parts.")
    try:
        return ".".join(map(subject_token, tokens))
    except MalformedName as error:
        raise Refused(400, "bad_event", f"The body's type is unusable: {error}.") from None
