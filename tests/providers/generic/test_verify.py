"""The corners of taking anybody's requests: identities, kinds, malformed proofs, other bodies than JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.delivery import require_identity
from providers.generic import PROVIDER
from providers.generic.verify import ENTRIES_COUNT_MAX
from providers.port import Receipt, Refused, Request, Secret
from tests.providers.driving import NOW, RECEIPT_ID, Outcome, judge, source_of
from tests.providers.generic.styles import KEY, SECOND, mac

SECRET = Secret("A_SECRET", KEY)
BODY = b'{"id": "evt_1", "n": 7, "big": 9223372036854775808, "f": 1.5, "t": true, "e": "", "type": "Thing.Changed"}'
LISTED = {"hmac": {"header": "X-Sig", "separator": ",", "prefix": "v1="}}


def taken(
    options: Mapping[str, Any], body: bytes = BODY, headers: Mapping[str, str] | None = None, **how: Any
) -> Outcome:
    """How a request is judged whose sender may be anybody."""
    source = source_of(PROVIDER, "acme", options, unsigned=True)
    return judge(source, headers or {}, body, [], **how)


def signed(headers: Mapping[str, str], verify: Mapping[str, Any], query: str = "") -> Outcome:
    source = source_of(PROVIDER, "acme", {"verify": verify}, secrets=[SECRET.name])
    return judge(source, headers, BODY, [SECRET], query=query)


# Who sends


def test_an_unsigned_source_takes_anybody_and_names_no_secret() -> None:
    assert Receipt(identity=RECEIPT_ID, kind="message", verified_by=None) == taken({})


def test_without_a_proof_a_source_that_is_not_unsigned_takes_nobody() -> None:
    source = source_of(PROVIDER, "acme", {})
    assert (401, "no_proof") == judge(source, {}, BODY, [SECRET])


def test_hex_counts_in_either_case_and_base64_does_not() -> None:
    plain = {"hmac": {"header": "X-Sig"}}
    assert isinstance(signed({"x-sig": mac(BODY).upper()}, plain), Receipt)
    coded = {"hmac": {"header": "X-Sig", "encoding": "base64"}}
    assert (401, "bad_signature") == signed({"x-sig": mac(BODY)}, coded)


@pytest.mark.parametrize(
    "header",
    ["", "v1=", "v2=" + mac(BODY), mac(BODY), "v1=\xff\xfe", "v1= " + mac(BODY), "v1=v1=" + mac(BODY)],
)
def test_an_entry_that_is_malformed_fits_nothing(header: str) -> None:
    assert (401, "bad_signature") == signed({"x-sig": header}, LISTED)


def test_entries_beyond_the_bound_are_not_looked_at() -> None:
    good = "v1=" + mac(BODY)
    assert isinstance(signed({"x-sig": "v1=0," * (ENTRIES_COUNT_MAX - 1) + good}, LISTED), Receipt)
    assert (401, "bad_signature") == signed({"x-sig": "v1=0," * ENTRIES_COUNT_MAX + good}, LISTED)


def test_a_signature_in_the_address_stands_there_once() -> None:
    verify = {"hmac": {"query": "sig"}}
    assert isinstance(signed({}, verify, f"a=b&sig={mac(BODY)}"), Receipt)
    assert (401, "missing_signature") == signed({}, verify, f"sig={mac(BODY)}&sig={mac(BODY)}")
    assert (401, "missing_signature") == signed({}, verify, f"sig={mac(BODY)}" + "&a=b" * 50)


@pytest.mark.parametrize(
    ("stamp", "reason"),
    [(None, "missing_timestamp"), ("", "missing_timestamp"), ("now", "bad_timestamp"), ("-5", "bad_timestamp"),
     ("9" * 400, "bad_timestamp"), ("{body}", "bad_timestamp"), ("1e9", "bad_timestamp"), ("0", "stale_timestamp")],
)  # fmt: skip
def test_a_timestamp_that_is_none_is_refused(stamp: str | None, reason: str) -> None:
    verify = {"hmac": {"header": "X-Sig", "signed": "{timestamp}.{body}", "timestamp": {"header": "X-Time"}}}
    headers = {"x-sig": mac(f"{SECOND}.".encode() + BODY)}
    assert (401, reason) == signed(headers | ({} if stamp is None else {"x-time": stamp}), verify)
    assert isinstance(signed({**headers, "x-time": str(SECOND)}, verify), Receipt)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("Bearer It's a Secret to Everybody", None),
        ("bearer It's a Secret to Everybody", None),
        ("It's a Secret to Everybody", "missing_token"),
        ("Basic It's a Secret to Everybody", "missing_token"),
        ("Bearer ", "missing_token"),
        ("Bearer It's a Secret to Everybody2", "bad_token"),
        ("Bearer \xff", "bad_token"),
    ],
)
def test_a_token_stands_behind_its_word(header: str, reason: str | None) -> None:
    found = signed({"authorization": header}, {"bearer": {"header": "Authorization"}})
    assert isinstance(found, Receipt) if reason is None else found == (401, reason)


# What it is called


@pytest.mark.parametrize(
    ("pointer", "identity"),
    [("/id", "evt_1"), ("/n", "7"), ("/type", "Thing.Changed")],
)
def test_an_identity_is_a_text_or_a_whole_number(pointer: str, identity: str) -> None:
    found = taken({"identity": {"pointer": pointer}})
    assert isinstance(found, Receipt) and identity == found.identity


@pytest.mark.parametrize("pointer", ["/nothing", "/big", "/f", "/t", "/e", "/id/0", "/0", "/n/x", "/"])
def test_what_is_no_identity_is_refused(pointer: str) -> None:
    assert (400, "missing_identity") == taken({"identity": {"pointer": pointer}})


def test_an_identity_in_a_header_has_to_be_there() -> None:
    options = {"identity": {"header": "X-Id"}}
    assert (400, "missing_identity") == taken(options)
    found = taken(options, headers={"x-id": "a b"})
    assert isinstance(found, Receipt) and "a%20b" == found.identity


@given(text=st.text(min_size=1, max_size=400))
@settings(deadline=None)
def test_any_text_serves_as_an_identity(text: str) -> None:
    found = taken({"identity": {"pointer": "/id"}}, json.dumps({"id": text}).encode())
    assert isinstance(found, Receipt)
    assert require_identity(found.identity) == found.identity


def test_without_an_identity_each_request_is_one_of_its_own() -> None:
    first, second = (taken({}, receipt_id=name) for name in ("r-1", "r-2"))
    assert isinstance(first, Receipt) and isinstance(second, Receipt)
    assert ("r-1", "r-2") == (first.identity, second.identity)


@pytest.mark.parametrize(
    ("kind", "headers", "expected"),
    [
        ({"pointer": "/type"}, {}, "thing.changed"),
        ({"pointer": "/nothing"}, {}, "message"),
        ({"pointer": "/f"}, {}, "message"),
        ({"header": "X-Kind"}, {"x-kind": "Push Hook"}, "push_hook"),
        ({"header": "X-Kind"}, {}, "message"),
        ({"header": "X-Kind"}, {"x-kind": "ü" * 300}, "message"),
        ({"constant": "alert.raised"}, {}, "alert.raised"),
    ],
)
def test_a_kind_is_found_or_is_a_message(
    kind: dict[str, str], headers: dict[str, str], expected: str
) -> None:
    found = taken({"kind": kind}, headers=headers)
    assert isinstance(found, Receipt) and expected == found.kind


@pytest.mark.parametrize("body", [b"a=b&c=d", b"<x/>", b"", b"\x89PNG\xff", b"{", b"NaN", b"[" * 20_000])
def test_a_body_that_is_no_json_is_kept_as_it_is_unless_something_is_looked_for_in_it(body: bytes) -> None:
    assert isinstance(taken({"kind": {"constant": "upload"}}, body), Receipt)
    for field in ("identity", "kind"):
        assert (400, "malformed_json") == taken({field: {"pointer": "/id"}}, body)


def test_the_sentence_names_the_option() -> None:
    source = source_of(PROVIDER, "acme", {"kind": {"pointer": "/x"}}, unsigned=True)
    request = Request(method="POST", headers={}, received_at=NOW, receipt_id="r")
    assert PROVIDER.verify is not None
    with pytest.raises(Refused, match=r"not JSON, which options\.kind\.pointer needs"):
        PROVIDER.verify(request, source, []).finish(b"<x/>")
