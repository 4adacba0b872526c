"""What stands beside the provider says the same as the provider: SSOT, contract page, demo samples."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from ruamel.yaml import YAML

from providers.github import PROVIDER
from providers.github.normalize import KINDS
from providers.github.observed import ITEMLESS, LISTINGS
from providers.port import Receipt, Secret
from read_models.registry import FRESHNESS, LEDGER
from services.projector.understand import understand
from tests.providers.driving import judge_composed
from tests.providers.github.cases import CASE
from tests.providers.github.deliveries import SOURCE, normalized

ROOT = Path(__file__).parents[3]
STORY: list[dict[str, Any]] = [
    told
    for told in json.loads((ROOT / "samples/deliveries.json").read_bytes())
    if told["source"] == PROVIDER.name
]


def test_the_ssot_file_subscribes_to_exactly_the_events_that_are_understood() -> None:
    declared = YAML(typ="safe").load(ROOT / "ssot/providers/github.yaml")
    assert sorted(KINDS) == declared["events"]
    assert (PROVIDER.name, False) == (declared["name"], declared.get("unsigned", False))


def test_the_ssot_file_names_tables_that_github_fills_and_every_form_of_ref() -> None:
    declared = YAML(typ="safe").load(ROOT / "ssot/providers/github.yaml")
    told = [understand({SOURCE.name: SOURCE}, CASE.delivery(each)) for each in CASE.samples]
    filled = {name for each in told for name, _ in each.rows} | {LEDGER.name, FRESHNESS.name}
    forms = [re.sub("<[^>]+>", "[^:#@]+", form) for form in declared["refs"]]
    said_of_its_webhook = {"healthcheck_runs"}
    assert set() == set(declared["feeds"]) - filled - said_of_its_webhook
    assert [] == [
        ref for each in told for ref in each.refs if not any(re.fullmatch(form, ref) for form in forms)
    ]


def test_the_contract_page_speaks_of_every_event_and_every_page_that_a_poll_reads() -> None:
    page = (ROOT / "contracts/upstream/github.md").read_text()
    assert [] == [event for event in (*KINDS, *LISTINGS, *ITEMLESS) if event not in page]


@pytest.mark.parametrize("told", STORY, ids=lambda told: str(told["file"]))
def test_a_delivery_of_the_story_is_accepted_under_its_own_name_and_means_something(
    told: dict[str, Any],
) -> None:
    body = (ROOT / "samples" / told["file"]).read_bytes()
    secret = Secret("GITHUB_WEBHOOK_SECRET", b"made up")
    assert Receipt(
        identity=str(UUID(told["delivery"])), kind=told["event"], verified_by=secret.name
    ) == judge_composed(SOURCE, secret, body, told["event"], told["delivery"])
    assert normalized(told["event"], body)


def test_the_story_tells_every_file_once() -> None:
    files = sorted(f"github/{path.name}" for path in (ROOT / "samples/github").iterdir())
    assert files == sorted(told["file"] for told in STORY)
    assert len(STORY) == len({told["delivery"] for told in STORY})
