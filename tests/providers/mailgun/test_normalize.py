"""What Mailgun's deliveries mean: every sample against its reviewed outcome, and each trap by name."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.delivery import Delivery
from contracts.mail import MESSAGE_ID_CHARS_MAX
from contracts.registry import EVENTS
from contracts.ssot import EnvironmentRule, Environments
from providers.mailgun import PROVIDER
from providers.mailgun.body import form_of
from providers.mailgun.forms import words_of
from providers.mailgun.normalize import KINDS, RAW_BYTES_MAX
from providers.port import Unintelligible
from read_models.mail_events import READ_MODEL
from read_models.merge import join_all
from services.projector.understand import understand
from tests.providers.case import Sample
from tests.providers.driving import delivery_of, events_of, source_of
from tests.providers.mailgun.deliveries import (
    DOMAIN,
    EXPECTED,
    FIXTURES,
    FORM_TYPE,
    SAMPLES,
    SOURCE,
    ended,
    expected_path,
    observed,
    only,
    outcome,
    read,
    webhook,
)

TWINS = sorted(path.name.removesuffix(".signed.json") for path in FIXTURES.glob("webhooks/*.json"))
PERSONAL = ("mail_subject", "sender", "recipient", "detail", "url")


def event_text(**fields: Any) -> str:
    """An event in as few fields as Mailgun promises, and more where a test needs them."""
    return json.dumps({"event": "opened", "id": "abc", "timestamp": 1521472262.908181, **fields})


def timed(timestamp: str) -> str:
    """An event with a timestamp written as a test wants it."""
    return f'{{"event": "opened", "id": "abc", "timestamp": {timestamp}}}'


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_a_sample_becomes_what_was_reviewed(sample: Sample) -> None:
    assert json.loads(expected_path(sample).read_bytes()) == outcome(sample)


def test_there_is_an_outcome_for_each_sample_and_no_other() -> None:
    assert sorted(map(expected_path, SAMPLES)) == sorted(EXPECTED.glob("*.json"))


def test_there_are_samples_of_every_event_that_is_understood() -> None:
    known = {outcome(sample)["type"].partition(".")[2] for sample in SAMPLES}
    assert set(KINDS) == known
    assert {f"mail.{name}" for name in KINDS} == {name for name in EVENTS if name.startswith("mail.")}


@pytest.mark.parametrize("name", TWINS)
def test_webhook_and_events_api_are_one_event(name: str) -> None:
    event = (FIXTURES / "event-data" / f"{name}.json").read_text()
    by_webhook, by_api = only(webhook(read(f"webhooks/{name}.signed")["event-data"])), only(observed(event))

    assert by_webhook == by_api
    assert by_webhook.id == by_api.id


@pytest.mark.parametrize("name", TWINS)
def test_webhook_and_events_api_are_one_row_in_any_order(name: str) -> None:
    """The history that breaks a table keyed by message id, and one keyed by the delivery."""
    event = (FIXTURES / "event-data" / f"{name}.json").read_text()
    day = timedelta(days=1)
    at = datetime(2026, 11, 1, 12, tzinfo=UTC)
    said = [
        webhook(event, identity="t1", seq=1, received_at=at),
        webhook(event, identity="t2", seq=2, received_at=at + day),
        observed(event, identity="run-1", seq=3, received_at=at - day),
    ]
    found = [row for order in itertools.permutations(said) for row in [rows_of(order)]]

    assert 1 == len(found[0])
    assert all(each == found[0] for each in found)
    assert at - day == found[0][0].received_at


def rows_of(deliveries: Any) -> list[Any]:
    """The rows of ops.mail_events that some deliveries come to."""
    understood = [understand({SOURCE.name: SOURCE}, delivery) for delivery in deliveries]
    rows = [row for each in understood for name, row in each.rows if name == READ_MODEL.name]
    return list(join_all(READ_MODEL, rows).values())


def test_accepted_delivered_opened_and_failed_of_one_mail_are_rows_of_their_own() -> None:
    """The replaced system had one row for each message id, and did not store which event it was."""
    message = {"headers": {"message-id": "one@mg.example.com"}}
    said = [
        webhook(event_text(event=word, id=word, message=message), identity=word, seq=n)
        for n, word in enumerate(("accepted", "failed", "delivered", "opened"), 1)
    ]
    rows = rows_of(said)

    assert ["accepted", "failed", "delivered", "opened"] == [row.event for row in rows]
    assert {"one@mg.example.com"} == {row.message_id for row in rows}


def test_an_id_is_unique_within_a_day_only() -> None:
    pages = [
        json.loads((FIXTURES / "events-api" / f"page.{name}.json").read_bytes())
        for name in ("accepted", "failed")
    ]
    first, second = (page["items"][0] for page in pages)
    assert first["id"] == second["id"]

    assert only(webhook(first)).ref != only(webhook(second)).ref


@pytest.mark.parametrize(
    "written",
    [
        "1521472262.9081810",
        "1521472262.908181000",
        "1521472262.90818095",
        "1.521472262908181e9",
        '"1521472262.9081810"',
    ],
)
def test_a_timestamp_has_one_text_however_it_is_written(written: str) -> None:
    """A zero at the end, all 17 digits of the double, an exponent, quotes: the same number, the same row."""
    plain = only(webhook(timed("1521472262.908181")))
    assert f"mailgun:{DOMAIN}/1521472262.908181/abc" == plain.ref
    for event in (only(webhook(timed(written))), only(observed(timed(written)))):
        assert (event.ref, event.id, event.occurred_at) == (plain.ref, plain.id, plain.occurred_at)


@pytest.mark.parametrize("written", ["1521472262", "1521472262.0", '"1521472262"'])
def test_a_whole_second_has_no_fraction(written: str) -> None:
    for delivery in (webhook(timed(written)), observed(timed(written))):
        assert f"mailgun:{DOMAIN}/1521472262/abc" == only(delivery).ref


def test_a_seventh_digit_is_kept_in_the_name_and_cut_off_in_the_time() -> None:
    event = only(webhook(timed("1666214138.4046676")))
    assert f"mailgun:{DOMAIN}/1666214138.4046676/abc" == event.ref
    assert 1666214138404667 == event.moment[1]


@given(st.integers(0, 4_102_444_800), st.integers(0, 999_999))
def test_a_time_is_exact_to_the_microsecond(seconds: int, micros: int) -> None:
    event = only(webhook(timed(f"{seconds}.{micros:06d}")))
    assert seconds * 1_000_000 + micros == event.moment[1]
    assert event.occurred_at == datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=micros)


@pytest.mark.parametrize("written", ["-1", "1e999", "253402300800", "null", '"soon"', "[]", "NaN"])
def test_a_timestamp_that_is_no_time_is_parked(written: str) -> None:
    assert ended(webhook(timed(written))) in ("shape_mismatch", "not_json")


def test_the_events_own_domain_goes_before_the_sources() -> None:
    event = only(webhook(event_text(domain={"name": "Other.Example.com"})))
    assert ("other.example.com", True) == (event.domain, event.ref.startswith("mailgun:other.example.com/"))


def test_a_named_domain_and_the_scope_of_a_poll_give_one_event() -> None:
    """Today's webhooks name the domain; an item of the API may not, but was asked for by domain."""
    named = only(webhook(event_text(domain={"name": "Other.Example.com"})))
    assert named.id == only(observed(event_text(), scope="other.example.com/events")).id
    assert named.id == only(observed(event_text(), scope="Other.Example.COM/events")).id


