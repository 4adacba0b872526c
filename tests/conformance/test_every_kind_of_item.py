"""What holds for every kind of item that a provider's API shows: a whole listing of it says what it can say."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from contracts.observation import OBSERVED, PRESENT_KINDS, RECORD_KINDS, WORK_ITEM_KINDS, is_observed
from contracts.polls import ListingCompleted, listing
from contracts.version import version
from read_models.port import Statement
from read_models.registry import AUDIT, FOLDS, FRESHNESS
from tests.conformance.test_every_provider import CASES

KINDS = {
    name: {
        (sample.kind or sample.event).removeprefix(f"{OBSERVED}.")
        for sample in case.samples
        if is_observed(sample.kind or sample.event)
    }
    for name, case in CASES.items()
    if case.source.provider.items is not None
}
"""The kinds of everything recorded, by the provider whose API shows it."""
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def takers(kind: str) -> set[str]:
    """The read models that take from a listing which `kind` was there."""
    [event] = listing("anybody", "things", NOON, {kind: ["anybody:thing/1"]})
    statement = Statement(
        event=event,
        version=version(event.moment, 1, 0),
        delivery="odooops:x",
        received_at=NOON,
        observed=False,
        data=b"",
    )
    return {
        model.name
        for model, fold in FOLDS[ListingCompleted]
        if model not in (AUDIT, FRESHNESS) and fold(statement)
    }


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_that_a_provider_shows_is_known_as_present_or_as_a_record(name: str) -> None:
    assert KINDS[name]
    assert set() == KINDS[name] - PRESENT_KINDS - RECORD_KINDS


@pytest.mark.parametrize("kind", sorted(PRESENT_KINDS))
def test_what_is_there_or_gone_is_taken_from_a_listing_by_one_read_model(kind: str) -> None:
    assert 1 == len(takers(kind))


@pytest.mark.parametrize("kind", sorted(RECORD_KINDS))
def test_a_record_is_not_gone_because_a_listing_misses_it(kind: str) -> None:
    assert set() == takers(kind)


def test_no_kind_is_known_that_nobody_shows() -> None:
    assert PRESENT_KINDS | RECORD_KINDS == set().union(*KINDS.values())


@pytest.mark.parametrize("kind", sorted(WORK_ITEM_KINDS))
def test_issues_pull_requests_and_tasks_are_work_items(kind: str) -> None:
    assert {"work_items"} == takers(kind)
