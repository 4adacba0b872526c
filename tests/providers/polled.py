"""Drives a part of a poll as a poller would: requests are answered by a function, everything else is noted."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from contracts.envelope import Event
from providers.polling import Ask, Failed, Keep, Known, Listed, Look, Part, Reply, Say, Show, Warn
from providers.port import Source
from tests.providers.driving import NOW


@dataclass(frozen=True)
class Polled:
    """What a part did, each kind of step in its order. `failed` is what ended it early."""

    asks: list[Ask] = field(default_factory=list)
    shows: list[Show] = field(default_factory=list)
    listings: list[Listed] = field(default_factory=list)
    says: list[Event] = field(default_factory=list)
    keeps: list[Mapping[str, Any]] = field(default_factory=list)
    warns: list[Warn] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)

    @property
    def refs(self) -> list[str]:
        """Of all things shown."""
        return [item.ref for show in self.shows for item in show.items]


def look(source: Source, scope: str, **more: Any) -> Look:
    """What a part is told, at NOW."""
    return Look(source=source, scope=scope, **{"started_at": NOW, **more})


def reply(shown: Any = None, status: int = 200, **headers: str) -> Reply:
    """An answer of decoded JSON, or of bytes as they are; `_` in a header's name stands for `-`."""
    body = shown if isinstance(shown, bytes) else json.dumps(shown).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    later = NOW + timedelta(seconds=1)
    return Reply(status=status, headers=named, body=body, asked_at=NOW, fetched_at=later)


def polled(
    part: Part, told: Look, answer: Callable[[Ask], Reply], known: Mapping[str, frozenset[str]] | None = None
) -> Polled:
    """What `part` does when it is told this and answered so; `known` is what the last whole listings showed."""
    seen = Polled()
    steps = part(told)
    notes = {Show: seen.shows, Listed: seen.listings, Keep: seen.keeps, Warn: seen.warns, Say: seen.says}
    try:
        step = next(steps)
        while True:
            if isinstance(step, Ask):
                seen.asks.append(step)
                given = answer(step)
                taken = 200 <= given.status < 300 or given.status in step.also
                failure = Failed(f"http_{given.status}", f"{step.path}: {given.status}", given.status)
                step = steps.send(given) if taken else steps.throw(failure)
            elif isinstance(step, Known):
                step = steps.send((known or {}).get(step.scope, frozenset()))
            else:
                noted: Any = {Keep: "state", Say: "event"}.get(type(step))
                notes[type(step)].append(getattr(step, noted) if noted else step)  # type: ignore[attr-defined]
                step = next(steps)
    except StopIteration:
        return seen
    except Failed as failure:
        return Polled(**{**vars(seen), "failed": [failure]})
