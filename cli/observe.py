"""`odooops observe`: put what an API answered into the log, one delivery for each thing that it shows.

What must not be stored is removed in this process, before anything leaves it; the answer itself is kept nowhere.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import nats.errors
from nats.js import JetStreamContext
from nats.js.errors import APIError

from cli import reach, terminal
from cli.reach import Servers, Trouble
from contracts import own
from contracts.delivery import Delivery
from contracts.observation import observation
from contracts.polls import WEBHOOKS, listing
from providers.port import Item, Items, Provider, Source, Unintelligible
from providers.registry import sources
from runtime import bus, ssot
from runtime.bus import BrokerAway
from runtime.settings import BadSettings
from runtime.streams import BODY_BYTES_MAX

OPERATOR = "operator"
STDIN = Path("-")
PAGE_BYTES_MAX = BODY_BYTES_MAX
SCOPE_CHARS_MAX = 200
_SCOPE = re.compile(rf"[\x21-\x7e]{{1,{SCOPE_CHARS_MAX}}}")


class NotObserved(Trouble):
    """an answer shows nothing that could be stored"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What was asked for: pages of one listing of a source, or answers about single things."""

    source: str
    kind: str
    scope: str
    files: Sequence[Path]
    complete: bool
    """Whether the pages are the whole listing, so that what they do not show is gone."""
    fetched_at: datetime | None = None
    """When the API answered; None: when each file was last written, or now for standard input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What one page shows. It was asked for at `began` or later, and had answered at `fetched_at`."""

    items: Sequence[Item]
    began: datetime
    fetched_at: datetime


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many things the pages show, each page counted; how many there are; how many the log did not have."""

    seen: int
    things: int
    stored: int


async def run(servers: Servers, given: Answers, dry_run: bool) -> None:
    """Store what the answers show and print the count; with `dry_run` print it all and store nothing."""
    if dry_run:
        pages = _pages(_source(servers, given.source), given, datetime.now(UTC))
        _print_items([item for page in pages for item in page.items])
        return
    done = await store(servers, given)
    _say(
        f"{given.source} {given.scope}: {done.seen} seen, {done.stored} stored,"
        f" {done.seen - done.stored} duplicates"
    )
    if given.complete:
        _say(f"the listing {given.scope} is complete with {done.things}: what it does not show is gone")


async def store(servers: Servers, given: Answers) -> Outcome:
    """Store what the answers show."""
    started_at = datetime.now(UTC)
    source = _source(servers, given.source)
    address = servers.nats(OPERATOR)
    pages = _pages(source, given, started_at)
    # What two pages show was read twice, and is as the later one says: a run shows each thing once.
    in_time = sorted(pages, key=lambda page: page.fetched_at)
    sights = {item.ref: (item, page.fetched_at) for page in in_time for item in page.items}
    newest = [item for item, _ in sights.values()]
    async with reach.broker(address, OPERATOR) as client:
        stored = await _store(client.jetstream(), _sights(source, sights.values()))
        if given.complete:
            # Its last part completes the listing: it comes when all that it speaks of is in the log.
            began = min(page.began for page in pages)
            await _store(client.jetstream(), _completion(source, given, newest, began))
    return Outcome(sum(len(page.items) for page in pages), len(newest), stored)


def _source(servers: Servers, name: str) -> Source:
    declared = sources(ssot.load(reach.ssot_dir(servers.settings)))
    read = {each.name: each for each in declared.values() if each.provider.items is not None}
    if name not in read:
        raise BadSettings(
            f"no source whose API is read is called {name}: known are {', '.join(sorted(read))}"
        )
    return read[name]


def _pages(source: Source, given: Answers, started_at: datetime) -> list[Page]:
    """All pages. Raises NotObserved for one that is not understood, or that is only a part."""
    if given.fetched_at is not None and given.fetched_at > started_at:
        raise BadSettings("--fetched-at is later than now: an answer cannot be")
    if not _SCOPE.fullmatch(given.scope):
        raise BadSettings(f"a scope has 1 to {SCOPE_CHARS_MAX} printable ASCII characters and no spaces")
    if given.scope == WEBHOOKS:
        raise BadSettings(f"the scope {WEBHOOKS} is that of what is posted to us: choose another --scope")
    cut: Items = source.provider.items  # type: ignore[assignment]  # the source was chosen by it
    pages: list[Page] = []
    totals: set[int | None] = set()
    for file in given.files:
        page = _read(file)
        try:
            items = cut(given.kind, given.scope, page)
            if given.complete:
                totals.add(_total(source.provider, page))
        except Unintelligible as error:
            raise NotObserved(f"{_called(file)}: {error} ({error.reason})") from None
        began, fetched_at = _times(file, given, started_at)
        pages.append(Page(items=items, began=began, fetched_at=fetched_at))
    seen = len({item.ref for page in pages for item in page.items})
    if totals - {None, seen}:
        # Another number on each page: something came or went in between, and another thing may have been skipped.
        said = " and ".join(str(total) for total in sorted(total for total in totals if total is not None))
        raise NotObserved(
            f"this is not the whole listing: it shows {seen}, and says that there are {said}. "
            "Give the files of all pages, read anew, or leave out --complete"
        )
    return pages


def _times(file: Path, given: Answers, started_at: datetime) -> tuple[datetime, datetime]:
    """From when and until when the page was fetched. Of standard input that is as long as we were waiting for it."""
    if given.fetched_at is not None:
        return given.fetched_at, given.fetched_at
    if file == STDIN:
        return started_at, datetime.now(UTC)
    written_at = min(datetime.fromtimestamp(file.stat().st_mtime, UTC), started_at)
    return written_at, written_at


def _total(provider: Provider, page: bytes) -> int | None:
    return None if provider.total is None else provider.total(page)


def _read(file: Path) -> bytes:
    page = _bytes(file)
    if len(page) > PAGE_BYTES_MAX:
        raise NotObserved(f"{_called(file)} has more than {PAGE_BYTES_MAX} bytes")
    return page


def _bytes(file: Path) -> bytes:
    if file == STDIN:
        return sys.stdin.buffer.read(PAGE_BYTES_MAX + 1)
    with file.open("rb") as opened:
        return opened.read(PAGE_BYTES_MAX + 1)


def _called(file: Path) -> str:
    return "standard input" if file == STDIN else str(file)


def _sights(source: Source, sights: Iterable[tuple[Item, datetime]]) -> list[Delivery]:
    """One delivery for each thing and the time at which it was fetched, all of one run."""
    run_id = str(uuid4())
    return [
        observation(
            source=source.name,
            ref=item.ref,
            kind=item.kind,
            body=item.body,
            via="cli",
            run_id=run_id,
            fetched_at=fetched_at,
        )
        for item, fetched_at in sights
    ]


def _completion(
    source: Source, given: Answers, items: Iterable[Item], started_at: datetime
) -> list[Delivery]:
    """The deliveries that say that the listing is whole, in the order in which to store them."""
    shown: dict[str, list[str]] = {}
    for item in items:
        shown.setdefault(item.kind, []).append(item.ref)
    events = listing(source.name, given.scope, started_at, shown or {given.kind: []})
    return [own.delivery_of(event, "cli", datetime.now(UTC)) for event in events]


async def _store(js: JetStreamContext, deliveries: Iterable[Delivery]) -> int:
    """Store deliveries in this order; how many the log did not have."""
    new = 0
    try:
        for delivery in deliveries:
            _, duplicate = await bus.store_delivery(js, delivery)
            new += not duplicate
    except (nats.errors.Error, APIError) as error:
        raise BrokerAway(f"the broker did not take it: {str(error) or type(error).__name__}") from None
    return new


def _print_items(items: Sequence[Item]) -> None:
    for item in items:
        _say(f"{item.ref} {item.body.decode()}")
    terminal.say(f"{len(items)} seen, and for --dry-run nothing stored")


def _say(line: str) -> None:
    terminal.console().print(terminal.clean(line), soft_wrap=True)
