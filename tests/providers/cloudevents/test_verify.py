"""Who may deliver CloudEvents, what is one, and what every other request is told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.delivery import body_sha256, require_identity
from contracts.external import stable_name
from contracts.standard_webhooks import sign
from providers.cloudevents.events import BATCH_COUNT_MAX, BadEvent, events_of, header_text
from providers.port import Receipt, Secret
from tests.providers import driving
from tests.providers.cloudevents.deliveries import (
    BATCH_TYPE,
    BINARY,
    BINARY_BODY,
    BINARY_HEADERS,
    SECRET,
    SOURCE,
    STRUCTURED_TYPE,
    batch,
    body,
    event,
    fixture,
)
from tests.providers.driving import NOW, Outcome

TOKEN = Secret("CLOUDEVENTS_SECRET_2", b"mF_9.B5f-4.1JqM")
BEARER = {"authorization": "Bearer mF_9.B5f-4.1JqM"}
OBJECT = body("structured.json-object")
NAME = "/mycontext#C234-1234-1234"
KIND = "com.example.someevent"


def judge(headers: Mapping[str, str], raw: bytes = OBJECT, query: str = "", *secrets: Secret) -> Outcome:
    """The receipt of a request, or the status and reason that it is refused with."""
    return driving.judge(SOURCE, headers, raw, secrets or (SECRET, TOKEN), query=query)


def structured(**changes: Any) -> Outcome:
    """How an event in structured mode is judged, its sender being known."""
    return judge({**STRUCTURED_TYPE, **BEARER}, json.dumps(event(**changes)).encode())


def binary(**changes: str | None) -> Outcome:
    """How an event in binary mode is judged; None leaves a header out."""
    named = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "a.b"}
    named |= {f"ce-{name}": value for name, value in changes.items()}  # type: ignore[misc]  # left out below
    return judge({**BEARER, **{name: value for name, value in named.items() if value is not None}}, b"data")


def receipt(verified_by: str, identity: str = NAME, kind: str = KIND) -> Receipt:
    return Receipt(identity=identity, kind=kind, verified_by=verified_by)


# Who sends


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_token_in_the_header_opens(scheme: str) -> None:
    shown = {"authorization": f"{scheme} mF_9.B5f-4.1JqM"}
    assert receipt(TOKEN.name) == judge({**STRUCTURED_TYPE, **shown})


def test_a_token_in_the_address_opens() -> None:
    assert receipt(TOKEN.name) == judge(STRUCTURED_TYPE, OBJECT, "p=q&access_token=mF_9.B5f-4.1JqM")
    encoded = Secret("X", b"a+b/c==")
    assert receipt("X") == judge(STRUCTURED_TYPE, OBJECT, "access_token=a%2Bb%2Fc%3D%3D", encoded)


@pytest.mark.parametrize(
    ("headers", "query", "reason"),
    [
        ({}, "", "missing_token"),
        ({"authorization": "Basic mF_9.B5f-4.1JqM"}, "", "missing_token"),
        ({"authorization": "mF_9.B5f-4.1JqM"}, "", "missing_token"),
        ({"authorization": "Bearer"}, "", "missing_token"),
        ({"authorization": "Bearer  "}, "", "missing_token"),
        ({"authorization": "Bearer mF_9.B5f-4.1JqX"}, "", "bad_token"),
        ({"authorization": "Bearer mF_9.B5f-4.1JqM, Bearer x"}, "", "bad_token"),
        ({"authorization": "Bearer \xff"}, "", "bad_token"),
        ({}, "access_token=", "missing_token"),
        ({}, "access_token=wrong", "bad_token"),
        ({}, "access_token=wrong&access_token=mF_9.B5f-4.1JqM", "missing_token"),
        ({}, "&".join(["access_token=mF_9.B5f-4.1JqM"] + ["a=b"] * 50), "missing_token"),
        ({"authorization": "Bearer wrong"}, "access_token=mF_9.B5f-4.1JqM", "bad_token"),
    ],
)
def test_without_a_good_token_nothing_opens(headers: dict[str, str], query: str, reason: str) -> None:
    assert (401, reason) == judge({**STRUCTURED_TYPE, **headers}, OBJECT, query)


def test_an_empty_secret_opens_nothing() -> None:
    empty = Secret("EMPTY", b"")
    assert (401, "missing_token") == judge({**STRUCTURED_TYPE, "authorization": "Bearer "}, OBJECT, "", empty)
    signed = sign("m-1", NOW, OBJECT, SECRET.value)
    assert (401, "bad_signature") == judge({**STRUCTURED_TYPE, **signed}, OBJECT, "", empty)


def test_a_signature_opens_and_covers_the_body() -> None:
    headers = {**STRUCTURED_TYPE, **sign("m-1", NOW, OBJECT, SECRET.value)}
    assert receipt(SECRET.name) == judge(headers)
    assert (401, "bad_signature") == judge(headers, OBJECT.replace(b"abc", b"abd"))


def test_where_there_is_a_signature_no_token_helps() -> None:
    signed = {**sign("m-1", NOW, OBJECT, SECRET.value), "webhook-signature": "v1,AAAA"}
    assert (401, "bad_signature") == judge({**STRUCTURED_TYPE, **BEARER, **signed})
    assert (401, "missing_signature") == judge(
        {**STRUCTURED_TYPE, **BEARER, "svix-signature": signed["webhook-signature"]}
    )


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/json", "", "application/cloudevents+jsonx"]
)
def test_a_signature_proves_no_header(content_type: str) -> None:
    forged = {f"ce-{name}": value for name, value in event(type="a.b", id="forged").items()}
    signed = sign("m-1", NOW, OBJECT, SECRET.value)
    headers = {"content-type": content_type, **forged, **signed}
    assert (401, "unsigned_attributes") == judge(headers)
    assert (401, "bad_token") == judge({**headers, "authorization": "Bearer wrong"})


def test_binary_mode_may_be_signed_where_a_token_is_shown_too() -> None:
    signed = sign("m-1", NOW, BINARY_BODY, SECRET.value)
    headers = {**BINARY_HEADERS, **signed}
    assert receipt(TOKEN.name) == judge({**headers, **BEARER}, BINARY_BODY)
    assert receipt(TOKEN.name) == judge(headers, BINARY_BODY, "access_token=mF_9.B5f-4.1JqM")
    assert (401, "bad_signature") == judge({**headers, **BEARER}, BINARY_BODY + b" ")


def test_a_signed_batch_is_no_structured_event_and_the_other_way_round() -> None:
    several = batch(event())
    for headers, raw in ((STRUCTURED_TYPE, several), (BATCH_TYPE, OBJECT)):
        assert (400, "shape_mismatch") == judge({**headers, **sign("m-1", NOW, raw, SECRET.value)}, raw)


@pytest.mark.parametrize("raw", [BINARY_BODY, b"\x89PNG\xff", b"", b"[1" * 9, b"null", b'"x"'])
def test_what_is_composed_as_data_is_taken_with_either_kind_of_secret(raw: bytes) -> None:
    for secret in (SECRET, TOKEN):
        taken = driving.judge_composed(SOURCE, secret, raw, KIND)
        assert receipt(secret.name, "/odooops/send#d-1") == taken


def test_an_old_signature_is_refused() -> None:
    old = sign("m-1", NOW.replace(hour=11), OBJECT, SECRET.value)
    assert (401, "stale_timestamp") == judge({**STRUCTURED_TYPE, **old})


def test_who_sends_is_judged_before_what_is_sent() -> None:
    assert (401, "missing_token") == judge({}, b"no event at all")


# What is sent


def test_both_modes_of_one_event_give_one_identity() -> None:
    assert "structured.json-object.json" == BINARY["equals"]
    twin = judge({**BINARY_HEADERS, **BEARER}, BINARY_BODY)
    assert receipt(TOKEN.name) == twin == judge({**STRUCTURED_TYPE, **BEARER})


def test_the_type_of_a_structured_body_may_name_its_charset() -> None:
    charset = {"content-type": "Application/CloudEvents+JSON; charset=UTF-8"}
    assert receipt(TOKEN.name) == judge({**charset, **BEARER})


def test_an_xml_text_is_data_like_any_other() -> None:
    outcome = judge({**STRUCTURED_TYPE, **BEARER}, body("structured.xml-string"))
    assert receipt(TOKEN.name, "/mycontext#B234-1234-1234") == outcome


def test_a_placeholder_is_no_base64() -> None:
    raw = body("structured.base64-placeholder")
    assert (400, "bad_base64") == judge({**STRUCTURED_TYPE, **BEARER}, raw)
    mended = raw.replace(b"... base64 encoded string ...", b"AAEC")
    assert isinstance(judge({**STRUCTURED_TYPE, **BEARER}, mended), Receipt)


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        ({"data": None, "data_base64": "AAEC"}, True),
        ({"data_base64": ""}, True),
        ({"data": 0, "data_base64": "AAEC"}, False),
        ({"data": "", "data_base64": "AAEC"}, False),
        ({"data": {"a": [1]}, "data_base64": ""}, False),
        ({"data": {"a": [1]}, "data_base64": None}, True),
    ],
)
def test_data_and_its_base64_exclude_each_other(changes: dict[str, Any], taken: bool) -> None:
    outcome = structured(**changes)
    assert isinstance(outcome, Receipt) if taken else outcome == (400, "two_data")


@pytest.mark.parametrize("text", ["AAE", "A A=", "AA==AA==", "é", "_-_-", "AAEC\n"])
def test_base64_is_the_strict_kind(text: str) -> None:
    assert (400, "bad_base64") == structured(data_base64=text)


@pytest.mark.parametrize("name", ["specversion", "id", "source", "type"])
@pytest.mark.parametrize("value", [None, ""])
def test_a_required_attribute_that_is_null_or_empty_is_named(name: str, value: str | None) -> None:
    raw = json.dumps(event(**{name: value})).encode()
    with pytest.raises(BadEvent, match=f"The attribute {name} is missing"):
        events_of(STRUCTURED_TYPE, raw)
    assert (400, "missing_attribute") == structured(**{name: value}) == binary(**{name: value})


def test_in_a_batch_the_event_is_named_too() -> None:
    with pytest.raises(BadEvent, match="The attribute id of event 1 is missing"):
        events_of(BATCH_TYPE, batch(event(), event(id=None)))


def test_a_null_attribute_is_an_absent_one() -> None:
    assert None is fixture("structured.json-object")["subject"]
    [told] = events_of(STRUCTURED_TYPE, OBJECT)
    assert told.subject is None
    assert isinstance(structured(subject=None, time=None, dataschema=None), Receipt)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"specversion": "0.3"}, "unsupported_specversion"),
        ({"specversion": "1.0.2"}, "unsupported_specversion"),
        ({"specversion": 1.0}, "shape_mismatch"),
        ({"id": 7}, "shape_mismatch"),
        ({"time": "yesterday"}, "bad_attribute"),
        ({"time": "2018-04-05T17:31:00"}, "bad_attribute"),
        ({"time": "1522949460"}, "bad_attribute"),
        ({"time": 1522949460}, "shape_mismatch"),
    ],
)
def test_an_attribute_that_is_wrong_is_refused(changes: dict[str, Any], reason: str) -> None:
    assert (400, reason) == structured(**changes)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b"1", b'"x"', b"\xff", b"NaN"])
def test_a_structured_body_is_one_object(raw: bytes) -> None:
    outcome = judge({**STRUCTURED_TYPE, **BEARER}, raw)
    assert outcome in ((400, "malformed_json"), (400, "shape_mismatch"))


@pytest.mark.parametrize(
    ("content_type", "reason"),
    [
        ("application/cloudevents+xml", "unsupported_format"),
        ("application/cloudevents+avro", "unsupported_format"),
        ("application/cloudevents", "unsupported_format"),
        ("application/json", "no_cloudevent"),
        ("", "no_cloudevent"),
    ],
)
def test_what_is_no_known_format_is_answered_with_415(content_type: str, reason: str) -> None:
    assert (415, reason) == judge({"content-type": content_type, **BEARER})


# Binary mode


@pytest.mark.parametrize("vector", fixture("header-percent-encoding")["vectors"], ids=lambda v: v["header"])
def test_every_vector_of_header_encoding_holds(vector: dict[str, Any]) -> None:
    if vector.get("must_reject"):
        assert (400, "bad_encoding") == binary(id=vector["header"])
    else:
        assert vector["attribute"] == header_text("id", vector["header"])
        assert stable_name("/s", vector["attribute"]) == getattr(
            binary(id=vector["header"]), "identity", None
        )


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ("plain", "plain"),
        ("%e2%82%ac", "€"),
        ('"in quotes"', "in quotes"),
        (r'"a \"b\" \\"', r'a "b" \\'[:-1]),
        ('"', '"'),
        ("100%", "100%"),
        ("%00", "\ufffd"),
        ("%2525", "%25"),
    ],
)
def test_a_header_is_unquoted_and_decoded_once(header: str, text: str) -> None:
    assert text == header_text("id", header)


@pytest.mark.parametrize("header", ["%FF", "%ED%A0%80", "€".encode().decode("latin-1"), "\xff"])
def test_a_header_that_is_no_utf_8_is_refused(header: str) -> None:
    assert (400, "bad_encoding") == binary(subject=header)


def test_binary_data_may_be_of_any_type_and_empty() -> None:
    headers = {**BINARY_HEADERS, **BEARER, "content-type": "image/png"}
    assert receipt(TOKEN.name) == judge(headers, b"\x89PNG\xff")
    del headers["content-type"]
    assert receipt(TOKEN.name) == judge(headers, b"")


# Batches


def test_a_batch_is_known_by_its_content() -> None:
    raw = batch(event(), event(id="2"))
    assert receipt(TOKEN.name, f"batch:{body_sha256(raw)}", "batch") == judge({**BATCH_TYPE, **BEARER}, raw)


def test_an_empty_batch_is_taken() -> None:
    assert isinstance(judge({**BATCH_TYPE, **BEARER}, b"[]"), Receipt)


def test_a_batch_has_a_bound() -> None:
    full = [event(id=str(n)) for n in range(BATCH_COUNT_MAX)]
    assert isinstance(judge({**BATCH_TYPE, **BEARER}, batch(*full)), Receipt)
    assert (413, "batch_too_long") == judge({**BATCH_TYPE, **BEARER}, batch(*full, event()))


def test_one_wrong_event_spoils_its_batch() -> None:
    assert (400, "missing_attribute") == judge({**BATCH_TYPE, **BEARER}, batch(event(), event(type="")))
    assert (400, "shape_mismatch") == judge({**BATCH_TYPE, **BEARER}, b"[1]")
    assert (400, "shape_mismatch") == judge({**BATCH_TYPE, **BEARER}, b"{}")


# Identity


@pytest.mark.parametrize(
    ("source", "identity", "name"),
    [
        ("/s", "1", "/s#1"),
        ("https://example.org/a#b", "c#d", "https://example.org/a#b#c%23d"),
        ("urn:ü", "1 2", "urn:%C3%BC#1%202"),
        ("/s", "%23", "/s#%2523"),
    ],
)
def test_source_and_id_together_are_the_identity(source: str, identity: str, name: str) -> None:
    outcome = structured(source=source, id=identity)
    assert receipt(TOKEN.name, name, "com.example.made") == outcome


def test_a_long_identity_becomes_its_hash() -> None:
    first, second = (getattr(structured(id="x" * 300 + end), "identity", "") for end in "ab")
    assert first.startswith("sha256:") and second.startswith("sha256:")
    assert first != second


TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=120)


@given(a=st.tuples(TEXTS, TEXTS), b=st.tuples(TEXTS, TEXTS))
def test_names_can_be_identities_and_differ_where_their_parts_do(
    a: tuple[str, str], b: tuple[str, str]
) -> None:
    assert require_identity(stable_name(*a)) == stable_name(*a)
    assert (stable_name(*a) == stable_name(*b)) == (a == b)


@given(
    text=st.text(st.sampled_from("a#%/ "), min_size=2, max_size=8),
    cuts=st.tuples(st.integers(0, 8), st.integers(0, 8)),
)
def test_where_source_ends_and_id_begins_is_never_in_doubt(text: str, cuts: tuple[int, int]) -> None:
    first, second = ((text[:at], text[at:]) for at in cuts)
    assert (stable_name(*first) == stable_name(*second)) == (first == second)
