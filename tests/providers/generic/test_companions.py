"""What users read and copy holds: every example of docs/senders.md, and the committed example files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from contracts.envelope import Event
from contracts.ssot import EnvironmentsFile, ProviderFile, Ssot
from providers.port import Parcel, Receipt, Secret
from providers.registry import PROVIDERS, sources
from runtime import ssot
from tests.providers.driving import NOW, delivery_of, judge
from tests.providers.generic.styles import STYLES

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/senders.md").read_text(encoding="utf-8")
BLOCKS: list[dict[str, Any]] = [
    YAML(typ="safe").load(block)
    for block in re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
]
FILES = {block["name"]: block for block in BLOCKS if "name" in block}
OPTIONS = {style.name: style.all_options for style in STYLES}
GENERAL = ("standard", "cloudevents", "generic")


@pytest.mark.parametrize("name", FILES)
def test_an_example_of_the_page_is_a_valid_source_that_takes_what_it_should(name: str) -> None:
    file = ProviderFile.model_validate(FILES[name])
    source = sources(Ssot({name: file}))[name]
    secret = Secret("A_SECRET", source.provider.new_secret(b"\x02" * 32).encode())
    assert source.provider.compose is not None
    body = b'{"id": "1", "type": "t", "action": {"id": "2", "type": "u"}, "object_kind": "push"}'
    made = source.provider.compose(Parcel(body=body, event="test", delivery="d-1", at=NOW), source, secret)
    headers = {header.lower(): value for header, value in made.headers.items()}
    assert isinstance(judge(source, headers, made.body, [secret], query=made.query), Receipt)
    assert file.unsigned == isinstance(judge(source, {}, body, [secret]), Receipt)


@pytest.mark.parametrize("name", [name for name, block in FILES.items() if block["provider"] == "generic"])
def test_an_example_says_what_the_tested_style_says(name: str) -> None:
    assert name == "doorbell" or FILES[name]["options"] == OPTIONS[name]


def test_every_way_of_proof_has_an_example() -> None:
    shown = {way for block in FILES.values() for way in (block.get("options") or {}).get("verify") or ()}
    assert {"hmac", "bearer", "basic"} <= shown
    assert set(GENERAL) == {block["provider"] for block in FILES.values()}


def test_the_rule_of_the_page_sets_the_environment() -> None:
    [rules] = [EnvironmentsFile.model_validate(block) for block in BLOCKS if "rules" in block]
    assert "grafana" in rules.rules[0].source


def test_the_files_named_are_there() -> None:
    named = set(re.findall(r"`((?:ssot|tests)/[\w./]+\.\w+)`", PAGE))
    assert {name for name in named if (ROOT / name).is_file()} == named != set()


COMMITTED = {
    name: source
    for name, source in sources(ssot.load(ROOT / "ssot")).items()
    if source.provider.name in GENERAL
}


def test_there_is_one_committed_example_for_each() -> None:
    assert sorted(GENERAL) == sorted(source.provider.name for source in COMMITTED.values())
    assert {
        "/webhooks/standard/example", "/webhooks/cloudevents", "/webhooks/generic/example",
    } == {source.file.endpoint for source in COMMITTED.values()}  # fmt: skip


@pytest.mark.parametrize("name", COMMITTED)
def test_a_committed_example_takes_what_its_sender_would_send_and_makes_an_event(name: str) -> None:
    source = COMMITTED[name]
    assert source.provider.compose is not None
    assert not source.file.unsigned and source.file.secrets
    secret = Secret(source.file.secrets[0], source.provider.new_secret(b"\x03" * 32).encode())
    body = b'{"created_at": "2026-11-01T11:59:00Z", "object": {"id": 7}, "message": "full", "type": "x.y"}'
    made = source.provider.compose(Parcel(body=body, event="x.y", delivery="d-1", at=NOW), source, secret)
    headers = {header.lower(): value for header, value in made.headers.items()}
    receipt = judge(source, headers, made.body, [secret], query=made.query)
    assert isinstance(receipt, Receipt) and "x.y" == receipt.kind
    kept = {header: value for header, value in headers.items() if header.startswith(("ce-", "content-type"))}
    [event] = source.provider.normalize(
        delivery_of(source, receipt.kind, made.body, identity=receipt.identity, headers=kept), source
    )
    assert isinstance(event, Event) and event.ref.startswith(f"{name}:")


@pytest.mark.parametrize("name", GENERAL)
def test_the_contract_page_is_there_and_names_its_validators(name: str) -> None:
    page = (ROOT / "contracts/upstream" / f"{name}.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)`", page)
    assert named and all((ROOT / each).is_file() for each in named)
    assert name in PROVIDERS
