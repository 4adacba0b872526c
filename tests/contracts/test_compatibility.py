"""What was published once can be read for ever: old examples decode, keep every word and keep their ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import ValidationError, create_model

from contracts.builds import BuildFinished
from contracts.envelope import Event
from contracts.registry import EVENTS, UnknownEvent, decode
from tests.contracts.examples import EXAMPLES, FOLDER, IDS, each_example, event_of, stated, type_of

BUILD = FOLDER / "examples" / "build.finished.json"
BASE = set(Event.model_fields)


def what_broke(event: type[Event], path: Path) -> str | None:
    """How an example of old suffers from `event` as it is now; None where it does not."""
    try:
        decoded = event.model_validate_json(path.read_bytes())
    except ValidationError as error:
        return f"it does not decode: {error.errors()[0]['type']}"
    again = json.loads(decoded.model_dump_json())
    lost = sorted(name for name, value in stated(path).items() if name not in again or again[name] != value)
    return f"it loses {', '.join(lost)}" if lost else None


@each_example
def test_an_example_decodes_and_keeps_every_word(path: Path) -> None:
    assert None is what_broke(EVENTS[type_of(path)], path)


@each_example
def test_an_example_survives_the_wire(path: Path) -> None:
    event = event_of(path)
    assert event == decode(event.type, event.model_dump_json().encode())


@each_example
def test_an_example_keeps_its_id(path: Path) -> None:
    assert IDS[path.name] == event_of(path).id


def test_there_is_an_id_for_each_example_and_no_other() -> None:
    assert sorted(IDS) == [path.name for path in EXAMPLES]


def test_there_is_an_example_of_each_type_and_no_other() -> None:
    assert set(EVENTS) == {type_of(path) for path in EXAMPLES}


@pytest.mark.parametrize("name", EVENTS)
def test_each_field_of_a_type_stands_in_some_example_of_it(name: str) -> None:
    shown = {field for path in EXAMPLES if type_of(path) == name for field in stated(path)}
    everywhere = {field for path in EXAMPLES for field in stated(path)} & BASE
    assert set() == EVENTS[name].model_fields.keys() - shown - everywhere


@each_example
def test_a_field_of_tomorrow_is_tolerated(path: Path) -> None:
    newer = {**stated(path), "field_of_tomorrow": {"deep": [1, None]}}
    assert event_of(path) == decode(type_of(path), json.dumps(newer).encode())


def test_a_type_of_tomorrow_is_named() -> None:
    with pytest.raises(UnknownEvent, match=r"'build\.exploded'"):
        decode("build.exploded", b"{}")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"{}", b"\xff", b'{"source": "github"}'])
def test_data_that_is_no_such_event_is_refused(data: bytes) -> None:
    with pytest.raises(ValidationError):
        decode("build.finished", data)


def changed(**fields: Any) -> type[Event]:
    """BuildFinished as a careless hand would leave it: None removes a field, anything else defines it."""
    kept = {name: (info.annotation, info) for name, info in BuildFinished.model_fields.items()}
    made = {
        name: field for name, field in {**kept, **fields}.items() if field is not None and name not in BASE
    }
    return create_model("Changed", __base__=Event, **made)


@pytest.mark.parametrize(
    ("change", "harm"),
    [
        ({}, None),
        ({"colour": (str | None, None)}, None),
        ({"repository": None, "repo": (str, ...)}, "it does not decode: missing"),
        ({"repository": None}, "it loses repository"),
        ({"colour": (str, ...)}, "it does not decode: missing"),
        ({"title": None, "headline": (str | None, None)}, "it loses title"),
        ({"number": (str | None, None)}, "it does not decode: string_type"),
        ({"status": (Literal["passed", "broken"], ...)}, "it does not decode: literal_error"),
        ({"run_id": (str, ...)}, "it does not decode: string_type"),
    ],
    ids=[
        "nothing changed",
        "optional field added",
        "required field renamed",
        "required field removed",
        "required field added",
        "optional field renamed",
        "type of an optional field changed",
        "words of a status changed",
        "type of a required field changed",
    ],
)
def test_a_planted_change_is_caught_unless_it_only_adds(change: dict[str, Any], harm: str | None) -> None:
    assert harm == what_broke(changed(**change), BUILD)