def test_addresses_do_not_say_which_domain_sends() -> None:
    """In the documented samples envelope, From and Message-ID name three domains."""
    sample = read("webhooks/delivered.signed")["event-data"]
    assert (
        "example.org" in sample["envelope"]["sender"] and "exmple.org" in sample["message"]["headers"]["from"]
    )
    assert DOMAIN == only(webhook(sample)).domain


def test_an_event_without_any_domain_is_parked_until_ssot_names_one() -> None:
    undeclared = source_of(PROVIDER)
    with pytest.raises(Unintelligible, match=r"options\.domain") as parked:
        events_of(undeclared, webhook(event_text()))
    assert "no_domain" == parked.value.reason
    assert only(webhook(event_text())).domain == DOMAIN


def test_the_environment_is_decided_by_rules_and_never_guessed() -> None:
    """The replaced system looked for `dev`, `prod` and `stage` anywhere in headers and recipient."""
    tempting = event_text(
        recipient="prod@developers.example.com",
        storage={"env": "production"},
        message={"headers": {"to": "stage@example.com", "subject": "[dev] deploy to prod"}},
        tags=["production-like"],
    )
    assert "unknown" == only(webhook(tempting)).env


@pytest.mark.parametrize(
    ("fields", "env"),
    [
        ({"tags": ["invoice", "env:prod"]}, "prod"),
        ({"user-variables": {"env": "stage"}}, "stage"),
        ({"domain": {"name": "samples.mailgun.org"}}, "dev"),
        ({"user-variables": {"env": ["stage"]}}, "unknown"),
        ({"user-variables": None, "tags": None}, "unknown"),
    ],
)
def test_tag_variable_and_domain_decide_the_environment(fields: dict[str, Any], env: str) -> None:
    assert env == only(webhook(event_text(**fields))).env


