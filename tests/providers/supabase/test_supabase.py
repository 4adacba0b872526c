"""Who may deliver as Supabase, what a change of a row means, and each trap by name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from contracts.registry import EVENTS
from providers.port import Receipt, Refused, Request, Secret, Unintelligible
from providers.supabase import PROVIDER
from providers.supabase.normalize import EVENTS as UNDERSTOOD
from providers.supabase.options import SupabaseOptions
from tests.providers.case import Sample
from tests.providers.driving import NOW, RECEIPT_ID, delivery_of, events_of, judge, source_of
from tests.providers.supabase.deliveries import (
    EXPECTED,
    SAMPLES,
    SOURCE,
    TOKEN,
    change,
    ended,
    expected_path,
    only,
    outcome,
)
from tests.samples import SOURCES

BODY = b'{"type": "INSERT"}'
SECOND = Secret("SUPABASE_WEBHOOK_TOKEN_2", b"the one that comes next")
BEARER = {"authorization": f"Bearer {TOKEN.value.decode()}"}
TAKEN = Receipt(identity=RECEIPT_ID, kind="insert", verified_by=TOKEN.name)


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER  "])
def test_who_shows_the_token_is_let_in(scheme: str) -> None:
    headers = {"authorization": scheme + TOKEN.value.decode()}
    assert TAKEN == judge(SOURCE, headers, BODY, [SECOND, TOKEN])


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (None, "missing_token"),
        ("", "bad_token"),
        ("Bearer", "bad_token"),
        ("Bearer ", "bad_token"),
        ("Bearer wrong", "bad_token"),
        ("Bearer " + TOKEN.value.decode()[:-1], "bad_token"),
        ("Bearer " + TOKEN.value.decode() + "x", "bad_token"),
        ("Bearer " + TOKEN.value.decode() + ", Bearer x", "bad_token"),
        ("Basic " + TOKEN.value.decode(), "bad_token"),
        (TOKEN.value.decode(), "bad_token"),
        ("Bearer \u00e4\ud800", "bad_token"),
    ],
)
def test_who_does_not_is_refused_before_the_body_is_read(header: str | None, reason: str) -> None:
    headers = {} if header is None else {"authorization": header}
    request = Request(method="POST", headers=headers, received_at=NOW, receipt_id=RECEIPT_ID)
    assert PROVIDER.verify is not None
    with pytest.raises(Refused) as refused:
        PROVIDER.verify(request, SOURCE, [TOKEN])
    assert (401, reason) == (refused.value.status, refused.value.reason)
    assert TOKEN.value.decode() not in str(refused.value)


def test_an_empty_secret_lets_nobody_in() -> None:
    for header in ("Bearer ", "Bearer x"):
        assert (401, "bad_token") == judge(SOURCE, {"authorization": header}, BODY, [Secret("EMPTY", b"")])
    assert (401, "bad_token") == judge(SOURCE, BEARER, BODY, [])


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "malformed_json"),
        (b"{", "malformed_json"),
        (b"[]", "shape_mismatch"),
        (b"{}", "shape_mismatch"),
        (b'{"type": 1}', "shape_mismatch"),
        (b'{"type": ""}', "bad_event"),
    ],
)
def test_a_malformed_body_is_refused_by_name(body: bytes, reason: str) -> None:
    assert (400, reason) == judge(SOURCE, BEARER, body, [TOKEN])


def test_the_same_change_may_come_again_as_another_fact() -> None:
    """A to B to A: the first and the third body are equal, and all three happened."""
    a, b = {"id": 1, "v": "a"}, {"id": 1, "v": "b"}
    bodies = [
        json.dumps({"type": "UPDATE", "table": "t", "schema": "s", "record": new, "old_record": old}).encode()
        for new, old in ((a, b), (b, a), (a, b))
    ]
    receipts = [
        judge(SOURCE, BEARER, body, [TOKEN], receipt_id=f"receipt-{n}") for n, body in enumerate(bodies)
    ]
    assert ["receipt-0", "receipt-1", "receipt-2"] == [
        receipt.identity for receipt in receipts if isinstance(receipt, Receipt)
    ]
    events = [
        only(delivery_of(SOURCE, "update", body, identity=f"receipt-{n}")) for n, body in enumerate(bodies)
    ]
    assert 3 == len({event.id for event in events})
    assert 1 == len({event.ref for event in events})


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_a_sample_becomes_what_was_reviewed(sample: Sample) -> None:
    assert json.loads(expected_path(sample).read_bytes()) == outcome(sample)


def test_there_is_an_outcome_for_each_sample_and_no_other() -> None:
    assert sorted(map(expected_path, SAMPLES)) == sorted(EXPECTED.glob("*.json"))
    assert {outcome(sample)["type"] for sample in SAMPLES} == {
        name for name in EVENTS if name.startswith("row.")
    }


@pytest.mark.parametrize("kind", UNDERSTOOD)
def test_no_value_of_the_row_is_in_the_event(kind: str) -> None:
    row = {"id": 7, "email": "alice@example.org", "note": "secret"}
    event = only(change(kind, row, {**row, "email": "old@example.org"}))
    told = event.model_dump_json() + event.summary
    assert not any(value in told for value in ("example.org", "secret"))
    assert {"id": "7"} == event.primary_key


def test_an_update_names_the_columns_that_differ() -> None:
    event = only(
        change("UPDATE", {"id": 1, "b": 2, "a": None, "c": [1]}, {"id": 1, "b": 3, "a": 1, "c": [1]})
    )
    assert ["a", "b"] == event.changed_columns


def test_a_column_that_only_one_side_has_differs() -> None:
    assert ["new", "old"] == only(change("UPDATE", {"id": 1, "new": 1}, {"id": 1, "old": 1})).changed_columns


def test_an_update_that_changes_nothing_is_one_too() -> None:
    assert [] == only(change("UPDATE", {"id": 1}, {"id": 1})).changed_columns


def test_a_delete_is_named_by_the_row_that_was() -> None:
    assert "supabase:public.t/9" == only(change("DELETE", None, {"id": 9})).ref


def test_the_time_is_the_time_of_receipt() -> None:
    """`updated_at` is a column like any other: it versions nothing."""
    event = only(change("UPDATE", {"id": 1, "updated_at": "2099-01-01T00:00:00Z"}, {"id": 1}))
    assert NOW == event.occurred_at


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7, "7"),
        (2**63, "9223372036854775808"),
        ("0b6c-11", "0b6c-11"),
        ("a,b", "a%2Cb"),
        ("a/b.c", "a%2Fb.c"),
        ("ä b", "%C3%A4%20b"),
        (1.5, "1.5"),
    ],
)
def test_any_scalar_is_a_key_and_none_passes_for_two(value: object, text: str) -> None:
    assert f"supabase:public.t/{text}" == only(change("INSERT", {"id": value})).ref


def test_a_key_of_several_columns_is_named_in_ssot() -> None:
    keys = {"public.t": ["order_id", "line"]}
    row = {"line": 2, "order_id": "a,1", "id": 5}
    event = only(change("INSERT", row), primary_keys=keys)
    assert ("supabase:public.t/a%2C1,2", {"order_id": "a,1", "line": "2"}) == (event.ref, event.primary_key)
    assert "supabase:other.t/5" == only(change("INSERT", row, schema="other"), primary_keys=keys).ref


def test_names_of_tables_are_encoded_too() -> None:
    assert "supabase:100%25.a%2Fb/1" == only(change("INSERT", {"id": 1}, table="a/b", schema="100%")).ref
    assert "supabase:a%2Eb.c/1" == only(change("INSERT", {"id": 1}, table="c", schema="a.b")).ref
    assert "supabase:a.b%2Ec/1" == only(change("INSERT", {"id": 1}, table="b.c", schema="a")).ref


@pytest.mark.parametrize("row", [None, {}, {"id": None}, {"id": []}, {"id": {}}, {"id": ""}, {"id": True}])
def test_a_row_without_its_key_is_parked_until_ssot_names_it(row: object) -> None:
    assert "no_primary_key" == ended(change("INSERT", row))


def test_the_reason_of_a_parked_row_holds_none_of_its_values() -> None:
    with pytest.raises(Unintelligible) as parked:
        events_of(SOURCE, change("INSERT", {"email": "alice@example.org"}))
    assert "alice" not in str(parked.value)
    assert "options.primary_keys" in str(parked.value)


@pytest.mark.parametrize("kind", ["TRUNCATE", "insert", "SELECT"])
def test_an_unknown_type_is_ignored_by_name(kind: str) -> None:
    assert "no_such_event" == ended(change(kind, {"id": 1}))


@pytest.mark.parametrize(
    "fields", [{"record": 7}, {"record": []}, {"table": None}, {"schema": ""}, {"table": 64 * "a"}]
)
def test_a_body_of_another_shape_is_parked(fields: dict[str, Any]) -> None:
    assert "shape_mismatch" == ended(change("INSERT", **{"record": {"id": 1}, **fields}))


def test_two_projects_are_two_sources() -> None:
    body = change("INSERT", {"id": 1}).body
    for name in ("supabase", "supabase_eu"):
        source = source_of(PROVIDER, name)
        (event,) = events_of(source, delivery_of(source, "insert", body))
        assert f"{name}:public.t/1" == event.ref


@pytest.mark.parametrize("keys", [{"t": ["id"]}, {"public.t": []}, {"public.t": [""]}, {"public.t": "id"}])
def test_options_that_mean_nothing_are_refused(keys: object) -> None:
    with pytest.raises(ValidationError):
        SupabaseOptions.model_validate({"primary_keys": keys})


def test_the_ssot_file_subscribes_to_what_is_understood_and_is_not_unsigned() -> None:
    file = SOURCES["supabase"].file
    assert (list(UNDERSTOOD), False) == (file.events, file.unsigned)
    assert ["SUPABASE_WEBHOOK_TOKEN", "SUPABASE_WEBHOOK_TOKEN_2"] == file.secrets
