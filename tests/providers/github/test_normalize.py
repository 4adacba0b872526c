"""What GitHub's deliveries mean: every sample against its reviewed outcome, and what cannot be read.

The traps of each family of events are in the files beside this one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.envelope import Event
from contracts.registry import EVENTS, decode
from providers.github import PROVIDER
from providers.github.normalize import KINDS
from providers.port import Ignored, Unintelligible
from tests.providers.github.deliveries import (
    EXPECTED,
    RECEIVED_AT,
    SAMPLES,
    SOURCE,
    delivery,
    expected_path,
    ignored,
    normalized,
    only,
    outcome,
    parked,
    sample,
)

each_sample = pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)


@each_sample
def test_a_sample_becomes_what_was_reviewed(path: Path) -> None:
    assert json.loads(expected_path(path).read_bytes()) == outcome(path)


def test_there_is_an_outcome_for_each_sample_and_no_other() -> None:
    assert sorted(map(expected_path, SAMPLES)) == sorted(EXPECTED.glob("*/*.json"))


def test_there_are_samples_of_every_event_that_is_understood() -> None:
    assert set(KINDS) == {path.parent.name for path in SAMPLES}


@each_sample
def test_what_a_sample_becomes_survives_the_wire(path: Path) -> None:
    for event in normalized(path.parent.name, path.read_bytes()):
        assert event == decode(event.type, event.model_dump_json().encode())
        assert EVENTS[event.type] is type(event)


@each_sample
def test_an_id_does_not_depend_on_the_receipt(path: Path) -> None:
    later = RECEIVED_AT + timedelta(hours=5)
    now = normalized(path.parent.name, path.read_bytes())
    then = normalized(path.parent.name, path.read_bytes(), received_at=later)
    assert [event.id for event in now] == [event.id for event in then]
    assert [event.moment for event in now] == [event.moment for event in then]


@each_sample
def test_ids_are_unique_within_a_delivery(path: Path) -> None:
    events = normalized(path.parent.name, path.read_bytes())
    assert len(events) == len({event.id for event in events})


@each_sample
def test_a_form_means_what_its_json_means(path: Path) -> None:
    form = urlencode({"payload": path.read_text()}).encode()
    plain = normalized(path.parent.name, path.read_bytes())
    wrapped = normalized(
        path.parent.name, form, content_type="application/x-www-form-urlencoded; charset=utf-8"
    )
    assert plain == wrapped


@each_sample
def test_a_sample_under_another_events_header_parks(path: Path) -> None:
    for event in KINDS.keys() - {path.parent.name}:
        assert "shape_mismatch" == parked(event, path.read_bytes()).reason


@each_sample
def test_a_body_without_sender_still_means_something(path: Path) -> None:
    body = json.loads(path.read_bytes())
    body.pop("sender", None)
    body.pop("pusher", None)
    for field in ("actor", "triggering_actor"):
        (body.get("workflow_run") or {}).pop(field, None)
    assert {None} == {event.actor for event in normalized(path.parent.name, body)}


MAIN_OBJECTS = {
    "check_run": "check_run",
    "check_suite": "check_suite",
    "deployment": "deployment",
    "deployment_status": "deployment_status",
    "installation": "installation",
    "issue_comment": "comment",
    "issues": "issue",
    "meta": "hook",
    "ping": "hook",
    "pull_request": "pull_request",
    "push": "ref",
    "repository": "repository",
    "workflow_job": "workflow_job",
    "workflow_run": "workflow_run",
}


@pytest.mark.parametrize(("event", "field"), sorted(MAIN_OBJECTS.items()))
@pytest.mark.parametrize("how", ["absent", "null"])
def test_a_body_without_its_main_object_parks_and_the_field_is_named(
    event: str, field: str, how: str
) -> None:
    path = next(path for path in SAMPLES if path.parent.name == event)
    body = json.loads(path.read_bytes())
    if how == "absent":
        del body[field]
    else:
        body[field] = None
    problem = parked(event, body)
    assert "shape_mismatch" == problem.reason
    assert field in str(problem)


@pytest.mark.parametrize("body", [b"", b"Hello, World!", b'{"action": ', b"\xff\xfe\xfd"])
def test_a_body_that_is_no_json_parks(body: bytes) -> None:
    assert "not_json" == parked("issues", body).reason


def test_a_form_without_payload_parks() -> None:
    form = "application/x-www-form-urlencoded"
    assert "not_json" == parked("issues", b"other=%7B%7D", content_type=form).reason


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"null", b"{}"])
def test_json_that_is_no_such_body_parks(body: bytes) -> None:
    assert "shape_mismatch" == parked("issues", body).reason


def test_why_a_body_parks_never_shows_what_is_in_it() -> None:
    body = sample("issues.opened.15")
    body["issue"] |= {
        "number": "hunter2",
        "updated_at": "hunter2",
        "labels": "hunter2",
        "state": {"hunter2": 1},
    }
    problem = parked("issues", body)
    assert "shape_mismatch" == problem.reason
    assert "hunter2" not in str(problem)
    assert "issue.number" in str(problem)
    assert "1 more" in str(problem)


@pytest.mark.parametrize(("thing", "field"), [("issue", "number"), ("repository", "id")])
@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**400, 1.5, "one", None])
def test_a_number_that_is_no_int64_parks(thing: str, field: str, value: object) -> None:
    body = sample("issues.opened.15")
    body[thing][field] = value
    assert "shape_mismatch" == parked("issues", body).reason


def test_the_greatest_int64_is_a_number() -> None:
    body = sample("workflow_run.completed.01")
    body["workflow_run"]["id"] = 2**63 - 1
    assert 2**63 - 1 == only("workflow_run", body).run_id


def test_a_time_without_zone_parks() -> None:
    body = sample("issues.opened.15")
    body["issue"]["updated_at"] = "2019-05-15T15:20:18"
    assert "issue.updated_at (timezone_aware)" in str(parked("issues", body))


@pytest.mark.parametrize("event", ["star", "release", "", "observed.issue"])
def test_an_event_that_we_do_not_know_is_ignored(event: str) -> None:
    assert "no_such_event" == ignored(event, {"action": "created"})


@pytest.mark.parametrize(
    "name",
    ["workflow_run.completed.01", "workflow_job.queued.05", "deployment.created.00", "meta.deleted.00"],
)
def test_an_action_that_we_do_not_know_is_ignored_where_it_decides(name: str) -> None:
    assert "no_such_action" == ignored(name.partition(".")[0], sample(name) | {"action": "invented"})


def test_an_action_that_github_adds_to_items_is_an_update() -> None:
    event = only("issues", sample("issues.opened.15") | {"action": "typed"})
    assert ("work_item.updated", "typed", True) == (event.type, event.change, event.stated)


def test_without_the_header_the_kind_names_the_event() -> None:
    stored = delivery("issues", sample("issues.opened.15"))
    [event] = PROVIDER.normalize(replace(stored, headers={}), SOURCE)
    assert "work_item.opened" == event.type


def test_the_header_names_the_event_without_case_as_the_stored_kind_does() -> None:
    stored = delivery("issues", sample("issues.opened.15"))
    [event] = PROVIDER.normalize(
        replace(stored, headers={**stored.headers, "x-github-event": "Issues"}), SOURCE
    )
    assert "work_item.opened" == event.type


def test_nul_and_lone_surrogates_become_the_replacement_character() -> None:
    raw = json.dumps(sample("issues.opened.15")).replace("Spelling error", "a\\u0000b\\ud800c")
    assert "a\ufffdb\ufffdc in the README file" == only("issues", raw.encode()).title


def test_a_lone_surrogate_alone_becomes_the_replacement_character() -> None:
    raw = json.dumps(sample("issues.opened.15")).replace("Spelling error", "b\\udfffc")
    assert "b\ufffdc in the README file" == only("issues", raw.encode()).title


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a decoded body with every key or index of it."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])


SURPRISES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "\ud800", "\x00", 1e300]),
    st.lists(st.none(), max_size=2),
    st.dictionaries(st.text(max_size=5), st.none(), max_size=2),
)


@settings(deadline=None, max_examples=150)
@given(path=st.sampled_from(SAMPLES), surprise=SURPRISES, data=st.data())
def test_any_value_anywhere_is_understood_ignored_or_parked(
    path: Path, surprise: Any, data: st.DataObject
) -> None:
    body = json.loads(path.read_bytes())
    container, key = data.draw(st.sampled_from(list(places(body))))
    container[key] = surprise
    events: list[Event] = []
    with suppress(Ignored, Unintelligible):
        events = normalized(path.parent.name, body)
    assert events == [decode(event.type, event.model_dump_json().encode()) for event in events]
    assert len(events) == len({event.id for event in events})


def test_a_thousand_wrong_items_make_one_complaint() -> None:
    body = sample("issues.opened.15")
    body["issue"]["labels"] = [0] * 1_000

    assert "more" not in str(parked("issues", body))
