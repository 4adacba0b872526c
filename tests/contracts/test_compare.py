"""What breaks a subscriber or an old message is named; what only adds is not called breaking."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field, create_model

from contracts.builds import BuildFinished
from contracts.compare import differences
from contracts.envelope import Event
from contracts.json_schema import schema_of
from contracts.registry import EVENTS

KEPT: dict[str, Any] = {
    "name": (str, ...),
    "note": (str | None, None),
    "count": (int, Field(default=0, ge=0, le=10)),
    "state": (Literal["red", "green"], "red"),
    "at": (str, Field(default="", json_schema_extra={"format": "date-time"})),
    "tags": (list[str], Field(default=[], max_length=5)),
    "place": (tuple[int, int], (0, 0)),
    "words": (dict[str, int], {}),
}


class Part(BaseModel):
    one: str
    two: str | None = None


class OtherPart(BaseModel):
    one: int
    three: str | None = None


def schema(**changed: Any) -> dict[str, Any]:
    """The schema with some of its fields changed; None removes one."""
    fields = {name: field for name, field in {**KEPT, **changed}.items() if field is not None}
    sample: type[BaseModel] = create_model("Sample", **fields)
    return sample.model_json_schema()


def found(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return [str(each) for each in differences({"a.b": old}, {"a.b": new})]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        ({"colour": (str | None, None)}, ["addition: a.b colour: a new field"]),
        ({"colour": (str, ...)}, ["breaking: a.b colour: is new and required: older messages lack it"]),
        ({"note": None}, ["breaking: a.b note: was removed"]),
        (
            {"note": None, "remark": (str | None, None)},
            ["breaking: a.b note: was removed", "addition: a.b remark: a new field"],
        ),
        ({"name": (str, "x")}, ["breaking: a.b name: may now be missing"]),
        ({"note": (str | None, ...)}, ["breaking: a.b note: is now required: older messages may lack it"]),
        ({"name": (str | None, ...)}, ["breaking: a.b name: may now be null"]),
        (
            {"note": (str, None)},
            ["breaking: a.b note: may no longer be null: older messages hold it"],
        ),
        (
            {"name": (int, ...)},
            [
                "breaking: a.b name: may no longer be a string: older messages hold it",
                "breaking: a.b name: may now be an integer",
            ],
        ),
        ({"name": (str | int, ...)}, ["breaking: a.b name: may now be an integer"]),
        ({"name": (Any, ...)}, ["breaking: a.b name: may no longer be a string: older messages hold it",
                                "breaking: a.b name: may now be anything"]),
        (
            {"state": (Literal["red", "green", "blue"], "red")},
            ["addition: a.b state: may be blue, a new word"],
        ),
        ({"state": (Literal["red"], "red")}, ["breaking: a.b state: lost the word green"]),
        (
            {"state": (Literal["red", "blue", "black"], "red")},
            [
                "breaking: a.b state: lost the word green",
                "addition: a.b state: may be black, a new word",
                "addition: a.b state: may be blue, a new word",
            ],
        ),
        ({"state": (str, "red")}, ["breaking: a.b state: is no longer an enumeration"]),
        ({"name": (Literal["x", "y"], ...)}, ["breaking: a.b name: is now an enumeration"]),
        ({"state": (Literal["red", "green"], "green")},
         ["breaking: a.b state: means something else where it is missing"]),
        ({"count": (int, Field(default=0, ge=0, le=5))}, ["breaking: a.b count: its maximum went from 10 to 5"]),
        ({"count": (int, Field(default=0, ge=0, le=20))}, ["addition: a.b count: its maximum went from 10 to 20"]),
        ({"count": (int, Field(default=0, le=10))}, ["addition: a.b count: its minimum went from 0 to none"]),
        ({"count": (int, Field(default=0, ge=1, le=10))}, ["breaking: a.b count: its minimum went from 0 to 1"]),
        ({"note": (str | None, Field(default=None, max_length=3))},
         ["breaking: a.b note: its maxLength went from none to 3"]),
        ({"at": (str, "")}, ["breaking: a.b at: its format changed"]),
        ({"tags": (list[str], Field(default=[], max_length=4))},
         ["breaking: a.b tags: its maxItems went from 5 to 4"]),
        (
            {"tags": (list[int], Field(default=[], max_length=5))},
            [
                "breaking: a.b tags[]: may no longer be a string: older messages hold it",
                "breaking: a.b tags[]: may now be an integer",
            ],
        ),
        ({"place": (tuple[int, str], (0, 0))}, [
            "breaking: a.b place[1]: may no longer be an integer: older messages hold it",
            "breaking: a.b place[1]: may now be a string",
        ]),
        ({"words": (dict[str, int | None], {})}, ["breaking: a.b words.*: may now be null"]),
    ],
)  # fmt: skip
def test_a_changed_field_is_told(change: dict[str, Any], said: list[str]) -> None:
    assert sorted(said) == sorted(found(schema(), schema(**change)))


def test_what_lies_deeper_is_told_by_its_path() -> None:
    old, new = schema(parts=(list[Part], [])), schema(parts=(list[OtherPart], []))
    assert [
        "breaking: a.b parts[].one: may no longer be a string: older messages hold it",
        "breaking: a.b parts[].one: may now be an integer",
        "addition: a.b parts[].three: a new field",
        "breaking: a.b parts[].two: was removed",
    ] == sorted(found(old, new), key=lambda line: line.partition(": ")[2])


def test_a_model_of_another_name_with_the_same_fields_is_no_difference() -> None:
    same = create_model("Renamed", one=(str, ...), two=(str | None, None))
    assert [] == found(schema(part=(Part, ...)), schema(part=(same, ...)))


def test_two_objects_that_a_field_may_be_are_compared_each() -> None:
    old, new = schema(part=(Part | OtherPart, ...)), schema(part=(Part | Event, ...))
    assert "breaking: a.b part.three: was removed" in found(old, new)
    assert "breaking: a.b part.two: was removed" not in found(old, new)


def test_a_constant_that_becomes_one_of_two_words_gained_one() -> None:
    old, new = schema(state=(Literal["red"], "red")), schema()
    assert ["addition: a.b state: may be green, a new word"] == found(old, new)


def test_types_that_come_and_go_are_told() -> None:
    assert ["breaking: a.b: the type was removed", "addition: c.d: a new type"] == [
        str(each) for each in differences({"a.b": schema()}, {"c.d": schema()})
    ]


def test_a_description_is_no_difference() -> None:
    assert [] == found(schema(), schema(name=(str, Field(description="what it is called"))))


def test_todays_events_differ_in_nothing_from_themselves() -> None:
    today = {name: schema_of(event) for name, event in EVENTS.items()}
    assert [] == differences(today, today)


@pytest.mark.parametrize(
    "field", [name for name in BuildFinished.model_fields if name not in Event.model_fields]
)
def test_no_field_of_an_event_can_go_unnoticed(field: str) -> None:
    old = schema_of(BuildFinished)
    new = {**old, "properties": {name: each for name, each in old["properties"].items() if name != field}}
    (told,) = differences({"build.finished": old}, {"build.finished": new})
    assert (told.breaking, told.field) == (True, field)