@pytest.mark.parametrize(("value", "text"), [("x", "x"), (7, "7"), (True, "true"), (1.5, "1.5")])
def test_a_variable_is_matched_as_json_writes_it(value: object, text: str) -> None:
    rules = Environments((EnvironmentRule(env="prod", variable=f"v={text}"),))
    source = source_of(PROVIDER, options={"domain": DOMAIN}, environments=rules)
    (event,) = events_of(source, webhook(event_text(**{"user-variables": {"v": value}})))
    assert "prod" == event.env


def test_no_summary_names_a_person() -> None:
    """The audit stream's message is for every reader."""
    for sample in SAMPLES:
        event = only(
            delivery_of(
                SOURCE, sample.kind or sample.event, sample.body, headers=sample.headers, via=sample.via
            )
        )
        personal = [value for name in PERSONAL if (value := getattr(event, name, None)) and len(value) > 2]
        assert not any(value in event.summary for value in personal), event.summary
        assert "@" not in event.summary


def test_all_ten_fields_of_evidence_are_columns_and_the_personal_ones_are_marked() -> None:
    evidence = {
        "env", "provider", "message_id", "subject", "sender", "recipient", "transport", "stamp", "raw", "received_at",
    }  # fmt: skip
    columns = {column.name: column for column in READ_MODEL.columns}
    assert evidence <= set(columns)
    assert {"subject", "sender", "recipient", "detail", "url", "raw"} == {
        name for name, column in columns.items() if column.personal
    }
    assert datetime is columns["stamp"].type


def test_every_column_is_a_fact() -> None:
    rules = {column.name: column.rule.name for column in READ_MODEL.columns}
    assert ("key", "earliest") == (rules.pop("ref"), rules.pop("received_at"))
    assert {"fact"} == set(rules.values())


def test_a_row_states_the_evidence() -> None:
    (row,) = rows_of([webhook(read("current/delivered.signed")["event-data"], identity="t")])
    assert ("stage", "mailgun", DOMAIN, "delivered", "smtp", 250, 1) == (
        row.env,
        row.provider,
        row.domain,
        row.event,
        row.transport,
        row.code,
        row.attempt_no,
    )
    assert ("Rechnung für Zoë", "billing@mg.example.com", "alice@example.org", '["invoice"]') == (
        row.subject,
        row.sender,
        row.recipient,
        row.tags,
    )
    assert read("current/delivered.signed")["event-data"] == json.loads(row.raw)
    assert datetime(2026, 2, 12, 18, 26, 11, 250_000, UTC) == row.stamp


def test_transport_is_the_envelopes_or_how_the_mail_was_handed_in() -> None:
    assert "smtp" == only(webhook(event_text(envelope={"transport": "smtp"}, method="HTTP"))).transport
    assert "http" == only(webhook(event_text(envelope={"transport": ""}, method="HTTP"))).transport
    assert None is only(webhook(event_text())).transport


def test_a_failure_says_whether_it_is_the_end() -> None:
    levels = {}
    for severity in ("temporary", "permanent", "lasting", None):
        event = only(webhook(event_text(event="failed", severity=severity, reason="bounce")))
        levels[event.severity] = event.level
        assert f"{DOMAIN}: mail failed, {event.severity} (bounce)" == event.summary
    assert {"temporary": "warn", "permanent": "error", "unknown": "error"} == levels


def test_a_failure_without_a_report_is_still_one() -> None:
    event = only(webhook(event_text(event="failed", severity="permanent")))
    assert (None, None, None) == (event.code, event.detail, event.attempt_no)


