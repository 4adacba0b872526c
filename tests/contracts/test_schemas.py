"""The committed schemas and the AsyncAPI document say what the code does, and the examples obey them."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError
from ruamel.yaml import YAML

from contracts import asyncapi, delivery, envelope, generate
from contracts.delivery import Delivery, body_sha256
from contracts.registry import EVENTS
from tests.contracts.examples import FOLDER, each_example, event_of, stated, type_of
from tests.providers.github.deliveries import SAMPLES, outcome

DOCUMENT: dict[str, Any] = json.loads((FOLDER / generate.ASYNCAPI).read_bytes())


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads((FOLDER / "schemas" / f"{name}.json").read_bytes()))


def test_the_committed_files_are_fresh() -> None:
    assert [] == generate.stale_in(FOLDER)


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of our own that holds fresh files."""
    monkeypatch.setattr(generate, "FOLDER", tmp_path)
    assert 0 == generate.main([])
    return tmp_path


def test_what_is_changed_missing_or_too_much_is_named_and_mended(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 0 == generate.main(["--check"])
    with (copy / "asyncapi.yaml").open("a") as document:
        document.write(" ")
    (copy / "schemas" / "build.queued.json").unlink()
    (copy / "schemas" / "build.exploded.json").write_text("{}")
    stale = ["asyncapi.yaml", "schemas/build.exploded.json", "schemas/build.queued.json"]
    assert stale == generate.stale_in(copy)
    assert 1 == generate.main(["--check"])
    said = capsys.readouterr().err
    assert [True, True, True, False] == [
        f"contracts/{name} is" in said for name in [*stale, "schemas/run.queued.json"]
    ]
    assert stale == generate.stale_in(copy)
    assert 0 == generate.main([])
    assert [] == generate.stale_in(copy)


def test_a_word_that_is_no_option_changes_nothing(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "asyncapi.yaml").unlink()
    assert 2 == generate.main(["--chekc"])
    assert "usage" in capsys.readouterr().err
    assert ["asyncapi.yaml"] == generate.stale_in(copy)


@pytest.mark.parametrize("name", EVENTS)
def test_a_schema_is_one_and_says_what_it_is_about(name: str) -> None:
    schema = validator(name).schema
    Draft202012Validator.check_schema(schema)
    assert f"urn:odooops:event:{name}" == schema["$id"]
    assert "https://json-schema.org/draft/2020-12/schema" == schema["$schema"]
    assert EVENTS[name].__name__ == schema["title"]
    assert asyncapi.summary_of(EVENTS[name]) == schema["description"].partition("\n")[0] != ""
    assert "description" in schema["properties"]["ref"]


def test_a_schema_says_what_ref_is_where_only_the_family_does() -> None:
    assert "`github:run/<run id>/<attempt>`" in validator("build.finished").schema["description"]


@each_example
def test_an_example_obeys_its_schema(path: Path) -> None:
    validator(type_of(path)).validate(stated(path))


@each_example
def test_a_schema_asks_for_what_the_decoder_asks_for_and_no_more(path: Path) -> None:
    schema = validator(type_of(path))
    schema.validate({**stated(path), "field_of_tomorrow": 1})
    required = {name for name, field in EVENTS[type_of(path)].model_fields.items() if field.is_required()}
    assert required == set(schema.schema["required"])
    for name in stated(path):
        without = {field: value for field, value in stated(path).items() if field != name}
        assert schema.is_valid(without) == (name not in required)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_what_githubs_samples_become_obeys_the_schemas(path: Path) -> None:
    for event in outcome(path).get("events", []):
        validator(event["type"]).validate(event)


@pytest.mark.parametrize(
    "wrong",
    [{"status": "exploded"}, {"run_id": 2**63}, {"moment": [0, 1]}, {"moment": [0, 1, 2, 3]}, {"ref": None}],
)
def test_a_schema_refuses_what_the_decoder_refuses(wrong: dict[str, Any]) -> None:
    event = stated(FOLDER / "examples" / "build.finished.json")
    with pytest.raises(ValidationError):
        validator("build.finished").validate({**event, **wrong})


def test_the_asyncapi_document_is_yaml_as_it_is_json() -> None:
    assert DOCUMENT == YAML(typ="safe").load(FOLDER / generate.ASYNCAPI)


def test_each_event_has_a_channel_an_operation_and_a_message() -> None:
    assert set(DOCUMENT["channels"]) == {*EVENTS, "deliveries"}
    for name, event in EVENTS.items():
        (message,) = DOCUMENT["channels"][name]["messages"].values()
        assert f"events.{name}" == DOCUMENT["channels"][name]["address"]
        assert name == resolved(message)["name"]
        operation = DOCUMENT["operations"][f"receive{event.__name__}"]
        assert "receive" == operation["action"]
        assert DOCUMENT["channels"][name] is resolved(operation["channel"])


def resolved(reference: dict[str, str]) -> Any:
    """What a reference within the document points to."""
    found: Any = DOCUMENT
    for key in reference["$ref"].removeprefix("#/").split("/"):
        found = found[key]
    return found


def references(value: Any) -> Iterator[dict[str, str]]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value
        for each in value.values():
            yield from references(each)


def test_each_reference_leads_somewhere() -> None:
    schemas = []
    for reference in references(DOCUMENT):
        if reference["$ref"].startswith("#/"):
            assert resolved(reference)
        else:
            schemas.append(FOLDER / reference["$ref"])
    assert sorted(schemas) == sorted((FOLDER / "schemas").glob("*.json"))


@each_example
def test_the_headers_of_an_event_are_the_documented_ones(path: Path) -> None:
    headers = envelope.to_headers(event_of(path), "github:72d3162e-cc78-11e3-81ab-4c9367dc0958")
    schema = DOCUMENT["components"]["schemas"]["EventHeaders"]
    assert set(schema["properties"]) == set(schema["required"]) == set(headers)
    Draft202012Validator(schema).validate(headers)


def test_the_headers_of_a_delivery_are_the_documented_ones() -> None:
    given = Delivery(
        source="github",
        identity="72d3162e-cc78-11e3-81ab-4c9367dc0958",
        kind="issues",
        via="webhook",
        received_at=datetime(2026, 3, 4, tzinfo=UTC),
        body=b"{}",
        body_sha256=body_sha256(b"{}"),
        verified_by="GITHUB_WEBHOOK_SECRET",
        headers={"x-github-event": "issues"},
    )
    headers = delivery.to_headers(given, body_object="hash/name")
    schema = DOCUMENT["components"]["schemas"]["DeliveryHeaders"]
    assert {*schema["properties"], "Sender-x-github-event"} == set(headers)
    Draft202012Validator(schema).validate(headers)
    assert set(schema["required"]) == set(schema["properties"]) - {delivery.VERIFIED_BY, delivery.BODY_OBJECT}
    (pattern,) = schema["patternProperties"]
    assert "^Sender-" == pattern


def imported(path: Path) -> Iterator[str]:
    """The top-level names that a module imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]
        elif isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)


def test_contracts_need_pydantic_and_the_standard_library_alone() -> None:
    names = {name for path in FOLDER.glob("*.py") for name in imported(path)}
    assert set() == names - sys.stdlib_module_names - {"contracts", "pydantic", "pydantic_core"}
