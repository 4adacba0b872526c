"""What stands beside the provider says the same as the provider: SSOT, contract page."""

from __future__ import annotations

from pathlib import Path

from ruamel.yaml import YAML

from providers.slack import PROVIDER
from providers.slack.normalize import REASONS
from tests.providers.slack.cases import CASE

ROOT = Path(__file__).parents[3]
DECLARED = YAML(typ="safe").load(ROOT / "ssot/providers/slack.yaml")


def test_the_ssot_file_names_kinds_that_we_know() -> None:
    assert {event.partition(".")[0] for event in DECLARED["events"]} <= set(REASONS)
    assert {sample.event for sample in CASE.samples} <= set(DECLARED["events"])
    assert (PROVIDER.name, False) == (DECLARED["name"], DECLARED.get("unsigned", False))


def test_the_contract_page_speaks_of_every_kind() -> None:
    page = (ROOT / "contracts/upstream/slack.md").read_text(encoding="utf-8")

    assert [] == [kind for kind in REASONS if f"`{kind}" not in page]


def test_each_kind_has_a_reason_of_its_own() -> None:
    assert len(set(REASONS.values())) == len(REASONS)