def test_opened_and_clicked_know_only_the_message_id() -> None:
    event = only(webhook(read("webhooks/clicked.signed")["event-data"]))
    assert ("http://example.com/signup", None, None) == (event.url, event.sender, event.mail_subject)
    assert "20130821085807.30688.67706@samples.mailgun.org" == event.message_id == event.correlation


def test_rejected_has_no_recipient_and_stored_has_a_list() -> None:
    assert "joan@example.org" == only(observed(json.dumps(read("event-data/rejected")))).recipient
    message = {"recipients": ["a@example.org", "b@example.org"]}
    assert (
        "a@example.org, b@example.org" == only(webhook(event_text(event="stored", message=message))).recipient
    )


def test_a_message_id_has_no_brackets() -> None:
    for written in ("<a@b>", "a@b", " <a@b> "):
        message = {"headers": {"message-id": written}}
        assert "a@b" == only(webhook(event_text(message=message))).message_id


def test_a_message_id_that_no_index_holds_is_parked() -> None:
    def said(length: int) -> Delivery:
        return webhook(event_text(message={"headers": {"message-id": length * "ä"}}))

    assert MESSAGE_ID_CHARS_MAX == len(only(said(MESSAGE_ID_CHARS_MAX)).message_id)
    assert "shape_mismatch" == ended(said(MESSAGE_ID_CHARS_MAX + 1))


def test_an_unknown_event_is_ignored_by_name() -> None:
    assert "no_such_event" == ended(webhook(event_text(event="list_member_uploaded")))
    assert "no_such_event" == ended(form(("event", "postponed")))


@pytest.mark.parametrize("missing", ["event", "id", "timestamp"])
def test_what_mailgun_promises_has_to_be_there(missing: str) -> None:
    fields = json.loads(event_text())
    del fields[missing]
    assert "shape_mismatch" == ended(webhook(fields))


@pytest.mark.parametrize("body", [b"", b"{", b'{"event-data": NaN}'])
def test_what_is_not_json_is_parked(body: bytes) -> None:
    given = delivery_of(SOURCE, "opened", body, headers={"content-type": "application/json"})
    assert "not_json" == ended(given)


def test_no_value_stands_in_the_reason_of_a_parked_delivery() -> None:
    with pytest.raises(Unintelligible) as parked:
        only(webhook(event_text(recipient=["alice@example.org"], timestamp="alice@example.org")))
    assert "alice" not in str(parked.value)


def test_raw_holds_the_events_own_words_and_no_signature() -> None:
    raw = json.loads(only(webhook(read("webhooks/opened.signed")["event-data"])).raw)
    assert read("event-data/opened") == raw
    form_text = (FIXTURES / "forms" / "bounced.txt").read_bytes()
    said = only(delivery_of(SOURCE, "bounced", form_text, headers={"content-type": FORM_TYPE}))
    assert words_of(form_of(form_text)) == json.loads(said.raw)
    assert not {"token", "signature", "timestamp"} & set(json.loads(said.raw))


def test_words_too_long_for_an_event_stay_in_the_delivery() -> None:
    recipients = {"recipients": [f"person-{n}@example.org" for n in range(1_000)]}
    event = only(webhook(event_text(event="accepted", recipient="a@example.org", message=recipients)))
    assert (None, "a@example.org") == (event.raw, event.recipient)
    assert RAW_BYTES_MAX < len(json.dumps(recipients))


def test_a_number_beyond_all_bounds_is_parked() -> None:
    assert "shape_mismatch" == ended(
        webhook('{"event": "opened", "id": "a", "timestamp": 1.5, "size": 1e999}')
    )


def form(*pairs: tuple[str, str], name: str = "opened") -> Delivery:
    """A recorded form with further fields: before the others, as Mailgun's own are."""
    recorded = parse_qsl((FIXTURES / "forms" / f"{name}.txt").read_text(), keep_blank_values=True)
    body = urlencode([*pairs, *recorded]).encode()
    return delivery_of(SOURCE, name, body, headers={"content-type": FORM_TYPE})


