"""A delivery comes back from the log as it went in, and nothing that a sender writes gets out of its header."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import delivery as wire
from contracts.delivery import (
    Delivery,
    MalformedName,
    UnreadableDelivery,
    Via,
    body_sha256,
    from_message,
    require_ascii,
    require_identity,
    subject_token,
    to_headers,
)
from runtime import bus, streams

if TYPE_CHECKING:
    from tests.conftest import Broker

PRINTABLE = st.characters(min_codepoint=0x21, max_codepoint=0x7E)
tokens = st.from_regex("[a-z0-9_-]{1,64}", fullmatch=True)
zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
values = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40)
"""Every header value that is allowed."""
bodies = st.binary(max_size=20)


@st.composite
def deliveries(draw: st.DrawFn) -> Delivery:
    body = draw(bodies)
    return Delivery(
        source=draw(tokens),
        identity=draw(st.text(PRINTABLE, min_size=1, max_size=200)),
        kind=".".join(draw(st.lists(tokens, min_size=1, max_size=3))),
        via=draw(st.sampled_from(get_args(Via))),
        received_at=draw(st.datetimes(timezones=zones)),
        body=body,
        body_sha256=body_sha256(body),
        verified_by=draw(st.none() | values),
        headers=draw(st.dictionaries(st.from_regex("[a-z0-9-]{1,20}", fullmatch=True), values, max_size=3)),
        seq=draw(st.integers(1, 2**63)),
    )


GIVEN = Delivery(
    source="github",
    identity="72d3162e-cc78-11e3-81ab-4c9367dc0958",
    kind="workflow_run",
    via="webhook",
    received_at=datetime.fromisoformat("2026-03-04T12:00:00.000001+00:00"),
    body=b'{"action": "completed"}',
    body_sha256=body_sha256(b'{"action": "completed"}'),
    verified_by="GITHUB_WEBHOOK_SECRET",
    headers={"x-github-event": "workflow_run", "content-type": "application/json; charset=utf-8"},
    seq=7,
)


def back(given: Delivery, **changed: str | None) -> Delivery:
    """What the log gives back for `given`, with some headers changed or, by None, left out."""
    headers = {**to_headers(given), **{name: value for name, value in changed.items() if value is not None}}
    for name in changed.keys() - {name for name, value in changed.items() if value is not None}:
        del headers[name]
    return from_message(given.subject, headers, given.body, given.seq)


@given(deliveries())
def test_a_delivery_comes_back_as_it_went_in(given: Delivery) -> None:
    assert given == back(given)


@given(deliveries(), st.text(PRINTABLE, min_size=1))
def test_a_large_one_names_where_its_body_is_and_says_nothing_else(given: Delivery, name: str) -> None:
    headers = to_headers(given, body_object=name)
    assert name == headers.pop(wire.BODY_OBJECT)
    assert to_headers(given) == headers


@given(deliveries(), deliveries())
def test_message_ids_are_equal_where_identity_and_body_are_and_nowhere_else(
    one: Delivery, other: Delivery
) -> None:
    same = (one.source, one.identity, one.body) == (other.source, other.identity, other.body)
    assert same == (one.message_id == other.message_id)
    copy = replace(
        other, source=one.source, identity=one.identity, body=one.body, body_sha256=one.body_sha256
    )
    assert one.message_id == copy.message_id


@pytest.mark.parametrize(
    ("one", "other"),
    [(("github", "a:b"), ("github", "a")), (("git", "hub:a"), ("github", "a")), (("a", "b"), ("a", "b:b"))],
)
def test_colons_in_an_identity_make_no_two_ids_equal(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert replace(GIVEN, source=one[0], identity=one[1]).message_id != (
        replace(GIVEN, source=other[0], identity=other[1]).message_id
    )


def test_the_wire_form_is_pinned() -> None:
    assert "deliveries.github.workflow_run" == GIVEN.subject
    assert "github:72d3162e-cc78-11e3-81ab-4c9367dc0958" == GIVEN.name
    assert {
        "Nats-Msg-Id": "github:72d3162e-cc78-11e3-81ab-4c9367dc0958:760ed61ab79917ae",
        "Odooops-Identity": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        "Odooops-Via": "webhook",
        "Odooops-Received-At": "2026-03-04T12:00:00.000001+00:00",
        "Odooops-Body-Sha256": GIVEN.body_sha256,
        "Odooops-Verified-By": "GITHUB_WEBHOOK_SECRET",
        "Sender-x-github-event": "workflow_run",
        "Sender-content-type": "application/json; charset=utf-8",
    } == to_headers(GIVEN)


def test_neither_body_nor_headers_are_shown() -> None:
    assert "completed" not in repr(GIVEN)
    assert "charset" not in repr(GIVEN)


@given(st.text(st.characters()))
def test_any_text_becomes_one_subject_token_or_is_refused(text: str) -> None:
    try:
        token = subject_token(text)
    except MalformedName:
        assert not 0 < len(text.lower()) <= 64
    else:
        assert re.fullmatch("[a-z0-9_-]{1,64}", token)
        assert token == subject_token(token)


@pytest.mark.parametrize(
    ("token", "text"),
    [
        ("workflow_run", "workflow_run"),
        ("workflow-run", "Workflow-Run"),
        ("a_b", "a.b"),
        ("_", "*"),
        ("_", ">"),
        ("a__b", "a\r\nb"),
        ("gr__e", "größe"),
        ("k", "\u212a"),
        ("x" * 64, "X" * 64),
    ],
)
def test_a_subject_token_is_lower_case_and_plain(token: str, text: str) -> None:
    assert token == subject_token(text)


@pytest.mark.parametrize("text", ["", "x" * 65])
def test_a_kind_too_short_or_too_long_is_refused(text: str) -> None:
    with pytest.raises(MalformedName, match=f"this one has {len(text)}"):
        subject_token(text)


@pytest.mark.parametrize("text", ["a", "72d3162e-cc78-11e3-81ab-4c9367dc0958", "a:b/c=%20", "x" * 200])
def test_an_identity_is_printable_ascii(text: str) -> None:
    assert text == require_identity(text)


UNPRINTABLE = ["a\r", "a\n", "a\r\nNats-Msg-Id: b", "\x00", "\x7f", "\t", "é", "\u2028", "\ud800"]


@pytest.mark.parametrize("text", ["", " ", "a b", "x" * 201, *UNPRINTABLE])
def test_what_is_no_identity_is_refused(text: str) -> None:
    with pytest.raises(MalformedName):
        require_identity(text)
    with pytest.raises(MalformedName):
        to_headers(replace(GIVEN, identity=text))
    with pytest.raises(UnreadableDelivery):
        back(GIVEN, **{wire.IDENTITY: text})


@pytest.mark.parametrize("text", UNPRINTABLE)
def test_no_header_is_written_or_read_that_is_not_printable_ascii(text: str) -> None:
    with pytest.raises(MalformedName):
        require_ascii(text)
    changes: list[dict[str, Any]] = [{"verified_by": text}, {"headers": {"x-github-event": text}}]
    for changed in changes:
        with pytest.raises(MalformedName):
            to_headers(replace(GIVEN, **changed))
    with pytest.raises(MalformedName):
        to_headers(GIVEN, body_object=text)
    for name in (wire.VERIFIED_BY, "Sender-x-github-event"):
        with pytest.raises(UnreadableDelivery):
            back(GIVEN, **{name: text})


@pytest.mark.parametrize("name", [wire.IDENTITY, wire.VIA, wire.RECEIVED_AT, wire.BODY_SHA256])
def test_a_message_without_a_header_of_ours_is_unreadable_and_the_header_is_named(name: str) -> None:
    with pytest.raises(UnreadableDelivery, match=name):
        back(GIVEN, **{name: None})


def test_a_delivery_that_nobody_vouched_for_is_readable() -> None:
    assert replace(GIVEN, verified_by=None) == back(GIVEN, **{wire.VERIFIED_BY: None})


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        (wire.VIA, "pigeon", "Odooops-Via is 'pigeon'"),
        (wire.VIA, "", "Odooops-Via is ''"),
        (wire.RECEIVED_AT, "2026-03-04T12:00:00", "Odooops-Received-At has no zone"),
        (wire.RECEIVED_AT, "yesterday", "Invalid isoformat string: 'yesterday'"),
        (wire.BODY_SHA256, "", "Odooops-Body-Sha256 is not 64 hex digits"),
        (wire.BODY_SHA256, "x" * 64, "Odooops-Body-Sha256 is not 64 hex digits"),
        (wire.BODY_SHA256, "A" * 64, "Odooops-Body-Sha256 is not 64 hex digits"),
    ],
)
def test_a_header_that_we_did_not_write_is_unreadable(name: str, value: str, reason: str) -> None:
    with pytest.raises(UnreadableDelivery) as unreadable:
        back(GIVEN, **{name: value})
    assert reason == str(unreadable.value)


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "deliveries",
        "deliveries.github",
        "deliveries.github.",
        "deliveries..issues",
        "deliveries.github.a..b",
        "deliveries.github.Issues",
        "deliveries.github.issues ",
        "deliveries.github.is\x00sues",
        "deliveries.GitHub.issues",
        "deliveries.github." + "x" * 65,
        "deliveries.github.größe",
        "deliveriesXgithub.issues",
        "events.build.finished",
    ],
)
def test_a_message_of_another_subject_is_unreadable(subject: str) -> None:
    with pytest.raises(UnreadableDelivery, match=r"is not deliveries\.<source>\.<kind>"):
        from_message(subject, to_headers(GIVEN), b"", 1)


@given(st.text(), st.dictionaries(st.sampled_from(list(to_headers(GIVEN))) | st.text(), st.text()), bodies)
def test_any_message_is_a_delivery_or_unreadable(subject: str, headers: dict[str, str], body: bytes) -> None:
    for given_subject, given_headers in (
        (subject, headers),
        (GIVEN.subject, headers),
        (GIVEN.subject, {**to_headers(GIVEN), **headers}),
    ):
        with suppress(UnreadableDelivery):
            read = from_message(given_subject, given_headers, body, 1)
            # What can be read can be written again: no third form exists.
            assert read == from_message(read.subject, to_headers(read), body, 1)


@pytest.mark.parametrize("name", [*to_headers(GIVEN), "subject"])
def test_why_a_message_is_unreadable_can_be_stored(name: str) -> None:
    changed = {**to_headers(GIVEN), name: "\x00"}
    try:
        from_message("deliveries.\x00" if name == "subject" else GIVEN.subject, changed, b"", 1)
    except UnreadableDelivery as unreadable:
        said = str(unreadable)
    else:
        said = "readable: the broker alone reads the message id"
    assert "\x00" not in said


TRACE = f"00-{'a' * 32}-{'b' * 16}-01"


def test_a_trace_is_carried_and_is_no_part_of_what_was_delivered() -> None:
    traced = replace(GIVEN, trace=TRACE)

    assert TRACE == from_message(traced.subject, to_headers(traced), b"", 1).trace
    assert traced == GIVEN
    assert {**to_headers(GIVEN), wire.TRACEPARENT: TRACE} == to_headers(traced)


@pytest.mark.parametrize("said", ["", "x", f"{TRACE}-more", TRACE.upper(), "\x00"])
def test_a_traceparent_that_is_none_is_no_reason_not_to_read_a_delivery(said: str) -> None:
    headers = {**to_headers(GIVEN), wire.TRACEPARENT: said}

    assert from_message(GIVEN.subject, headers, b"", 1).trace is None


@pytest.mark.anyio
@pytest.mark.parametrize("value", ["plain", "a  b", '"quoted"', "a:b", "%0D%0A", "", "~" * 400])
async def test_a_delivery_comes_back_from_the_broker_as_it_went_in(broker: Broker, value: str) -> None:
    given = replace(GIVEN, headers={"x-github-event": value}, verified_by="A")
    seq, duplicate = await bus.store_delivery(broker.js, given)
    assert not duplicate
    assert replace(given, seq=seq) == await bus.read_delivery(broker.js, seq)


@pytest.mark.anyio
async def test_a_header_that_would_forge_another_is_not_sent(broker: Broker) -> None:
    forged: dict[str, Any] = {"x-github-event": f"push\r\n{wire.VIA}: cli"}
    with pytest.raises(MalformedName):
        await bus.store_delivery(broker.js, replace(GIVEN, headers=forged))
    assert 0 == (await broker.js.stream_info(streams.DELIVERIES)).state.messages
