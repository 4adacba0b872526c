"""Standard Webhooks 1.0.0: three headers, and the symmetric signature `v1`. Pure; the ed25519 one needs a library.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

FAMILIES = ("webhook", "svix")
"""How the headers may begin, the standard's own first. The three of a request are of one family, never mixed."""
SECRET_PREFIX = "whsec_"  # noqa: S105  # not a secret: how one begins
SYMMETRIC = "v1"
TOLERANCE_S = 300
"""How old or new a timestamp may be, unless a source says otherwise; as in the reference libraries."""
ENTRIES_COUNT_MAX = 8
"""Signatures looked at. A sender that changes its key sends two."""

_TIMESTAMP = re.compile("[0-9]{1,12}")


class BadHead(ValueError):
    """Headers that no valid signature can stand in. `reason` is a slug, the message one sentence."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class SignedHead:
    """The three headers of a request."""

    identity: str
    timestamp: str
    entries: tuple[tuple[str, str], ...]
    """The well-formed signatures: version and the rest."""

    @property
    def signed_prefix(self) -> bytes:
        """What is signed before the body."""
        return f"{self.identity}.{self.timestamp}.".encode()

    def claims(self, version: str) -> list[str]:
        """The signatures of one version."""
        return [claim for known, claim in self.entries if known == version]


def is_signed(headers: Mapping[str, str]) -> bool:
    """Whether a request carries a signature of this kind, complete or not."""
    return any(f"{family}-signature" in headers for family in FAMILIES)


def signed_head(headers: Mapping[str, str], received_at: datetime, tolerance_s: int) -> SignedHead:
    """The first complete family of the headers, if its time is near enough; raises BadHead."""
    for family in FAMILIES:
        names = [f"{family}-{part}" for part in ("id", "timestamp", "signature")]
        if all(headers.get(name) for name in names):
            identity, timestamp, signatures = (headers[name] for name in names)
            break
    else:
        raise BadHead(
            "missing_signature",
            "The headers webhook-id, webhook-timestamp and webhook-signature are needed, or all three as svix-….",
        )
    if not _TIMESTAMP.fullmatch(timestamp):
        raise BadHead("bad_timestamp", "The timestamp has to be whole seconds since 1970.")
    if abs(received_at.timestamp() - int(timestamp)) > tolerance_s:
        raise BadHead("stale_timestamp", f"The timestamp is more than {tolerance_s} s away from ours.")
    if "." in identity:
        # Else one signature would fit two readings of what was signed: the specification forbids it.
        raise BadHead("bad_delivery_id", "The id may not hold a full stop.")
    return SignedHead(identity, timestamp, _entries(signatures))


def _entries(signatures: str) -> tuple[tuple[str, str], ...]:
    """The entries of a signature header that have a version and a value; malformed ones are passed over."""
    parts = (entry.partition(",") for entry in signatures.split(" ", ENTRIES_COUNT_MAX)[:ENTRIES_COUNT_MAX])
    return tuple((version, claim) for version, _, claim in parts if version and claim)


def decoded(text: bytes) -> bytes:
    """Base64, padded or not, as bytes; nothing where it is anything else."""
    try:
        return b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except ValueError:
        return b""


def symmetric_key(secret: bytes) -> bytes:
    """The key in a secret `whsec_<base64>`, the prefix being optional; empty where it holds none."""
    return decoded(secret.removeprefix(SECRET_PREFIX.encode()))


def new_secret(random: bytes) -> str:
    """A symmetric secret made of random bytes."""
    return SECRET_PREFIX + b64encode(random).decode()


def sign(identity: str, at: datetime, body: bytes, secret: bytes) -> dict[str, str]:
    """The headers of a genuine request; a secret that holds no symmetric key is a ValueError."""
    key = symmetric_key(secret)
    if not key:
        raise ValueError("the secret is not whsec_ and base64, so that nothing can be signed with it")
    timestamp = str(int(at.timestamp()))
    content = b".".join((identity.encode(), timestamp.encode(), body))
    return {
        "webhook-id": identity,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"{SYMMETRIC},{b64encode(hmac.digest(key, content, 'sha256')).decode()}",
    }
