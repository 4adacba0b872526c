"""Who may deliver as Plane, and what a delivery is called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from contracts.delivery import body_sha256
from providers.plane.verify import kind_of, new_secret
from providers.port import Parcel, Receipt, Refused, Secret
from tests.providers import driving
from tests.providers.driving import NOW, Outcome
from tests.providers.plane.deliveries import FIXTURES, SOURCE, path_of, sample

SECRET = Secret("PLANE_WEBHOOK_SECRET", b"plane_wh_00000000000000000000000000000000")
SECOND = Secret("PLANE_WEBHOOK_SECRET_2", b"plane_wh_11111111111111111111111111111111")
PAIRS = sorted(FIXTURES.glob("v1-constructed-from-source/*.headers.json"))


def taken(body: bytes, **how: Any) -> Receipt:
    """The receipt of a body that Plane signed."""
    outcome = sent(body, **how)
    assert isinstance(outcome, Receipt), outcome
    return outcome


def sent(body: bytes, delivery: str = "d-1", event: str = "issue", secret: Secret = SECRET) -> Outcome:
    """What becomes of a body that is signed as Plane would."""
    assert SOURCE.provider.compose is not None
    made = SOURCE.provider.compose(Parcel(body=body, event=event, delivery=delivery, at=NOW), SOURCE, secret)
    return driving.judge(SOURCE, made.headers, made.body, [SECRET, SECOND])


def headers_of(path: Path) -> tuple[dict[str, str], bytes, Secret]:
    """A recorded pair: headers, body, secret."""
    recorded = json.loads(path.read_bytes())
    body = path.with_name(path.name.replace(".headers.", ".body.")).read_bytes()
    headers = {name.lower(): value for name, value in recorded["headers"].items()}
    return headers, body, Secret("PLANE_WEBHOOK_SECRET", recorded["secret"].encode())


@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.name.removesuffix(".headers.json"))
def test_a_pair_as_the_server_sends_it_is_taken(path: Path) -> None:
    headers, body, secret = headers_of(path)

    outcome = driving.judge(SOURCE, headers, body, [secret])

    assert outcome == Receipt(
        identity=f"sha256-{body_sha256(body)}", kind=headers["x-plane-event"], verified_by=secret.name
    )


def test_any_of_several_secrets_may_have_signed() -> None:
    assert "PLANE_WEBHOOK_SECRET_2" == taken(b'{"event": "issue"}', secret=SECOND).verified_by


@pytest.mark.parametrize(
    ("signature", "reason"),
    [
        (None, "missing_signature"),
        ("", "bad_signature"),
        ("0" * 64, "bad_signature"),
        ("A" * 64, "bad_signature"),
        ("sha256=" + "0" * 64, "bad_signature"),
        ("é" * 64, "bad_signature"),
    ],
)
def test_a_wrong_signature_is_refused(signature: str | None, reason: str) -> None:
    headers = {} if signature is None else {"x-plane-signature": signature}

    assert (401, reason) == driving.judge(SOURCE, headers, b'{"event": "issue"}', [SECRET])


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "malformed_json"),
        (b"{", "malformed_json"),
        (b"NaN", "malformed_json"),
        (b"[]", "missing_event"),
        (b"{}", "missing_event"),
        (b'{"event": 1}', "missing_event"),
        (b'{"event": ""}', "bad_event"),
        (b'{"event": "a..b"}', "bad_event"),
        (b'{"event": "a.b.c.d.e.f.g"}', "bad_event"),
        (json.dumps({"event": "a" * 65}).encode(), "bad_event"),
    ],
)
def test_a_signed_body_that_says_nothing_is_refused(body: bytes, reason: str) -> None:
    assert (400, reason) == sent(body)


def test_a_retry_has_a_new_delivery_id_and_the_same_identity() -> None:
    first = driving.judge(SOURCE, *headers_of(PAIRS[1])[:2], [SECRET])
    again = driving.judge(SOURCE, *headers_of(PAIRS[2])[:2], [SECRET])

    assert "issue.created.retry.headers.json" == PAIRS[2].name
    assert headers_of(PAIRS[1])[0]["x-plane-delivery"] != headers_of(PAIRS[2])[0]["x-plane-delivery"]
    assert isinstance(first, Receipt) and first == again


def test_two_fields_of_one_change_are_two_deliveries() -> None:
    state, priority = (
        path_of(f"v1-constructed-from-source/issue.updated.{field}.body").read_bytes()
        for field in ("state", "priority")
    )

    assert json.loads(state)["data"] == json.loads(priority)["data"]
    assert taken(state).identity != taken(priority).identity


def test_an_event_of_v2_is_known_by_its_id_whatever_the_attempt() -> None:
    body = sample("v2-docs/workitem.updated.printed")
    again = {**body, "delivery_id": "another"}

    assert body["event_id"] == taken(json.dumps(body).encode()).identity
    assert body["event_id"] == taken(json.dumps(again).encode()).identity


@pytest.mark.parametrize("event_id", [None, "", 7, ["x"], "has spaces", "ä", "x" * 201])
def test_an_event_of_v2_without_a_usable_id_is_not_lost(event_id: Any) -> None:
    body = json.dumps({**sample("v2-docs/workitem.updated.printed"), "event_id": event_id}).encode()

    assert f"sha256-{body_sha256(body)}" == taken(body).identity


def test_an_event_id_in_v1_is_nobodys_identity() -> None:
    body = b'{"event": "issue", "event_id": "e-1"}'

    assert f"sha256-{body_sha256(body)}" == taken(body).identity


def test_the_kind_comes_from_the_signed_body_and_not_from_the_header() -> None:
    assert "issue" == taken(b'{"event": "issue"}', event="project").kind


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ("issue", "issue"),
        ("issue_comment", "issue_comment"),
        ("workitem.updated", "workitem.updated"),
        ("workitem.comment.created", "workitem.comment.created"),
        ("WebhookScope.ScopeChoices.WORK_ITEM_UPDATED", "workitem.updated"),
        ("WebhookScope.ScopeChoices.WORK_ITEM_COMMENT_CREATED", "workitem.comment.created"),
        ("WebhookScope.ScopeChoices.PROJECT_ARCHIVED", "project.archived"),
        ("Größe", "gr__e"),
    ],
)
def test_a_kind_is_made_of_subject_tokens(event: str, kind: str) -> None:
    assert kind == kind_of(event)


def test_a_kind_that_cannot_be_a_subject_is_refused() -> None:
    with pytest.raises(Refused):
        kind_of(".")


def test_a_new_secret_looks_like_planes() -> None:
    assert new_secret(bytes(range(32))) == "plane_wh_000102030405060708090a0b0c0d0e0f"
