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

from cli import asyncapi, contracts
from cli.main import main
from contracts import delivery, envelope
from contracts.delivery import Delivery, body_sha256
from contracts.registry import EVENTS
from runtime import ssot
from tests.contracts.examples import FOLDER, each_example, event_of, stated, type_of
from tests.providers.github.deliveries import SAMPLES, outcome

SSOT = FOLDER.parent / "ssot"
DOCUMENT: dict[str, Any] = json.loads((FOLDER / contracts.ASYNCAPI).read_bytes())


@pytest.fixture(scope="module")
def wanted() -> dict[str, str]:
    return contracts.files(ssot.load(SSOT))


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads((FOLDER / "schemas" / f"{name}.json").read_bytes()))


def test_the_committed_files_are_fresh(wanted: dict[str, str]) -> None:
    assert [] == contracts.stale_in(FOLDER, wanted)


def exported(*arguments: str) -> int:
    return main(["contracts", "export", "--ssot", str(SSOT), *arguments])


def test_what_is_changed_missing_or_too_much_is_named_and_mended(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    wanted: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(contracts, "files", lambda _: wanted)  # what they are is others' to test
    assert 0 == exported(str(tmp_path))
    assert 0 == exported(str(tmp_path), "--check")
    with (tmp_path / "asyncapi.yaml").open("a") as document:
        document.write(" ")
    (tmp_path / "openapi.yaml").write_text("{}")
    (tmp_path / "schemas" / "build.queued.json").unlink()
    (tmp_path / "schemas" / "build.exploded.json").write_text("{}")
    stale = ["asyncapi.yaml", "openapi.yaml", "schemas/build.exploded.json", "schemas/build.queued.json"]
    assert stale == contracts.stale_in(tmp_path, wanted)
    assert 1 == exported(str(tmp_path), "--check")
    said = capsys.readouterr().err
    assert [*[True] * 4, False] == [
        f"{name} is stale" in said for name in [*stale, "schemas/run.queued.json"]
    ]
    assert stale == contracts.stale_in(tmp_path, wanted)
    assert 0 == exported(str(tmp_path))
    assert [] == contracts.stale_in(tmp_path, wanted)


def test_another_ssot_gives_another_http_surface(tmp_path: Path) -> None:
    (tmp_path / "ssot" / "providers").mkdir(parents=True)
    (tmp_path / "ssot" / "providers" / "hub.yaml").write_text(
        "name: hub\nprovider: github\nendpoint: /webhooks/hub\nsecrets: [A]\n"
    )
    assert 0 == main(["contracts", "export", str(tmp_path), "--ssot", str(tmp_path / "ssot")])
    paths = json.loads((tmp_path / "openapi.yaml").read_bytes())["paths"]
    assert "/webhooks/hub" in paths and "/webhooks/github" not in paths


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
    assert DOCUMENT == YAML(typ="safe").load(FOLDER / contracts.ASYNCAPI)


def test_the_document_is_faststreams_with_the_committed_schemas_in_its_place() -> None:
    generated = asyncapi.from_faststream()
    assert {name: channel["address"] for name, channel in generated["channels"].items()} == {
        name: channel["address"] for name, channel in DOCUMENT["channels"].items() if name != "deliveries"
    }
    assert generated["info"] == DOCUMENT["info"]
    for name, event in EVENTS.items():
        (message,) = generated["channels"][name]["messages"].values()
        payload = within(generated, within(generated, message)["payload"])
        ours = DOCUMENT["components"]["messages"][event.__name__]["payload"]["schema"]
        committed = json.loads((FOLDER / ours["$ref"]).read_bytes())
        assert bare(payload)["properties"].keys() == committed["properties"].keys()
        for field, schema in committed["properties"].items():
            assert bare(payload["properties"][field]) == bare(schema), (name, field)
        assert payload["required"] == committed["required"]


def bare(schema: Any) -> Any:
    """A schema without titles, and with references by the name of their target alone."""
    if isinstance(schema, dict):
        kept = {
            key: bare(value) for key, value in schema.items() if key != "title" or not isinstance(value, str)
        }
        return {**kept, "$ref": kept["$ref"].rpartition("/")[2]} if "$ref" in kept else kept
    return [bare(each) for each in schema] if isinstance(schema, list) else schema


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
    return within(DOCUMENT, reference)


def within(document: Any, reference: dict[str, str]) -> Any:
    found: Any = document
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
    cause = "github:72d3162e-cc78-11e3-81ab-4c9367dc0958"
    headers, again = (
        envelope.to_headers(event_of(path), cause),
        envelope.to_headers(event_of(path), cause, "1"),
    )
    schema = DOCUMENT["components"]["schemas"]["EventHeaders"]
    assert (set(headers), {*again, envelope.TRACEPARENT}) == (
        set(schema["required"]),
        set(schema["properties"]),
    )
    Draft202012Validator(schema).validate(headers)
    Draft202012Validator(schema).validate(again)


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
        trace=f"00-{'a' * 32}-{'b' * 16}-01",
    )
    headers = delivery.to_headers(given, body_object="hash/name")
    schema = DOCUMENT["components"]["schemas"]["DeliveryHeaders"]
    assert {*schema["properties"], "Sender-x-github-event"} == set(headers)
    Draft202012Validator(schema).validate(headers)
    optional = {delivery.VERIFIED_BY, delivery.BODY_OBJECT, delivery.TRACEPARENT}
    assert set(schema["required"]) == set(schema["properties"]) - optional
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
