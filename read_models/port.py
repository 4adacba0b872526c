"""What a read model must supply: a row class whose annotations state the merge rule of each column.

A read model is a value: name, row class, and a table from event type to the function that turns one
statement into one partial row. There is no fold with state: how rows merge is read off the annotations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import cached_property
from types import NoneType, UnionType
from typing import Any, Generic, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic_core import to_json

from contracts.envelope import Event
from contracts.polls import ListingCompleted
from contracts.record import record
from contracts.version import Version

E = TypeVar("E", bound=Event)
Row = TypeVar("Row")

RuleName = Literal["key", "version", "latest", "earliest", "greatest", "fact", "tally", "note"]


@dataclass(frozen=True, slots=True)
class Rule:
    """How a column takes a new statement: see read_models/merge.py. `group` names the version that decides."""

    name: RuleName
    group: str = ""
    apart: bool = False
    """Whether what tells of the rest of the row may leave its group as it was: a comment says nothing of a branch."""
    operational: bool = False
    """Carried over by a swap and left out of comparisons: it counts work done, not what the log says."""


KEY = Rule("key")
VERSION = Rule("version")
LATEST = Rule("latest", group="version")
EARLIEST = Rule("earliest")
GREATEST = Rule("greatest")
FACT = Rule("fact")
TALLY = Rule("tally", operational=True)
NOTE = Rule("note", operational=True)
FIRST_TRIED = Rule("earliest", operational=True)


def latest(group: str, *, apart: bool = False) -> Rule:
    """`latest` by the version column called `group`; see Rule for `apart`."""
    return Rule("latest", group=group, apart=apart)


@dataclass(frozen=True, slots=True)
class PersonalData:
    """Marks a column that the plain reader role may not see."""


PERSONAL = PersonalData()


@dataclass(frozen=True, slots=True)
class OfSight:
    """Marks a column that says when, where or by whom a thing was seen, and nothing of the thing: never drift."""


SIGHT = OfSight()


@dataclass(frozen=True, slots=True)
class KnownBetter:
    """Marks a column of which a poll may know more than was told, though nothing was missed: a webhook has the time of
    its message, the API that of the thing. It is drift only where there was nothing.
    """


KNOWN_BETTER = KnownBetter()


@dataclass(frozen=True, slots=True)
class Column:
    """One column, as its annotation states it. `type` is the Python type without None."""

    name: str
    type: Any
    rule: Rule
    personal: bool
    watched: bool
    """Whether it says how the thing is, so that a poll that changes it has found drift."""
    known_better: bool
    """Whether that is so only where a poll fills it."""


@record
class Statement(Generic[E]):
    """One event as one delivery states it. `data` is the event's JSON, as it is published."""

    event: E
    version: Version
    delivery: str
    received_at: datetime
    observed: bool
    """Whether it shows what was fetched, by whatever way it came, and not what the provider told."""
    data: bytes

    @property
    def first(self) -> Version:
        """The version by which, of statements of one moment, the one that stands first in the log decides.

        For rows of events: an event never changes, and who told of it first, a webhook above all, told most.
        """
        *at, seq, n = self.version
        return (*at, -seq, -n)


Fold = Callable[[Statement[Any]], Any]
"""One statement to one partial row, to a list of them, or to None where it says nothing to this model."""


@dataclass(frozen=True, slots=True)
class Index:
    """An index beside the key. Never over a `latest` or `greatest` column: that would end HOT updates."""

    name: str
    columns: tuple[str, ...]
    method: Literal["btree", "gin", "brin"] = "btree"
    where: str | None = None
    expression: str | None = None
    """What is indexed instead of columns."""


@dataclass(frozen=True, eq=False)
class ReadModel(Generic[Row]):
    """One table of `ops`. `ref_column` is the column that holds the ref, by which rows are refolded."""

    name: str
    row: type[Row]
    folds: Mapping[type[Event], Fold]
    ref_column: str | None
    indexes: tuple[Index, ...] = field(default=())
    presence: tuple[str, ...] = ()
    """Columns of times of which the greatest is when the thing was last known to be there, for things that whole
    listings show: such a table has `source` and `scope`, too, and a view `<name>_now` that says which are gone."""

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The columns in the order of the row class."""
        hints = get_type_hints(self.row, include_extras=True)
        return tuple(_column(each.name, hints[each.name]) for each in fields(self.row))  # type: ignore[arg-type]

    @cached_property
    def watched(self) -> tuple[str, ...]:
        """The columns by which a poll finds drift: those of things, which have one row each. News in a log is none."""
        of_things = self.key == (self.ref_column,)
        return tuple(c.name for c in self.columns if c.watched) if of_things else ()

    def drifted(self, was: Mapping[str, Any], found: Mapping[str, Any]) -> tuple[str, ...]:
        """The columns by which a row that a poll changed was other than the world; empty where it was not."""
        settled = {
            column.name for column in self.columns if column.known_better and was[column.name] is not None
        }
        return tuple(name for name in self.watched if was[name] != found[name] and name not in settled)

    @cached_property
    def key(self) -> tuple[str, ...]:
        """The names of the key columns."""
        return tuple(column.name for column in self.columns if column.rule.name == "key")


def on(*events: type[Event], fold: Fold) -> dict[type[Event], Fold]:
    """The same fold for several event types."""
    return dict.fromkeys(events, fold)


def as_json(value: object) -> bytes:
    """A decoded JSON value as a `jsonb` column takes it; figures that JSON has no word for become null."""
    return to_json(value, inf_nan_mode="null")


def listed(row: Callable[..., Any], kind: str) -> Fold:
    """The fold of ListingCompleted: each `kind` that it showed was last seen when it began.

    `row` makes a row from the columns ref, source and last_seen_at alone. In which scope a thing is missed is not the
    listing's to say: a filtered one shows it too.
    """

    def fold(statement: Statement[ListingCompleted]) -> list[Any]:
        event = statement.event
        refs = event.refs if event.kind == kind else []
        return [row(ref=ref, source=event.source, last_seen_at=event.started_at) for ref in refs]

    return fold


def listed_in(scope: str, row: Callable[..., Any]) -> Fold:
    """The fold of ListingCompleted for things that one scope alone lists: `scope` is its ref."""

    def fold(statement: Statement[ListingCompleted]) -> list[Any]:
        event = statement.event
        refs = event.refs if event.ref == scope else []
        return [row(ref=ref, last_seen_at=event.started_at) for ref in refs]

    return fold


_WATCHED = frozenset(("latest", "earliest", "greatest", "fact"))


def _column(name: str, annotation: Any) -> Column:
    base, *marks = get_args(annotation)
    rules = [mark for mark in marks if isinstance(mark, Rule)]
    if len(rules) != 1:
        raise TypeError(f"column {name} states {len(rules)} merge rules, it needs one")
    if get_origin(base) in (Union, UnionType):
        (base,) = (part for part in get_args(base) if part is not NoneType)
    return Column(
        name,
        base,
        rules[0],
        personal=any(isinstance(mark, PersonalData) for mark in marks),
        watched=rules[0].name in _WATCHED and not any(isinstance(mark, OfSight) for mark in marks),
        known_better=any(isinstance(mark, KnownBetter) for mark in marks),
    )
