"""The recorded bodies cut down to a kilobyte and understood as before, for a log that is to have a million of them."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, timedelta
from functools import cache
from typing import Any

import orjson

from bench import corpus
from bench.corpus import RECEIVED_AT, Sample
from contracts.delivery import Delivery, body_sha256
from services.projector.understand import understand
from tests.samples import SOURCES

BODY_BYTES_MAX = 1_000
_DATE = re.compile(rb"20\d\d-\d\d-\d\d(?=T)")


@cache
def samples() -> list[Sample]:
    """Samples without what nobody reads of them, the largest parts first, until a kilobyte is left.

    Only those of which a copy is about another thing, and a later one states another fact.
    """
    cut = [_cut(sample) for sample in corpus.samples()]
    return [
        sample
        for sample in cut
        if not _facts(sample, sample.body)
        & (_facts(sample, sample.copy(1)) | _facts(sample, later(sample.body, 1)))
    ]


def _cut(sample: Sample) -> Sample:
    means, body = _meaning(sample), orjson.loads(sample.body)

    def stays() -> bool:
        raw = orjson.dumps(body)
        return (
            str(sample.entity_id).encode() in raw
            and sample.repository in raw
            and _meaning(replace(sample, body=raw)) == means
        )

    _prune(body, stays, lambda: len(orjson.dumps(body)) <= BODY_BYTES_MAX)
    return replace(sample, body=orjson.dumps(body))


def _prune(part: dict[str, Any], stays: Callable[[], bool], done: Callable[[], bool]) -> None:
    for name in sorted(part, key=lambda name: len(orjson.dumps(part[name])), reverse=True):
        if done():
            return
        value = part.pop(name)
        if not stays():
            part[name] = value
            for inner in value if isinstance(value, list) else [value]:
                if isinstance(inner, dict):
                    _prune(inner, stays, done)


def _meaning(sample: Sample) -> tuple[str, tuple[tuple[str, Any], ...]]:
    understood = understand(SOURCES, _delivery(sample, sample.body, 0))
    return understood.status, understood.rows


def _facts(sample: Sample, body: bytes) -> set[str]:
    understood = understand(SOURCES, _delivery(sample, body, 0))
    return {statement.event.id for statement in understood.statements}


def deliveries(first: int, end: int) -> Iterator[Delivery]:
    """The deliveries from number `first` to before `end`, each about a thing of its own."""
    mixed = samples()
    for n in range(first, end):
        sample = mixed[n % len(mixed)]
        yield _delivery(sample, sample.copy(n), n)


def news(first: int, known: list[int], days: int) -> Iterator[Delivery]:
    """As many deliveries as two lists of `known` have, by turns about a thing that is new and about a known one.

    Of those in `known`, given by their numbers, it says what was so as many days later.
    """
    mixed = samples()
    for n, old in enumerate(known):
        at = first + 2 * n
        sample = mixed[at % len(mixed)]
        yield _delivery(sample, sample.copy(at), at)
        sample = mixed[old % len(mixed)]
        yield _delivery(sample, later(sample.copy(old), days), at + 1)


def later(body: bytes, days: int) -> bytes:
    """A body with all times of the provider moved by `days`."""
    return _DATE.sub(lambda found: _moved(found[0], days), body)


@cache
def _moved(day: bytes, days: int) -> bytes:
    return (date.fromisoformat(day.decode()) + timedelta(days)).isoformat().encode()


def _delivery(sample: Sample, body: bytes, n: int) -> Delivery:
    guid = uuid.UUID(bytes=hashlib.blake2b(b"%d" % n, digest_size=16).digest())
    return Delivery(
        source="github",
        identity=str(guid),
        kind=sample.event,
        via="webhook",
        received_at=RECEIVED_AT + timedelta(milliseconds=n),
        body=body,
        body_sha256=body_sha256(body),
        verified_by="BENCH",
        headers={"x-github-event": sample.event, "content-type": "application/json"},
    )
