"""A listing in several parts is complete with its last one, and each part says what it showed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pytest

from contracts.catalogue import capability_ref, scope_of
from contracts.own import SOURCE, delivery_of
from contracts.polls import LISTED_REFS_MAX, ListingCompleted, listing
from contracts.version import version
from read_models import capabilities, freshness
from read_models.merge import join_all
from read_models.port import ReadModel, Statement
from services.projector.understand import understand
from tests.samples import SOURCES

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
SCOPE = scope_of("capability")
REFS = [capability_ref(f"c{n:04}") for n in range(2 * LISTED_REFS_MAX + 1)]


def folded(model: ReadModel[Any], parts: list[ListingCompleted]) -> dict[Any, Any]:
    rows: list[Any] = []
    for seq, part in enumerate(parts, 1):
        statement = Statement(
            event=part,
            version=version(part.moment, seq, 0),
            delivery="odooops:x",
            received_at=part.started_at,
            observed=False,
            data=b"",
        )
        found = model.folds[ListingCompleted](statement)
        rows += found if isinstance(found, list) else [found] if found else []
    return join_all(model, rows)


def complete(at: datetime, refs: list[str]) -> list[ListingCompleted]:
    return listing(SOURCE, SCOPE, at, {"capability": refs})


@pytest.mark.parametrize(
    ("count", "parts"),
    [(0, [0]), (1, [1]), (LISTED_REFS_MAX, [LISTED_REFS_MAX]), (LISTED_REFS_MAX + 1, [LISTED_REFS_MAX, 1])],
)
def test_a_listing_has_as_many_parts_as_it_needs(count: int, parts: list[int]) -> None:
    made = complete(NOON, REFS[:count])

    assert [len(each.refs) for each in made] == parts
    assert [(each.part, each.parts) for each in made] == [(n, len(parts)) for n in range(1, len(parts) + 1)]
    assert len({each.id for each in made}) == len(parts)
    assert REFS[:count] == [ref for each in made for ref in each.refs]


def test_a_full_part_is_understood() -> None:
    (part,) = complete(NOON, REFS[:LISTED_REFS_MAX])

    assert understand(SOURCES, delivery_of(part, "ssot", NOON)).status == "projected"


def test_only_the_last_part_completes_a_listing() -> None:
    first, second, last = complete(NOON, REFS)

    assert {} == folded(freshness.READ_MODEL, [first, second])
    for order in permutations([first, second, last]):
        (row,) = folded(freshness.READ_MODEL, list(order)).values()
        assert (row.source, row.scope, row.last_listing_at) == (SOURCE, SCOPE, NOON)


def test_each_part_says_when_what_it_shows_was_seen() -> None:
    later = NOON + timedelta(hours=1)
    rows = folded(capabilities.READ_MODEL, [*complete(later, REFS[:1]), *complete(NOON, REFS)])

    seen = {row.ref: row.last_seen_at for row in rows.values()}
    assert seen == {**dict.fromkeys(REFS, NOON), REFS[0]: later}


def test_the_listing_of_another_scope_says_nothing_about_a_catalogue() -> None:
    parts = listing("digitalocean", "droplets", NOON, {"droplet": REFS[:3]})

    assert {} == folded(capabilities.READ_MODEL, parts)
    assert 1 == len(folded(freshness.READ_MODEL, parts))
