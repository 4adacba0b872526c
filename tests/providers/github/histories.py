"""Lives of things at GitHub, as deliveries in the order in which they happened. Each breaks a naive way to fold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from contracts.delivery import Delivery
from contracts.observation import observed_body
from tests.providers.github.deliveries import delivery, observation, sample

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
RUN = 289782451
REPOSITORY = {"id": 186853002, "full_name": "Codertocat/Hello-World"}


def at(second: float) -> str:
    """A time in GitHub's way of writing."""
    return (NOON + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%SZ")


def history(*told: Delivery) -> list[Delivery]:
    """Deliveries as the log holds them: each at its sequence, received a minute after the one before."""
    return [
        replace(
            each,
            seq=seq,
            identity=f"{each.kind}-{seq}",
            received_at=NOON + timedelta(hours=1, minutes=seq),
        )
        for seq, each in enumerate(told, 1)
    ]


def run(action: str, status: str, conclusion: str | None, second: float, attempt: int = 1) -> Delivery:
    """A run attempt as a webhook tells it."""
    body = sample("workflow_run.completed.01") | {"action": action}
    body["repository"] |= REPOSITORY
    body["workflow_run"] |= _run(status, conclusion, second, attempt)
    return delivery("workflow_run", body)


def polled_run(status: str, conclusion: str | None, second: float, attempt: int = 1) -> Delivery:
    """The same run attempt as a poll finds it."""
    item = sample("workflow_run.completed.01")["workflow_run"]
    item |= _run(status, conclusion, second, attempt) | {"triggering_actor": {"login": "Codertocat"}}
    return observation("run", observed_body("repos/codertocat/hello-world/actions/runs", item))


def _run(status: str, conclusion: str | None, second: float, attempt: int) -> dict[str, Any]:
    return {
        "status": status,
        "conclusion": conclusion,
        "run_attempt": attempt,
        "created_at": at(0),
        "run_started_at": at(100 * attempt - 100),
        "updated_at": at(second),
        "repository": dict(REPOSITORY),
        "head_repository": dict(REPOSITORY),
    }


def job(action: str, status: str, conclusion: str | None, **times: float) -> Delivery:
    """A job; `times` are started_at and completed_at."""
    body = sample("workflow_job.completed.01") | {"action": action}
    body["repository"] |= REPOSITORY
    body["workflow_job"] |= {"status": status, "conclusion": conclusion, "created_at": at(0)}
    body["workflow_job"] |= {"started_at": None, "completed_at": None}
    body["workflow_job"] |= {name: at(second) for name, second in times.items()}
    return delivery("workflow_job", body)


def status(number: int, state: str, second: float, number_of_deployment: int = 0) -> Delivery:
    """A status of a deployment."""
    body = sample("deployment_status.created.00")
    body["deployment"]["id"] += number_of_deployment
    body["deployment_status"] |= {"id": number, "state": state, "created_at": at(second)}
    return delivery("deployment_status", body)


def issue(
    action: str, state: str, second: float, name: str = "Codertocat/Hello-World", **more: Any
) -> Delivery:
    """An issue as a webhook tells it."""
    body = sample("issues.opened.15") | {"action": action}
    body["repository"] |= {**REPOSITORY, "full_name": name}
    body["issue"] |= {"state": state, "created_at": at(0), "updated_at": at(second)} | more
    return delivery("issues", body)


def polled_issue(state: str, second: float, **more: Any) -> Delivery:
    """The same issue as a poll finds it."""
    item = sample("issues.opened.15")["issue"]
    item |= {"state": state, "created_at": at(0), "updated_at": at(second)} | more
    return observation("issue", observed_body("repos/Codertocat/Hello-World/issues", item))


def pinned(second: float) -> Delivery:
    """An issue that was pinned: the body lacks `state`, labels and assignee."""
    body = sample("issues.pinned.19")
    body["repository"] |= REPOSITORY
    body["issue"] |= {"number": 1, "updated_at": at(second)}
    return delivery("issues", body)


def repository(change: str, name: str, second: float, **changes: Any) -> Delivery:
    """A repository that changed."""
    body = sample("repository.created.01") | {"action": change, "changes": changes}
    body["repository"] |= {**REPOSITORY, "full_name": name, "updated_at": at(second), "pushed_at": at(0)}
    return delivery("repository", body)


def renamed(former: str, name: str, second: float) -> Delivery:
    """A repository that got another name of the same owner."""
    return repository("renamed", name, second, repository={"name": {"from": former.partition("/")[2]}})


def push(name: str, second: float) -> Delivery:
    """A push, by which the repository says its name."""
    body = sample("push.04")
    body["repository"] |= {
        **REPOSITORY,
        "full_name": name,
        "pushed_at": int((NOON + timedelta(seconds=second)).timestamp()),
    }
    body |= {"after": f"{int(second):040d}"}
    return delivery("push", body)


def installation(change: str, second: float, suspended: float | None = None, **permissions: str) -> Delivery:
    """An installation of an app; the end of a suspension shows the time of its beginning."""
    body = sample("installation.suspend.05") | {"action": change}
    body["installation"] |= {
        "updated_at": at(second),
        "suspended_at": None if suspended is None else at(suspended),
        "permissions": permissions,
    }
    return delivery("installation", body)


def transferred(second: float) -> Delivery:
    """An issue that moved to another repository."""
    body = sample("issues.transferred.21")
    body["issue"]["updated_at"] = at(second)
    body["changes"]["new_issue"] |= {"updated_at": at(second), "number": 7}
    return delivery("issues", body)


def transferred_from(second: float) -> Delivery:
    """What happened to that issue before."""
    body = sample("issues.transferred.21") | {"action": "labeled", "changes": None}
    body["issue"]["updated_at"] = at(second)
    return delivery("issues", body)


def deployment_asked_for() -> Delivery:
    """The deployment that `status` is about."""
    return delivery("deployment", sample("deployment.created.00"))


OLD, NEW, NEWEST = "Codertocat/Hello-World", "Codertocat/Hello", "Codertocat/Greetings"

HISTORIES: Mapping[str, Callable[[], Sequence[Delivery]]] = {
    "re-run": lambda: history(
        run("requested", "queued", None, 1),
        run("completed", "completed", "failure", 60),
        run("requested", "queued", None, 101, attempt=2),
        run("completed", "completed", "success", 160, attempt=2),
    ),
    "approval that continues an attempt": lambda: history(
        run("requested", "completed", "action_required", 1),
        run("completed", "completed", "action_required", 2),
        run("in_progress", "in_progress", None, 30),
        run("completed", "completed", "success", 60),
    ),
    "completed with status queued": lambda: history(
        run("requested", "queued", None, 1),
        run("in_progress", "in_progress", None, 9),
        run("completed", "queued", None, 5),
    ),
    "job whose start is filled while it queues": lambda: history(
        job("queued", "queued", None, started_at=0),
        job("waiting", "waiting", None, started_at=0),
        job("in_progress", "in_progress", None, started_at=20),
        job("completed", "completed", "failure", started_at=20, completed_at=80),
    ),
    "success to inactive": lambda: history(
        deployment_asked_for(),
        status(11, "in_progress", 1),
        status(12, "success", 2),
        status(13, "inactive", 2),
    ),
    "pinned without state": lambda: history(
        issue("opened", "open", 0),
        issue("closed", "closed", 5, closed_at=at(5)),
        pinned(9),
    ),
    "transferred": lambda: history(transferred_from(3), transferred(5)),
    "deleted in the second of a reopen": lambda: history(
        issue("opened", "open", 0),
        issue("closed", "closed", 5, closed_at=at(5)),
        issue("reopened", "open", 9),
        issue("deleted", "open", 9),
    ),
    "renamed": lambda: history(
        issue("opened", "open", 1, OLD),
        push(OLD, 2),
        renamed(OLD, NEW, 5),
        issue("labeled", "open", 7, NEW),
    ),
    "renamed there and back": lambda: history(
        push(OLD, 1), renamed(OLD, NEW, 5), renamed(NEW, OLD, 9), issue("opened", "open", 12, OLD)
    ),
    "renamed unheard": lambda: history(
        issue("opened", "open", 1, OLD), push(OLD, 2), push(NEWEST, 8), issue("labeled", "open", 9, NEWEST)
    ),
    "webhook, then a poll of an older state": lambda: history(
        run("requested", "queued", None, 1),
        run("completed", "completed", "success", 60),
        polled_run("in_progress", None, 90),
        issue("opened", "open", 1),
        issue("closed", "closed", 5, closed_at=at(5)),
        polled_issue("open", 4),
    ),
    "webhook, then a poll of the same state": lambda: history(
        run("requested", "queued", None, 1),
        polled_run("queued", None, 1),
        run("completed", "completed", "success", 60),
        polled_run("completed", "success", 60),
    ),
    "poll before its webhook": lambda: history(
        issue("opened", "open", 1),
        polled_issue("closed", 5, closed_at=at(5), labels=[{"name": "wontfix"}]),
        issue("labeled", "open", 5, labels=[{"name": "wontfix"}]),
        issue("closed", "closed", 5, closed_at=at(5), labels=[{"name": "wontfix"}]),
    ),
    "permission lost and regained": lambda: history(
        installation("created", 0, issues="write", checks="read"),
        installation("suspend", 20, suspended=20, issues="write", checks="read"),
        installation("unsuspend", 20, issues="write", checks="read"),
        installation("suspend", 40, suspended=40, issues="write", checks="read"),
        installation("new_permissions_accepted", 50, issues="read", checks="read"),
    ),
}
