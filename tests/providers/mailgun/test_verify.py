"""Who may deliver as Mailgun, and what every other request is told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest
from pydantic import ValidationError

from contracts.ssot import BadSsot, ProviderFile, Ssot
from providers.mailgun import PROVIDER
from providers.mailgun.answer import FINAL, answer
from providers.mailgun.options import MailgunOptions
from providers.mailgun.verify import BODY_BYTES_MAX, sign
from providers.port import Receipt, Refused, Request, Secret, Source, Stored
from providers.registry import sources
from tests.providers.driving import NOW, RECEIPT_ID, Outcome, delivery_of, judge, judge_composed, source_of
from tests.providers.mailgun.deliveries import FIXTURES, FORM_TYPE, JSON_TYPE, KEY, PARENT_KEY, SOURCE

VECTORS: dict[str, Any] = json.loads((FIXTURES / "signature-vectors.json").read_bytes())
SIGNED = sorted(FIXTURES.glob("*/*.signed.json"))
FORMS = sorted(FIXTURES.glob("forms/*.txt"))
TOKEN = "a8ce0edb2dd8301dee6c2405235584e45aa91d1e9f979f3de0"
SIGNED_AT = int(NOW.timestamp())
OTHER = Secret("MAILGUN_SIGNING_KEY_3", b"a third key")


def signature(at: int | str = SIGNED_AT, token: str = TOKEN, key: Secret = KEY) -> dict[str, Any]:
    """A genuine pair."""
    return {"timestamp": str(at), "token": token, "signature": sign(str(at), token, key)}


def body(signed: object, event: object = "delivered") -> bytes:
    return json.dumps({"signature": signed, "event-data": {"event": event, "id": "x"}}).encode()


def judged(
    raw: bytes,
    secrets: Sequence[Secret] = (KEY,),
    *,
    at: datetime = NOW,
    content_type: str = JSON_TYPE,
    source: Source = SOURCE,
) -> Outcome:
    return judge(source, {"content-type": content_type}, raw, secrets, at=at)


def taken(kind: str = "delivered", token: str = TOKEN, by: Secret = KEY) -> Receipt:
    return Receipt(identity=token, kind=kind, verified_by=by.name)


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda vector: str(vector["name"]))
def test_a_vector_is_judged_as_it_says(vector: dict[str, Any]) -> None:
    pair = {name: vector[name] for name in ("timestamp", "token", "signature")}
    at = datetime.fromtimestamp(int(vector["timestamp"]), UTC)
    key = Secret(KEY.name, vector["signing_key"].encode())

    wanted = taken(token=vector["token"]) if vector["valid"] else (401, "bad_signature")
    assert wanted == judged(body(pair), [key], at=at)


def test_the_pair_printed_in_the_manual_has_the_shape_that_we_read() -> None:
    printed = VECTORS["printed_without_key"]
    at = datetime.fromtimestamp(int(printed["timestamp"]), UTC)

    assert (401, "bad_signature") == judged(body(printed), at=at)


@pytest.mark.parametrize("path", SIGNED, ids=lambda path: path.name)
def test_a_recorded_webhook_is_taken_in_its_time(path: Any) -> None:
    said = json.loads(path.read_bytes())
    at = datetime.fromtimestamp(int(said["signature"]["timestamp"]), UTC)

    assert taken(said["event-data"]["event"], said["signature"]["token"]) == judged(path.read_bytes(), at=at)


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_a_recorded_form_is_taken_in_its_time(path: Any) -> None:
    said = {name: values[0] for name, values in parse_qs(path.read_text()).items()}
    at = datetime.fromtimestamp(int(said["timestamp"]), UTC)
    for content_type in (FORM_TYPE, f"{FORM_TYPE}; charset=utf-8"):
        outcome = judged(path.read_bytes(), at=at, content_type=content_type)
        assert taken(said["event"], said["token"]) == outcome


def test_the_timestamp_may_be_a_number() -> None:
    assert taken() == judged(body({**signature(), "timestamp": SIGNED_AT}))


def test_any_of_the_secrets_may_have_signed_and_is_named() -> None:
    secrets = [OTHER, KEY]
    assert taken() == judged(body(signature()), secrets)
    assert taken(by=OTHER) == judged(body(signature(key=OTHER)), secrets)


def test_an_empty_secret_verifies_nothing() -> None:
    empty = Secret("EMPTY", b"")
    assert (401, "bad_signature") == judged(body(signature(key=empty)), [empty])
    assert (401, "bad_signature") == judged(body(signature()), [])


@pytest.mark.parametrize("held", [[KEY], [PARENT_KEY], [KEY, PARENT_KEY]], ids=["own", "parent", "both"])
def test_of_a_subaccounts_two_signatures_one_that_fits_is_enough(held: list[Secret]) -> None:
    both = {**signature(), "parent-signature": sign(str(SIGNED_AT), TOKEN, PARENT_KEY)}
    assert taken(by=held[0]) == judged(body(both), held)


def test_a_wrong_parent_signature_spoils_nothing_and_a_right_one_saves() -> None:
    """The event is not signed anyway: a second signature proves no more than the first."""
    good, bad = sign(str(SIGNED_AT), TOKEN, PARENT_KEY), 64 * "0"
    assert taken() == judged(body({**signature(), "parent-signature": bad}), [KEY])
    own_unknown = {**signature(), "signature": bad, "parent-signature": good}
    assert taken(by=PARENT_KEY) == judged(body(own_unknown), [KEY, PARENT_KEY])
    assert (401, "bad_signature") == judged(body({**own_unknown, "parent-signature": bad}), [KEY, PARENT_KEY])


def test_a_parent_signature_has_no_pair_of_its_own() -> None:
    """Both signatures are over one pair: a token that nobody signed cannot be carried in beside a signed one."""
    another = {**signature(), "token": "f" * 50, "parent-signature": signature(key=PARENT_KEY)}
    assert (400, "shape_mismatch") == judged(body(another), [KEY, PARENT_KEY])


def test_the_event_is_not_covered_so_the_token_is_the_identity() -> None:
    first, second = judged(body(signature(), "delivered")), judged(body(signature(), "failed"))
    assert isinstance(first, Receipt) and isinstance(second, Receipt)
    assert (first.identity, second.identity) == (TOKEN, TOKEN)


@pytest.mark.parametrize("moved", [1, 5, -1, -5])
def test_no_digit_can_be_moved_between_timestamp_and_token(moved: int) -> None:
    """Nothing separates the two in what is signed: a moved digit is signed too, and would be another identity."""
    digits = "1234567890" * 5
    signed = str(SIGNED_AT) + digits
    pair = {
        "timestamp": signed[: 10 + moved],
        "token": signed[10 + moved :],
        "signature": sign(signed, "", KEY),
    }
    assert (400, "bad_timestamp") == judged(body(pair))


@pytest.mark.parametrize(
    "timestamp", ["", "abc", "1529006854.5", "-529006854", " 152900685", "１５２９００６８５４", "0x5b22d2c6"]
)
def test_a_timestamp_is_ten_digits(timestamp: str) -> None:
    assert (400, "bad_timestamp") == judged(body(signature(timestamp)))


@pytest.mark.parametrize("token", ["", "a b", "a\nb", 201 * "a", "ä"])
def test_a_token_that_cannot_be_an_identity_is_refused(token: str) -> None:
    assert (400, "bad_token") == judged(body(signature(token=token)))


EDGES = [
    (timedelta(hours=9), None),
    (timedelta(hours=9, microseconds=1), "stale_signature"),
    (timedelta(hours=8), None),
    (timedelta(0), None),
    (timedelta(minutes=-5), None),
    (timedelta(minutes=-5, microseconds=-1), "signature_too_new"),
]


@pytest.mark.parametrize(("age", "refused"), EDGES, ids=[str(age) for age, _ in EDGES])
def test_a_signature_is_taken_for_nine_hours_and_five_minutes_ahead(
    age: timedelta, refused: str | None
) -> None:
    wanted = (401, refused) if refused else taken()
    assert wanted == judged(body(signature()), at=NOW + age)


def test_the_accepted_age_is_set_in_ssot() -> None:
    source = source_of(PROVIDER, options={"accepted_age_s": 60})
    assert taken() == judged(body(signature()), at=NOW + timedelta(seconds=60), source=source)
    assert (401, "stale_signature") == judged(
        body(signature()), at=NOW + timedelta(seconds=61), source=source
    )


@pytest.mark.parametrize(
    "options",
    [
        {"accepted_age_s": 0},
        {"accepted_age_s": 604_801},
        {"domain": ""},
        {"domain": "a/b"},
        {"accepted_age": 60},
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MailgunOptions.model_validate(options)
    file = ProviderFile(name="mailgun", endpoint="/webhooks/mailgun", options=options)
    with pytest.raises(BadSsot, match=r"ssot/providers/mailgun\.yaml: options\."):
        sources(Ssot(providers={"mailgun": file}))


def test_a_stale_request_of_a_stranger_is_told_of_its_signature_only() -> None:
    stranger = body(signature(key=OTHER))
    assert (401, "bad_signature") == judged(stranger, at=NOW + timedelta(days=9))


@pytest.mark.parametrize(
    ("raw", "content_type", "refusal"),
    [
        (b"", JSON_TYPE, (400, "malformed_json")),
        (b'{"signature": ', JSON_TYPE, (400, "malformed_json")),
        (b"[" * 20_000, JSON_TYPE, (400, "malformed_json")),
        (b"[]", JSON_TYPE, (400, "shape_mismatch")),
        (b'{"signature": 7}', JSON_TYPE, (400, "shape_mismatch")),
        (b'{"signature": {"token": "a"}}', JSON_TYPE, (400, "shape_mismatch")),
        (b"{}", JSON_TYPE, (401, "missing_signature")),
        (b'{"signature": null}', JSON_TYPE, (401, "missing_signature")),
        (b"a=%ff", FORM_TYPE, (400, "malformed_form")),
        (b"\xff", FORM_TYPE, (400, "malformed_form")),
        (b"&".join(b"a=1" for _ in range(501)), FORM_TYPE, (400, "malformed_form")),
        (b"event=delivered", FORM_TYPE, (401, "missing_signature")),
        (b"timestamp=1&token=2", FORM_TYPE, (401, "missing_signature")),
        (body(signature()), "text/plain", (400, "unsupported_content_type")),
        (body(signature()), "multipart/form-data; boundary=x", (400, "unsupported_content_type")),
        (body(signature()), "", (400, "unsupported_content_type")),
        (body(signature(), None), JSON_TYPE, (400, "missing_event")),
        (body(signature(), ""), JSON_TYPE, (400, "missing_event")),
        (body(signature(), 65 * "a"), JSON_TYPE, (400, "bad_event")),
        (json.dumps({"signature": signature()}).encode(), JSON_TYPE, (400, "missing_event")),
    ],
)
def test_a_malformed_request_is_refused_by_name(
    raw: bytes, content_type: str, refusal: tuple[int, str]
) -> None:
    assert refusal == judged(raw, content_type=content_type)


def test_a_routed_mail_is_no_event() -> None:
    """A route that forwards incoming mail signs alike, and holds the mail itself: it must not come into the log."""
    form = urlencode({"sender": "a@example.org", "body-plain": "Dear …", **signature()}).encode()
    assert (400, "missing_event") == judged(form, content_type=FORM_TYPE)


def test_of_a_forms_repeated_fields_mailguns_own_count() -> None:
    """Variables of the mail are merged in: before the signature's fields, after the event's."""
    pairs = [("token", "made up"), ("event", "opened"), ("event", "made up"), *signature().items()]
    assert taken("opened") == judged(urlencode(pairs).encode(), content_type=FORM_TYPE)


def test_a_body_too_large_is_refused_before_it_is_read() -> None:
    chunks = [b"x" * 50_000] * 20
    given: list[int] = []

    def counted() -> Any:
        for chunk in chunks:
            given.append(len(chunk))
            yield chunk

    headers = {"content-type": JSON_TYPE}
    assert (413, "body_too_large") == judge(SOURCE, headers, b"", [KEY], chunks=counted())
    assert sum(given) <= BODY_BYTES_MAX + len(chunks[0])


@pytest.mark.parametrize(("size", "known"), [(25_000, True), (250_000, True), (256_001, False)])
def test_what_mailgun_sends_is_far_below_the_cap(size: int, known: bool) -> None:
    event = {"event": "opened", "user-variables": {"x": ""}}
    event["user-variables"] = {
        "x": "y" * (size - len(json.dumps({"signature": signature(), "event-data": event})))
    }
    body = json.dumps({"signature": signature(), "event-data": event}).encode()
    assert size == len(body)
    assert (taken("opened") if known else (413, "body_too_large")) == judged(body)


def test_nothing_secret_stands_in_a_refusal() -> None:
    for secrets in ([KEY], [OTHER]):
        request = Request(
            method="POST", headers={"content-type": JSON_TYPE}, received_at=NOW, receipt_id=RECEIPT_ID
        )
        assert PROVIDER.verify is not None
        verification = PROVIDER.verify(request, SOURCE, secrets)
        for raw in (body({**signature(), "token": "some token"}), body(signature(token="some token"), "")):
            with pytest.raises(Refused) as refused:
                verification.finish(raw)
            assert "some token" not in str(refused.value)
            assert KEY.value.decode() not in f"{refused.value}{verification!r}"


def test_what_is_composed_carries_the_delivery_as_its_token() -> None:
    event = json.dumps({"event": "opened", "id": "x", "timestamp": 1.5}).encode()
    form = (FIXTURES / "forms" / "clicked.txt").read_bytes()

    assert taken("opened", "d-7") == judge_composed(SOURCE, KEY, event, "opened", "d-7")
    assert taken("clicked", "d-8") == judge_composed(SOURCE, KEY, form, "clicked", "d-8")


ANSWERS = {
    # What the same bytes can never mend.
    "missing_signature": 406,
    "malformed_json": 406,
    "malformed_form": 406,
    "shape_mismatch": 406,
    "unsupported_content_type": 406,
    "bad_timestamp": 406,
    "bad_token": 406,
    "stale_signature": 406,
    "missing_event": 406,
    "bad_event": 406,
    "body_too_large": 406,
    "header_too_long": 406,
    "header_not_ascii": 406,
    "headers_too_long": 406,
    # What may be our own mistake, or passes.
    "bad_signature": 401,
    "signature_too_new": 401,
    "source_closed": 404,
    "method_not_allowed": 405,
    "body_incomplete": 400,
    "body_too_slow": 408,
    "too_many_bytes": 503,
    "log_full": 503,
    "broker_away": 503,
    "stopping": 503,
    "internal_error": 500,
}
HEAD = Request(method="POST", headers={}, received_at=NOW, receipt_id=RECEIPT_ID)


@pytest.mark.parametrize(("reason", "status"), ANSWERS.items())
def test_mailgun_may_repeat_what_time_or_we_can_mend_and_nothing_else(reason: str, status: int) -> None:
    shaped = answer(Refused(400 if status == 406 else status, reason, "No."), HEAD)

    assert (status, {"ok": False, "error": "No.", "code": status, "reason": reason}) == (
        shaped.status,
        shaped.body,
    )


def test_each_final_reason_stands_in_the_table() -> None:
    assert {reason for reason, status in ANSWERS.items() if status == 406} == FINAL


@pytest.mark.parametrize("duplicate", [False, True])
def test_what_is_stored_is_answered_with_200(duplicate: bool) -> None:
    stored = Stored(delivery=delivery_of(SOURCE, "opened", b"{}"), seq=7, duplicate=duplicate)

    assert 200 == answer(stored, HEAD).status
