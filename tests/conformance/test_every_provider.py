"""What holds for every registered provider: nothing but typed refusals, and the same words for the same bytes."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.envelope import Event
from contracts.registry import EVENTS, decode
from contracts.text import decode as decode_json
from providers.port import Ignored, Parcel, Receipt, Refused, Request, Secret, Unintelligible
from providers.registry import PROVIDERS
from services.projector.understand import understand
from tests.providers.case import Case, Sample
from tests.providers.driving import NOW, RECEIPT_ID, events_of, judge, judge_composed

CASES: dict[str, Case] = {
    name: importlib.import_module(f"tests.providers.{name}.cases").CASE for name in PROVIDERS
}
EVERY = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
OVER_HTTP = pytest.mark.parametrize(
    "case",
    [case for case in CASES.values() if case.secret is not None],
    ids=[name for name, case in CASES.items() if case.secret is not None],
)
EVERY_SAMPLE = pytest.mark.parametrize(
    ("case", "sample"),
    [(case, sample) for case in CASES.values() for sample in case.samples],
    ids=[f"{name}-{sample.name}" for name, case in CASES.items() for sample in case.samples],
)
MUTATIONS_MAX = 3
STRANGE: tuple[Any, ...] = (
    None, True, 0, -1, 2**63, 10**400, 1.5e308, "", "\u0000", "\ud800", "a" * 70_000, "None", "../..", "<!channel>",
    [], [[]], {}, {"": {}}, [None] * 50, "2026-13-45T99:99:99Z", "9999-12-31T23:59:59Z", 253402300799, 1e18,
)  # fmt: skip
DEEP = 20_000


def meaning(case: Case, sample: Sample, body: bytes | None = None) -> list[Event] | str:
    """The events of a sample, or the reason for which there are none."""
    try:
        return events_of(case.source, case.delivery(sample, body))
    except (Ignored, Unintelligible) as error:
        return error.reason


@EVERY_SAMPLE
def test_a_recorded_body_is_understood_or_ignored_by_name(case: Case, sample: Sample) -> None:
    understood = understand({case.source.name: case.source}, case.delivery(sample))

    assert understood.status in ("projected", "ignored"), understood.error


@EVERY_SAMPLE
def test_equal_deliveries_mean_equal_events(case: Case, sample: Sample) -> None:
    assert meaning(case, sample) == meaning(case, sample)


@EVERY_SAMPLE
def test_what_a_delivery_means_survives_the_wire(case: Case, sample: Sample) -> None:
    found = meaning(case, sample)
    for event in found if isinstance(found, list) else []:
        assert decode(event.type, event.model_dump_json().encode()) == event
        assert EVENTS[event.type] is type(event)


@EVERY_SAMPLE
def test_events_of_one_delivery_have_ids_of_their_own(case: Case, sample: Sample) -> None:
    found = meaning(case, sample)
    ids = [event.id for event in found] if isinstance(found, list) else []

    assert len(set(ids)) == len(ids)


@OVER_HTTP
def test_the_request_that_a_provider_composes_is_taken(case: Case) -> None:
    assert case.secret is not None
    for sample in case.samples:
        if sample.via == "webhook":
            outcome = judge_composed(case.source, case.secret, sample.body, sample.event)
            assert isinstance(outcome, Receipt), (sample.name, outcome)


@OVER_HTTP
@given(seed=st.integers(0, 2**32))
@settings(max_examples=30)
def test_a_tampered_body_is_refused(case: Case, seed: int) -> None:
    assert case.secret is not None and case.source.provider.compose is not None
    if not case.signs_the_body:
        return
    chance = Random(seed)
    sample = chance.choice([each for each in case.samples if each.via == "webhook"])
    parcel = Parcel(body=sample.body, event=sample.event, delivery="d-1", at=NOW)
    made = case.source.provider.compose(parcel, case.source, case.secret)
    at = chance.randrange(len(made.body))
    tampered = made.body[:at] + bytes([made.body[at] ^ (1 << chance.randrange(8))]) + made.body[at + 1 :]

    outcome = judge(case.source, _lower(made.headers), tampered, [case.secret], query=made.query)

    assert isinstance(outcome, tuple) and outcome[0] in (400, 401, 406), outcome


@OVER_HTTP
def test_another_secret_does_not_open_the_door(case: Case) -> None:
    assert case.secret is not None and case.source.provider.compose is not None
    other = Secret("OTHER", case.source.provider.new_secret(b"\x01" * 32).encode())
    sample = next(each for each in case.samples if each.via == "webhook")
    parcel = Parcel(body=sample.body, event=sample.event, delivery="d-1", at=NOW)
    made = case.source.provider.compose(parcel, case.source, other)

    for held in ([case.secret], [], [Secret("EMPTY", b"")]):
        outcome = judge(case.source, _lower(made.headers), made.body, held, query=made.query)
        assert isinstance(outcome, tuple) and outcome[0] in (401, 406), (held, outcome)


@EVERY
@given(seed=st.integers(0, 2**32))
@settings(max_examples=40)
def test_a_mutated_body_is_never_a_surprise(case: Case, seed: int) -> None:
    chance = Random(seed)
    if not case.samples:
        return
    sample = chance.choice(case.samples)
    body = mutated(chance, sample.body)
    understood = understand({case.source.name: case.source}, case.delivery(sample, body))

    assert understood.reason != "not_understood", (sample.name, understood.error)


@OVER_HTTP
@given(seed=st.integers(0, 2**32))
@settings(max_examples=40)
def test_a_mutated_request_is_taken_or_refused_by_name(case: Case, seed: int) -> None:
    assert case.secret is not None
    provider, chance = case.source.provider, Random(seed)
    assert provider.compose is not None and provider.verify is not None
    sample = chance.choice([each for each in case.samples if each.via == "webhook"])
    parcel = Parcel(body=mutated(chance, sample.body), event=sample.event, delivery="d-1", at=NOW)
    try:
        made = provider.compose(parcel, case.source, case.secret)
    except (ValueError, Refused):
        return  # what cannot be signed cannot be sent
    headers = _lower(made.headers)
    for name in list(headers):
        if chance.random() < 0.2:
            headers[name] = chance.choice(("", "a" * 2_000, "\xff\xfe", "\x00", "é", "=,;", "-1", "9" * 400))
        elif chance.random() < 0.1:
            del headers[name]
    request = Request(
        method="POST", headers=headers, query=made.query, received_at=NOW, receipt_id=RECEIPT_ID
    )
    outcome: Receipt | Refused
    try:
        verification = provider.verify(request, case.source, [case.secret])
        verification.update(made.body)
        outcome = verification.finish(made.body)
    except Refused as refused:
        outcome = refused

    if isinstance(outcome, Refused):
        assert 400 <= outcome.status < 500 and outcome.reason
    else:
        assert outcome.identity and outcome.kind


PAGES: Mapping[str, tuple[str, str, bytes]] = {
    "digitalocean": ("droplets", "droplets", b'{"droplets": [{"id": 1, "memory": 1e999}]}'),
    "github": ("issues", "repos/o/r/issues", b'[{"id": 1, "number": 1, "score": {"a": [-1e999]}}]'),
    "mailgun": ("events", "a.example/events", b'{"items": [{"event": "x", "timestamp": 1, "id": "a", "b": 1e999}]}'),
    "plane": ("work_items", "s", b'{"results": [{"id": "i-1", "point": 1e999}]}'),
    "vercel": ("deployments", "s", b'{"deployments": [{"uid": "dpl_1", "created": 1e999}]}'),
}  # fmt: skip
"""A page of each provider whose API is read: kind, scope and body, with a number beyond all bounds in an item."""


@pytest.mark.parametrize("name", sorted(name for name, each in PROVIDERS.items() if each.items))
def test_no_stored_item_holds_what_json_cannot_say(name: str) -> None:
    items = PROVIDERS[name].items
    assert items is not None
    bodies: list[bytes] = []
    refused = ""
    try:
        bodies = [item.body for item in items(*PAGES[name])]
    except Unintelligible as error:
        refused = error.reason

    assert refused == "not_json" or (bodies and all(decode_json(body) for body in bodies))


def mutated(chance: Random, body: bytes) -> bytes:
    """`body` as somebody careless or hostile might change it."""
    how = chance.randrange(10)
    if how == 0:
        cut = chance.randrange(len(body) + 1)
        return body[:cut] + chance.randbytes(chance.randrange(4)) + body[cut + chance.randrange(4) :]
    if how == 1:
        return chance.choice(
            (b"", b"null", b"[]", b"{}", b"[" * DEEP, b'{"a":' * DEEP, b"NaN", b"1e999", b"\xff")
        )
    try:
        value = json.loads(body)
    except ValueError:
        cut = chance.randrange(len(body) + 1)
        return body[:cut] + body[: chance.randrange(20)] + body[cut:]
    for _ in range(chance.randint(1, MUTATIONS_MAX)):
        value = _changed(chance, value)
    text = json.dumps(value)
    if how == 2 and text.startswith("{"):
        return b'{"id": 1, "type": [], ' + text[1:].encode()  # keys that stand twice
    return text.encode()


def _changed(chance: Random, value: Any) -> Any:
    """`value` with one of its parts replaced, removed, doubled or nested."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        if chance.random() < 0.15:
            return {name: each for name, each in value.items() if name != key}
        return {**value, key: _changed(chance, value[key])}
    if isinstance(value, list) and value and chance.random() < 0.7:
        at = chance.randrange(len(value))
        return [*value[:at], _changed(chance, value[at]), *value[at + chance.randrange(2) :]]
    return chance.choice((*STRANGE, [value], {"value": value}, str(value)))


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
