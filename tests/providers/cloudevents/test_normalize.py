"""What deliveries of CloudEvents mean."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from contracts.envelope import Event
from contracts.external import ExternalReceived
from contracts.version import moment
from providers.cloudevents.events import BATCH_COUNT_MAX
from providers.port import Ignored, Unintelligible
from services.projector.understand import understand
from tests.providers.cloudevents.deliveries import (
    BATCH_TYPE,
    BINARY_BODY,
    BINARY_HEADERS,
    SOURCE,
    STRUCTURED_TYPE,
    batch,
    body,
    event,
    fixture,
)
from tests.providers.driving import NOW, delivery_of, events_of

AT = datetime(2018, 4, 5, 17, 31, tzinfo=UTC)


def meaning(headers: Mapping[str, str], raw: bytes, received_at: datetime = NOW) -> list[Event]:
    """The events of a delivery."""
    return events_of(SOURCE, delivery_of(SOURCE, "any", raw, headers=headers, received_at=received_at))


def told(name: str, **changes: Any) -> ExternalReceived:
    """What a fixture is expected to mean."""
    return ExternalReceived(
        source="cloudevents",
        ref=f"cloudevents:/mycontext#{name}",
        moment=moment(AT, 0),
        occurred_at=AT,
        env="unknown",
        kind="com.example.someevent",
        external_id=name,
        origin="/mycontext",
    ).model_copy(update=changes)


@pytest.mark.parametrize(
    ("headers", "raw", "name"),
    [
        (STRUCTURED_TYPE, body("structured.json-object"), "C234-1234-1234"),
        (BINARY_HEADERS, BINARY_BODY, "C234-1234-1234"),
        (STRUCTURED_TYPE, body("structured.xml-string"), "B234-1234-1234"),
    ],
    ids=["structured", "binary", "xml"],
)
def test_every_recorded_event_means_what_it_says(headers: Mapping[str, str], raw: bytes, name: str) -> None:
    assert [told(name)] == meaning(headers, raw)


def test_the_placeholder_is_parked_by_name() -> None:
    with pytest.raises(Unintelligible) as parked:
        meaning(STRUCTURED_TYPE, body("structured.base64-placeholder"))
    assert "bad_base64" == parked.value.reason


def test_one_event_alone_and_in_two_batches_has_one_id() -> None:
    alone = fixture("structured.json-object")
    other = event(id="2")
    batches = [batch(alone, other), batch(other, alone, event(id="3"))]
    ids = [{each.id for each in meaning(BATCH_TYPE, raw)} for raw in batches]
    [single] = meaning(STRUCTURED_TYPE, body("structured.json-object"))
    assert single.id in ids[0] & ids[1]
    assert 3 == len(ids[0] | ids[1])


def test_an_event_without_a_time_has_one_id_whenever_it_comes() -> None:
    first, later = (
        meaning(BATCH_TYPE, batch(event()), received_at=at)[0] for at in (NOW, NOW + timedelta(hours=3))
    )
    assert first.id == later.id
    assert (NOW, NOW + timedelta(hours=3)) == (first.occurred_at, later.occurred_at)


def test_of_copies_in_one_batch_the_first_counts() -> None:
    found = meaning(BATCH_TYPE, batch(event(subject="a"), event(subject="b"), event(id="2")))
    assert ["a", None] == [each.about for each in found if isinstance(each, ExternalReceived)]


def test_an_empty_batch_is_ignored_by_name() -> None:
    with pytest.raises(Ignored, match="empty_batch"):
        meaning(BATCH_TYPE, b"[]")


def test_the_longest_batch_is_projected_and_not_parked() -> None:
    raw = batch(*(event(id=str(n)) for n in range(BATCH_COUNT_MAX)))
    understood = understand({SOURCE.name: SOURCE}, delivery_of(SOURCE, "batch", raw, headers=BATCH_TYPE))
    assert ("projected", BATCH_COUNT_MAX) == (understood.status, len(understood.statements))


def test_long_words_are_cut_and_stay_apart() -> None:
    long = {"type": "t" * 900, "source": "s" * 900, "subject": "x" * 900}
    raw = batch(event(id="a" * 900, **long), event(id="a" * 899 + "b", **long))
    understood = understand({SOURCE.name: SOURCE}, delivery_of(SOURCE, "batch", raw, headers=BATCH_TYPE))
    assert "projected" == understood.status
    assert 2 == len(understood.refs) == len({each.event.id for each in understood.statements})


def test_nothing_of_the_data_leaves_the_delivery() -> None:
    [found] = meaning(STRUCTURED_TYPE, body("structured.json-object"))
    assert "appinfo" not in found.model_dump_json()


def test_the_summary_names_the_subject_where_there_is_one() -> None:
    [found] = meaning(BATCH_TYPE, batch(event(subject="orders/17")))
    assert "cloudevents: com.example.made: orders/17" == found.summary
