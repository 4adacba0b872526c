"""How fast and how often an API is asked: by value, without a clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.polling import Allowance
from services.poller.pace import BACK_OFF_S_MAX, LATER_S_MAX, due_in_s, interval_s, jitter, pause_s

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
NAMES = st.integers().map(str)


@pytest.mark.parametrize(
    "allowance, left_s, pause",
    [
        (None, 600, 0),
        (Allowance(5000, 5000, 3600), 600, 0),
        (Allowance(500, 5000, 3600), 600, 0),
        # Below a tenth the rest is spread over the time until all are there again.
        (Allowance(499, 5000, 998), 600, 2),
        (Allowance(1, 60, 30), 600, 30),
        (Allowance(0, 60, 30), 600, 30),
        (Allowance(0, 60, -5), 600, 0),
        # Where the run has no time for it, it has to end.
        (Allowance(0, 60, 600), 600, None),
        (Allowance(2, 5000, 3600), 600, None),
        (Allowance(499, 5000, 998), 2, None),
    ],
)
def test_the_last_tenth_of_an_allowance_is_spread(allowance, left_s, pause):
    assert pause_s(allowance, left_s) == pause


@given(st.integers(0, 5000), st.floats(0, 4000), st.floats(0, 600))
def test_a_run_that_waits_as_told_never_uses_up_an_allowance(left, renewed_in_s, left_s):
    pause = pause_s(Allowance(left, 5000, renewed_in_s), left_s)
    assert pause is None or left >= 500 or pause * max(left, 1) >= renewed_in_s * 0.999


@given(NAMES, NAMES, st.integers(60, 100_000))
def test_jitter_is_at_most_a_tenth_and_always_the_same(source, scope, every_s):
    assert 0 <= jitter(source, scope, every_s) < every_s / 10
    assert jitter(source, scope, every_s) == jitter(source, scope, every_s)


def test_jitter_spreads_scopes():
    found = {round(jitter("github", f"repos/org/{n}", 3600)) for n in range(100)}
    assert len(found) > 80


@pytest.mark.parametrize(
    "every_s, failures, expected",
    [(300, 0, 300), (300, 1, 600), (300, 3, 2400), (300, 4, BACK_OFF_S_MAX), (300, 10_000, BACK_OFF_S_MAX)]
    + [(7200, failures, 7200) for failures in (0, 1, 5)],
)
def test_failed_runs_double_the_interval_up_to_an_hour(every_s, failures, expected):
    assert interval_s("s", "x", every_s, failures) == expected + jitter("s", "x", every_s)


@pytest.mark.parametrize(
    "began_ago_s, not_before_in_s, due",
    [
        (0, None, 300),
        (100, None, 200),
        (300, None, 0),
        (9_999, None, 0),
        (300, 50, 50),
        (0, 50, 300),
        (300, 10 * LATER_S_MAX, LATER_S_MAX),
        # A clock that was ahead by a little delays a run by a little, and one far ahead does not stop it for ever.
        (-100, None, 400),
        (-301, None, 0),
    ],
)
def test_a_run_is_due_an_interval_after_the_last_began_and_not_before_the_api_allows(
    began_ago_s, not_before_in_s, due
):
    not_before = None if not_before_in_s is None else NOW + timedelta(seconds=not_before_in_s)
    assert due_in_s(NOW - timedelta(seconds=began_ago_s), 300, not_before, NOW) == due
