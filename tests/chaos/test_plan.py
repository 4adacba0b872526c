"""What a seed says."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from itertools import pairwise

from tests.chaos.kept import ROOT
from tests.chaos.plan import LINKS, PROCESSES, TARGETS, plan

MANY = range(40)


def test_a_seed_says_the_same_in_every_process() -> None:
    code = "from tests.chaos.plan import plan; print(plan(7, 60.0))"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert said.stdout.strip() == str(plan(7, 60.0))
    assert plan(7, 60.0) != plan(8, 60.0)


def test_everything_that_can_be_done_is_done() -> None:
    done = {(act.verb, act.target) for seed in MANY for act in plan(seed, 60.0)}
    assert done == {(verb, target) for target, verbs in TARGETS.items() for verb in verbs}


def test_all_is_mended_in_time_and_nothing_is_hurt_twice_at_once() -> None:
    for seconds in (4.0, 60.0):
        for seed in MANY:
            acts = plan(seed, seconds)
            assert acts and max(act.until_s for act in acts) <= seconds
            for target in (*PROCESSES, *LINKS):
                of_one = [act for act in acts if act.target == target]
                assert all(before.until_s <= after.at_s for before, after in pairwise(of_one))


def test_many_things_happen_at_the_same_time() -> None:
    acts = plan(1, 60.0)
    at_once = Counter(
        n for n, act in enumerate(acts) for other in acts if other.at_s < act.at_s < other.until_s
    )
    assert max(at_once.values()) >= 3
