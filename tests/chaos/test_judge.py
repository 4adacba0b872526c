"""Each law can be broken, and says by what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from contracts.delivery import Delivery
from services.notifier.message import message_id, render
from services.projector.publish import messages, parked_messages
from services.projector.understand import understand
from tests.chaos.judge import DESTINATION, LAWS, Facts, verdicts
from tests.chaos.load import Sent, runs
from tests.samples import SOURCES, body, delivery

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


class _NoJump:
    """A clock that is right."""

    def random(self) -> float:
        return 1.0


def _run() -> Delivery:
    _, raw = next(runs(_NoJump()))  # type: ignore[arg-type]
    return replace(delivery("workflow_run", raw, 1, "run"), received_at=datetime.now(UTC))


def _mad() -> Delivery:
    """One whose provider's clock is a day ahead."""
    raw = body("issues.opened.15")
    return replace(delivery("issues", raw, 2, "mad"), received_at=datetime(2000, 1, 1, tzinfo=UTC))


def _facts() -> Facts:
    """All is well."""
    log = [_run(), _mad()]
    run, mad = (understand(SOURCES, each) for each in log)
    assert (run.status, mad.status, mad.reason) == ("projected", "parked", "future_time")
    told = [render(statement.event) for statement in run.statements]
    return Facts(
        sent=[Sent(each.identity, each.kind, each.body, ["stored"]) for each in log],
        log=log,
        ledger=[("run", "projected", None), ("mad", "parked", "future_time")],
        events=[each.headers["ce-id"] for each in (*messages([run]), *parked_messages([mad]))],
        told=[message_id(DESTINATION, each.about, each.kind) for each in told if each],
    )


def test_when_all_is_well_nothing_is_broken() -> None:
    facts = _facts()
    assert facts.told and len(facts.events) > 1
    assert {name: [] for name in LAWS} == verdicts(facts)


@pytest.mark.parametrize(
    ("law", "harm", "said"),
    [
        ("acknowledged is in the ledger", lambda f: replace(f, ledger=f.ledger[1:]), "run"),
        ("nothing twice", lambda f: replace(f, ledger=[*f.ledger, f.ledger[0]]), "run (ledger)"),
        ("nothing twice", lambda f: replace(f, log=[*f.log, replace(f.log[0], seq=3)]), "run (log)"),
        (
            "each ended as it must",
            lambda f: replace(f, ledger=[f.ledger[0], ("mad", "projected", None)]),
            "mad",
        ),
        ("rows are a clean fold", lambda f: replace(f, unlike=["builds"]), "builds"),
        ("events once", lambda f: replace(f, events=f.events[1:]), "missing"),
        ("events once", lambda f: replace(f, events=[*f.events, f.events[0]]), "twice"),
        ("Slack once", lambda f: replace(f, told=[]), "missing"),
        ("Slack once", lambda f: replace(f, told=[*f.told, *f.told]), "twice"),
        ("Slack once", lambda f: replace(f, told=[*f.told, "another"]), "should not"),
        ("answers", lambda f: replace(f, sent=[Sent("run", "e", b"", ["wrong"], "500: oh")]), "500: oh"),
    ],
)
def test_a_broken_law_is_named_with_what_breaks_it(
    law: str, harm: Callable[[Facts], Facts], said: str
) -> None:
    found = verdicts(harm(_facts()))[law]
    assert found and said in found[0]


def test_what_is_old_news_is_not_expected_at_slack() -> None:
    facts = _facts()
    old = [replace(each, received_at=each.received_at + timedelta(hours=2)) for each in facts.log]
    assert verdicts(replace(facts, log=old, told=[]))["Slack once"] == []
