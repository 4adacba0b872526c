"""What stands beside the provider says the same as the provider: SSOT and the contract page."""

from __future__ import annotations

from pathlib import Path

from providers.mailgun.normalize import KINDS
from providers.mailgun.options import ACCEPTED_AGE_S
from tests.providers.mailgun.test_verify import ANSWERS
from tests.samples import SOURCES

PAGE = (Path(__file__).parents[3] / "contracts/upstream/mailgun.md").read_text()


def test_the_ssot_file_declares_a_signed_source_with_the_default_age() -> None:
    source = SOURCES["mailgun"]
    assert (False, ACCEPTED_AGE_S, None) == (
        source.file.unsigned,
        source.options.accepted_age_s,
        source.options.domain,
    )
    assert ["MAILGUN_SIGNING_KEY", "MAILGUN_SIGNING_KEY_2"] == source.file.secrets


def test_the_contract_page_speaks_of_every_event() -> None:
    assert PAGE.startswith("# C-20 / C-MAIL-01: ")
    assert [] == [event for event in KINDS if f"`{event}`" not in PAGE]


def test_the_contract_page_says_what_each_refusal_is_answered_with() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("|")]
    for reason, status in ANSWERS.items():
        assert [row for row in rows if f"`{reason}`" in row and f" {status} " in row], reason
