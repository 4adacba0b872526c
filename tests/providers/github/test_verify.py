"""Who may deliver as GitHub, and what every other request is told."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any
from urllib.parse import quote_plus, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.github.verify import open_verification, sign
from providers.port import Receipt, Refused, Request, Secret
from tests.providers import driving
from tests.providers.driving import NOW, RECEIPT_ID, Outcome
from tests.providers.github.deliveries import FIXTURES, IDENTITY, SOURCE

SECRET = Secret("GITHUB_WEBHOOK_SECRET", b"It's a Secret to Everybody")
SECOND = Secret("GITHUB_WEBHOOK_SECRET_2", b"the one that comes next")
HEAD = Request(method="POST", headers={}, received_at=NOW, receipt_id=RECEIPT_ID)
BODY = '{"zen": "Keep it logically awesome. ✓ ä"}'.encode()
FORM = "application/x-www-form-urlencoded"

VECTORS: list[dict[str, Any]] = json.loads((FIXTURES / "signature-vectors.json").read_bytes())["vectors"]

BODIES = st.binary(max_size=300).map(lambda text: json.dumps({"text": text.hex()}).encode())

# A slow machine is no failure of verification.
any_time = settings(deadline=None)


def request(body: bytes = BODY, secret: Secret = SECRET, /, **changes: str | None) -> dict[str, str]:
    """The headers of a well-formed delivery of `body`; a change to None leaves that header out."""
    headers: dict[str, str | None] = {
        "x-github-event": "issues",
        "x-github-delivery": IDENTITY,
        "x-github-hook-id": "42",
        "content-type": "application/json",
        "user-agent": "GitHub-Hookshot/044aadd",
        **sign(body, secret),
        **{name.replace("_", "-"): value for name, value in changes.items()},
    }
    return {name: value for name, value in headers.items() if value is not None}


def judge(
    headers: Mapping[str, str],
    body: bytes = BODY,
    secrets: Sequence[Secret] = (SECRET,),
    chunks: Iterable[bytes] | None = None,
) -> Outcome:
    """The receipt of a request, or the status and reason that it is refused with."""
    return driving.judge(SOURCE, headers, body, secrets, chunks=chunks)


def receipt(kind: str = "issues", verified_by: str = SECRET.name) -> Receipt:
    return Receipt(identity=IDENTITY, kind=kind, verified_by=verified_by)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["name"]))
def test_every_signature_vector_is_judged_as_it_states(vector: dict[str, Any]) -> None:
    body = vector["body"].encode()
    headers = request(body, x_hub_signature_256=None) | {
        name.lower(): value for name, value in vector["headers"].items()
    }
    outcome = judge(headers, body, [Secret(SECRET.name, vector["secret"].encode())])
    if not vector["valid"]:
        reason = "bad_signature" if "X-Hub-Signature-256" in vector["headers"] else "missing_signature"
        assert (401, reason) == outcome
    elif body.startswith(b"{"):
        assert receipt() == outcome
    else:
        # The signature is good, so the next thing is said: that the body is no JSON object.
        assert (400, "malformed_json") == outcome


def test_a_signature_is_the_one_that_github_publishes_for_its_example() -> None:
    [official] = [vector for vector in VECTORS if vector["name"] == "official"]
    signed = sign(b"Hello, World!", SECRET)
    assert {"x-hub-signature-256": official["headers"]["X-Hub-Signature-256"]} == dict(signed)


@pytest.mark.parametrize(
    "value",
    ['It\'s a "Secret" to Everybody', "  spaces  around  ", "ünïcödé ✓", "tab\tand\nnewline", "x" * 200],
)
def test_a_secret_may_hold_any_character(value: str) -> None:
    secret = Secret(SECRET.name, value.encode())
    assert receipt() == judge(request(BODY, secret), secrets=[secret])


@pytest.mark.parametrize("signer", [SECRET, SECOND], ids=lambda secret: secret.name)
@pytest.mark.parametrize("held", [(SECRET, SECOND), (SECOND, SECRET)], ids=["old first", "new first"])
def test_during_a_rotation_either_secret_signs_and_is_named(
    signer: Secret, held: tuple[Secret, Secret]
) -> None:
    assert receipt(verified_by=signer.name) == judge(request(BODY, signer), secrets=held)


def test_a_secret_that_is_no_longer_held_signs_nothing() -> None:
    assert (401, "bad_signature") == judge(request(BODY, SECOND), secrets=[SECRET])


def test_without_secrets_nobody_gets_in() -> None:
    assert (401, "bad_signature") == judge(request(), secrets=[])


def test_an_empty_secret_verifies_nothing() -> None:
    empty = Secret("GITHUB_WEBHOOK_SECRET_2", b"")
    assert (401, "bad_signature") == judge(request(BODY, empty), secrets=[empty, SECRET])
    assert receipt() == judge(request(), secrets=[empty, SECRET])


GOOD = sign(BODY, SECRET)["x-hub-signature-256"]


@pytest.mark.parametrize(
    ("signature", "reason"),
    [
        (None, "missing_signature"),
        ("", "bad_signature"),
        ("sha256=", "bad_signature"),
        (GOOD.removeprefix("sha256="), "bad_signature"),
        (GOOD.replace("sha256=", "sha1="), "bad_signature"),
        ("sha256=" + GOOD.removeprefix("sha256=").upper(), "bad_signature"),
        (GOOD.upper(), "bad_signature"),
        (GOOD + " ", "bad_signature"),
        (GOOD + "\n", "bad_signature"),
        (GOOD[:-1], "bad_signature"),
        (GOOD + "0", "bad_signature"),
        (GOOD[:-1] + "é", "bad_signature"),
        ("sha256=" + "٣" * 64, "bad_signature"),
        ("sha256=" + "0" * 64, "bad_signature"),
    ],
)
def test_a_signature_in_any_other_form_is_refused(signature: str | None, reason: str) -> None:
    assert (401, reason) == judge(request(x_hub_signature_256=signature))


def test_the_old_sha1_signature_alone_counts_as_none() -> None:
    headers = request(
        x_hub_signature_256=None, x_hub_signature="sha1=1ca4a4f4a525fe324288f374438004dd207bb84b"
    )
    assert (401, "missing_signature") == judge(headers)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"x_github_delivery": None}, "missing_delivery_id"),
        ({"x_github_delivery": ""}, "bad_delivery_id"),
        ({"x_github_delivery": "with space"}, "bad_delivery_id"),
        ({"x_github_delivery": "x" * 201}, "bad_delivery_id"),
        ({"x_github_delivery": "72d3162é"}, "header_not_ascii"),
        ({"x_github_event": None}, "missing_event"),
        ({"x_github_event": ""}, "bad_event"),
        ({"x_github_event": "x" * 65}, "bad_event"),
        ({"x_github_event": "issuesé"}, "header_not_ascii"),
        ({"x_github_event": "issues\r\nodooops-via: cli"}, "header_not_ascii"),
        ({"x_github_hook_id": "42é"}, "header_not_ascii"),
        ({"content_type": "application/json; charset=é"}, "header_not_ascii"),
        ({"content_type": None}, "unsupported_content_type"),
        ({"content_type": "text/plain"}, "unsupported_content_type"),
        ({"content_type": "multipart/form-data; boundary=x"}, "unsupported_content_type"),
        ({"content_type": FORM}, "malformed_form"),
    ],
)
def test_a_signed_request_with_a_bad_header_is_told_which(
    changes: dict[str, str | None], reason: str
) -> None:
    assert (400, reason) == judge(request(**changes))


def test_a_wrong_content_type_is_told_the_two_that_are_taken() -> None:
    verification = open_verification(
        replace(HEAD, headers=request(content_type="text/xml")), SOURCE, [SECRET]
    )
    verification.update(BODY)
    with pytest.raises(Refused, match=f"application/json or {FORM}"):
        verification.finish(BODY)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"Hello, World!",
        b"[]",
        b'"text"',
        b"17",
        b"null",
        b'{"a": 1',
        b'{"a": 1} x',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
    ids=lambda body: repr(body[:12]),
)
def test_a_signed_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    assert (400, "malformed_json") == judge(request(body), body)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b' {"a": "\\ud800"} ',
        b'{"a": "\\u0000"}',
        '{"ä": "✓"}'.encode(),
        b'{"n": 123456789012345678901234567890}',
    ],
)
def test_any_json_object_is_taken_whatever_is_in_it(body: bytes) -> None:
    assert receipt() == judge(request(body), body)


@pytest.mark.parametrize(
    "content_type", ["application/json", "Application/JSON; charset=utf-8", " application/json "]
)
def test_a_content_type_is_read_without_case_and_parameters(content_type: str) -> None:
    assert receipt() == judge(request(content_type=content_type))


def test_a_form_is_signed_as_it_was_sent_and_holds_the_json_in_payload() -> None:
    body = urlencode({"payload": BODY.decode()}).encode()
    assert receipt() == judge(request(body, content_type=f"{FORM}; charset=utf-8"), body)


def test_the_signature_of_the_json_inside_a_form_is_not_the_forms() -> None:
    body = urlencode({"payload": BODY.decode()}).encode()
    assert (401, "bad_signature") == judge(request(BODY, content_type=FORM), body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"payload",
        b"payload=",
        b"payload=%5B%5D",
        b"payload=%7B",
        b"payload=%7B%22a%22%3A%22%ff%22%7D",
        b"\xff=1",
        b"other=%7B%7D",
        b"payload=%7B%7D&payload=%7B%7D",
        b"payload=%7B%7D&payload=",
        b"payload=%7B%7D" + b"&x=1" * 10_000,
        BODY,
    ],
    ids=lambda body: repr(body[:32]),
)
def test_a_form_without_exactly_one_json_object_in_payload_is_refused(body: bytes) -> None:
    assert (400, "malformed_form") == judge(request(body, content_type=FORM), body)


@pytest.mark.parametrize(
    "changes",
    [
        {"x_github_delivery": None},
        {"x_github_event": None},
        {"x_github_hook_id": "é"},
        {"content_type": "text/plain"},
        {"content_type": FORM},
    ],
    ids=str,
)
def test_a_stranger_learns_nothing_but_that_the_signature_is_wrong(changes: dict[str, str | None]) -> None:
    headers = request(b"no json", SECOND, **changes)
    assert (401, "bad_signature") == judge(headers, b"no json", [SECRET])


@pytest.mark.parametrize(
    ("event", "kind"),
    [("issues", "issues"), ("Workflow_Run", "workflow_run"), ("a.b>c *", "a_b_c__"), ("x" * 64, "x" * 64)],
)
def test_the_event_becomes_one_subject_token(event: str, kind: str) -> None:
    assert receipt(kind=kind) == judge(request(x_github_event=event))


def test_the_secret_is_never_shown() -> None:
    assert "Everybody" not in repr(SECRET)
    assert "Everybody" not in repr(open_verification(replace(HEAD, headers=request()), SOURCE, [SECRET]))


@any_time
@given(BODIES, st.data())
def test_every_split_into_chunks_gives_one_verdict(body: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=8)))
    edges = [0, *cuts, len(body)]
    chunks = [body[start:end] for start, end in pairwise(edges)]
    assert receipt() == judge(request(body), body, chunks=chunks)
    assert (401, "bad_signature") == judge(request(body, SECOND), body, chunks=chunks)


@any_time
@given(BODIES, st.data())
def test_every_changed_byte_is_refused(body: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(body) - 1))
    flip = data.draw(st.integers(1, 255))
    tampered = body[:at] + bytes([body[at] ^ flip]) + body[at + 1 :]
    assert (401, "bad_signature") == judge(request(body), tampered)


@any_time
@given(st.text(alphabet=st.characters(max_codepoint=255), max_size=80))
def test_no_signature_header_whatever_it_holds_makes_verification_fail_otherwise(signature: str) -> None:
    assert (401, "bad_signature") == judge(request(x_hub_signature_256=signature))


@any_time
@given(st.dictionaries(st.sampled_from(["payload", "other"]), st.text(), min_size=1))
def test_any_form_is_either_taken_or_refused_by_name(fields: dict[str, str]) -> None:
    body = "&".join(f"{name}={quote_plus(value)}" for name, value in fields.items()).encode()
    outcome = judge(request(body, content_type=FORM), body)
    assert outcome in (receipt(), (400, "malformed_form"))
