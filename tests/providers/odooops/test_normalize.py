"""What a producer of ours gets wrong parks by field and problem; nothing that it wrote is shown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from contracts.delivery import Delivery
from providers.odooops import PROVIDER
from services.projector.understand import Understood, understand
from tests.contracts.examples import FOLDER, stated
from tests.providers.driving import delivery_of, source_of

SOURCE = source_of(PROVIDER)
SECRET = "hunter2-is-the-value"
REMOVED = object()


def said(kind: str, body: bytes) -> Delivery:
    return delivery_of(SOURCE, kind, body, via="job")


def changed(kind: str, **fields: Any) -> Understood:
    """What becomes of the example of a kind with some fields changed or removed."""
    facts = {**stated(FOLDER / "examples" / f"{kind}.json"), **fields}
    body = {name: value for name, value in facts.items() if value is not REMOVED}
    return understand({"odooops": SOURCE}, said(kind, json.dumps(body).encode()))


MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("backup.finished", {"backup_id": REMOVED}, "backup_id (missing)"),
    ("backup.finished", {"backup_id": f"{SECRET} with spaces"}, "backup_id (string_pattern_mismatch)"),
    ("backup.finished", {"backup_id": "x" * 201}, "backup_id (string_pattern_mismatch)"),
    ("backup.finished", {"size_bytes": -1}, "size_bytes (greater_than_equal)"),
    ("backup.finished", {"size_bytes": 2**63}, "size_bytes (less_than_equal)"),
    ("backup.finished", {"occurred_at": "2026-03-04T09:00:00"}, "occurred_at (timezone_aware)"),
    ("backup.finished", {"occurred_at": SECRET}, "occurred_at (datetime_from_date_parsing)"),
    ("backup.finished", {"status": 5}, "status (literal_error)"),
    ("backup.finished", {"status": REMOVED, "stated_status": REMOVED}, "status (missing)"),
    ("backup.finished", {"env": "production"}, "env (literal_error)"),
    ("backup.finished", {"moment": [9, 9, 9]}, "(moment_differs_from_the_facts)"),
    ("backup.finished", {"ref": f"odooops:backup/{SECRET}"}, "(ref_differs_from_the_facts)"),
    ("advisor_finding.found", {"fingerprint": "short"}, "fingerprint (string_pattern_mismatch)"),
    ("advisor_finding.found", {"evidence": SECRET}, "evidence (dict_type)"),
    ("advisor_finding.dismissed", {"fingerprint": REMOVED}, "fingerprint (missing)"),
    ("advisor_run.finished", {"finding_count": -1}, "finding_count (greater_than_equal)"),
    ("gate.evaluated", {"gate": "../../etc"}, "gate (string_pattern_mismatch)"),
    ("gate.evaluated", {"input_hash": SECRET}, "input_hash (string_pattern_mismatch)"),
    ("gate.evaluated", {"subject_ref": ""}, "subject_ref (string_too_short)"),
    ("gate.evaluated", {"reasons": ["x"] * 101}, "reasons (too_long)"),
    ("job.queued", {"args": [SECRET]}, "args (dict_type)"),
    ("job.started", {"attempt": 0}, "attempt (greater_than_equal)"),
    ("job.started", {"attempt": 10**9}, "attempt (less_than_equal)"),
    ("job_run.progressed", {"log_level": "fatal"}, "log_level (literal_error)"),
    ("job_run.progressed", {"message": None}, "message (string_type)"),
    ("artifact.stored", {"sha256": "AB" * 32}, "sha256 (string_pattern_mismatch)"),
    ("artifact.stored", {"object_name": "a\nb"}, "object_name (string_pattern_mismatch)"),
    ("healthcheck.completed", {"latency_ms": -1}, "latency_ms (greater_than_equal)"),
    ("healthcheck.completed", {"latency_ms": SECRET}, "latency_ms (float_parsing)"),
    ("metric.recorded", {"ref": REMOVED}, "ref (missing)"),
    ("metric.recorded", {"value": None}, "value (float_type)"),
]


@pytest.mark.parametrize(
    ("kind", "fields", "problem"), MISTAKES, ids=[f"{kind}-{problem}" for kind, _, problem in MISTAKES]
)
def test_a_mistake_is_named_and_not_shown(kind: str, fields: dict[str, Any], problem: str) -> None:
    result = changed(kind, **fields)

    assert ("parked", "shape_mismatch") == (result.status, result.reason)
    assert problem in str(result.error)
    assert SECRET not in str(result.error)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"pushed": [SECRET]}, "pushed.0 (string_pattern_mismatch)"),
        ({"pushed": {"A_TOKEN": SECRET}}, "pushed (list_type)"),
        ({"pushed": ["A" * 129]}, "pushed.0 (string_pattern_mismatch)"),
        ({"pushed": ["A_TOKEN\n"]}, "pushed.0 (string_pattern_mismatch)"),
        ({"pushed": [f"A_TOKEN={SECRET}"]}, "pushed.0 (string_pattern_mismatch)"),
        ({"skipped": {"A_TOKEN": SECRET}}, "skipped (not_names_with_reasons)"),
        ({"skipped": {SECRET: "not_in_source"}}, "skipped (not_names_with_reasons)"),
        ({"skipped": {SECRET: 5}}, "skipped (not_names_with_reasons)"),
        ({"skipped": {"A_TOKEN": "5e884898da28047151d0e56f8dc629"}}, "skipped (not_names_with_reasons)"),
        ({"skipped": {"A_TOKEN": "reason\n"}}, "skipped (not_names_with_reasons)"),
        ({"skipped": [SECRET]}, "skipped (not_names_with_reasons)"),
        ({"error": f"could not write {SECRET}"}, "error (string_pattern_mismatch)"),
        ({"target_store": SECRET.upper()}, "target_store (string_pattern_mismatch)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_looks_like_a_value_of_a_secret_is_refused_and_not_repeated(
    fields: dict[str, Any], problem: str
) -> None:
    result = changed("secret_sync.finished", **fields)

    assert ("parked", "shape_mismatch", ()) == (result.status, result.reason, result.rows)
    assert problem in str(result.error)
    assert SECRET.lower() not in str(result.error).lower()


def test_a_field_that_the_contract_does_not_know_reaches_no_table_and_no_event() -> None:
    result = changed("secret_sync.finished", values={"A_TOKEN": SECRET})

    assert "projected" == result.status
    assert SECRET not in repr(result.rows) + repr(result.statements)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not_json"),
        (b"[" * 20_000, "not_json"),
        (b'{"value": NaN}', "not_json"),
        (b"null", "shape_mismatch"),
        (b"[]", "shape_mismatch"),
        (b'"text"', "shape_mismatch"),
        (b"{}", "shape_mismatch"),
        (b'{"value": 1e999, "ref": "x", "metric": "m", "occurred_at": 0}', "shape_mismatch"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_body_of_another_shape_parks(body: bytes, reason: str) -> None:
    result = understand({"odooops": SOURCE}, said("metric.recorded", body))

    assert ("parked", reason) == (result.status, result.reason)


def test_an_event_that_nobody_knows_parks_by_name() -> None:
    result = understand({"odooops": SOURCE}, said("backup.exploded", b"{}"))

    assert ("parked", "unknown_event") == (result.status, result.reason)
    assert "'backup.exploded'" in str(result.error)


def test_what_postgres_cannot_store_is_cleaned_everywhere() -> None:
    facts = stated(FOLDER / "examples" / "job.queued.json")
    facts |= {"requested_by": "a\x00", "args": {"k\x00": ["v\ud800"]}}
    result = understand({"odooops": SOURCE}, said("job.queued", json.dumps(facts).encode()))

    (job,) = (row for name, row in result.rows if name == "jobs")
    assert "a\ufffd" == job.requested_by
    assert {"k\ufffd": ["v\ufffd"]} == json.loads(job.args)


def test_a_figure_that_json_has_no_word_for_becomes_null() -> None:
    body = json.dumps({**stated(FOLDER / "examples" / "job.queued.json"), "args": "ARGS"})
    result = understand(
        {"odooops": SOURCE}, said("job.queued", body.replace('"ARGS"', '{"size": 1e999}').encode())
    )

    (job,) = (row for name, row in result.rows if name == "jobs")
    assert b'{"size":null}' == job.args
