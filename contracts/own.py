"""What we say ourselves: a gate's result, a job's step, an SSOT entry is a delivery of the source `odooops`.

Its kind is the event's type and its body the event's JSON, so that our own words take the same way as everybody's.
The families that only we speak in are built on `OwnEvent`: whoever states the facts of one need not know how refs,
moments and facts are made of them. docs/own-events.md is the page for producers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import AfterValidator, AwareDatetime, Field, model_validator
from pydantic_core import PydanticCustomError

from contracts.delivery import Delivery, Via, body_sha256
from contracts.envelope import Event, Level, RunEvent, Short
from contracts.version import Moment, moment

SOURCE = "odooops"
SENTENCE_CHARS_MAX = 2_000
"""A longer sentence is cut, not refused: the end of a run must not be lost for the length of its error."""

ASKED, RUNNING, TIMED_OUT, ENDED, AFTER_END = range(5)
"""How far a thing is in its life, the major part of its moments. An end that was only concluded from silence ranks
below the real one, which may come later."""
STAGES = 5

Name = Annotated[str, Field(pattern=r"^[!-~]{1,200}$")]
"""An id or a name that stands in a ref: 1 to 200 printable ASCII characters, no spaces."""
Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,99}$")]
"""A name that we gave: `db_object_count`."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Sentence = Annotated[str, AfterValidator(lambda said: said[:SENTENCE_CHARS_MAX])]
"""Free text without secrets, cut after 2,000 characters."""

EndStatus = Literal["success", "partial", "failed", "cancelled", "skipped", "unknown"]
"""How something ended. `unknown`: the producer's word for it is none that we know."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The words that we know of an enumeration, and what any other one counts as."""

    known: Mapping[str, str]
    otherwise: str = "unknown"

    def word(self, stated: str) -> str:
        """Our word for `stated`, whatever its case."""
        return self.known.get(stated.strip().lower().replace("-", "_").replace(" ", "_"), self.otherwise)


def vocabulary(literal: Any, also: Mapping[str, str] | None = None, otherwise: str = "unknown") -> Vocabulary:
    """The words of a Literal, and other spellings of them."""
    return Vocabulary({**{word: word for word in get_args(literal)}, **(also or {})}, otherwise)


END_WORDS = vocabulary(
    EndStatus,
    {
        "succeeded": "success",
        "ok": "success",
        "passed": "success",
        "done": "success",
        "complete": "success",
        "completed": "success",
        "failure": "failed",
        "fail": "failed",
        "error": "failed",
        "errored": "failed",
        "timeout": "failed",
        "timed_out": "failed",
        "canceled": "cancelled",
        "aborted": "cancelled",
    },
)


def own_ref(thing: str, *parts: str) -> str:
    """The ref of a thing of ours: `odooops:backup/nightly-7`."""
    return f"{SOURCE}:{thing}/{'/'.join(parts)}"


def delivery_of(event: Event, via: Via, said_at: datetime, identity: str | None = None) -> Delivery:
    """The delivery that states `event`. Its identity is the event's id unless another tells two statements apart."""
    body = event.model_dump_json().encode()
    return Delivery(
        source=SOURCE,
        identity=identity or event.id,
        kind=event.type,
        via=via,
        received_at=said_at,
        body=body,
        body_sha256=body_sha256(body),
    )


def without_default(schema: dict[str, Any]) -> None:
    """For a field that follows from others: nothing that is published has its default."""
    schema.pop("default", None)


class OwnEvent(Event):
    """`ref`, `moment` and `fact` follow from the other fields: who states those need not state these."""

    words: ClassVar[Mapping[str, Vocabulary]] = {}
    """Enumerations that may grow: the field holds our word, `stated_<field>` the producer's."""

    source: str = SOURCE
    """Who told us: `odooops`."""
    ref: str = Field(default="", json_schema_extra=without_default)
    """Stable name of the thing that the event is about. It follows from the facts."""
    moment: Moment = Field(default=(0, 0, 0), json_schema_extra=without_default)
    """When the fact was true, and how late in the thing's life. It follows from the facts."""

    def named(self) -> str:
        """The ref that follows from the facts."""
        raise NotImplementedError

    def placed(self) -> Moment:
        """The moment that follows from the facts."""
        return moment(self.occurred_at, 0)

    def told(self) -> str:
        """What tells this fact apart from others of its type, ref and moment."""
        return ""

    @model_validator(mode="before")
    @classmethod
    def _normalise_words(cls, said: Any) -> Any:
        if not isinstance(said, dict):
            return said
        found: dict[str, str] = {}
        for name, known in cls.words.items():
            stated = f"stated_{name}"
            word = said.get(name, said.get(stated))
            if isinstance(word, str):
                found[name] = known.word(word)
                if said.get(stated) is None:
                    found[stated] = word
        return {**said, **found}

    @model_validator(mode="after")
    def _derive(self) -> Self:
        self._follow("ref", self.named())
        self._follow("moment", self.placed())
        if not self.fact:
            self._set("fact", self.told())
        return self

    def _follow(self, name: str, derived: Any) -> None:
        """Set a field that follows from the others; what was stated for it must be the same."""
        if name in self.model_fields_set and getattr(self, name) != derived:
            raise PydanticCustomError(
                f"{name}_differs_from_the_facts",
                "what is stated does not follow from the other fields: leave it out",
            )
        self._set(name, derived)

    def _set(self, name: str, value: Any) -> None:
        # Frozen from here on: nobody has seen it yet.
        object.__setattr__(self, name, value)


_OWN_LEVELS: Mapping[str, Level] = {"partial": "warn", "dead": "error", "expired": "warn", "denied": "warn"}


class OwnRun(OwnEvent, RunEvent):
    """Something of ours that is asked for, runs and ends: how far it is decides, then the time."""

    stage: ClassVar[int]
    state: ClassVar[str]
    """The normalised state that this event brings."""

    correlation_id: Short | None = None
    """What ties events of several things together: the commit, where there is one."""
    url: str | None = None
    """Where a person can look at the run."""

    @property
    def reached(self) -> int:
        """How far the thing is in its life by this event."""
        return self.stage

    def placed(self) -> Moment:
        return moment(self.occurred_at, 0, major=self.reached)

    def told(self) -> str:
        return self.outcome or ""

    @property
    def outcome(self) -> str | None:
        return self.state

    @property
    def level(self) -> Level:
        return _OWN_LEVELS.get(self.outcome or "") or super().level

    @property
    def correlation(self) -> str | None:
        return self.correlation_id


class Ended(OwnRun):
    """The end of a run, at `occurred_at`."""

    stage: ClassVar[int] = ENDED

    started_at: AwareDatetime | None = None
    """When it had begun: for who tells only of the end."""
    error: Sentence | None = None
    """Why it is not a success, in one sentence without secrets."""
    timed_out: bool = False
    """True where it was closed for want of a sign of life: the real end counts, should it come."""

    @property
    def reached(self) -> int:
        return TIMED_OUT if self.timed_out else self.stage


class Concluded(Ended):
    """An end with one of the common words for how it went."""

    words: ClassVar[Mapping[str, Vocabulary]] = {"status": END_WORDS}

    status: EndStatus
    stated_status: str | None = None
    """The producer's own word."""

    @property
    def outcome(self) -> str:
        return self.status
