"""What a seed says."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from itertools import pairwise

import pytest

from tests.chaos.__main__ import RUNS, SECONDS
from tests.chaos.kept import ROOT
from tests.chaos.plan import COUNTS, GROUPS, brokers_of, kinds, plan

MANY = range(40)
each_count = pytest.mark.parametrize("brokers", COUNTS)


def test_a_seed_says_the_same_in_every_process() -> None:
    code = "from tests.chaos.plan import plan; print(plan(7, 60.0, 1))"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert said.stdout.strip() == str(plan(7, 60.0, 1))
    assert plan(7, 60.0, 1) != plan(8, 60.0, 1)


def test_the_suite_does_all_that_can_be_done_whatever_its_seed() -> None:
    for first in MANY:
        done = {
            (brokers_of(n), act.kind) for n in range(RUNS) for act in plan(first + n, SECONDS, brokers_of(n))
        }
        assert done == {(brokers, kind) for brokers in COUNTS for kind in kinds(GROUPS[brokers])}


@each_count
def test_whoever_is_alike_is_hurt_alike(brokers: int) -> None:
    done = {(act.verb, act.target) for seed in MANY for act in plan(seed, SECONDS, brokers)}
    groups = GROUPS[brokers].values()
    assert done == {(verb, name) for group in groups for verb in group.verbs for name in group.names}


@each_count
def test_all_is_mended_in_time_and_nothing_is_hurt_twice_at_once(brokers: int) -> None:
    groups = GROUPS[brokers].values()
    alone = [{name} for group in groups if not group.one_at_a_time for name in group.names]
    together = [{*group.names} for group in groups if group.one_at_a_time]
    for seconds in (4.0, SECONDS):
        for seed in MANY:
            acts = plan(seed, seconds, brokers)
            assert acts and max(act.until_s for act in acts) <= seconds
            for names in alone + together:
                of_these = [act for act in acts if act.target in names]
                assert all(before.until_s <= after.at_s for before, after in pairwise(of_these))


def test_many_things_happen_at_the_same_time() -> None:
    acts = plan(1, SECONDS, 1)
    at_once = Counter(
        n for n, act in enumerate(acts) for other in acts if other.at_s < act.at_s < other.until_s
    )
    assert max(at_once.values()) >= 3
