"""What the projector makes of one delivery."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

import pytest

from contracts.delivery import Delivery
from contracts.envelope import Event
from providers.port import Source
from read_models.port import ReadModel
from read_models.registry import READ_MODELS
from runtime import streams
from services.projector.understand import ledger_row, understand
from tests.samples import RECEIVED_AT, SOURCES, body, delivery, log, paths

MODELS: dict[str, ReadModel[object]] = {model.name: model for model in READ_MODELS}


@pytest.mark.parametrize("given", log(paths()), ids=[path.stem for path in paths()])
def test_every_sample_ends_with_a_status_and_names_what_it_touches(given: Delivery) -> None:
    understood = understand(SOURCES, given)

    assert understood.status in ("projected", "ignored"), understood.error
    assert (understood.reason is None) == (understood.status == "projected")
    stated = {getattr(row, str(MODELS[name].ref_column)) for name, row in understood.rows}
    assert stated <= set(understood.refs)


def test_a_time_more_than_an_hour_ahead_of_receipt_parks() -> None:
    early = replace(
        delivery("issues", body("issues.opened.15"), 1), received_at=RECEIVED_AT - timedelta(days=3650)
    )

    assert ("parked", "future_time") == (
        understand(SOURCES, early).status,
        understand(SOURCES, early).reason,
    )


def test_a_body_without_its_main_object_parks() -> None:
    understood = understand(SOURCES, delivery("issues", b'{"action":"opened"}', 1))

    assert ("parked", "shape_mismatch") == (understood.status, understood.reason)
    assert () == understood.statements


def test_an_event_that_nobody_knows_is_ignored_with_a_reason() -> None:
    understood = understand(SOURCES, delivery("sponsorship", b"{}", 1))

    assert "ignored" == understood.status
    assert understood.reason


def test_a_source_that_nobody_knows_parks() -> None:
    understood = understand(SOURCES, replace(delivery("issues", b"{}", 1), source="gone"))

    assert ("parked", "unknown_source") == (understood.status, understood.reason)


def test_a_normaliser_that_breaks_parks_one_delivery_and_tells_no_values() -> None:
    def broken(given: Delivery, source: Source) -> Iterable[Event]:
        raise RuntimeError("the secret is hunter2")

    understood = understand(
        {
            "github": replace(
                SOURCES["github"], provider=replace(SOURCES["github"].provider, normalize=broken)
            )
        },
        delivery("issues", b"{}", 1),
    )

    assert ("parked", "not_understood") == (understood.status, understood.reason)
    assert "hunter2" not in str(understood.error)


def test_a_read_model_that_breaks_parks_one_delivery(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("services.projector.understand.version", broken)
    understood = understand(SOURCES, delivery("issues", body("issues.opened.15"), 1))

    assert ("parked", "not_understood") == (understood.status, understood.reason)


def test_an_event_larger_than_a_message_parks_and_is_never_published() -> None:
    long = body("issues.opened.15").replace(b"Spelling error", b"x" * streams.EVENT_BYTES_MAX)
    understood = understand(SOURCES, delivery("issues", long, 1))

    assert ("parked", "event_too_large", ()) == (understood.status, understood.reason, understood.statements)


def test_a_ref_too_long_for_an_index_parks() -> None:
    long = body("issues.opened.15").replace(b"Codertocat/Hello-World", b"x" * streams.REF_BYTES_MAX)
    understood = understand(SOURCES, delivery("issues", long, 1))

    assert ("parked", "ref_too_long") == (understood.status, understood.reason)


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00.000001+00:01"])
def test_a_time_that_no_calendar_has_parks(time: str) -> None:
    early = body("issues.opened.15").replace(
        b'"created_at": "2019-05-15T15:20:18Z"', f'"created_at": "{time}"'.encode()
    )
    understood = understand(SOURCES, delivery("issues", early, 1))

    assert ("parked", "impossible_time") == (understood.status, understood.reason)


def test_a_year_in_a_title_is_no_time() -> None:
    titled = body("issues.opened.15").replace(b"Spelling error", b"0001-01-01 and 9999-12-31")

    assert understand(SOURCES, delivery("issues", titled, 1)).status == "projected"


@pytest.mark.parametrize("count", [3, 5_000])
def test_an_installation_of_any_number_of_repositories_is_projected(count: int) -> None:
    payload = json.loads(body("installation.created.01"))
    payload["repositories"] = [
        {"id": n, "full_name": f"an-organisation/a-repository-{n}"} for n in range(count)
    ]
    understood = understand(SOURCES, delivery("installation", json.dumps(payload).encode(), 1))

    assert "projected" == understood.status


def test_a_body_leaves_memory_once_it_was_understood() -> None:
    raw = body("issues.opened.15")
    understood = understand(SOURCES, delivery("issues", raw, 1))

    assert (b"", len(raw)) == (understood.delivery.body, understood.body_bytes)


def test_versions_carry_the_sequence_and_the_ordinal() -> None:
    understood = understand(SOURCES, delivery("issues", body("issues.transferred.21"), 7))

    assert [(7, 0), (7, 1)] == [statement.version[3:] for statement in understood.statements]


def test_the_ledger_row_names_the_secret_and_never_the_body() -> None:
    row = ledger_row(understand(SOURCES, delivery("ping", body("ping.00"), 3)), RECEIVED_AT)

    assert ("GITHUB_WEBHOOK_SECRET", 3, 3, "projected") == (
        row.verified_by,
        row.stream_seq,
        row.last_seq,
        row.status,
    )
