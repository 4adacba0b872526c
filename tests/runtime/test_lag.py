"""The age of what a process has taken and not acknowledged."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from runtime.lag import Taken

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def at(minute: int) -> datetime:
    return NOON + timedelta(minutes=minute)


def test_the_oldest_that_is_not_acknowledged_counts_however_often_others_were_taken_since() -> None:
    taken = Taken(50)
    for seq in (1, 2, 3):
        taken.take(seq, at(seq))
    taken.acknowledge(3)
    assert at(1) == taken.oldest_at(0)
    taken.acknowledge(1)
    assert at(2) == taken.oldest_at(1)


def test_what_is_done_with_tells_no_age_of_what_comes_an_hour_later() -> None:
    taken = Taken(50)
    taken.take(1, at(1))
    taken.acknowledge(1)
    assert taken.oldest_at(1) is None


def test_what_another_process_has_acknowledged_is_forgotten() -> None:
    taken = Taken(2)
    taken.take(1, at(1))
    taken.take(2, at(2))
    assert at(2) == taken.oldest_at(1)
    taken.take(1, at(1))
    taken.take(3, at(3))
    assert at(1) == taken.oldest_at(0)
    taken.take(4, at(4))
    assert at(3) == taken.oldest_at(0)
