"""Each law can be broken, and says by what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from contracts.delivery import Delivery
from providers.port import Composed
from services.notifier.message import message_id, render
from services.projector.publish import messages, parked_messages
from services.projector.understand import understand
from tests.chaos.judge import DESTINATION, LAWS, Facts, verdicts
from tests.chaos.load import Answer, Sent, Try, runs, sent
from tests.chaos.plan import Kind
from tests.chaos.run import Run, never
from tests.samples import SOURCES, body, delivery

NOW = datetime.now(UTC)
SOON = timedelta(seconds=1)


class _Right(Random):
    """Which lets no clock jump."""

    def random(self) -> float:
        return 1.0


def _log() -> list[Delivery]:
    """An end of a run that is news, and an issue of a provider whose clock is a day ahead."""
    run = sent(next(runs()), "run", _Right()).request.body
    issue = body("issues.opened.15")
    return [
        replace(delivery("workflow_run", run, 1, "run"), received_at=NOW),
        replace(delivery("issues", issue, 2, "mad"), received_at=datetime(2000, 1, 1, tzinfo=UTC)),
    ]


def _sent(each: Delivery, *answers: Answer) -> Sent:
    began_at, ended_at = each.received_at - SOON, each.received_at + SOON
    request = Composed(headers={}, body=each.body)
    return Sent(
        each.identity, "/webhooks/github", request, [Try(answer, began_at, ended_at) for answer in answers]
    )


def _facts() -> Facts:
    """All is well."""
    log = _log()
    run, mad = (understand(SOURCES, each) for each in log)
    assert (run.status, mad.status, mad.reason) == ("projected", "parked", "future_time")
    told = [render(statement.event) for statement in run.statements]
    return Facts(
        sent=[_sent(each, "stored") for each in log],
        log=log,
        ledger=[("run", "projected", None), ("mad", "parked", "future_time")],
        events=[each.headers["ce-id"] for each in (*messages([run]), *parked_messages([mad]))],
        told=[message_id(DESTINATION, each.about, each.kind) for each in told if each],
    )


def _other_body(each: Delivery) -> Delivery:
    return replace(each, body=each.body + b" ")


def _later(each: Delivery) -> Delivery:
    return replace(each, received_at=each.received_at + 2 * SOON)


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
        ("nothing twice", lambda f: replace(f, log=[*f.log, _other_body(f.log[0])]), "run (log)"),
        ("the log is what was sent", lambda f: replace(f, log=[_other_body(f.log[0])]), "bytes"),
        ("the log is what was sent", lambda f: replace(f, sent=f.sent[1:]), "run was sent by nobody"),
        ("the log is what was sent", lambda f: replace(f, log=[_later(f.log[0])]), "cannot have come"),
        ("each ended as it must", lambda f: replace(f, log=f.log[:1]), "mad is not in the log"),
        (
            "answers",
            lambda f: replace(f, sent=[replace(_sent(f.log[0], "wrong"), words="500: oh")]),
            "500: oh",
        ),
    ],
)
def test_a_broken_law_is_named_with_what_breaks_it(
    law: str, harm: Callable[[Facts], Facts], said: str
) -> None:
    found = verdicts(harm(_facts()))[law]
    assert found and said in found[0]


@pytest.mark.parametrize(
    ("answers", "late"), [(["stored"], False), (["unknown"], True), (["unknown", "stored"], True)]
)
def test_what_was_not_answered_may_have_come_later(answers: list[Answer], late: bool) -> None:
    came = _log()[0]
    facts = replace(_facts(), sent=[_sent(came, *answers)], log=[_later(came)])
    assert late == (verdicts(facts)["the log is what was sent"] == [])


def test_what_is_old_news_is_not_expected_at_slack() -> None:
    facts = _facts()
    old = [replace(each, received_at=each.received_at + timedelta(hours=2)) for each in facts.log]
    assert verdicts(replace(facts, log=old, told=[]))["Slack once"] == []


def test_what_never_happened_in_any_run_is_named() -> None:
    tally = {"large": 1, "stored": 9, "spooled": 1, "unknown": 1, "refused (spool_full)": 0}
    kill: Kind = ("kill", "nats")
    fill: Kind = ("fill", "nats")
    first = Run(1, 60.0, 1, planned={kill: 2, fill: 1}, hit={kill: 1}, tally=tally, parked=1)
    assert never([first]) == ["fill nats", "a delivery that is refused (spool_full)"]
    second = replace(first, hit={fill: 1}, tally={"refused (spool_full)": 3})
    assert never([first, second]) == []
