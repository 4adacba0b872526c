"""HMAC signatures of bodies that stream in, and comparing what was shown. Pure, and in constant time."""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

Algorithm = Literal["sha256", "sha1", "sha512"]
Encoding = Literal["hex", "base64"]

ENCODERS: Mapping[Encoding, Callable[[bytes], str]] = {
    "hex": bytes.hex,
    "base64": lambda digest: b64encode(digest).decode(),
}


class Macs:
    """One HMAC for each named key that may have signed. Anybody can sign with an empty key: it is left out."""

    __slots__ = ("_macs",)

    def __init__(self, keys: Iterable[tuple[str, bytes]], algorithm: Algorithm, head: bytes = b"") -> None:
        self._macs = [(name, hmac.new(key, head, algorithm)) for name, key in keys if key]

    def update(self, chunk: bytes) -> None:
        """Take the next bytes of what is signed."""
        for _, mac in self._macs:
            mac.update(chunk)

    def signer(self, claims: Sequence[str], encoding: Encoding) -> str | None:
        """The name of the key that made one of `claims`. Each is compared with each, so that time tells nothing."""
        return first_equal(
            [(name, ENCODERS[encoding](mac.digest()).encode()) for name, mac in self._macs],
            [claim.encode() for claim in claims],
        )


def first_equal(wanted: Iterable[tuple[str, bytes]], claims: Sequence[bytes]) -> str | None:
    """The name of the first of `wanted` that is among `claims`; all are compared, in constant time."""
    equal = [name for name, value in wanted for claim in claims if hmac.compare_digest(value, claim)]
    return equal[0] if equal else None
