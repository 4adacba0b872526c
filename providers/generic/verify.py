"""Verify a request as the options of its source say: HMAC, bearer or basic, or nothing at all."""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode

from contracts.external import MESSAGE, kind_of, stable_name
from contracts.pointer import text_at
from contracts.signing import ENCODERS, Macs, first_equal
from contracts.text import NotJson, document
from contracts.times import Unit, instant
from contracts.version import micros
from providers.generic.options import AUTHORIZATION, Basic, Bearer, Hmac, Options, Proof, Timestamp
from providers.port import Composed, Parcel, Receipt, Refused, Request, Secret, Source, Verification

CONTENT_TYPE = "content-type"
KEPT_HEADERS = (CONTENT_TYPE,)
JSON_TYPE = "application/json"
ENTRIES_COUNT_MAX = 16
"""Entries looked at in a header that holds a list."""
PARAMETERS_COUNT_MAX = 32


def open_verification(request: Request, source: Source, secrets: Sequence[Secret]) -> Verification:
    """Begin to verify a request; refuses at once where the head alone decides."""
    options: Options = source.options
    proof = options.verify
    if proof is None:
        if not source.file.unsigned:
            raise Refused(401, "no_proof", "This source has no way to prove who sends.")
        return KnownSender(request, options, None)
    if proof.hmac is not None:
        return SignedRequest(request, options, proof.hmac, secrets)
    return KnownSender(request, options, _shown(request, proof, secrets))


class KnownSender:
    """A request whose head has proved who sends, or need not: its body is taken at its word."""

    __slots__ = ("_options", "_request", "_verified_by")

    def __init__(self, request: Request, options: Options, verified_by: str | None) -> None:
        self._request = request
        self._options = options
        self._verified_by = verified_by

    def update(self, chunk: bytes) -> None:
        """Nothing in the body proves anything."""

    def finish(self, body: bytes) -> Receipt:
        """The receipt; raises Refused where identity or kind cannot be found."""
        return _receipt(self._request, self._options, body, self._verified_by)


class SignedRequest:
    """A request with a signature of its body."""

    __slots__ = ("_claims", "_encoding", "_macs", "_options", "_request", "_tail")

    def __init__(self, request: Request, options: Options, how: Hmac, secrets: Sequence[Secret]) -> None:
        self._request = request
        self._options = options
        self._encoding = how.encoding
        self._claims = _claims(request, how)
        timestamp = "" if how.timestamp is None else _timestamp(request, how.timestamp)
        head, self._tail = how.around(timestamp)
        self._macs = Macs(((each.name, each.value) for each in secrets), how.algorithm, head)

    def update(self, chunk: bytes) -> None:
        """Take the next bytes of the raw body."""
        self._macs.update(chunk)

    def finish(self, body: bytes) -> Receipt:
        """The receipt of a request that one of the secrets signed; raises Refused for any other."""
        self._macs.update(self._tail)
        verified_by = self._macs.signer(self._claims, self._encoding)
        if verified_by is None:
            raise Refused(401, "bad_signature", "The signature does not fit the body.")
        return _receipt(self._request, self._options, body, verified_by)


def _claims(request: Request, how: Hmac) -> list[str]:
    """The signatures that a request carries; raises Refused where it carries none at all."""
    text = _parameter(request, how.query) if how.query else request.headers.get(how.header or "")
    if text is None:
        where = f"parameter {how.query}" if how.query else f"header {how.header}"
        raise Refused(401, "missing_signature", f"The {where} is missing.")
    claims = _entries(text, how.separator, how.prefix)
    return [claim.lower() for claim in claims] if how.encoding == "hex" else claims


def _timestamp(request: Request, how: Timestamp) -> str:
    """The time of signing, as it is written; raises Refused where it is missing, malformed or too far away."""
    found = _entries(request.headers.get(how.header, ""), how.separator, how.prefix)
    if not found or not found[0]:
        raise Refused(401, "missing_timestamp", f"The header {how.header} holds no timestamp.")
    at = instant(found[0], how.unit)
    if at is None:
        raise Refused(401, "bad_timestamp", f"The timestamp is no time in the unit {how.unit}.")
    if abs((request.received_at - at).total_seconds()) > how.tolerance_s:
        raise Refused(
            401, "stale_timestamp", f"The timestamp is more than {how.tolerance_s} s away from ours."
        )
    return found[0]


def _entries(text: str, separator: str | None, prefix: str) -> list[str]:
    """What a header says, or those entries of its list that begin with `prefix`, each without it."""
    if separator is None:
        entries = [text]
    else:
        entries = [part.strip() for part in text.split(separator, ENTRIES_COUNT_MAX)[:ENTRIES_COUNT_MAX]]
    return [entry.removeprefix(prefix) for entry in entries if entry.startswith(prefix)]


