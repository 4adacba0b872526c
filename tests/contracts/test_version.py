"""Statements about one thing are in one order, and times become numbers without losing a microsecond.

That Postgres orders the same tuples alike is tested where the tables are.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.version import INT64_MAX, NOTHING_STATED, Moment, from_micros, micros, moment, version

zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
times = st.datetimes(timezones=zones)
utc_times = st.datetimes(timezones=st.just(UTC))
small = st.integers(0, 2)
moments = st.tuples(small, small, small)


@given(utc_times)
def test_micros_and_back_is_the_same_time(at: datetime) -> None:
    assert at == from_micros(micros(at))
    assert UTC == from_micros(micros(at)).tzinfo


@given(st.integers(-(10**15), 10**16))
def test_from_micros_and_back_is_the_same_number(value: int) -> None:
    assert value == micros(from_micros(value))


@given(times, times)
def test_micros_keep_the_order_of_times_whatever_their_zones(one: datetime, other: datetime) -> None:
    assert (one < other) == (micros(one) < micros(other))
    assert (one == other) == (micros(one) == micros(other))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "1970-01-01T00:00:00+00:00"),
        (-1, "1969-12-31T23:59:59.999999+00:00"),
        (1_639_683_442_000_001, "2021-12-16T19:37:22.000001+00:00"),
        (1_639_683_442_000_001, "2021-12-17T01:07:22.000001+05:30"),
        # As a float of seconds this one would lose its last digit.
        (253_402_300_799_999_999, "9999-12-31T23:59:59.999999+00:00"),
        (-62_135_596_800_000_000, "0001-01-01T00:00:00+00:00"),
    ],
)
def test_micros_are_exact(value: int, text: str) -> None:
    assert value == micros(datetime.fromisoformat(text))


@pytest.mark.parametrize(
    ("nearest", "text"),
    [
        (datetime.min.replace(tzinfo=UTC), "0001-01-01T00:00:00+14:00"),
        (datetime.max.replace(tzinfo=UTC), "9999-12-31T23:59:59.999999-14:00"),
    ],
)
def test_a_time_that_utc_has_no_year_for_becomes_the_nearest(nearest: datetime, text: str) -> None:
    assert nearest == from_micros(micros(datetime.fromisoformat(text)))


@given(st.integers(-(2**63), INT64_MAX))
def test_every_int64_is_some_time(value: int) -> None:
    assert UTC == from_micros(value).tzinfo


class Zoneless(tzinfo):
    """A zone that does not say its offset: Python counts such a time as naive."""

    def utcoffset(self, at: datetime | None) -> None:
        return None

    def dst(self, at: datetime | None) -> None:
        return None

    def tzname(self, at: datetime | None) -> str:
        return "nowhere"


@pytest.mark.parametrize("zone", [None, Zoneless()])
@pytest.mark.parametrize("take", [micros, lambda at: moment(at, 0)])
def test_a_naive_time_is_refused(take: Any, zone: tzinfo | None) -> None:
    with pytest.raises(ValueError, match="2026-03-04T00:00:00 has no zone"):
        take(datetime(2026, 3, 4, tzinfo=zone))


def test_a_moment_puts_the_lifecycle_first_then_the_time_then_the_rank() -> None:
    noon = datetime(2026, 3, 4, 12, tzinfo=UTC)
    later = noon + timedelta(microseconds=1)
    in_order = [
        moment(noon, 0),
        moment(noon, 1),
        moment(later, 0),
        moment(noon, 0, major=1),
        moment(later, 0, major=2),
    ]
    assert in_order == sorted(in_order)
    assert len(in_order) == len(set(in_order))


@given(moments, moments, st.tuples(small, small), st.tuples(small, small))
def test_the_moment_decides_and_where_it_was_stated_only_between_equals(
    one: Moment, other: Moment, here: tuple[int, int], there: tuple[int, int]
) -> None:
    expected = (one, *here) < (other, *there)
    assert expected == (version(one, *here) < version(other, *there))


@given(moments, small, small)
def test_nothing_stated_is_below_every_version(at: Moment, seq: int, n: int) -> None:
    assert NOTHING_STATED < version(at, seq, n)
    assert 5 == len(version(at, seq, n))


@given(moments, st.sets(st.tuples(small, small), min_size=2))
def test_two_statements_of_one_moment_never_have_equal_versions(
    at: Moment, places: set[tuple[int, int]]
) -> None:
    assert len(places) == len({version(at, seq, n) for seq, n in places})
