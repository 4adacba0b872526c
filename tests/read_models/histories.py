"""Histories that break a naive table of work items, and what the view ops.work_items_now must say at their end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from contracts.delivery import Delivery, body_sha256
from contracts.own import delivery_of
from contracts.polls import ListingCompleted, scope_ref
from contracts.version import moment
from providers.plane.verify import kind_of
from tests import samples
from tests.providers.driving import NOW
from tests.providers.plane.deliveries import observations, sample

ITEM = "a0a1a2a3-0001-4000-8000-000000000001"
REF = f"plane:{ITEM}"
TODO, DOING, DONE = (f"57d81c86-7c3a-4d7e-9a0c-6b6bb2c1f00{n}" for n in (1, 2, 3))
STATES = {
    TODO: {"id": TODO, "name": "Todo", "group": "unstarted"},
    DOING: {"id": DOING, "name": "In Progress", "group": "started"},
    DONE: {"id": DONE, "name": "Done", "group": "completed"},
}


@dataclass(frozen=True)
class History:
    """What was delivered, in the order in which it happened; `now` is what counts, by ref; `events` how many facts."""

    name: str
    deliveries: Sequence[Delivery]
    now: Mapping[str, Mapping[str, Any]]
    events: int


def at(minute: float) -> datetime:
    """A time of a history."""
    return NOW - timedelta(hours=2) + timedelta(minutes=minute)


def v1(minute: float, action: str = "updated", /, field: str | None = None, **data: Any) -> Delivery:
    """A webhook of v1 that shows the item as of a minute, and is received ten seconds later."""
    body = sample("v1-constructed-from-source/issue.updated.priority.body")
    body |= {"action": action}
    body["activity"] |= {"field": field, "old_value": "x", "new_value": "y"}
    body["data"] |= {
        "updated_at": at(minute).isoformat(),
        "state": STATES[TODO],
        "completed_at": None,
        **data,
    }
    return _plane(body, at(minute) + timedelta(seconds=10))


def v1_deleted(minute: float) -> Delivery:
    """A webhook of v1 that says nothing but that the item is deleted; all that it has of a time is its receipt."""
    body = {**sample("v1-docs/issue.delete.printed"), "data": {"id": ITEM}}
    return _plane(body, at(minute))


def v2_deleted(minute: float, updated: float) -> Delivery:
    """A webhook of v2 that shows what the item was before it was deleted."""
    body = sample("v2-constructed-from-docs/workitem.deleted")
    body |= {"event_id": f"event-{minute}", "entity_id": ITEM}
    body["previous_attributes"] |= {"id": ITEM, "updated_at": at(updated).isoformat()}
    return _plane(body, at(minute))


def listed_item(minute: float, **fields: Any) -> Delivery:
    """The item in a list that shows as little of it as the one in Plane's documentation."""
    [delivery] = observations(json.dumps({"results": [{"id": ITEM, **fields}]}).encode(), at(minute))
    return replace(delivery, identity=f"run-{minute}")


def v1_comment(minute: float) -> Delivery:
    """A comment on the item."""
    body = sample("v1-constructed-from-source/issue_comment.created.body")
    body["data"] |= {"updated_at": at(minute).isoformat()}
    return _plane(body, at(minute))


def v2(minute: float, verb: str, /, **data: Any) -> Delivery:
    """A webhook of v2: ids where people expect names."""
    body = sample("v2-constructed-from-docs/workitem.created")
    body |= {"event": f"workitem.{verb}", "event_id": f"event-{minute}", "entity_id": ITEM}
    body["data"] |= {"id": ITEM, "updated_at": at(minute).isoformat(), **data}
    return _plane(body, at(minute) + timedelta(seconds=10))


def polled(minute: float, fetched: float, /, **fields: Any) -> Delivery:
    """The item as the API showed it in one minute, changed last in another."""
    body = sample("rest/list-work-items.constructed")
    state = {"state": STATES[TODO], "completed_at": None}
    body["results"][0] |= {"id": ITEM, "updated_at": at(minute).isoformat(), **state, **fields}
    [delivery] = observations(json.dumps(body).encode(), at(fetched))
    return replace(delivery, identity=f"run-{fetched}")


