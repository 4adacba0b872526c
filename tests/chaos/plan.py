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
    "starve",  # it may open no file and no connection more
    "fill",  # the spool's disk is full, and the broker is away meanwhile
    "isolate",  # the leader of the log does not reach the other brokers, who do not reach it; its clients do
    "demote",  # the leader of the log steps down
    "cut",  # connections are reset, and refused for a while
    "hole",  # nothing passes for a while; nobody is told
    "forget",  # what is connected now is dead for ever and nobody is told; who connects anew gets through
    "slow",  # latency and little bandwidth
]


@dataclass(frozen=True, slots=True)
class Group:
    """Processes or connections that are alike, and what can be done to each."""

    verbs: tuple[Verb, ...]
    names: tuple[str, ...]
    one_at_a_time: bool = False
    """Whether none of them is hurt while another one is."""


DOORS = ("ingest-0", "ingest-1")
PROJECTORS = ("projector-0", "projector-1")
BROKERS = ("nats-1", "nats-2", "nats-3")
_SERVICE: tuple[Verb, ...] = ("kill", "stop", "restart", "starve")
_BROKEN: tuple[Verb, ...] = ("cut", "hole", "forget", "slow")
_ALIKE: Mapping[str, Group] = {
    "ingest": Group(_SERVICE, DOORS),
    "projector": Group(_SERVICE, PROJECTORS),
    "notifier": Group(_SERVICE, ("notifier",)),
    "postgres": Group(("kill", "crash", "stop", "restart"), ("postgres",)),
    "senders>ingest": Group(_BROKEN, tuple(f"senders>{name}" for name in DOORS)),
    "ingest>nats": Group(_BROKEN, tuple(f"{name}>nats" for name in DOORS)),
    "projector>nats": Group(_BROKEN, tuple(f"{name}>nats" for name in PROJECTORS)),
    "projector>postgres": Group(_BROKEN, tuple(f"{name}>postgres" for name in PROJECTORS)),
    "notifier>nats": Group(_BROKEN, ("notifier>nats",)),
    "notifier>postgres": Group(_BROKEN, ("notifier>postgres",)),
    # What is on its way to Slack when the notifier is killed must not arrive later than the notifier asks again:
    # nobody could tell it from a message that never left.
    "notifier>slack": Group(("cut", "slow"), ("notifier>slack",)),
}
LINKS = tuple(name for group in _ALIKE.values() for name in group.names if ">" in name)
GROUPS: Mapping[int, Mapping[str, Group]] = {
    1: {**_ALIKE, "nats": Group(("kill", "stop", "restart", "fill"), ("nats",))},
    3: {
        **_ALIKE,
        "nats": Group(("kill", "stop", "restart", "isolate", "demote"), BROKERS, one_at_a_time=True),
    },
}
"""All that can be hurt, by the count of brokers. Of three, a minority is away at any time."""
COUNTS = tuple(GROUPS)

Kind = tuple[Verb, str]
"""What is done, and to which group."""


def kinds(groups: Mapping[str, Group]) -> list[Kind]:
    """All that can be done."""
    return [(verb, name) for name, group in groups.items() for verb in group.verbs]


@dataclass(frozen=True, slots=True)
class Act:
    """Something done to a process or a connection, from `at_s` after the load began, for `for_s`."""

    at_s: float
    verb: Verb
    target: str
    group: str
    for_s: float

    @property
    def until_s(self) -> float:
        return self.at_s + self.for_s

    @property
    def kind(self) -> Kind:
        return self.verb, self.group


@dataclass(frozen=True, slots=True)
class Pace:
    """How often something is done, and how long it lasts, on average and at most."""

    every_s: float
    for_s: float
    for_s_max: float
    full_s: float
    """How long the spool's disk is full at least: until ingest has given the broker up and filled the rest."""


LONG = Pace(every_s=1.0, for_s=3.0, for_s_max=12.0, full_s=6.0)
SHORT = Pace(every_s=0.2, for_s=0.4, for_s_max=0.8, full_s=1.5)
SHORT_RUN_S_MAX = 10.0
"""A run that is no longer has many short acts."""


def is_short(seconds: float) -> bool:
    return seconds <= SHORT_RUN_S_MAX


def brokers_of(n: int) -> int:
    """How many there are in the n-th run of several."""
    return COUNTS[n % len(COUNTS)]


def plan(seed: int, seconds: float, brokers: int) -> list[Act]:
    """The acts of one run, in order: many at once, but one at a time on each target, and all over by `seconds`.

    They are dealt like cards: nothing is done again before all else is done, as far as it fits.
    """
    random, groups = Random(seed), GROUPS[brokers]
    pace = SHORT if is_short(seconds) else LONG
    free_at: dict[str, float] = {}
    acts: list[Act] = []
    deck: list[Kind] = []
    at_s = 0.0
    while (at_s := at_s + random.expovariate(1 / pace.every_s)) < seconds:
        if not deck:
            deck = random.sample(kinds(groups), len(kinds(groups)))
        for verb, name in deck:
            target = random.choice(groups[name].names)
            for_s = min(0.1 + random.expovariate(1 / pace.for_s), pace.for_s_max)
            for_s += pace.full_s if verb == "fill" else 0.0
            act = Act(round(at_s, 3), verb, target, name, round(for_s, 3))
            busy = name if groups[name].one_at_a_time else target
            if act.until_s <= seconds and act.at_s >= free_at.get(busy, 0.0):
                free_at[busy] = act.until_s
                acts.append(act)
                deck.remove(act.kind)
                break
    return acts
