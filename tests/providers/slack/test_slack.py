"""Who may deliver as Slack, what it is answered, and by which name each kind is set aside."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest

from providers.port import Answer, Ignored, Parcel, Receipt, Refused, Request, Secret, Stored
from providers.slack import PROVIDER
from providers.slack.verify import KEPT_HEADERS, WINDOW_S
from tests.providers import driving
from tests.providers.driving import NOW, Outcome, delivery_of, events_of
from tests.providers.slack.cases import CASE, FIXTURES

SOURCE = CASE.source
SECRET = Secret("SLACK_SIGNING_SECRET", b"8f742231b10e8888abcd99yyyzzz85a5")
SECOND = Secret("SLACK_SIGNING_SECRET_2", b"another")
VECTORS: list[dict[str, Any]] = json.loads((FIXTURES / "signature-vectors.json").read_bytes())["vectors"]
SLASH = (FIXTURES / "slash-command.docs.body.txt").read_bytes()
BUTTON = (FIXTURES / "interactivity" / "block_actions.body.txt").read_bytes()
MODAL = (FIXTURES / "interactivity" / "view_submission.body.txt").read_bytes()
HANDSHAKE = (FIXTURES / "events" / "url_verification.json").read_bytes()
MENTION = (FIXTURES / "events" / "app_mention.json").read_bytes()
ASKED = Request(method="POST", headers={}, received_at=NOW, receipt_id="r-1")


def sent(body: bytes, secret: Secret = SECRET, at: datetime = NOW, received_at: datetime = NOW) -> Outcome:
    """What becomes of a body that Slack signed at a time and that came at another."""
    assert PROVIDER.compose is not None
    made = PROVIDER.compose(Parcel(body=body, event="", delivery="", at=at), SOURCE, secret)
    return driving.judge(SOURCE, made.headers, made.body, [SECRET, SECOND], at=received_at)


def taken(body: bytes, **how: Any) -> Receipt:
    """The receipt of a body that Slack signed."""
    outcome = sent(body, **how)
    assert isinstance(outcome, Receipt), outcome
    return outcome


def interaction(**fields: Any) -> bytes:
    """The body of an interaction."""
    return urlencode({"payload": json.dumps(fields)}).encode()


def answered(body: bytes, duplicate: bool = False) -> Answer:
    """What Slack is told once a body is stored."""
    delivery = delivery_of(SOURCE, taken(body).kind, body)
    return PROVIDER.answer(Stored(delivery=delivery, seq=7, duplicate=duplicate), ASKED)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_a_signature_vector_behaves_as_stated(vector: dict[str, Any]) -> None:
    headers = {name.lower(): value for name, value in vector["headers"].items()}
    secret = Secret("SLACK_SIGNING_SECRET", vector["signing_secret"].encode())

    outcome = driving.judge(
        SOURCE, headers, vector["body"].encode(), [secret], at=datetime.fromtimestamp(vector["now"], UTC)
    )

    assert vector["tolerance_s"] == WINDOW_S
    assert isinstance(outcome, Receipt) is vector["valid"], outcome
    assert isinstance(outcome, Receipt) or outcome[0] == 401


@pytest.mark.parametrize(
    ("off_s", "fresh"), [(-301, False), (-300, True), (0, True), (300, True), (301, False)]
)
def test_a_request_is_taken_within_five_minutes_either_way(off_s: int, fresh: bool) -> None:
    outcome = sent(SLASH, received_at=NOW + timedelta(seconds=off_s))

    assert isinstance(outcome, Receipt) if fresh else (401, "stale_timestamp") == outcome


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"x-slack-signature": None}, "missing_signature"),
        ({"x-slack-request-timestamp": None}, "missing_signature"),
        ({"x-slack-request-timestamp": "1793534401"}, "bad_signature"),
        ({"x-slack-request-timestamp": "x"}, "bad_signature"),
        ({"x-slack-request-timestamp": "-1"}, "bad_signature"),
        ({"x-slack-request-timestamp": "9" * 400}, "bad_signature"),
        ({"x-slack-request-timestamp": "１７９３"}, "bad_signature"),
        ({"x-slack-signature": "v0=" + "0" * 64}, "bad_signature"),
        ({"x-slack-signature": "v0=" + "A" * 64}, "bad_signature"),
    ],
)
def test_a_wrong_head_is_refused(changed: dict[str, str | None], reason: str) -> None:
    assert PROVIDER.compose is not None
    made = PROVIDER.compose(Parcel(body=SLASH, event="", delivery="", at=NOW), SOURCE, SECRET)
    headers = {name: value for name, value in {**made.headers, **changed}.items() if value is not None}

    assert (401, reason) == driving.judge(SOURCE, headers, made.body, [SECRET])


def test_any_of_several_secrets_may_have_signed() -> None:
    assert "SLACK_SIGNING_SECRET_2" == taken(SLASH, secret=SECOND).verified_by


@pytest.mark.parametrize(
    ("body", "kind", "identity"),
    [
        (SLASH, "command", "command:398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"),
        (BUTTON, "interactivity.block_actions", "interactivity.block_actions:111.222.valid"),
        (MODAL, "interactivity.view_submission", "interactivity.view_submission:111.222.valid"),
        (MENTION, "event.app_mention", "Ev08MFMKH6"),
    ],
    ids=["slash", "button", "modal", "mention"],
)
def test_what_must_happen_once_is_what_slack_names_so(body: bytes, kind: str, identity: str) -> None:
    receipt = taken(body)

    assert (kind, identity) == (receipt.kind, receipt.identity)
    assert receipt == taken(body, at=NOW + timedelta(seconds=60)), "a retry is signed anew"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (HANDSHAKE, "url_verification"),
        (b'{"type": "app_rate_limited", "minute_rate_limited": 1}', "app_rate_limited"),
        (b'{"type": "event_callback", "event": {"type": "message"}}', "event.message"),
        (b'{"type": "event_callback", "event": {"type": "message"}, "event_id": ["x"]}', "event.message"),
        (b'{"type": "event_callback", "event": {"type": "message"}, "event_id": "a b"}', "event.message"),
        (b"ssl_check=1&token=x", "ssl_check"),
        (b"command=%2Fx&text=", "command"),
        (interaction(type="view_closed"), "interactivity.view_closed"),
        (interaction(type="block_actions", trigger_id=7), "interactivity.block_actions"),
    ],
)
def test_what_has_no_name_is_known_by_its_signature(body: bytes, kind: str) -> None:
    first, later = taken(body), taken(body, at=NOW + timedelta(seconds=1))

    assert kind == first.kind == later.kind
    assert first.identity.startswith("v0=") and first.identity != later.identity


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{}",
        b"[]",
        b"\xff\xfe",
        b'{"type": 1}',
        b'{"type": ""}',
        b'{"type": "event_callback", "event": {}}',
        b"a=1",
        b"payload=",
        b"payload=x",
        b"payload=%7B%7D",
        b"command=a&command=b",
        b"ssl_check=0",
        b"&".join(b"a%d=1" % n for n in range(65)),
        json.dumps({"type": "x" * 65}).encode(),
    ],
)
def test_a_signed_body_that_slack_would_not_send_is_refused(body: bytes) -> None:
    assert (400, "malformed_body") == sent(body)


def test_the_content_type_does_not_decide_what_a_body_is() -> None:
    assert PROVIDER.compose is not None
    made = PROVIDER.compose(Parcel(body=SLASH, event="", delivery="", at=NOW), SOURCE, SECRET)
    outcome = driving.judge(SOURCE, {**made.headers, "content-type": "application/json"}, made.body, [SECRET])

    assert isinstance(outcome, Receipt) and "command" == outcome.kind


def test_the_challenge_is_given_back() -> None:
    assert {"challenge": "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"} == answered(HANDSHAKE).body


def test_a_challenge_that_nobody_signed_is_not_given_back() -> None:
    assert (401, "missing_signature") == driving.judge(SOURCE, {}, HANDSHAKE, [SECRET])

    refused = PROVIDER.answer(Refused(401, "missing_signature", "It is not signed."), ASKED)
    assert 401 == refused.status and "challenge" not in refused.body


def test_a_challenge_that_is_no_text_is_not_given_back() -> None:
    assert {"challenge": ""} == answered(b'{"type": "url_verification", "challenge": {"a": 1}}').body


def test_who_gave_a_command_is_told_the_truth_and_nobody_else_is() -> None:
    told = answered(SLASH).body

    assert "ephemeral" == told["response_type"]
    assert "nothing is done" in str(told["text"])


def test_an_answer_that_slack_would_show_as_a_failure_is_never_given() -> None:
    assert {"response_action": "clear"} == answered(MODAL).body
    assert {} == answered(BUTTON).body
    assert {} == answered(interaction(type="shortcut")).body
    assert {"options": []} == answered(interaction(type="block_suggestion")).body
    assert {200} == {answered(each.body).status for each in CASE.samples}
    assert 200 == answered(SLASH, duplicate=True).status


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("command", "commands_do_nothing_yet"),
        ("interactivity.block_actions", "interactions_do_nothing_yet"),
        ("interactivity.of_tomorrow", "interactions_do_nothing_yet"),
        ("event.app_mention", "slack_events_do_nothing_yet"),
        ("url_verification", "endpoint_verified"),
        ("ssl_check", "certificate_checked"),
        ("app_rate_limited", "events_withheld_by_slack"),
        ("of_tomorrow", "no_such_event"),
    ],
)
def test_each_kind_is_set_aside_by_a_name_of_its_own(kind: str, reason: str) -> None:
    with pytest.raises(Ignored) as caught:
        events_of(SOURCE, delivery_of(SOURCE, kind, b"{}"))
    assert reason == caught.value.reason


def test_the_headers_of_a_retry_are_kept() -> None:
    assert {"x-slack-retry-num", "x-slack-retry-reason"} < set(KEPT_HEADERS)
