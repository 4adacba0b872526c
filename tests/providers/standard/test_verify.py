"""Who may deliver by Standard Webhooks, and what every other request is told."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.standard_webhooks import ENTRIES_COUNT_MAX, decoded, new_secret, sign, symmetric_key
from providers.port import Parcel, Receipt, Secret
from providers.standard import PROVIDER
from tests.providers import driving
from tests.providers.driving import NOW, Outcome, judge_composed, source_of
from tests.providers.standard.deliveries import FULL, IDENTITY, SECRET, SOURCE, VECTORS

SECOND = Secret("SHOP_SECRET_2", b"whsec_plJ3nmyCDGBKInavdOK15jsl")
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = Secret("SHOP_KEY", b"whpk_" + base64.b64encode(PRIVATE.public_key().public_bytes_raw()))
BODY = b'{"type": "contact.created"}'


def request(
    body: bytes = BODY, secret: Secret = SECRET, at: datetime = NOW, **changes: str | None
) -> dict[str, str]:
    """The headers of a genuine request; a change to None leaves that header out."""
    headers: dict[str, str | None] = {
        **sign(IDENTITY, at, body, secret.value),
        **{f"webhook-{name}": value for name, value in changes.items()},
    }
    return {name: value for name, value in headers.items() if value is not None}


def judge(
    headers: Mapping[str, str],
    body: bytes = BODY,
    secrets: Sequence[Secret] = (SECRET,),
    at: datetime = NOW,
    chunks: Iterable[bytes] | None = None,
) -> Outcome:
    """The receipt of a request, or the status and reason that it is refused with."""
    return driving.judge(SOURCE, headers, body, secrets, at=at, chunks=chunks)


def receipt(verified_by: str = SECRET.name, kind: str = "contact.created") -> Receipt:
    return Receipt(identity=IDENTITY, kind=kind, verified_by=verified_by)


def asymmetric(body: bytes = BODY) -> str:
    """The signature of our private key."""
    content = f"{IDENTITY}.{int(NOW.timestamp())}.".encode() + body
    return "v1a," + base64.b64encode(PRIVATE.sign(content)).decode()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["name"]))
def test_every_signature_vector_is_judged_as_it_states(vector: dict[str, Any]) -> None:
    source = source_of(PROVIDER, "shop", {"tolerance_s": vector["tolerance_s"]})
    secret = Secret(SECRET.name, vector["secret"].encode())
    at = datetime.fromtimestamp(vector["now"], UTC)
    outcome = driving.judge(source, vector["headers"], vector["body"].encode(), [secret], at=at)
    if vector["valid"]:
        assert receipt(kind="message") == outcome
    else:
        assert isinstance(outcome, tuple) and outcome[0] == 401, outcome


def test_all_vectors_are_there() -> None:
    assert 18 == len(VECTORS)


@pytest.mark.parametrize(
    ("second", "reason"),
    [(300, None), (301, "stale_timestamp"), (-300, None), (-301, "stale_timestamp")],
)
def test_an_attempt_is_taken_for_five_minutes_before_and_after(second: int, reason: str | None) -> None:
    outcome = judge(request(), at=NOW + timedelta(seconds=second))
    assert outcome == (receipt() if reason is None else (401, reason))


def test_the_window_is_set_in_ssot() -> None:
    source = source_of(PROVIDER, "shop", {"tolerance_s": 10})
    late = NOW + timedelta(seconds=11)
    assert (401, "stale_timestamp") == driving.judge(source, request(), BODY, [SECRET], at=late)


@pytest.mark.parametrize(
    "timestamp", ["hello", "1.5", "-1", "+1793534400", " 1793534400", "1_7", "٣", "9" * 400]
)
def test_a_timestamp_is_whole_seconds_and_nothing_else(timestamp: str) -> None:
    assert (401, "bad_timestamp") == judge(request(timestamp=timestamp))


@pytest.mark.parametrize("missing", ["id", "timestamp", "signature"])
def test_all_three_headers_are_needed(missing: str) -> None:
    good = request()
    assert (401, "missing_signature") == judge({**good, f"webhook-{missing}": ""})
    del good[f"webhook-{missing}"]
    assert (401, "missing_signature") == judge(good)


def as_svix(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("webhook-", "svix-"): value for name, value in headers.items()}


def test_the_three_headers_come_from_one_family() -> None:
    good = request()
    mixed = {**good, **as_svix(good)}
    del mixed["webhook-id"], mixed["svix-signature"]
    assert (401, "missing_signature") == judge(mixed)
    assert receipt() == judge(as_svix(good))


def test_of_two_complete_families_the_standard_one_counts() -> None:
    good = request()
    wrong = {name: "v1,AAAA" if name.endswith("signature") else value for name, value in good.items()}
    assert receipt() == judge({**good, **as_svix(wrong)})
    assert (401, "bad_signature") == judge({**wrong, **as_svix(good)})
    del wrong["webhook-id"]  # incomplete: it does not count
    assert receipt() == judge({**wrong, **as_svix(good)})


GOOD = request()["webhook-signature"]


@pytest.mark.parametrize(
    "signatures",
    [
        f"nonsense {GOOD}",
        f", ,, {GOOD}",
        f"v1, v1 {GOOD}",
        f"v2,AAAA v1,AAAA {GOOD} v1a,AAAA",
        f"{GOOD} \xff\xfe",
        f"{GOOD} {GOOD}",
    ],
)
def test_entries_that_are_malformed_or_unknown_are_passed_over(signatures: str) -> None:
    assert receipt() == judge(request(signature=signatures))


@pytest.mark.parametrize(
    "signatures",
    [
        GOOD.upper(),
        GOOD.rstrip("="),
        GOOD.replace("v1,", "v1="),
        GOOD.replace("v1,", "v1a,"),
        GOOD.removeprefix("v1,"),
        f"{GOOD},{GOOD}",
        f"v1, {GOOD.removeprefix('v1,')}",
        "v1,AAAA " * ENTRIES_COUNT_MAX + GOOD,
    ],
)
def test_nothing_but_an_exact_entry_among_the_first_fits(signatures: str) -> None:
    assert (401, "bad_signature") == judge(request(signature=signatures))


@pytest.mark.parametrize("signer", [SECRET, SECOND], ids=lambda secret: secret.name)
def test_during_a_rotation_either_secret_signs_and_is_named(signer: Secret) -> None:
    assert receipt(signer.name) == judge(request(secret=signer), secrets=[SECRET, SECOND])
    assert (401, "bad_signature") == judge(request(secret=signer), secrets=[])


def test_both_signatures_of_a_rotation_fit_whoever_knows_one_secret() -> None:
    both = f"{request(secret=SECOND)['webhook-signature']} {GOOD}"
    assert receipt() == judge(request(signature=both))
    assert receipt(SECOND.name) == judge(request(signature=both), secrets=[SECOND])


@pytest.mark.parametrize(
    "value",
    [b"", b"whsec_", b"whsec_====", b"whsec_!!!!", b"----", b"whsec_A", b"\xff", b"whsk_QUJD", b"whpk_QUJD"],
)
def test_a_secret_that_holds_no_key_verifies_nothing(value: bytes) -> None:
    content = f"{IDENTITY}.{int(NOW.timestamp())}.".encode() + BODY
    for key in (b"", value, decoded(value)):
        forged = "v1," + base64.b64encode(hmac.digest(key, content, "sha256")).decode()
        assert (401, "bad_signature") == judge(request(signature=forged), secrets=[Secret("X", value)])


@pytest.mark.parametrize("text", ["QUJD", "QUI=", "QUI", "QQ", "QQ=="])
def test_a_secret_may_lack_its_prefix_and_its_padding(text: str) -> None:
    assert symmetric_key(text.encode()) == symmetric_key(f"whsec_{text}".encode()) != b""


def test_a_public_key_verifies_its_own_signature_and_no_other() -> None:
    headers = request(signature=f"v1a,AAAA {asymmetric()}")
    assert receipt(PUBLIC.name) == judge(headers, secrets=[SECRET, PUBLIC])
    assert (401, "bad_signature") == judge(headers, secrets=[SECRET])
    assert (401, "bad_signature") == judge(headers, BODY + b" ", secrets=[PUBLIC])
    assert (401, "bad_signature") == judge({**headers, "webhook-id": "msg_other"}, secrets=[PUBLIC])


def test_a_public_key_is_no_shared_secret() -> None:
    # An attacker knows the key: it is public.
    content = f"{IDENTITY}.{int(NOW.timestamp())}.".encode() + BODY
    key = decoded(PUBLIC.value.removeprefix(b"whpk_"))
    forged = "v1," + base64.b64encode(hmac.digest(key, content, "sha256")).decode()
    assert (401, "bad_signature") == judge(request(signature=forged), secrets=[PUBLIC])


def test_an_id_with_a_full_stop_is_refused() -> None:
    """Else `a` at time 1 with the body `2.b` and `a.1` at time 2 with the body `b` would have one signature."""
    headers = sign("msg.1", NOW, BODY, SECRET.value)
    assert (400, "bad_delivery_id") == judge(headers)


@pytest.mark.parametrize("identity", ["with space", "x" * 201, "ü"])
def test_an_id_that_cannot_be_an_identity_is_refused_only_after_its_signature(identity: str) -> None:
    good = sign(identity, NOW, BODY, SECRET.value)
    assert (400, "bad_delivery_id") == judge(good)
    assert (401, "bad_signature") == judge({**good, "webhook-signature": "v1,AAAA"})


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (FULL, "contact.created"),
        (b'{"type": "Invoice.Paid/late"}', "invoice.paid_late"),
        (b'{"type": ""}', "message"),
        (b'{"type": "a..b"}', "message"),
        (b'{"type": 7}', "message"),
        (b'{"type": null}', "message"),
        (json.dumps({"type": ".".join("abcdefghi")}).encode(), "message"),
        (json.dumps({"type": "x" * 65}).encode(), "message"),
        (b'{"event_type": "ping"}', "message"),
        (b"[]", "message"),
        (b"plain words", "message"),
        (b"", "message"),
    ],
)
def test_the_kind_is_the_type_of_the_body_where_it_has_one(body: bytes, kind: str) -> None:
    assert receipt(kind=kind) == judge(request(body), body)


@settings(deadline=None)
@given(body=st.binary(max_size=200), cuts=st.lists(st.integers(0, 200), max_size=4))
def test_a_body_is_judged_alike_in_any_chunks(body: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(body)]
    chunks = [body[a:b] for a, b in pairwise(places)]
    assert isinstance(judge(request(body), body, chunks=chunks), Receipt)


@given(random=st.binary(min_size=24, max_size=64))
def test_a_new_secret_is_one_that_signs_and_verifies(random: bytes) -> None:
    secret = Secret("NEW", new_secret(random).encode())
    assert secret.value.startswith(b"whsec_")
    assert symmetric_key(secret.value) == random
    assert isinstance(judge_composed(SOURCE, secret, BODY, "contact.created"), Receipt)


def test_what_cannot_sign_says_so_without_showing_the_secret() -> None:
    parcel = Parcel(body=BODY, event="x", delivery="d", at=NOW)
    assert PROVIDER.compose is not None
    with pytest.raises(ValueError, match="nothing can be signed") as refused:
        PROVIDER.compose(parcel, SOURCE, Secret("X", b"s3cret!"))
    assert "s3cret" not in str(refused.value)


def test_no_other_code_needs_the_library_for_public_keys() -> None:
    root = Path(__file__).parents[3]
    packages = ("contracts", "providers", "read_models", "gates", "runtime", "services", "cli", "migrations")
    importing = {
        path.relative_to(root).parent.as_posix()
        for package in packages
        for path in (root / package).rglob("*.py")
        if "cryptography" in path.read_text(encoding="utf-8")
    }
    assert {"providers/standard"} == importing
