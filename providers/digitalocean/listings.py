"""Whole listings of DigitalOcean: what they show is there, what they do not show is gone."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from pydantic import ValidationError

from contracts.text import parse
from providers.digitalocean.items import DROPLETS, GPU_DROPLETS, KINDS, items, total
from providers.digitalocean.payloads import Observed
from providers.paging import by_page_number, each_page
from providers.polling import Ask, Failed, Listed, Look, Part, Reply, Show, Step, Steps, Warn
from providers.port import Item, Unintelligible, problems_of

T = TypeVar("T")

PAGE_SIZE = 200
READINGS_MAX = 2
"""How often a listing is read that changes while it is read."""

FOLLOWING = by_page_number(PAGE_SIZE)
PAGED = {"page": "1", "per_page": str(PAGE_SIZE)}
LISTINGS: Mapping[str, Ask] = {
    DROPLETS: Ask(path="/v2/droplets", params=PAGED),
    GPU_DROPLETS: Ask(path="/v2/droplets", params={"type": "gpus", **PAGED}),
    "databases": Ask(path="/v2/databases"),
    "firewalls": Ask(path="/v2/firewalls", params=PAGED),
}
"""By scope. That of the databases has no pages, as far as is documented: none are asked for, and those named read."""


@dataclass(slots=True)
class Reading:
    """What one reading of a listing has shown."""

    refs: list[str] = field(default_factory=list)
    totals: list[int | None] = field(default_factory=list)
    """How many there are, by the word of each page."""
    began_at: datetime | None = None

    @property
    def whole(self) -> bool:
        """Whether nothing came or went meanwhile, as far as can be told. One that has no pages states no total."""
        shown = len(self.refs)
        return len(set(self.refs)) == shown and (set(self.totals) == {shown} or self.totals == [None])


def listing(kind: str) -> Part:
    """The part that reads the listing `kind`, and once more where it changed meanwhile."""

    def part(look: Look) -> Steps:
        shown: set[str] = set()
        for _ in range(READINGS_MAX):
            reading = yield from _read(kind, look.scope, shown)
            if reading.whole and reading.began_at is not None:
                refs = {KINDS[kind].one: reading.refs}
                yield Listed(scope=look.scope, shown=refs, began_at=reading.began_at)
                return
        yield Warn("listing_changed", f"{look.scope} changed each time it was read: nothing counts as gone")

    return part


def _read(kind: str, scope: str, shown: set[str]) -> Generator[Step, Any, Reading]:
    reading, asked = Reading(), LISTINGS[kind]

    def page(reply: Reply) -> Generator[Step, Any, bool]:
        found = things(kind, scope, reply)
        reading.began_at = reading.began_at or reply.asked_at
        reading.refs += [item.ref for item in found]
        reading.totals.append(total(reply.body))
        yield from show(found, reply, shown)
        if reading.totals[-1] is None and asked.params:
            # Else an answer that lost its list on the way would make everything gone.
            raise Failed("shape_mismatch", f"a page of {kind} does not say how many there are")
        return True

    yield from each_page(asked, FOLLOWING, page)
    return reading


def things(kind: str, scope: str, reply: Reply) -> list[Item]:
    """What an answer shows; raises Failed."""
    try:
        return items(kind, scope, reply.body)
    except Unintelligible as error:
        raise Failed(error.reason, str(error)) from None


def content(shape: type[Observed[T]], item: Item) -> T:
    """What is used of a thing that was shown; raises Failed."""
    try:
        return parse(shape, item.body).item
    except ValidationError as error:
        raise Failed("shape_mismatch", f"{item.ref}: {problems_of(error)}") from None


def show(found: Iterable[Item], reply: Reply, shown: set[str]) -> Steps:
    """Show what is not among `shown` yet, and add it: a run shows each thing once."""
    fresh = {item.ref: item for item in found if item.ref not in shown}
    shown.update(fresh)
    if fresh:
        yield Show(items=list(fresh.values()), fetched_at=reply.fetched_at)
