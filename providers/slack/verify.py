"""Proof that a request is Slack's and fresh, and what its delivery is called.

https://docs.slack.dev/authentication/verifying-requests-from-slack
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence

from contracts.delivery import MalformedName, require_identity
from contracts.signing import Algorithm, Macs
from providers.port import Composed, Parcel, Receipt, Refused, Request, Secret, Source
from providers.slack.body import NotSlacks, content_of

SIGNATURE = "x-slack-signature"
TIMESTAMP = "x-slack-request-timestamp"
CONTENT_TYPE = "content-type"
KEPT_HEADERS = (CONTENT_TYPE, "x-slack-retry-num", "x-slack-retry-reason")

DIGEST: Algorithm = "sha256"
SCHEME = "v0"
WINDOW_S = 300
"""How far the time of a request may lie from ours, in either direction."""
SECRET_HEX_CHARS = 32

_SIGNATURE = re.compile(f"{SCHEME}=[0-9a-f]{{64}}")
_TIMESTAMP = re.compile(r"[0-9]{1,12}")


def new_secret(random: bytes) -> str:
    """A secret in the form of Slack's signing secrets."""
    return random.hex()[:SECRET_HEX_CHARS]


def compose(parcel: Parcel, source: Source, secret: Secret) -> Composed:
    """Slack's request for a body of any kind; the body itself says which."""
    timestamp = str(int(parcel.at.timestamp()))
    mac = hmac.new(secret.value, _prefix(timestamp), DIGEST)
    mac.update(parcel.body)
    is_json = parcel.body.lstrip()[:1] == b"{"
    headers = {
        CONTENT_TYPE: "application/json" if is_json else "application/x-www-form-urlencoded",
        TIMESTAMP: timestamp,
        SIGNATURE: f"{SCHEME}={mac.hexdigest()}",
    }
    return Composed(headers=headers, body=parcel.body)


def open_verification(request: Request, source: Source, secrets: Sequence[Secret]) -> SignedRequest:
    """Begin to verify a request; refuses at once what is not signed at all, or too long ago."""
    claimed, timestamp = request.headers.get(SIGNATURE), request.headers.get(TIMESTAMP)
    if claimed is None or timestamp is None:
        raise Refused(401, "missing_signature", "X-Slack-Signature or X-Slack-Request-Timestamp is missing.")
    if not _SIGNATURE.fullmatch(claimed) or not _TIMESTAMP.fullmatch(timestamp):
        raise _bad_signature()
    if abs(request.received_at.timestamp() - int(timestamp)) > WINDOW_S:
        raise Refused(401, "stale_timestamp", f"The request was not made within {WINDOW_S} s of now.")
    return SignedRequest(claimed, timestamp, secrets)


class SignedRequest:
    """A request with a signature, and one HMAC for each secret that may have made it."""

    __slots__ = ("_claimed", "_macs")

    def __init__(self, claimed: str, timestamp: str, secrets: Sequence[Secret]) -> None:
        self._claimed = claimed
        self._macs = Macs(((secret.name, secret.value) for secret in secrets), DIGEST, _prefix(timestamp))

    def update(self, chunk: bytes) -> None:
        """Take the next bytes of the raw body."""
        self._macs.update(chunk)

    def finish(self, body: bytes) -> Receipt:
        """The receipt of a request that is Slack's and of a known form; raises Refused for any other."""
        verified_by = self._macs.signer([self._claimed.removeprefix(f"{SCHEME}=")], "hex")
        if verified_by is None:
            raise _bad_signature()
        try:
            content = content_of(body)
        except NotSlacks as error:
            raise Refused(400, "malformed_body", str(error)) from None
        return Receipt(identity=self._identity(content.once), kind=content.kind, verified_by=verified_by)

    def _identity(self, once: str | None) -> str:
        """Slack's own name of what must happen once; else the signature, which another second makes another."""
        if once is not None:
            try:
                return require_identity(once)
            except MalformedName:
                pass  # not an id: the signature has to do
        return self._claimed


def _prefix(timestamp: str) -> bytes:
    return f"{SCHEME}:{timestamp}:".encode()


def _bad_signature() -> Refused:
    return Refused(401, "bad_signature", "The signature does not fit the body.")
