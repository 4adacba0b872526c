"""Histories of deployments and of what a target serves, in every order that they can come in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from itertools import permutations
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.delivery import Delivery
from read_models import deployment_targets, deployments
from read_models.merge import join_all
from read_models.port import ReadModel
from runtime.postgres import make_engine
from services.projector.understand import understand
from services.projector.write import Writer
from tests import samples
from tests.providers.driving import NOW
from tests.providers.github.deliveries import sample
from tests.providers.vercel.deliveries import Body, delivery, listed, observation, raw, webhook
from tests.samples import SOURCES
from tests.servers import Database
from tests.tables import SQL

PROJECT = "prj_6yRbTn3kQ9wMx2vLz8hFcJ5dGs4p"
T0 = 1_792_486_800_000
"""2026-10-20 09:00 UTC in milliseconds."""


def told(
    kind: str, uid: str = "dpl_a", at_s: float = 0, target: str | None = "production", **git: str
) -> Body:
    """A webhook about one deployment, `at_s` seconds after T0."""
    body = webhook("deployment.promoted" if kind == "promoted" else "deployment.ready")
    payload = body["payload"]
    payload["project"] = {"id": PROJECT}
    payload["name"] = payload["deployment"]["name"] = "shop"
    payload["deployment"] |= {"id": uid, "url": f"{uid}.vercel.app"}
    payload["deployment"]["meta"] |= git
    if kind != "promoted":
        payload["target"] = target
    return {**body, "type": f"deployment.{kind}", "createdAt": T0 + int(at_s * 1000)}


def rollback(to: str, instead_of: str, at_s: float) -> Body:
    """A webhook about a rollback."""
    body = webhook("deployment.rollback")
    body["payload"] |= {"project": {"id": PROJECT}, "toDeploymentId": to, "fromDeploymentId": instead_of}
    return {**body, "createdAt": T0 + int(at_s * 1000)}


def looked(state: str, at_s: float, uid: str = "dpl_a") -> Delivery:
    """A poll that saw a deployment in `state`."""
    like = told("ready", uid)["payload"]
    item = listed("BUILDING") | {
        "uid": uid,
        "projectId": PROJECT,
        "readyState": state,
        "state": state,
        "target": "production",
        "url": like["deployment"]["url"],
        "meta": like["deployment"]["meta"],
        "ready": T0 + 61_000,
        "errorMessage": "seen by a poll",
    }
    return observation(item, fetched_at=fetched(at_s))


def served(uid: str, at_s: float) -> Delivery:
    """A poll that saw what production serves."""
    item = {"id": PROJECT, "name": "shop", "targets": {"production": {"id": uid}}}
    return observation(item, fetched_at=fetched(at_s), kind="project")


def fetched(at_s: float) -> Any:
    """A time in our own clock."""
    return NOW.replace(month=10, day=20, hour=9) + timedelta(seconds=at_s)


def rows(model: ReadModel[Any], log: Sequence[Delivery]) -> dict[tuple[Any, ...], Any]:
    """The rows that a log makes, processed in the order given."""
    partial = []
    for entry in log:
        understood = understand(SOURCES, entry)
        assert understood.status == "projected", understood.error
        partial += [row for name, row in understood.rows if name == model.name]
    return join_all(model, partial)


def only_row(model: ReadModel[Any], history: Sequence[Body | Delivery]) -> dict[str, Any]:
    """The one row of a history, after it was tried in every order of processing and of arrival."""
    entries = [each if isinstance(each, Delivery) else delivery(each) for each in history]
    in_order = [replace(entry, seq=seq, identity=f"{seq}") for seq, entry in enumerate(entries, 1)]
    whole = rows(model, in_order)
    [row] = whole.values()
    for order in permutations(in_order):
        assert whole == rows(model, order)
    stated = _without_versions(model, row)
    for order in permutations(entries):
        arrived = [replace(entry, seq=seq, identity=f"{seq}") for seq, entry in enumerate(order, 1)]
        [other] = rows(model, arrived).values()
        assert stated == _without_versions(model, other)
    return stated


def _without_versions(model: ReadModel[Any], row: Any) -> dict[str, Any]:
    versions = {column.name for column in model.columns if column.rule.name == "version"}
    return {name: value for name, value in asdict(row).items() if name not in versions}


def deployment(*history: Body | Delivery) -> dict[str, Any]:
    return only_row(deployments.READ_MODEL, history)


def target(*history: Body | Delivery) -> dict[str, Any]:
    return only_row(deployment_targets.READ_MODEL, history)


def test_a_promotion_that_comes_before_ready_is_not_undone_by_it() -> None:
    row = deployment(
        told("created", at_s=0), told("succeeded", at_s=60), told("promoted", at_s=62), told("ready", at_s=63)
    )
    assert ("success", "promoted") == (row["status"], row["provider_status"])
    assert ("production", True, "prod") == (row["environment"], row["production"], row["env"])
    assert T0 + 60_000 == row["deployed_at"].timestamp() * 1000
    assert T0 + 62_000 == row["status_at"].timestamp() * 1000


def test_a_promotion_alone_leaves_the_target_unknown() -> None:
    row = deployment(told("promoted"))
    assert (None, None, None) == (row["environment"], row["production"], row["env"])
    assert ("success", "shop", PROJECT) == (row["status"], row["project"], row["project_id"])


def test_a_promotion_does_not_make_a_preview_belong_to_production() -> None:
    row = deployment(told("ready", target=None), told("promoted", at_s=9))
    assert ("preview", False, "stage") == (row["environment"], row["production"], row["env"])


def test_a_look_at_a_deployment_that_was_building_comes_too_late_for_one_that_is_ready() -> None:
    row = deployment(told("created"), told("ready", at_s=61), looked("BUILDING", at_s=90))
    assert ("success", "ready") == (row["status"], row["provider_status"])


def test_a_look_finds_the_end_that_no_webhook_told() -> None:
    row = deployment(told("created"), told("build-requested", at_s=1), looked("ERROR", at_s=90))
    assert ("failed", "error", "seen by a poll") == (
        row["status"],
        row["provider_status"],
        row["description"],
    )


@pytest.mark.parametrize(
    ("kind", "state"), [("ready", "READY"), ("error", "ERROR"), ("canceled", "CANCELED")]
)
def test_a_look_at_what_a_webhook_told_changes_nothing(kind: str, state: str) -> None:
    alone = deployment(told("created"), told(kind, at_s=62))
    both = deployment(told("created"), told(kind, at_s=62), looked(state, at_s=90))
    changed = {name for name, value in both.items() if value != alone[name]}
    assert changed <= {"deployed_at"}  # the API's time of the state itself is earlier than the message of it


@pytest.mark.parametrize("via", ["poll", "cli"])
def test_a_look_changes_nothing_whoever_looked(via: Any) -> None:
    """Not even where the state is younger by the API than by its message: an operator observes as a poll does."""
    row = deployment(told("created"), told("ready", at_s=60), replace(looked("READY", at_s=90), via=via))
    assert (T0 + 60_000, None) == (row["status_at"].timestamp() * 1000, row["description"])


def test_of_two_ends_that_contradict_each_other_the_worse_one_counts() -> None:
    assert "failed" == deployment(told("error", at_s=1), told("succeeded", at_s=2))["status"]
    assert "failed" == deployment(told("error", at_s=2), told("succeeded", at_s=1))["status"]
    assert "cancelled" == deployment(told("canceled", at_s=1), told("succeeded", at_s=2))["status"]


def test_all_samples_of_one_deployment_end_as_ready() -> None:
    names = ("created", "succeeded", "ready", "canceled", "error")
    row = deployment(*(webhook(f"deployment.{name}") for name in names))
    assert ("success", "ready", "preview") == (row["status"], row["provider_status"], row["environment"])


def test_a_deployment_that_was_let_go_on_waits_no_longer() -> None:
    waiting = deployment(told("created"), told("blocked", at_s=1), looked("QUEUED", at_s=2))
    assert "awaiting_authorization" == waiting["status"]
    assert "deploying" == deployment(told("blocked", at_s=1), looked("BUILDING", at_s=9))["status"]


def test_a_state_that_nobody_knows_hides_none_that_is_known() -> None:
    assert "unknown" == deployment(looked("INVENTED", at_s=9))["status"]
    assert "queued" == deployment(looked("QUEUED", at_s=1), looked("INVENTED", at_s=9))["status"]


def test_a_cleanup_is_the_last_word() -> None:
    history = (told("promoted"), told("cleanup", at_s=30), looked("READY", at_s=9))
    assert "inactive" == deployment(*history)["status"]


def test_a_second_promotion_is_later_than_the_first() -> None:
    row = deployment(told("promoted", at_s=1), told("promoted", at_s=500), told("ready", at_s=900))
    assert T0 + 500_000 == row["status_at"].timestamp() * 1000


def test_a_cancelled_deployment_never_counts_as_failed() -> None:
    row = deployment(told("created"), told("build-requested", at_s=1), told("canceled", at_s=2))
    assert ("cancelled", "canceled") == (row["status"], row["provider_status"])
    assert row["deployed_at"] is None


def test_a_success_at_github_may_go_back_to_inactive() -> None:
    """GitHub's statuses are a list that grows: the newest counts, whatever it says."""
    history = []
    for n, (state, minute) in enumerate(
        (("in_progress", 1), ("success", 2), ("inactive", 3), ("success", 4))
    ):
        body = sample("deployment_status.created.00")
        body["deployment_status"] |= {
            "id": 100 + n,
            "state": state,
            "created_at": f"2026-10-20T09:0{minute}:00Z",
            "updated_at": f"2026-10-20T09:0{minute}:00Z",
        }
        history.append(samples.delivery("deployment_status", raw(body), seq=n + 1))
    assert "inactive" == deployment(*history[:3])["status"]
    assert "success" == deployment(*history)["status"]