def test_a_form_names_two_failures_of_old() -> None:
    bounced, dropped = only(form(name="bounced")), only(form(name="dropped"))
    assert ("permanent", "bounce", 550) == (bounced.severity, bounced.reason, bounced.code)
    assert ("permanent", "hardfail", 605) == (dropped.severity, dropped.reason, dropped.code)
    assert "Not delivering to previously bounced address" == dropped.detail


def test_a_forms_extended_code_is_no_number() -> None:
    assert None is only(form(("code", "5.1.1"), name="bounced")).code


def test_a_forms_event_is_named_by_its_token() -> None:
    event = only(form())
    token = dict(parse_qsl((FIXTURES / "forms" / "opened.txt").read_text()))["token"]
    assert (token, f"mailgun:{DOMAIN}/1529006854/{token}") == (event.provider_event_id, event.ref)


def test_a_forms_tags_have_two_spellings() -> None:
    assert ["invoice"] == only(form()).tags
    assert ["env:prod", "x"] == only(
        form(("X-Mailgun-Tag", "env:prod"), ("X-Mailgun-Tag", "x"), name="complained")
    ).tags


def test_a_variable_cannot_pass_for_a_field_of_a_form() -> None:
    """Variables of the mail are merged in behind Mailgun's own fields, and before the signature's."""
    recorded = parse_qsl((FIXTURES / "forms" / "opened.txt").read_text(), keep_blank_values=True)
    forged = [("recipient", "mallory@example.org"), ("domain", "evil.example"), ("event", "delivered")]
    body = urlencode([*recorded[:-3], *forged, ("token", "made-up"), *recorded[-3:]]).encode()
    event = only(delivery_of(SOURCE, "opened", body, headers={"content-type": FORM_TYPE}))
    assert ("mail.opened", "alice@example.org", DOMAIN) == (event.type, event.recipient, event.domain)
    assert "made-up" != event.provider_event_id


def test_a_form_with_nul_bytes_is_cleaned() -> None:
    body = (FIXTURES / "forms" / "opened.txt").read_bytes().replace(b"tag=invoice", b"tag=a%00b")
    event = only(delivery_of(SOURCE, "opened", body, headers={"content-type": FORM_TYPE}))
    assert ["a\ufffdb"] == event.tags


@pytest.mark.parametrize("headers", ["[", "[" * 20_000])
def test_a_form_whose_headers_are_no_json_is_parked(headers: str) -> None:
    assert "shape_mismatch" == ended(form(("message-headers", headers), name="complained"))


@pytest.mark.parametrize("headers", ["{}", '[1, [], [2, 3], ["Subject"]]', "null"])
def test_a_form_whose_headers_are_strange_states_none_of_them(headers: str) -> None:
    event = only(form(("message-headers", headers), name="complained"))
    assert (None, None) == (event.mail_subject, event.message_id)


def test_a_page_gives_one_item_for_each_event_with_the_events_ref() -> None:
    assert PROVIDER.items is not None
    page = json.dumps({"items": [read("event-data/opened"), read("current/delivered.signed")["event-data"]]})
    found = PROVIDER.items("events", f"{DOMAIN}/events", page.encode())

    events = [only(delivery_of(SOURCE, "observed.event", item.body, via="poll")) for item in found]
    assert [item.ref for item in found] == [event.ref for event in events]
    assert {"event"} == {item.kind for item in found}


@pytest.mark.parametrize(
    ("kind", "scope", "page", "reason"),
    [
        ("events", "mg.example.com/events", "{", "not_json"),
        ("events", "mg.example.com/events", "[]", "shape_mismatch"),
        ("events", "mg.example.com/events", '{"items": [{}]}', "shape_mismatch"),
        ("events", "mg.example.com", '{"items": []}', "no_such_listing"),
        ("events", "a/b/events", '{"items": []}', "no_such_listing"),
        ("bounces", "mg.example.com/events", '{"items": []}', "no_such_listing"),
    ],
)
def test_a_page_that_is_none_is_refused_by_name(kind: str, scope: str, page: str, reason: str) -> None:
    assert PROVIDER.items is not None
    with pytest.raises(Unintelligible) as refused:
        PROVIDER.items(kind, scope, page.encode())
    assert reason == refused.value.reason


def test_an_empty_page_ends_the_listing() -> None:
    assert PROVIDER.items is not None
    assert [] == PROVIDER.items("events", f"{DOMAIN}/events", b'{"items": [], "paging": {"next": "x"}}')
