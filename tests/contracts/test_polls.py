"""What a poll says of itself, and how a long listing is told in parts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from contracts.envelope import Event
from contracts.observation import observation, observed_body
from contracts.polls import (
    LISTED_CHARS_MAX,
    LISTED_REFS_MAX,
    ListingCompleted,
    PollFinished,
    PollStarted,
    listing,
    moment_of_cut_off,
    moment_of_end,
    moment_of_start,
)
from runtime.streams import EVENT_BYTES_MAX, REF_BYTES_MAX

BEGAN = datetime(2026, 11, 1, 12, tzinfo=UTC)


def listed(**shown: list[str]) -> list[ListingCompleted]:
    return listing("github", "issues", BEGAN, shown)


AHEAD = BEGAN + timedelta(microseconds=1)
RUN: dict[str, Any] = {
    "source": "github",
    "ref": "github:poll/r",
    "moment": (0, 0, 0),
    "occurred_at": BEGAN,
    "run_id": "r",
    "scope": "issues",
    "triggered_by": "cron",
    "status": "success",
    "started_at": BEGAN,
}
STATED: dict[type[Event], dict[str, Any]] = {
    PollStarted: RUN,
    PollFinished: {**RUN, "finished_at": BEGAN},
    ListingCompleted: {**RUN, "kind": "issue"},
}


@pytest.mark.parametrize(
    ("event", "wrong"),
    [
        (PollStarted, {"started_at": AHEAD}),
        (PollFinished, {"started_at": AHEAD}),
        (PollFinished, {"finished_at": AHEAD}),
        (ListingCompleted, {"started_at": AHEAD}),
        (PollStarted, {"scope": "webhooks"}),
        (PollFinished, {"scope": "webhooks"}),
        (ListingCompleted, {"scope": "webhooks"}),
    ],
)
def test_no_time_of_a_poll_is_after_the_event_and_no_scope_is_that_of_webhooks(
    event: type[Event], wrong: dict[str, Any]
) -> None:
    """Only occurred_at is compared with the time of receipt: a row that grows would keep any later time for ever."""
    assert event(**STATED[event])
    with pytest.raises(ValidationError):
        event(**{**STATED[event], **wrong})


def test_a_short_listing_is_one_part_with_each_ref_once() -> None:
    [only] = listed(issue=["b", "a", "b"])

    assert (["a", "b"], 1, 1, "1/1") == (only.refs, only.part, only.parts, only.fact)
    assert ("github:scope/issues", "issue", BEGAN) == (only.ref, only.kind, only.started_at)


def test_an_empty_listing_is_one_part_that_shows_nothing() -> None:
    [only] = listed(issue=[])
    assert ([], 1, 1) == (only.refs, only.part, only.parts)


@pytest.mark.parametrize("chars", [10, REF_BYTES_MAX])
def test_every_part_of_a_long_listing_fits_into_an_event(chars: int) -> None:
    refs = [f"{n:0{chars}}" for n in range(LISTED_REFS_MAX + 1)]
    parts = listed(issue=refs)

    assert refs == [ref for part in parts for ref in part.refs]
    assert max(len(part.model_dump_json()) for part in parts) < EVENT_BYTES_MAX
    assert max(sum(map(len, part.refs)) for part in parts) <= LISTED_CHARS_MAX
    assert list(range(1, len(parts) + 1)) == [part.part for part in parts]
    assert {len(parts)} == {part.parts for part in parts} != {1}
    assert len(parts) == len({part.id for part in parts})


def test_a_listing_of_several_kinds_is_complete_with_the_last_of_them() -> None:
    parts = listed(issue=["a"], pull_request=["b"])

    assert [("issue", 1, 2), ("pull_request", 2, 2)] == [(part.kind, part.part, part.parts) for part in parts]


def test_the_end_of_a_poll_outranks_whoever_closed_it_later_and_that_outranks_its_start() -> None:
    start = moment_of_start(BEGAN)
    end = moment_of_end(BEGAN + timedelta(seconds=5))

    assert start < moment_of_cut_off(BEGAN) < moment_of_cut_off(BEGAN + timedelta(hours=1)) < end


@pytest.mark.parametrize("ref", ["digitalocean:droplet/1", "github:größe/x#1", "a" * 1_000, "with a space"])
def test_an_observation_has_one_identity_for_each_run_kind_ref_and_time_of_fetching(ref: str) -> None:
    def identity(run_id: str = "0197a8c0-5c1e-7d10-9b44-5b8a5c2f0a01", **other: Any) -> str:
        seen: dict[str, Any] = {"ref": ref, "kind": "issue", "fetched_at": BEGAN} | other
        return observation(
            source="github", body=observed_body("issues", {}), via="poll", run_id=run_id, **seen
        ).identity

    another = [
        identity("another"),
        identity(ref=f"{ref}2"),
        identity(kind="pull_request"),
        identity(fetched_at=BEGAN + timedelta(seconds=1)),
    ]
    assert identity() == identity()
    assert 5 == len({identity(), *another})
