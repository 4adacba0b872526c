"""What became of a delivery by somebody's will: discarded, redacted, no longer believed; and that one was parked.

The first three are said by operators, in deliveries of the source `odooops`, so that a rebuild knows of them too.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, ClassVar, Self

from pydantic import AwareDatetime, Field, model_validator
from pydantic_core import PydanticCustomError

from contracts.delivery import IDENTITY_CHARS_MAX
from contracts.envelope import Event, Level
from contracts.own import SOURCE, Name, OwnEvent, Sentence, Sha256, own_ref
from contracts.version import Int64, moment

KEPT_REFS_MAX = 500
KEPT_REFS_CHARS_MAX = 30_000
"""Of the refs that a redaction keeps, all together: its delivery has to stay far below the largest event."""
REF_HASH_CHARS = 16

Identity = Annotated[str, Field(pattern=rf"^[!-~]{{1,{IDENTITY_CHARS_MAX}}}$")]
Sequence = Annotated[int, Field(ge=1, lt=2**63)]
SecretName = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*(:[1-9][0-9]*)?$")]
"""What `verified_by` calls a secret: its variable `X`, or `X_FILE:2` for the second line of a file."""


def delivery_ref(source: str, identity: str, body_sha256: str) -> str:
    """The ref of a delivery as a thing of its own: `odooops:delivery/github:<id>/<start of the body's hash>`."""
    return own_ref("delivery", f"{source}:{identity}", body_sha256[:REF_HASH_CHARS])


class SetAside(OwnEvent):
    """An operator decided about one delivery. `ref` is that delivery, `actor` is who decided."""

    service: ClassVar[str] = "platform"

    delivery_source: Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,64}$")]
    delivery_identity: Identity
    body_sha256: Sha256
    seq: Sequence
    """Where its body first stood in DELIVERIES."""
    why: Sentence

    def named(self) -> str:
        return delivery_ref(self.delivery_source, self.delivery_identity, self.body_sha256)

    @property
    def level(self) -> Level:
        return "warn"

    @property
    def delivery_name(self) -> str:
        """`source:identity`, what answers and logs call it."""
        return f"{self.delivery_source}:{self.delivery_identity}"


class DeliveryDiscarded(SetAside):
    """A delivery is not to be folded, whatever code may make of it. It stays in the log."""

    type: ClassVar[str] = "delivery.discarded"

    @property
    def summary(self) -> str:
        return f"{self.delivery_name} discarded: {self.why}"


class DeliveryRedacted(SetAside):
    """The body of a delivery was erased, and what came of it. All that the ledger keeps of it stands here."""

    type: ClassVar[str] = "delivery.redacted"

    kind: str
    via: str
    verified_by: str | None = None
    received_at: AwareDatetime
    body_bytes: Int64 | None = None
    last_seq: Sequence
    """Where its body last stood in DELIVERIES."""
    last_received_at: AwareDatetime
    """When its body last came."""
    refs: list[str] = Field(default=[], max_length=KEPT_REFS_MAX)
    """What it was about; the first of them where they were very many."""

    @property
    def summary(self) -> str:
        return f"{self.delivery_name} redacted: {self.why}"


def kept_refs(refs: Iterable[str]) -> list[str]:
    """The refs that a redaction keeps: as many, in their order, as its delivery has room for."""
    kept: list[str] = []
    chars = 0
    for ref in refs:
        chars += len(ref)
        if len(kept) == KEPT_REFS_MAX or chars > KEPT_REFS_CHARS_MAX:
            break
        kept.append(ref)
    return kept


def redaction_identity(seq: int, body_sha256: str, last_seq: int) -> str:
    """The identity of the delivery that says that a body was erased: one for each span in which it stood in the log."""
    return f"redact:{seq}:{body_sha256[:REF_HASH_CHARS]}:{last_seq}"


class SecretExcluded(OwnEvent):
    """A secret has leaked: what it vouched for between two times of receipt is not to be believed.

    `ref` is the secret, by its name: `odooops:secret/<NAME>`.
    """

    type: ClassVar[str] = "secret.excluded"
    service: ClassVar[str] = "platform"

    secret: SecretName
    since: AwareDatetime
    until: AwareDatetime
    """The first moment at which it is to be believed again: when its value was changed."""
    why: Sentence

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.since < self.until <= self.occurred_at:
            raise PydanticCustomError(
                "times_out_of_order", "since is before until, until not after occurred_at"
            )
        return self

    def named(self) -> str:
        return own_ref("secret", self.secret)

    def told(self) -> str:
        return f"{self.since.isoformat()}/{self.until.isoformat()}"

    @property
    def level(self) -> Level:
        return "warn"

    @property
    def summary(self) -> str:
        return f"{self.secret} is not believed from {self.since.isoformat()} to {self.until.isoformat()}: {self.why}"


class DeliveryParked(Event):
    """A delivery was set aside: nothing of it is in the tables yet. `ref` is that delivery.

    Said by the projector, and by nobody in the log: what is parked depends on the code that reads it.
    """

    type: ClassVar[str] = "delivery.parked"
    service: ClassVar[str] = "platform"

    delivery_source: str
    delivery_identity: Name
    kind: str
    seq: Int64
    reason: str
    """Why, in one word: `shape_mismatch`."""
    error: str | None = None
    """Why, in a sentence that holds nothing of its body."""

    @property
    def level(self) -> Level:
        return "warn"

    @property
    def summary(self) -> str:
        why = f": {self.error}" if self.error else ""
        return f"{self.delivery_source}:{self.delivery_identity} parked, {self.reason}{why}"


def parked_event(
    *,
    source: str,
    identity: str,
    body_sha256: str,
    kind: str,
    seq: int,
    received_at: datetime,
    reason: str,
    error: str | None,
) -> DeliveryParked:
    """The event that says that a delivery was parked; one id for each delivery and reason."""
    return DeliveryParked(
        source=SOURCE,
        ref=delivery_ref(source, identity, body_sha256),
        moment=moment(received_at, 0),
        fact=reason,
        occurred_at=received_at,
        delivery_source=source,
        delivery_identity=identity,
        kind=kind,
        seq=seq,
        reason=reason,
        error=error,
    )