def _shown(request: Request, proof: Proof, secrets: Sequence[Secret]) -> str:
    """The name of the secret that the head shows; raises Refused."""
    held = [(secret.name, secret.value) for secret in secrets if secret.value]
    if proof.basic is not None:
        shown = _after_scheme(request.headers.get(AUTHORIZATION), "basic")
        held = [(name, _pair(proof.basic, value).encode()) for name, value in held]
    else:
        bearer = proof.bearer or Bearer(header=AUTHORIZATION)
        text = _parameter(request, bearer.query) if bearer.query else request.headers.get(bearer.header or "")
        shown = _after_scheme(text, bearer.word)
    if not shown:
        raise Refused(401, "missing_token", "The request shows no token where this source has to show one.")
    name = first_equal(held, [shown.encode()])
    if name is None:
        raise Refused(401, "bad_token", "The token is none of ours.")
    return name


def _after_scheme(text: str | None, word: str) -> str | None:
    if text is None or not word:
        return text
    scheme, _, token = text.partition(" ")
    return token.strip() if scheme.lower() == word else None


def _pair(how: Basic, password: bytes) -> str:
    return b64encode(how.user.encode() + b":" + password).decode()


def _parameter(request: Request, name: str) -> str | None:
    """A parameter of the address, if it is there exactly once."""
    try:
        found = parse_qsl(request.query, keep_blank_values=True, max_num_fields=PARAMETERS_COUNT_MAX)
    except ValueError:
        return None
    values = [value for known, value in found if known == name]
    return values[0] if len(values) == 1 else None


def _receipt(request: Request, options: Options, body: bytes, verified_by: str | None) -> Receipt:
    """The receipt of a request that may be stored; raises Refused where its words are not where SSOT says."""
    value = _document(options, body)
    return Receipt(
        identity=_identity(request, options, value),
        kind=_kind(request, options, value),
        verified_by=verified_by,
    )


def _document(options: Options, body: bytes) -> Any:
    """The decoded body, where identity or kind stand in it."""
    asking = [
        f"options.{name}.pointer"
        for name, place in (("identity", options.identity), ("kind", options.kind))
        if place is not None and place.pointer is not None
    ]
    if not asking:
        return None
    try:
        return document(body)
    except NotJson:
        raise Refused(400, "malformed_json", f"The body is not JSON, which {asking[0]} needs.") from None


def _identity(request: Request, options: Options, value: Any) -> str:
    place = options.identity
    if place is None:
        return request.receipt_id
    if place.pointer is not None:
        text, where = text_at(value, place.pointer), f"at {place.pointer} in the body"
    else:
        text, where = request.headers.get(place.header or ""), f"in the header {place.header}"
    if not text:
        raise Refused(400, "missing_identity", f"There is no id {where}, as options.identity says.")
    return stable_name(text)


def _kind(request: Request, options: Options, value: Any) -> str:
    """The kind; a delivery that does not name one is a `message`, and no less welcome."""
    place = options.kind
    if place is None:
        return MESSAGE
    if place.constant is not None:
        return place.constant
    if place.pointer is not None:
        return kind_of(text_at(value, place.pointer))
    return kind_of(request.headers.get(place.header or ""))


def compose(parcel: Parcel, source: Source, secret: Secret) -> Composed:
    """The request of a sender as the options describe it. What stands in the body is the caller's."""
    options: Options = source.options
    headers = {CONTENT_TYPE: JSON_TYPE}
    query: dict[str, str] = {}
    if options.identity is not None and options.identity.header is not None:
        headers[options.identity.header] = parcel.delivery
    if options.kind is not None and options.kind.header is not None:
        headers[options.kind.header] = parcel.event
    proof = options.verify or Proof.model_construct()
    if proof.hmac is not None:
        _sign(proof.hmac, parcel, secret, headers, query)
    elif proof.bearer is not None:
        token = secret.value.decode()
        if proof.bearer.query is not None:
            query[proof.bearer.query] = token
        else:
            scheme = "Bearer" if proof.bearer.word == "bearer" else proof.bearer.scheme
            headers[proof.bearer.header or ""] = f"{scheme} {token}" if proof.bearer.word else token
    elif proof.basic is not None:
        headers[AUTHORIZATION] = f"Basic {_pair(proof.basic, secret.value)}"
    return Composed(headers=headers, body=parcel.body, query=urlencode(query))


def _sign(how: Hmac, parcel: Parcel, secret: Secret, headers: dict[str, str], query: dict[str, str]) -> None:
    text = "" if how.timestamp is None else _written(parcel.at, how.timestamp.unit)
    before, after = how.around(text)
    claim = how.prefix + ENCODERS[how.encoding](
        hmac.digest(secret.value, before + parcel.body + after, how.algorithm)
    )
    if how.timestamp is not None:
        headers[how.timestamp.header] = how.timestamp.prefix + text
    if how.query is not None:
        query[how.query] = claim
    elif how.header in headers:
        headers[how.header] += f"{how.separator}{claim}"  # one header for both, as Stripe's
    else:
        headers[how.header or ""] = claim


def _written(at: datetime, unit: Unit) -> str:
    if unit == "iso":
        return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return str(micros(at) // (1_000_000 if unit == "s" else 1_000))
