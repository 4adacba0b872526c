"""One fact, one id; and headers that CloudEvents allows and NATS carries unchanged. Real NATS at the end."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote
from uuid import uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from contracts.audit import CodePushed
from contracts.builds import BuildFinished, BuildStarted
from contracts.envelope import NAMESPACE, Event, header_value, to_headers
from contracts.registry import EVENTS
from runtime import streams
from tests.contracts.examples import FOLDER, each_example, event_of, type_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Broker

DELIVERY = "github:72d3162e-cc78-11e3-81ab-4c9367dc0958"
BUILD = event_of(FOLDER / "examples" / "build.finished.json")

# Providers write no control characters into a ref or a fact: U+001F parts them in the text that is hashed.
names = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20)
int64s = st.integers(-(2**63), 2**63 - 1)
moments = st.tuples(int64s, int64s, int64s)
facts = st.tuples(st.sampled_from([BuildStarted, BuildFinished]), names, moments, names)
zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
times = st.datetimes(timezones=zones)
texts = st.text(st.characters(exclude_categories=["Cs"]))

Fact = tuple[type[Event], str, tuple[int, int, int], str]


def event_from(fact: Fact, **others: Any) -> Event:
    """An event that states `fact`, whatever else it says."""
    event, ref, moment, told = fact
    fields = {**BUILD.model_dump(), "ref": ref, "moment": moment, "fact": told, **others}
    return event.model_validate(fields)


@given(facts, facts)
def test_ids_are_equal_where_type_ref_moment_and_fact_are_and_nowhere_else(one: Fact, other: Fact) -> None:
    assert (one == other) == (event_from(one).id == event_from(other).id)


@given(facts, st.integers(0, 3), names, moments)
def test_an_id_depends_on_each_part_of_the_fact(fact: Fact, part: int, name: str, moment: Any) -> None:
    other_type = BuildStarted if fact[0] is BuildFinished else BuildFinished
    others = (other_type, name, moment, name)
    changed = (*fact[:part], others[part], *fact[part + 1 :])
    assert (fact == changed) == (event_from(fact).id == event_from(changed).id)  # type: ignore[arg-type]


@given(facts, times, names, names, names)
def test_an_id_depends_on_nothing_else(fact: Fact, at: datetime, source: str, actor: str, title: str) -> None:
    seen_otherwise = event_from(
        fact, occurred_at=at, source=source, actor=actor, title=title, status="unknown"
    )
    assert event_from(fact).id == seen_otherwise.id


@given(facts)
def test_an_id_is_the_uuid5_of_the_fact(fact: Fact) -> None:
    event, ref, moment, told = fact

    assert str(uuid5(NAMESPACE, f"{event.type}\x1f{ref}\x1f{moment!r}\x1f{told}")) == event_from(fact).id


def test_an_id_does_not_depend_on_the_delivery() -> None:
    assert to_headers(BUILD, "github:one")["ce-id"] == to_headers(BUILD, "github:another")["ce-id"]


def test_a_copy_that_is_another_fact_has_another_id() -> None:
    assert BUILD.id == BUILD.model_copy().id == BUILD.model_copy(update={"actor": "hubot"}).id
    assert BUILD.id != BUILD.model_copy(update={"ref": "github:run/1/1"}).id


def test_an_event_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        BUILD.ref = "github:run/1/1"  # type: ignore[misc]


@pytest.mark.parametrize("moment", [(0, 0), (0, 0, 0, 0), (0, 0, 2**63), (0, 0.5, 0), (0, None, 0)])
def test_a_moment_is_three_int64s(moment: object) -> None:
    with pytest.raises(ValidationError):
        BuildFinished.model_validate({**BUILD.model_dump(), "moment": moment})


@pytest.mark.parametrize("name", EVENTS)
def test_a_type_is_a_family_and_a_verb_and_so_one_subject(name: str) -> None:
    assert re.fullmatch(r"[a-z_]+\.[a-z_]+", name)


@each_example
def test_headers_hold_what_cloudevents_requires(path: Path) -> None:
    event = event_of(path)
    headers = to_headers(event, DELIVERY)
    assert "1.0" == headers["ce-specversion"]
    assert event.id == headers["ce-id"] == headers["Nats-Msg-Id"]
    assert f"odooops/{event.source}" == headers["ce-source"]
    assert type_of(path) == headers["ce-type"] == event.type == event.subject.removeprefix("events.")
    assert event.ref == unquote(headers["ce-subject"], errors="strict")
    assert event.occurred_at == datetime.fromisoformat(headers["ce-time"])
    assert DELIVERY == headers["ce-delivery"]
    assert "application/json" == headers["ce-datacontenttype"] == headers["content-type"]
    # CloudEvents allows lower-case letters and digits in an attribute's name, nothing else.
    assert all(re.fullmatch("ce-[a-z0-9]+|content-type|Nats-Msg-Id", name) for name in headers)


@given(texts, texts, texts, times)
def test_headers_are_printable_ascii_and_give_the_text_back(
    ref: str, source: str, delivery: str, at: datetime
) -> None:
    headers = to_headers(
        event_from((BuildFinished, ref, (0, 0, 0), ""), source=source, occurred_at=at), delivery
    )
    assert all(re.fullmatch(r"[\x21-\x7e]*", value) for value in headers.values())
    assert ref == unquote(headers["ce-subject"], errors="strict")
    assert f"odooops/{source}" == unquote(headers["ce-source"], errors="strict")
    assert delivery == unquote(headers["ce-delivery"], errors="strict")
    assert at == datetime.fromisoformat(headers["ce-time"])


@given(times)
def test_a_time_in_a_header_is_one_of_rfc_3339(at: datetime) -> None:
    headers = to_headers(event_from((BuildFinished, "", (0, 0, 0), ""), occurred_at=at), DELIVERY)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?[+-]\d\d:\d\d", headers["ce-time"])


@pytest.mark.parametrize(
    ("header", "text"),
    [
        # The example of the binding's text.
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ("100%25", "100%"),
        ("%22quoted%22", '"quoted"'),
        ("github:org/shop#421@refs/heads/main", "github:org/shop#421@refs/heads/main"),
        ("a%0D%0Ace-id:%20forged", "a\r\nce-id: forged"),
        ("%00%1F%7F%C2%85", "\x00\x1f\x7f\x85"),
        ("", ""),
    ],
)
def test_a_header_value_is_encoded_as_the_binding_says(header: str, text: str) -> None:
    assert header == header_value(text)


NASTY = "github:org/shop@refs/heads/ größe\u2028€😀\r\nce-id: forged\r\n\r\n\x00\x7f% "


@pytest.mark.anyio
async def test_a_ref_of_any_text_arrives_and_forges_no_header(broker: Broker) -> None:
    fields = {**event_of(FOLDER / "examples" / "code.pushed.json").model_dump(), "ref": NASTY}
    event = CodePushed.model_validate(fields)
    headers = to_headers(event, DELIVERY)
    ack = await broker.js.publish(event.subject, event.model_dump_json().encode(), headers=dict(headers))
    arrived = await broker.js.get_msg(streams.EVENTS, ack.seq, direct=True)
    assert headers == {name: (arrived.headers or {}).get(name) for name in headers}
    assert NASTY == unquote((arrived.headers or {})["ce-subject"])
    assert event == CodePushed.model_validate_json(arrived.data or b"")


@pytest.mark.anyio
async def test_the_same_text_as_it_is_would_not_arrive(broker: Broker) -> None:
    ack = await broker.js.publish("events.code.pushed", b"{}", headers={"ce-subject": NASTY})
    arrived = await broker.js.get_msg(streams.EVENTS, ack.seq, direct=True)
    assert NASTY != (arrived.headers or {})["ce-subject"]


def test_an_event_that_is_sent_again_differs_by_its_message_id_and_its_mark_alone() -> None:
    first, again = to_headers(BUILD, DELIVERY), to_headers(BUILD, DELIVERY, "run-1")
    assert first | {"Nats-Msg-Id": f"replay:run-1:{BUILD.id}", "ce-replayed": "run-1"} == again