def listed(begun: float, *refs: str) -> Delivery:
    """A complete listing that was begun in a minute and showed some refs."""
    started_at = at(begun)
    event = ListingCompleted(
        source="plane",
        ref=scope_ref("plane", "work-items"),
        moment=moment(started_at, 0),
        occurred_at=started_at,
        scope="work-items",
        kind="work_item",
        started_at=started_at,
        refs=list(refs),
    )
    return delivery_of(event, "poll", started_at + timedelta(seconds=30))


def issue(
    second: int, action: str, state: str, /, name: str = "opened.15", kind: str | None = None, **more: Any
) -> Delivery:
    """A webhook of GitHub about one issue, whose times are whole seconds. `kind` is the issue's type, where shown."""
    body = json.loads(samples.body(f"issues.{name}"))
    body |= {"action": action, **more}
    time = at(0) + timedelta(seconds=second)
    closed_at = time.isoformat() if state == "closed" else None
    body["issue"] |= {"updated_at": time.isoformat(), "state": state, "closed_at": closed_at}
    if kind:
        body["issue"] |= {"type": {"id": 1, "name": kind}}
    made = samples.delivery("issues", json.dumps(body).encode(), 1, f"guid-{second}-{action}")
    return replace(made, received_at=time + timedelta(seconds=1))


def _plane(body: Mapping[str, Any], received_at: datetime) -> Delivery:
    raw = json.dumps(body).encode()
    identity = body["event_id"] if "event_id" in body else f"sha256-{body_sha256(raw)}"
    return Delivery(
        source="plane",
        identity=identity,
        kind=kind_of(body["event"]),
        via="webhook",
        received_at=received_at,
        body=raw,
        body_sha256=body_sha256(raw),
        verified_by="PLANE_WEBHOOK_SECRET",
    )


CREATED = v1(0, "created", priority="high")
GITHUB = "github:Codertocat/Hello-World#1"