def test_a_target_serves_what_was_promoted_or_rolled_back_to_last() -> None:
    """A, then B, a rollback to A, and B again."""
    first, second = told("promoted", "dpl_a", 10), told("promoted", "dpl_b", 20)
    back, again = rollback("dpl_a", "dpl_b", 30), told("promoted", "dpl_b", 40)

    assert "vercel:dpl_b" == target(first, second)["deployment_ref"]
    row = target(first, second, back)
    assert ("vercel:dpl_a", "vercel:dpl_b") == (row["deployment_ref"], row["previous_ref"])
    assert ("rolled_back", False, "shop", "prod") == (
        *(row["change"], row["confirmed"], row["project"], row["env"]),
    )
    row = target(first, second, back, again)
    assert ("vercel:dpl_b", None, "promoted", True) == (
        *(row["deployment_ref"], row["previous_ref"], row["change"], row["confirmed"]),
    )


def test_a_look_confirms_a_rollback_or_shows_that_it_has_not_happened() -> None:
    history = (told("promoted", "dpl_b", 20), rollback("dpl_a", "dpl_b", 30))
    row = target(*history, served("dpl_b", at_s=31))
    assert ("vercel:dpl_b", "vercel:dpl_a", True) == (
        row["deployment_ref"],
        row["told_ref"],
        row["confirmed"],
    )
    row = target(*history, served("dpl_b", at_s=31), served("dpl_a", at_s=60))
    assert ("vercel:dpl_a", "vercel:dpl_a", True) == (
        row["deployment_ref"],
        row["told_ref"],
        row["confirmed"],
    )


