"""Whoever states the facts of one of our own events need not know how refs, moments and ids are made of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from contracts import advisor, backups, exec_sessions, jobs
from contracts.backups import BackupFinished, BackupStarted
from contracts.own import (
    ASKED,
    END_WORDS,
    ENDED,
    RUNNING,
    SENTENCE_CHARS_MAX,
    SOURCE,
    STAGES,
    TIMED_OUT,
    OwnEvent,
    OwnRun,
    delivery_of,
)
from contracts.registry import EVENTS
from contracts.version import micros, moment
from tests.contracts.examples import EXAMPLES, event_of, stated, type_of

AT = datetime(2026, 11, 1, 12, tzinfo=UTC)
OWN = [path for path in EXAMPLES if issubclass(EVENTS[type_of(path)], OwnEvent)]
FOLLOWS = ("source", "ref", "moment", "fact")

each_own_example = pytest.mark.parametrize("path", OWN, ids=lambda path: path.stem)


@each_own_example
def test_what_follows_from_the_facts_may_be_left_out(path: Path) -> None:
    event = event_of(path)
    # Some are about a thing of somebody else's, which whoever says it has to name.
    kept = {"ref"} if type(event).model_fields["ref"].is_required() else set()
    kept |= {"source"} if event.source != SOURCE else set()
    said = {name: value for name, value in stated(path).items() if name not in {*FOLLOWS} - kept}

    assert event == EVENTS[event.type].model_validate_json(json.dumps(said))
    assert event.id == EVENTS[event.type].model_validate(said).id


@each_own_example
def test_a_moment_of_another_time_or_rank_is_refused(path: Path) -> None:
    major, at, rank = event_of(path).moment
    for other in ((major + 1, at, rank), (major, at + 1, rank), (major, at, rank + 1), (0, 0, -1)):
        with pytest.raises(ValidationError, match="moment_differs_from_the_facts"):
            EVENTS[type_of(path)].model_validate({**stated(path), "moment": other})


@each_own_example
def test_an_own_event_cannot_be_changed_once_it_is_made(path: Path) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        event_of(path).ref = "odooops:backup/other"  # type: ignore[misc]


def test_another_ref_than_the_facts_give_is_refused() -> None:
    with pytest.raises(ValidationError, match="ref_differs_from_the_facts"):
        BackupStarted(backup_id="b-1", occurred_at=AT, ref="odooops:backup/b-2")


@pytest.mark.parametrize(
    ("event", "major"),
    [
        (backups.BackupJobQueued(backup_job_id="1", action="clone", occurred_at=AT), ASKED),
        (BackupStarted(backup_id="1", occurred_at=AT), RUNNING),
        (BackupFinished(backup_id="1", occurred_at=AT, status="failed", timed_out=True), TIMED_OUT),
        (BackupFinished(backup_id="1", occurred_at=AT, status="failed"), ENDED),
        (exec_sessions.ExecSessionExpired(session_id="1", target="x", occurred_at=AT), TIMED_OUT),
        (jobs.JobStarted(job_id="1", job_type="x", occurred_at=AT, attempt=3), 3 * STAGES + RUNNING),
    ],
    ids=lambda value: value.type if isinstance(value, OwnRun) else "",
)
def test_how_far_a_thing_is_comes_before_the_time(event: OwnRun, major: int) -> None:
    assert moment(AT, 0, major=major) == event.moment


def test_a_job_of_the_last_attempt_still_has_a_moment() -> None:
    last = jobs.JobStarted(job_id="1", job_type="x", occurred_at=AT, attempt=jobs.ATTEMPTS_MAX)
    assert (jobs.ATTEMPTS_MAX * STAGES + RUNNING, micros(AT), 0) == last.moment


def test_two_ends_of_one_moment_are_two_facts_and_one_said_twice_is_one() -> None:
    def ended(status: str) -> BackupFinished:
        return BackupFinished(backup_id="b-1", occurred_at=AT, status=status)

    assert ended("success").id != ended("failed").id
    assert ended("success").id == ended("SUCCEEDED").id


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("success", "success"),
        ("success", " Completed "),
        ("failed", "TIMED-OUT"),
        ("failed", "timed out"),
        ("cancelled", "canceled"),
        ("unknown", "archived"),
        ("unknown", ""),
        ("unknown", "\u0000"),
    ],
)
def test_a_word_is_normalised_and_kept(word: str, said: str) -> None:
    event = BackupFinished(backup_id="b-1", occurred_at=AT, status=said)
    assert (word, said) == (event.status, event.stated_status)


@given(st.text())
def test_any_text_is_one_of_the_words(said: str) -> None:
    assert END_WORDS.word(said) in {*END_WORDS.known.values(), END_WORDS.otherwise}


@pytest.mark.parametrize("said", [{"stated_status": "Completed"}, {"status": "success"}])
def test_a_word_is_known_by_either_of_its_fields(said: dict[str, str]) -> None:
    event = BackupFinished.model_validate({"backup_id": "b-1", "occurred_at": AT, **said})
    assert "success" == event.status
    assert next(iter(said.values())) == event.stated_status


def test_a_fingerprint_is_the_documented_one_unless_the_scanner_has_its_own() -> None:
    known: dict[str, Any] = {
        "run_id": "1",
        "advisor": "posture",
        "rule": "disk",
        "resource_ref": "digitalocean:droplet/1",
        "pillar": "ops_excellence",
        "severity": "HIGH",
        "title": "Disk is full",
        "occurred_at": AT,
    }
    made, given_ = (
        advisor.AdvisorFindingFound(**known),
        advisor.AdvisorFindingFound(**known, fingerprint="of-its-own"),
    )
    # The first 16 digits of `printf 'disk::digitalocean:droplet/1' | sha256sum`.
    assert "697ce23f01c0e3a0" == made.fingerprint
    assert "odooops:advisor_finding/posture/of-its-own" == given_.ref
    assert ("operational_excellence", "high") == (made.pillar, made.severity)


def test_a_long_sentence_is_cut() -> None:
    event = BackupFinished(backup_id="b-1", occurred_at=AT, status="failed", error="é" * 5_000)
    assert SENTENCE_CHARS_MAX == len(event.error or "")


def test_an_own_delivery_is_known_by_its_event() -> None:
    event = BackupStarted(backup_id="b-1", occurred_at=AT)
    said = delivery_of(event, "job", AT)

    assert ("odooops", event.id, "backup.started", "job") == (said.source, said.identity, said.kind, said.via)
    assert event == BackupStarted.model_validate_json(said.body)
    assert "again" == delivery_of(event, "job", AT, "again").identity
