"""What a sender hears that asks whether it may deliver."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from providers.cloudevents import PROVIDER
from providers.cloudevents.handshake import Options, answer, handshake
from providers.port import Answer, Refused, Request
from tests.providers.cloudevents.deliveries import fixture
from tests.providers.driving import NOW, source_of

RECORDED: dict[str, Any] = fixture("abuse-protection.http")
ORIGIN = "eventemitter.example.com"


def ask(origin: str | None, **options: Any) -> Answer | None:
    """The answer to OPTIONS from `origin`."""
    headers = {} if origin is None else {"webhook-request-origin": origin, "webhook-request-rate": "120"}
    request = Request(method="OPTIONS", headers=headers, received_at=NOW, receipt_id="r")
    return handshake(request, source_of(PROVIDER, options=options))


def grant(given: Answer | None) -> tuple[str | None, str | None]:
    """Whom an answer lets, and how often."""
    assert given is not None
    assert "POST" == given.headers["allow"]
    return given.headers.get("webhook-allowed-origin"), given.headers.get("webhook-allowed-rate")


def test_the_recorded_handshake_is_answered_as_recorded() -> None:
    asked = {name.lower(): value for name, value in RECORDED["request"]["headers"].items()}
    request = Request(method=RECORDED["request"]["method"], headers=asked, received_at=NOW, receipt_id="r")
    options = {"allowed_origins": [ORIGIN], "allowed_rate_per_min": 100}
    given = handshake(request, source_of(PROVIDER, options=options))
    assert given is not None
    wanted = {name.lower(): value for name, value in RECORDED["response"]["headers"].items()}
    assert wanted == {name: value for name, value in given.headers.items() if name in wanted}


def test_nobody_is_let_in_unless_ssot_names_it() -> None:
    for options in ({}, {"allowed_origins": ["example.com"]}, {"allowed_origins": ["x" + ORIGIN]}):
        refused = ask(ORIGIN, **options)
        assert (None, None) == grant(refused)
        assert refused is not None and 403 == refused.status
        assert "origin_not_allowed" == refused.body["reason"]


def test_a_name_counts_in_any_case() -> None:
    assert (ORIGIN, "*") == grant(ask(ORIGIN.upper(), allowed_origins=["other.example", ORIGIN]))


def test_any_may_be_let_in_and_no_strange_text_comes_back() -> None:
    assert ("*", "*") == grant(ask("é\r\nset-cookie: x", allowed_origins=["*"]))


def test_who_asks_for_something_else_is_not_answered_here() -> None:
    assert ask(None, allowed_origins=["*"]) is None


@pytest.mark.parametrize(
    "options",
    [
        {"allowed_origins": ["https://example.com"]},
        {"allowed_origins": ["*.example.com"]},
        {"allowed_origins": [""]},
        {"allowed_rate_per_min": 0},
        {"tolerance_s": 0},
        {"allowed_origin": ["*"]},
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Options.model_validate(options)


def test_an_answer_to_an_address_with_a_token_is_kept_by_no_cache() -> None:
    request = Request(
        method="POST", headers={}, query="access_token=x", received_at=NOW, receipt_id="receipt-1"
    )
    refused = Refused(401, "bad_token", "no")
    assert "private, no-store" == answer(refused, request).headers["cache-control"]
    bare = Request(method="POST", headers={}, received_at=NOW, receipt_id="receipt-1")
    assert "cache-control" not in answer(refused, bare).headers
