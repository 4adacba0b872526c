"""What is done to whom and when: a pure function of a seed, so that a failure can be repeated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Literal

Verb = Literal[
    "kill",  # -9, and started again after a while
    "crash",  # -9 to one of Postgres's backends: it recovers by itself
    "restart",  # asked to stop, then started again
    "stop",  # SIGSTOP, then SIGCONT
    "cut",  # connections are reset, and refused for a while
    "hole",  # nothing passes for a while; nobody is told
    "forget",  # what is connected now is dead for ever and nobody is told; who connects anew gets through
    "slow",  # latency and little bandwidth
    "fill",  # the spool's disk is full, and the broker is away meanwhile
]

PROCESSES: Mapping[str, tuple[Verb, ...]] = {
    "ingest-0": ("kill", "stop", "restart"),
    "ingest-1": ("kill", "stop", "restart"),
    "projector": ("kill", "stop", "restart"),
    "notifier": ("kill", "stop", "restart"),
    "nats": ("kill", "stop", "restart", "fill", "fill"),
    "postgres": ("kill", "crash", "stop", "restart"),
}
_BROKEN: tuple[Verb, ...] = ("cut", "hole", "forget", "slow")
LINKS: Mapping[str, tuple[Verb, ...]] = {
    "senders>ingest-0": _BROKEN,
    "senders>ingest-1": _BROKEN,
    "ingest-0>nats": _BROKEN,
    "ingest-1>nats": _BROKEN,
    "projector>nats": _BROKEN,
    "projector>postgres": _BROKEN,
    "notifier>nats": _BROKEN,
    "notifier>postgres": _BROKEN,
    # What is on its way to Slack when the notifier is killed must not arrive later than the notifier asks again:
    # nobody could tell it from a message that never left.
    "notifier>slack": ("cut", "slow"),
}
TARGETS = {**PROCESSES, **LINKS}


@dataclass(frozen=True, slots=True)
class Act:
    """Something done to a process or a connection, from `at_s` after the load began, for `for_s`."""

    at_s: float
    verb: Verb
    target: str
    for_s: float

    @property
    def until_s(self) -> float:
        return self.at_s + self.for_s


@dataclass(frozen=True, slots=True)
class Pace:
    """How often something is done, and how long it lasts, on average and at most."""

    every_s: float
    for_s: float
    for_s_max: float


LONG = Pace(every_s=1.2, for_s=3.0, for_s_max=12.0)
SHORT = Pace(every_s=0.3, for_s=0.4, for_s_max=0.8)
SHORT_RUN_S_MAX = 10.0
"""A run that is no longer has many short acts."""
PROCESSES_SHARE = 0.6


def is_short(seconds: float) -> bool:
    return seconds <= SHORT_RUN_S_MAX


def plan(seed: int, seconds: float) -> list[Act]:
    """The acts of one run, in order: many at once, but one at a time on each target, and all over by `seconds`."""
    random = Random(seed)
    pace = SHORT if is_short(seconds) else LONG
    free_at: dict[str, float] = {}
    acts: list[Act] = []
    at_s = 0.0
    while (at_s := at_s + random.expovariate(1 / pace.every_s)) < seconds:
        target = random.choice(sorted(PROCESSES if random.random() < PROCESSES_SHARE else LINKS))
        verb = random.choice(TARGETS[target])
        for_s = min(0.1 + random.expovariate(1 / pace.for_s), pace.for_s_max)
        act = Act(round(at_s, 3), verb, target, round(for_s, 3))
        if act.until_s <= seconds and act.at_s >= free_at.get(target, 0.0):
            free_at[target] = act.until_s
            acts.append(act)
    return acts