def test_looks_do_not_change_when_and_by_whom_a_target_was_changed() -> None:
    promoted = told("promoted", "dpl_a", 20)
    alone = target(promoted)
    row = target(promoted, served("dpl_a", at_s=60), served("dpl_a", at_s=900))

    assert {"last_event_at"} == {name for name, value in row.items() if value != alone[name]}
    assert ("promoted", T0 + 20_000) == (row["change"], row["changed_at"].timestamp() * 1000)


def test_of_a_change_that_nobody_told_of_the_time_is_not_known() -> None:
    row = target(served("dpl_a", at_s=60), served("dpl_a", at_s=900))
    assert ("vercel:dpl_a", None, None, None) == (
        *(row["deployment_ref"], row["told_ref"], row["change"], row["changed_at"]),
    )


def test_a_look_from_before_a_promotion_does_not_undo_it() -> None:
    assert "vercel:dpl_b" == target(told("promoted", "dpl_b", 20), served("dpl_a", at_s=19))["deployment_ref"]


def test_production_that_is_ready_serves_nothing_that_we_know_of() -> None:
    log = [delivery(told(kind, at_s=n), seq=n) for n, kind in enumerate(("created", "succeeded", "ready"), 1)]
    assert {} == rows(deployment_targets.READ_MODEL, log)


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    made = make_engine(database.url("projector"), "test")
    yield made
    await made.dispose()


