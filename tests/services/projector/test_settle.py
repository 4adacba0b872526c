"""Which delivery of an identity counts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from contracts.delivery import Delivery
from read_models.deliveries import RANKS
from services.projector.settle import Known, Settled, identity_of, settle
from services.projector.understand import understand
from tests.samples import SOURCES, body, delivery

NOW = datetime(2026, 11, 22, tzinfo=UTC)
OPENED = body("issues.opened.15")
EDITED = body("issues.edited.00")


def settled(batch: Sequence[Delivery], known: Sequence[Known] = ()) -> Settled:
    understood = [understand(SOURCES, each) for each in batch]
    return settle(understood, {identity_of(understood[0]): known}, NOW)


def a(seq: int) -> Delivery:
    return delivery("issues", OPENED, seq, "same")


def b(seq: int) -> Delivery:
    return delivery("issues", EDITED, seq, "same")


def known(given: Delivery) -> Known:
    return Known(given.body_sha256, given.seq, "projected", ("github:old/ref#1",))


def test_a_delivery_alone_is_folded() -> None:
    result = settled([a(5)])

    assert [5] == [each.delivery.seq for each in result.fold]
    assert set() == result.refold


def test_a_redelivered_message_is_folded_again_so_that_its_events_go_out() -> None:
    result = settled([a(5)], [known(a(5))])

    assert [5] == [each.delivery.seq for each in result.fold]
    assert set() == result.refold


def test_a_copy_later_in_the_log_is_noted_and_not_folded() -> None:
    result = settled([a(9)], [known(a(5))])

    assert [] == result.fold
    assert [(9, 9, ())] == [(row.stream_seq, row.last_seq, row.version) for row in result.ledger]


def test_another_body_later_in_the_log_is_a_conflict() -> None:
    result = settled([b(9)], [known(a(5))])

    assert [] == result.fold
    assert ["conflict"] == [row.status for row in result.ledger]


def test_the_first_body_of_a_batch_wins_whatever_the_order() -> None:
    for batch in ([a(5), b(9)], [b(9), a(5)]):
        result = settled(batch)

        assert [5] == [each.delivery.seq for each in result.fold]
        assert {"projected", "conflict"} == {row.status for row in result.ledger}


def test_an_earlier_body_that_comes_late_demotes_the_other_and_refolds_both() -> None:
    result = settled([a(5)], [known(b(9))])

    assert [5] == [each.delivery.seq for each in result.fold]
    assert "github:old/ref#1" in result.refold
    assert {"github:Codertocat/Hello-World#1"} <= result.refold
    demoted = [row for row in result.ledger if row.body_sha256 == b(9).body_sha256]
    assert [("conflict", (-9, RANKS["conflict"]))] == [(row.status, row.version) for row in demoted]


def test_an_earlier_copy_that_comes_late_refolds_because_versions_hold_the_least_sequence() -> None:
    result = settled([a(5)], [known(a(9))])

    assert [5] == [each.delivery.seq for each in result.fold]
    assert result.refold
    assert ["projected"] == [row.status for row in result.ledger]


def test_a_first_body_that_comes_again_beside_its_conflict_refolds_nothing() -> None:
    result = settled([a(5)], [known(a(5)), known(b(9))])

    assert [5] == [each.delivery.seq for each in result.fold]
    assert set() == result.refold
