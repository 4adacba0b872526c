"""Who may deliver as Vercel, and what every other request is told."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.port import Receipt, Secret
from providers.vercel.verify import sign
from tests.providers import driving
from tests.providers.driving import Outcome
from tests.providers.vercel.deliveries import FIXTURES, SOURCE, webhook

SECRET = Secret("VERCEL_WEBHOOK_SECRET", b"mysecret")
SECOND = Secret("VERCEL_WEBHOOK_SECRET_2", b"the one that comes next")
BODY = '{"id": "82nS5bZDY6JqnyQQ9SEfq", "type": "deployment.ready", "note": "✓ ä"}'.encode()

VECTORS: list[dict[str, Any]] = json.loads((FIXTURES / "signature-vectors.json").read_bytes())["vectors"]


def judge(
    headers: Mapping[str, str],
    body: bytes = BODY,
    secrets: Sequence[Secret] = (SECRET,),
    chunks: Iterable[bytes] | None = None,
) -> Outcome:
    """The receipt of a request, or the status and reason that it is refused with."""
    return driving.judge(SOURCE, headers, body, secrets, chunks=chunks)


def signed(body: bytes, secret: Secret = SECRET) -> Outcome:
    """The outcome of a body that Vercel has signed."""
    return judge(sign(body, secret), body, [secret])


def enveloped(**changes: Any) -> bytes:
    """A body with an envelope; a change to None leaves that field out."""
    fields = {"id": "82nS5bZDY6JqnyQQ9SEfq", "type": "deployment.ready", **changes}
    return json.dumps({name: value for name, value in fields.items() if value is not None}).encode()


def receipt(kind: str = "deployment.ready", verified_by: str = SECRET.name) -> Receipt:
    return Receipt(identity="82nS5bZDY6JqnyQQ9SEfq", kind=kind, verified_by=verified_by)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["name"]))
def test_every_signature_vector_is_judged_as_it_states(vector: dict[str, Any]) -> None:
    outcome = judge(
        vector["headers"], vector["body"].encode(), [Secret(SECRET.name, vector["secret"].encode())]
    )
    # Where the signature is good the next thing is said: that these bodies have no id.
    assert outcome == ((400, "no_envelope") if vector["valid"] else (401, "bad_signature"))


def test_a_signature_is_the_one_of_the_vector() -> None:
    [basic] = [vector for vector in VECTORS if vector["name"] == "basic"]
    assert basic["headers"] == sign(basic["body"].encode(), Secret("x", basic["secret"].encode()))


GOOD = sign(BODY, SECRET)["x-vercel-signature"]


@pytest.mark.parametrize(
    "signature",
    [
        "",
        "sha1=" + GOOD,
        GOOD.upper(),
        GOOD + " ",
        GOOD + "\n",
        GOOD[:-1],
        GOOD + "0",
        GOOD[:-1] + "é",
        "٣" * 40,
        "0" * 40,
    ],
)
def test_a_signature_in_any_other_form_is_refused(signature: str) -> None:
    assert (401, "bad_signature") == judge({"x-vercel-signature": signature})


def test_what_is_not_signed_is_refused_before_the_body_is_read() -> None:
    assert (401, "missing_signature") == judge({}, b"not json")
    assert (401, "bad_signature") == judge({"x-vercel-signature": GOOD}, b"not json")


@pytest.mark.parametrize("signer", [SECRET, SECOND], ids=lambda secret: secret.name)
@pytest.mark.parametrize("held", [(SECRET, SECOND), (SECOND, SECRET)], ids=["old first", "new first"])
def test_during_a_change_of_secrets_either_signs_and_is_named(
    signer: Secret, held: tuple[Secret, Secret]
) -> None:
    assert receipt(verified_by=signer.name) == judge(sign(BODY, signer), secrets=held)


def test_an_empty_secret_verifies_nothing() -> None:
    empty = Secret("VERCEL_WEBHOOK_SECRET_2", b"")
    assert (401, "bad_signature") == judge(sign(BODY, empty), secrets=[empty, SECRET])
    assert (401, "bad_signature") == judge(sign(BODY, SECRET), secrets=[])


@given(cuts=st.lists(st.integers(0, len(BODY)), max_size=6).map(sorted))
@settings(deadline=None)
def test_the_chunks_of_a_body_do_not_matter(cuts: list[int]) -> None:
    chunks = [BODY[start:end] for start, end in pairwise([0, *cuts, len(BODY)])]
    assert receipt() == judge(sign(BODY, SECRET), chunks=chunks)


def test_the_id_in_the_body_alone_is_the_identity() -> None:
    """`ready` and `succeeded` have one id in the samples: equal ids are one delivery, whatever the bodies say."""
    outcomes = [signed(json.dumps(webhook(f"deployment.{word}")).encode()) for word in ("ready", "succeeded")]
    assert outcomes == [receipt("deployment.ready"), receipt("deployment.succeeded")]


@pytest.mark.parametrize(
    ("given_type", "kind"),
    [
        ("deployment.ready", "deployment.ready"),
        ("deployment-ready", "deployment-ready"),
        ("deployment", "deployment"),
        ("Deployment.Ready", "deployment.ready"),
        ("integration-configuration.removed", "integration-configuration.removed"),
        ("deployment.integration.action.cleanup", "deployment.integration.action.cleanup"),
        ("alerts.*.>", "alerts._._"),
        ("a b", "a_b"),
    ],
)
def test_the_type_names_the_kind_in_tokens_of_a_subject(given_type: str, kind: str) -> None:
    assert receipt(kind) == signed(enveloped(type=given_type))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"Hello, World!", "malformed_json"),
        (b"", "malformed_json"),
        (b"[]", "no_envelope"),
        (b"null", "no_envelope"),
        (enveloped(id=None), "no_envelope"),
        (enveloped(type=None), "no_envelope"),
        (enveloped(id=7), "no_envelope"),
        (enveloped(id=""), "bad_delivery_id"),
        (enveloped(id="a b"), "bad_delivery_id"),
        (enveloped(id="ä"), "bad_delivery_id"),
        (enveloped(id="\x00"), "bad_delivery_id"),
        (enveloped(id="a" * 201), "bad_delivery_id"),
        (enveloped(type=""), "bad_event"),
        (enveloped(type="deployment..ready"), "bad_event"),
        (enveloped(type="a" * 65), "bad_event"),
        (enveloped(type=".".join("a" * 9)), "bad_event"),
    ],
)
def test_a_signed_body_that_cannot_be_stored_is_refused_by_name(body: bytes, reason: str) -> None:
    assert (400, reason) == signed(body)


def test_a_payload_without_its_envelope_is_refused() -> None:
    assert (400, "no_envelope") == signed(json.dumps(webhook("project.removed.payload-only")).encode())
