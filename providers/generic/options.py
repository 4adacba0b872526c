"""What SSOT may say about a sender that has no code here: how it proves itself, and where its words stand."""

from __future__ import annotations

import re
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from contracts.pointer import Pointer
from contracts.signing import Algorithm, Encoding
from contracts.ssot import ProviderFile, Strict
from contracts.times import Unit

TOLERANCE_S = 300
TOLERANCE_S_MAX = 7 * 24 * 3600
AUTHORIZATION = "authorization"
BODY = "{body}"
TIMESTAMP = "{timestamp}"
NONE = "none"

_PLACE = re.compile(r"\{[^{}]*\}|[{}]")

HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$", to_lower=True)]
ParameterName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.~-]{1,100}$")]
Tokens = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]{1,64}(\.[a-z0-9_-]{1,64}){0,7}$")]
Text = Annotated[str, StringConstraints(pattern=r"^[ -~]{0,100}$")]
Separator = Annotated[str, StringConstraints(pattern=r"^[,; |&]$")]


def _template(text: str) -> str:
    places = _PLACE.findall(text)
    if strange := [place for place in places if place not in (BODY, TIMESTAMP)]:
        raise ValueError(f"{strange[0]} is unknown: only {BODY} and {TIMESTAMP} may stand in braces")
    if places.count(BODY) != 1:
        raise ValueError(f"write {BODY} exactly once: what is not signed proves nothing")
    if places.count(TIMESTAMP) > 1:
        raise ValueError(f"write {TIMESTAMP} once")
    return text


class Timestamp(Strict):
    """The time of signing: which header holds it, and how far it may be from ours."""

    header: HeaderName
    separator: Separator | None = None
    prefix: Text = ""
    unit: Unit = "s"
    tolerance_s: int = Field(default=TOLERANCE_S, ge=1, le=TOLERANCE_S_MAX)


class Hmac(Strict):
    """A signature made with a shared secret.

    With a `separator` the header holds a list, of which those entries count that begin with `prefix`.
    """

    header: HeaderName | None = None
    query: ParameterName | None = None
    separator: Separator | None = None
    prefix: Text = ""
    algorithm: Algorithm = "sha256"
    encoding: Encoding = "hex"
    signed: Annotated[str, StringConstraints(max_length=500), AfterValidator(_template)] = BODY
    timestamp: Timestamp | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _one_of(self, "header", "query")
        if (self.timestamp is None) == (TIMESTAMP in self.signed):
            raise ValueError(
                f"`timestamp` and {TIMESTAMP} in `signed` belong together: a time that is not signed may be anybody's"
            )
        return self

    def around(self, timestamp: str) -> tuple[bytes, bytes]:
        """What is signed before the body and after it."""
        before, after = self.signed.split(BODY)
        return before.replace(TIMESTAMP, timestamp).encode(), after.replace(TIMESTAMP, timestamp).encode()


class Bearer(Strict):
    """The secret itself, in a header or in the address."""

    header: HeaderName | None = None
    query: ParameterName | None = None
    scheme: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{0,30}$")] | None = None
    """The word before it: `Bearer` in the header authorization, none in another, unless given."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _one_of(self, "header", "query")
        if self.query is not None and self.scheme:
            raise ValueError("`scheme` belongs to a header: remove it")
        return self

    @property
    def word(self) -> str:
        """The scheme in lower case, empty for none."""
        if self.scheme is not None:
            return self.scheme.lower()
        return "bearer" if self.header == AUTHORIZATION else ""


class Basic(Strict):
    """HTTP basic authentication: the password is the secret."""

    user: Annotated[str, StringConstraints(pattern=r"^[!-9;-~]{1,100}$")]


class Proof(Strict):
    """How the sender proves who it is: one of three ways."""

    hmac: Hmac | None = None
    bearer: Bearer | None = None
    basic: Basic | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _one_of(self, "hmac", "bearer", "basic")
        return self


class Identity(Strict):
    """Where the sender's own id of a delivery stands: one that its retries keep."""

    header: HeaderName | None = None
    pointer: Pointer | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _one_of(self, "header", "pointer")
        return self


class Kind(Strict):
    """Where it stands what kind of delivery this is."""

    header: HeaderName | None = None
    pointer: Pointer | None = None
    constant: Tokens | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _one_of(self, "header", "pointer", "constant")
        return self


class Time(Strict):
    """Where it stands when it happened, and how that is written."""

    pointer: Pointer
    unit: Unit = "iso"


class Options(Strict):
    """`options` of a source without code."""

    verify: Annotated[Proof | None, BeforeValidator(lambda said: None if said == NONE else said)] = None
    """`none`, or nothing, only beside `unsigned: true`."""
    identity: Identity | None = None
    """Without it each request is a delivery of its own: right for senders that do not retry."""
    kind: Kind | None = None
    time: Time | None = None
    """Without it, or where it is null, the time of receipt."""
    ref: Pointer | None = None
    """Where the name of the thing stands that a delivery is about."""
    title: Pointer | None = None
    """Where a line for people stands."""


def problem(file: ProviderFile, options: Options) -> str | None:
    """What does not fit between file and options, and the fix."""
    if options.verify is None and not file.unsigned:
        return "options.verify is missing: say hmac, bearer or basic, or none together with unsigned: true"
    if options.verify is not None and file.unsigned:
        return "options.verify and unsigned: true exclude each other: remove one"
    if options.verify is not None and not file.secrets:
        return "secrets: name the one that options.verify needs"
    return None


def _one_of(said: Any, *names: str) -> None:
    if sum(getattr(said, name) is not None for name in names) != 1:
        raise ValueError(f"give exactly one of {', '.join(names[:-1])} and {names[-1]}")