async def now(
    engine: AsyncEngine, database: Database, *history: Body | Delivery
) -> dict[str, tuple[Any, ...]]:
    """What the view says of each deployment after a history, by its ref: status, superseded, live."""
    entries = [each if isinstance(each, Delivery) else delivery(each) for each in history]
    log = [replace(entry, seq=seq, identity=f"{seq}") for seq, entry in enumerate(entries, 1)]

    async def read(seq: int) -> Delivery:
        return log[seq - 1]

    await Writer(engine, SQL, SOURCES, read).fold([understand(SOURCES, entry) for entry in log])
    reader = make_engine(database.url("reader"), "test")
    try:
        async with reader.connect() as connection:
            found = await connection.execute(
                text("SELECT ref, status, superseded, live FROM ops.deployments_now")
            )
            return {row.ref: (row.status, row.superseded, row.live) for row in found}
    finally:
        await reader.dispose()


@pytest.mark.anyio
async def test_a_cancelled_deployment_is_superseded_where_the_branch_has_a_newer_one(
    engine: AsyncEngine, database: Database
) -> None:
    """The webhook does not say why it was cancelled: the newer commit explains it."""
    branch, other = {"githubCommitRef": "feature/rounding"}, {"githubCommitRef": "another"}
    found = await now(
        engine,
        database,
        *(told(kind, "dpl_old", s, None, **branch) for kind, s in (("created", 0), ("canceled", 20))),
        *(told(kind, "dpl_new", s, None, **branch) for kind, s in (("created", 10), ("canceled", 30))),
        *(told(kind, "dpl_err", s, None, **other) for kind, s in (("created", 0), ("error", 20))),
        told("created", "dpl_else", 50, None, **other),
        told("created", "dpl_prod", 60, "production", **branch),
    )
    assert {
        "vercel:dpl_old": ("cancelled", True, None),
        "vercel:dpl_new": ("cancelled", False, None),
        "vercel:dpl_err": ("failed", False, None),
        "vercel:dpl_else": ("queued", False, None),
        "vercel:dpl_prod": ("queued", False, None),
    } == found


@pytest.mark.anyio
async def test_a_deployment_is_live_where_a_target_of_its_project_serves_it(
    engine: AsyncEngine, database: Database
) -> None:
    history = [
        told("ready", "dpl_a", 1),
        told("promoted", "dpl_a", 2),
        told("ready", "dpl_b", 3),
        told("promoted", "dpl_b", 4),
        rollback("dpl_a", "dpl_b", 5),
    ]
    found = await now(engine, database, *history)
    assert {"vercel:dpl_a": ("success", False, True), "vercel:dpl_b": ("success", False, False)} == found
