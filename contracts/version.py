"""The order of statements about one thing: sortable tuples, compared element by element.

A *moment* `(major, at, rank)` belongs to the fact; a *version* `(major, at, rank, seq, n)` adds where the
fact was stated: the least sequence of its delivery's identity and its ordinal within the delivery, so that
two statements never have equal versions. Postgres stores a version as `bigint[]` and compares it alike.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import Field

INT64_MAX = 2**63 - 1
Int64 = Annotated[int, Field(ge=-(2**63), le=INT64_MAX)]

Moment = tuple[Int64, Int64, Int64]
Version = tuple[int, ...]

NOTHING_STATED: Version = ()
"""Below every version, so that "nothing stated yet" needs no NULL."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FIRST = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LAST = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND


def micros(at: datetime) -> int:
    """Microseconds since 1970 of an aware time, exactly; a naive one is a ValueError."""
    if at.utcoffset() is None:
        raise ValueError(f"the time {at.isoformat()} has no zone")
    return (at - _EPOCH) // _MICROSECOND


def from_micros(value: int) -> datetime:
    """The UTC time that `micros` made `value` of; the nearest that UTC has, where zones reach beyond its years."""
    return _EPOCH + timedelta(microseconds=min(max(value, _FIRST), _LAST))


def moment(at: datetime, rank: int, major: int = 0) -> Moment:
    """When and how late in its life a fact was stated; `rank` decides between equal times."""
    return (major, micros(at), rank)


def version(at: Moment, seq: int, n: int) -> Version:
    """The version of the statement that the `n`-th event of the delivery at sequence `seq` makes."""
    return (*at, seq, n)
