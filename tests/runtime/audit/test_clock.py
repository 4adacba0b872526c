"""A skew is what the round trip cannot explain."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from runtime.audit import clock
from runtime.audit.clock import Reading

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def reading(ahead_s: float, round_trip_s: float = 0.0) -> Reading:
    half = timedelta(seconds=round_trip_s / 2)
    return Reading(theirs=NOW + timedelta(seconds=ahead_s), asked=NOW - half, answered=NOW + half)


@pytest.mark.parametrize(
    ("ahead_s", "round_trip_s", "level"),
    [
        (0.0, 0.0, None),
        (1.9, 0.0, None),
        (2.1, 0.0, "warning"),
        (-2.1, 0.0, "warning"),
        (2.1, 1.0, None),  # it may have been asked late
        (59.0, 0.0, "warning"),
        (61.0, 0.0, "error"),
        (-7200.0, 0.0, "error"),
        (61.0, 4.0, "warning"),
    ],
)
def test_a_clock_is_judged_by_what_the_round_trip_leaves_certain(
    ahead_s: float, round_trip_s: float, level: str | None
) -> None:
    found = clock.findings({"the database": reading(ahead_s, round_trip_s)})
    assert [each.level for each in found] == ([] if level is None else [level])


def test_a_skew_says_which_way_and_how_sure_it_is() -> None:
    (behind,) = clock.findings({"the database": reading(-400.0, 2.0)})
    assert behind.part == "clock of the database"
    assert behind.says == "400.0 s behind this machine's (±1.0 s)"
    assert "300 s" in behind.could_lose
    assert "3600 s" in behind.could_lose


def test_two_servers_that_are_too_far_apart_are_told_though_neither_is_from_us() -> None:
    apart = {"the database": reading(1.5), "broker nats-1": reading(-1.5), "broker nats-2": reading(0.0)}
    (found,) = clock.findings(apart)
    assert (found.level, found.part) == ("warning", "clock of the database")
    assert found.says == "3.0 s ahead of broker nats-1's (±0.0 s)"
    assert clock.findings(apart | {"the database": reading(1.5, 3.0)}) == []
