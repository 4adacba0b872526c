"""Verify a request by Standard Webhooks: HMAC-SHA256 (`v1`) or ed25519 (`v1a`) over id, time and raw body.

Any entry of the header may fit any of the secrets: that is how keys are changed without losing a message.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from contracts.delivery import MalformedName, require_identity
from contracts.external import kind_of
from contracts.signing import Macs
from contracts.standard_webhooks import (
    SYMMETRIC,
    BadHead,
    SignedHead,
    decoded,
    sign,
    signed_head,
    symmetric_key,
)
from providers.port import Composed, Parcel, Receipt, Refused, Request, Secret, Source
from providers.standard.payload import payload_of

ASYMMETRIC = "v1a"
PUBLIC_PREFIX = b"whpk_"
PRIVATE_PREFIX = b"whsk_"
JSON_TYPE = "application/json"


def compose(parcel: Parcel, source: Source, secret: Secret) -> Composed:
    """The request of a sender that signs with a symmetric secret."""
    signed = sign(parcel.delivery, parcel.at, parcel.body, secret.value)
    return Composed(headers={"content-type": JSON_TYPE, **signed}, body=parcel.body)


def open_verification(request: Request, source: Source, secrets: Sequence[Secret]) -> SignedRequest:
    """Begin to verify a request; refuses at once what is unsigned or out of its time."""
    try:
        head = signed_head(request.headers, request.received_at, source.options.tolerance_s)
    except BadHead as bad:
        raise Refused(400 if bad.reason == "bad_delivery_id" else 401, bad.reason, str(bad)) from None
    return SignedRequest(head, secrets)


class SignedRequest:
    """A request with signatures, and every key that may have made one."""

    __slots__ = ("_head", "_macs", "_public_keys")

    def __init__(self, head: SignedHead, secrets: Sequence[Secret]) -> None:
        self._head = head
        self._public_keys = [
            (secret.name, key) for secret in secrets if (key := public_key(secret.value)) is not None
        ]
        shared = [
            secret for secret in secrets if not secret.value.startswith((PUBLIC_PREFIX, PRIVATE_PREFIX))
        ]
        self._macs = Macs(
            ((secret.name, symmetric_key(secret.value)) for secret in shared), "sha256", head.signed_prefix
        )

    def update(self, chunk: bytes) -> None:
        """Take the next bytes of the raw body."""
        self._macs.update(chunk)

    def finish(self, body: bytes) -> Receipt:
        """The receipt of a request that one of the keys signed; raises Refused for any other."""
        shared = self._macs.signer(self._head.claims(SYMMETRIC), "base64")
        verified_by = self._asymmetric_signer(body) or shared
        if verified_by is None:
            raise Refused(401, "bad_signature", "No signature fits id, timestamp and body.")
        try:
            identity = require_identity(self._head.identity)
        except MalformedName as error:
            raise Refused(400, "bad_delivery_id", f"The header webhook-id is unusable: {error}.") from None
        return Receipt(identity=identity, kind=kind_of(payload_of(body).type), verified_by=verified_by)

    def _asymmetric_signer(self, body: bytes) -> str | None:
        """The name of the key that signed; ed25519 needs the whole of what is signed at once."""
        signatures = [decoded(claim.encode()) for claim in self._head.claims(ASYMMETRIC)]
        if not signatures or not self._public_keys:
            return None
        content = self._head.signed_prefix + body
        fitting = [
            name
            for name, key in self._public_keys
            for signature in signatures
            if _fits(key, signature, content)
        ]
        return fitting[0] if fitting else None


def public_key(secret: bytes) -> Ed25519PublicKey | None:
    """The key in `whpk_<base64>`; None where it holds none."""
    if not secret.startswith(PUBLIC_PREFIX):
        return None
    try:
        return Ed25519PublicKey.from_public_bytes(decoded(secret.removeprefix(PUBLIC_PREFIX)))
    except ValueError:
        return None


def _fits(key: Ed25519PublicKey, signature: bytes, content: bytes) -> bool:
    try:
        key.verify(signature, content)
    except InvalidSignature:
        return False
    return True