HISTORIES = (
    History(
        "a retry of plane has a new delivery id",
        [CREATED, replace(CREATED, received_at=at(10)), replace(CREATED, received_at=at(30))],
        {REF: {"title": "Nightly backup fails on stage", "status": "open", "deleted": False}},
        events=1,
    ),
    History(
        "one change of two fields is two webhooks of one snapshot",
        [
            CREATED,
            v1(5, field="state_id", state=STATES[DOING], priority="urgent"),
            v1(5, field="priority", state=STATES[DOING], priority="urgent"),
        ],
        {REF: {"status": "in_progress", "provider_status": "In Progress", "priority": "urgent"}},
        events=3,
    ),
    History(
        "archived",
        [CREATED, v1(5, field="archived_at", archived_at="2026-11-01")],
        {REF: {"archived": True, "deleted": False, "status": "open"}},
        events=2,
    ),
    History(
        "archived and restored",
        [
            CREATED,
            v1(5, field="archived_at", archived_at="2026-11-01"),
            v1(9, field="archived_at", archived_at=None),
        ],
        {REF: {"archived": False, "archived_at": None, "deleted": False}},
        events=3,
    ),
    History(
        "deleted with nothing but an id",
        [CREATED, v1(5, field="name", name="A better title"), v1_deleted(9)],
        {
            REF: {
                "deleted": True,
                "title": "A better title",
                "project_ref": "3b9b7a52-33a7-4a2b-8a35-7c5e5dd3f0b1",
            }
        },
        events=3,
    ),
    History(
        "what is said of a deleted item afterwards does not bring it back",
        [CREATED, v1_deleted(9), v1_comment(12)],
        {REF: {"deleted": True}},
        events=3,
    ),
    History(
        "an item that changes after a deletion was told is not deleted",
        [CREATED, v1_deleted(9), v1(12, field="name", name="Back")],
        {REF: {"deleted": False, "title": "Back"}},
        events=3,
    ),
    History(
        "deleted two seconds after a change, by a Plane whose clock is five seconds ahead",
        [CREATED, v1(9 + 5 / 60, field="name", name="Gone soon"), v1_deleted(9 + 2 / 60)],
        {REF: {"deleted": True, "title": "Gone soon"}},
        events=3,
    ),
    History(
        "deleted by a Plane whose clock is minutes ahead, which shows when it was changed",
        [CREATED, v1(14, field="name", name="Gone soon"), v2_deleted(9, 14)],
        {REF: {"deleted": True, "title": "Gone soon"}},
        events=3,
    ),
    History(
        "listed again ten seconds after the deletion was told",
        [CREATED, v1_deleted(9), listed(9 + 10 / 60, REF)],
        {REF: {"deleted": False}},
        events=3,
    ),
    History(
        "a list that shows little wipes nothing out",
        [
            v2(
                5,
                "updated",
                state_id=DONE,
                completed_at=at(5).isoformat(),
                archived_at="2026-11-01",
                type_id="bug",
            ),
            listed_item(15, name="Later", priority="low", state=DONE),
        ],
        {REF: {"closed_at": at(5), "archived": True, "priority": "high", "item_type": "bug"}},
        events=2,
    ),
    History(
        "a type that a later sight does not show",
        [issue(0, "opened", "open", kind="Bug"), issue(5, "closed", "closed")],
        {GITHUB: {"item_type": "Bug", "status": "done"}},
        events=2,
    ),
    History(
        "permission lost and regained: told as deleted, then listed again",
        [CREATED, v1_deleted(9), listed(15, REF)],
        {REF: {"deleted": False, "title": "Nightly backup fails on stage"}},
        events=3,
    ),
    History(
        "a listing that was begun before the deletion proves nothing",
        [CREATED, listed(8, REF), v1_deleted(9), listed(20)],
        {REF: {"deleted": True}},
        events=4,
    ),
    History(
        "a title goes from a to b to a",
        [v1(0, "created", name="A"), v1(5, field="name", name="B"), v1(9, field="name", name="A")],
        {REF: {"title": "A"}},
        events=3,
    ),
    History(
        "a state goes from a to b to a",
        [
            v1(0, "created"),
            v1(5, field="state", state=STATES[DONE], completed_at=at(5).isoformat()),
            v1(9, field="state", state=STATES[TODO]),
        ],
        {REF: {"status": "open", "provider_status": "Todo", "closed_at": None}},
        events=3,
    ),
    History(
        "a bare state is unknown, not old",
        [polled(0, 1), v2(5, "updated", state_id=DOING)],
        {REF: {"state_id": DOING, "status": None, "provider_status": None, "labels": ["ops"]}},
        events=2,
    ),
    History(
        "a bare state that completes is done",
        [polled(0, 1), v2(5, "updated", state_id=DONE, completed_at=at(5).isoformat())],
        {REF: {"status": "done", "provider_status": None}},
        events=2,
    ),
    History(
        "a bare state and then its name",
        [
            v2(0, "created", state_id=TODO),
            v2(5, "updated", state_id=DOING),
            polled(5, 15, state=STATES[DOING]),
        ],
        {REF: {"status": "in_progress", "provider_status": "In Progress", "assignees": ["ada", "grace"]}},
        events=3,
    ),
    History(
        "a bare state that went away and came back has its name again",
        [polled(0, 1), v2(5, "updated", state_id=DOING), v2(9, "updated", state_id=TODO)],
        {REF: {"status": "open", "provider_status": "Todo"}},
        events=3,
    ),
    History(
        "an older sight by poll does not undo a newer webhook",
        [polled(0, 6), v1(5, field="name", name="Newer")],
        {REF: {"title": "Newer"}},
        events=2,
    ),
    History(
        "deleted in the second of a reopen",
        [
            issue(0, "opened", "open"),
            issue(5, "closed", "closed"),
            issue(9, "reopened", "open"),
            issue(9, "deleted", "open"),
        ],
        {GITHUB: {"deleted": True, "status": "open", "priority": None}},
        events=4,
    ),
    History(
        "transferred",
        [samples.delivery("issues", samples.body("issues.transferred.21"), 1)],
        {
            "github:octo-org/octo-repo#1": {"deleted": True, "moved_to": "github:Codertocat/Hello-World#1"},
            "github:Codertocat/Hello-World#1": {"deleted": False, "status": "open", "moved_to": None},
        },
        events=2,
    ),
)
