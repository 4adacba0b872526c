"""What stands beside the provider says the same as the provider: SSOT, contract page."""

from __future__ import annotations

from pathlib import Path

from ruamel.yaml import YAML

from providers.plane import PROVIDER
from providers.plane.normalize import KINDS, NOT_FOLLOWED
from providers.plane.options import PlaneOptions

ROOT = Path(__file__).parents[3]
DECLARED = YAML(typ="safe").load(ROOT / "ssot/providers/plane.yaml")


def test_the_ssot_file_subscribes_to_exactly_the_events_that_are_understood() -> None:
    assert sorted(f"{kind}*" if kind.endswith(".") else kind for kind in KINDS) == sorted(DECLARED["events"])
    assert (PROVIDER.name, False) == (DECLARED["name"], DECLARED.get("unsigned", False))


def test_the_address_in_the_ssot_file_is_plainly_an_example() -> None:
    options = PlaneOptions.model_validate(DECLARED["options"])

    assert "example.com" in options.base_url and "example" in options.workspace


def test_the_contract_page_speaks_of_every_kind() -> None:
    page = (ROOT / "contracts/upstream/plane.md").read_text(encoding="utf-8")

    assert page.startswith("# C-21 / C-PLANE-02: ")
    families = {
        kind.rstrip(".").rpartition(".")[2].removesuffix("_issue") for kind in NOT_FOLLOWED - {"user"}
    }
    assert [] == [family for family in sorted(families) if family not in page]
    assert [] == [kind for kind in KINDS if kind not in page]


def test_nothing_is_both_understood_and_not_followed() -> None:
    assert not NOT_FOLLOWED & set(KINDS)
