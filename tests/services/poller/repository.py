"""A repository at GitHub: what happens in it, the webhooks that tell of it, and the API that shows it as it is now."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, tzinfo
from random import Random
from typing import Any

import pytest

from contracts.delivery import Delivery
from contracts.ssot import Api as DeclaredApi
from providers.port import Source
from providers.registry import PROVIDERS
from services.poller import asking, run, turn
from tests.api import NOT_FOUND, Api, Call, Handler, Reply, by_link
from tests.samples import SOURCES, body, delivery

NAME = "acme/shop"
ENDPOINT = "https://ops.example.com/webhooks/github"
HOME = {
    "id": 186_853_002,
    "name": NAME.partition("/")[2],
    "full_name": NAME,
    "url": f"https://api.github.com/repos/{NAME}",
    "html_url": f"https://github.com/{NAME}",
}
HOOK = 1
START_AGO = timedelta(hours=4)
POLLED_AFTER = timedelta(minutes=2)
"""GitHub is not asked again for what it may be about to deliver."""
GONE = Reply({"message": "This issue was deleted"}, 410)
ACCEPTED = Reply({}, 202)

Json = dict[str, Any]


@dataclass
class Webhook:
    """What GitHub posts, and how each attempt at it went."""

    event: str
    guid: str
    body: bytes
    at: datetime
    attempts: list[bool] = field(default_factory=list)

    @property
    def delivered(self) -> bool:
        return any(self.attempts)

    def delivery(self, received_at: datetime | None = None) -> Delivery:
        """As ingest stores it."""
        made = delivery(self.event, self.body, 0, self.guid)
        return replace(made, received_at=received_at or self.at + timedelta(seconds=1))


def github(api: Api) -> Source:
    """The repository's source, with its API at `api`."""
    declared = DeclaredApi(base_url=api.address, auth="bearer", secret="GITHUB_TOKEN")
    file = SOURCES["github"].file.model_copy(update={"api": declared, "options": {"repositories": [NAME]}})
    options = PROVIDERS["github"].options.model_validate(file.options)
    return replace(SOURCES["github"], file=file, options=options)


class Repository:
    """Starts empty, some hours ago; each act takes it a few seconds on. `sent` is what GitHub posted, in order."""

    def __init__(self, seed: int = 1) -> None:
        self.now = (datetime.now(UTC) - START_AGO).replace(microsecond=0)
        self.random = Random(seed)
        self.issues: dict[int, Json] = {}
        self.deleted: set[int] = set()
        self.runs: dict[int, Json] = {}
        self.deployments: dict[int, Json] = {}
        self.statuses: dict[int, list[Json]] = {}
        self.sent: list[Webhook] = []
        self.asked_again: list[str] = []

    def live(self, acts: int, lost_share: float = 0) -> None:
        """Let things happen at random; of the webhooks, a share is lost."""
        for _ in range(acts):
            self.now += timedelta(seconds=self.random.randint(1, 20))
            before = len(self.sent)
            self._choose()()
            for webhook in self.sent[before:]:
                webhook.attempts.append(self.random.random() >= lost_share)

    def keep_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let polls happen at this repository's time, some minutes after what happened last."""

        class Clock(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> Any:
                return self.now + POLLED_AFTER

        for module in (asking, run, turn):
            monkeypatch.setattr(module, "datetime", Clock)

    def deliveries(self) -> list[Delivery]:
        """What arrived."""
        return [webhook.delivery() for webhook in self.sent if webhook.delivered]

    # What happens.

    def _choose(self) -> Callable[[], None]:
        here = [number for number in self.issues if number not in self.deleted]
        going = [number for number, run in self.runs.items() if run["status"] != "completed"]
        acts: list[Callable[[], None]] = [self._open_issue] * 3 + [self._request_run, self._deploy]
        if here:
            number = self.random.choice(here)
            acts += [lambda: self._change(number)] * 6 + [lambda: self._delete(number)]
        if going:
            acts += [lambda: self._advance(self.random.choice(going))] * 4
        if self.deployments:
            acts += [lambda: self._status(self.random.choice(list(self.deployments)))] * 2
        return self.random.choice(acts)

    def _open_issue(self) -> None:
        number = len(self.issues) + 1
        sample = json.loads(body("issues.opened.15"))["issue"]
        self.issues[number] = {
            **_at_home(sample, f"issues/{number}"),
            "id": 1_000 + number,
            "number": number,
            "title": f"Issue {number}",
            "state": "open",
            "closed_at": None,
            "created_at": _text(self.now),
            "updated_at": _text(self.now),
        }
        self._post("issues", "opened", issue=self.issues[number])

    def _change(self, number: int) -> None:
        issue = self.issues[number]
        closed = issue["state"] == "closed"
        action = self.random.choice(["edited", "reopened" if closed else "closed"])
        if action == "edited":
            issue["title"] = f"Issue {number}, called so at {_text(self.now)}"
        else:
            issue["state"] = "open" if closed else "closed"
            issue["closed_at"] = None if closed else _text(self.now)
        issue["updated_at"] = _text(self.now)
        self._post("issues", action, issue=issue)

    def _delete(self, number: int) -> None:
        self.deleted.add(number)
        self.issues[number]["updated_at"] = _text(self.now)
        self._post("issues", "deleted", issue=self.issues[number])

    def _request_run(self) -> None:
        number = 5_000 + len(self.runs)
        said = json.loads(body("workflow_run.completed.00"))
        self.runs[number] = {
            **_at_home(said["workflow_run"], f"actions/runs/{number}"),
            "repository": HOME,
            "actor": said["sender"],
            "triggering_actor": said["sender"],
            "id": number,
            "run_number": number,
            "status": "queued",
            "conclusion": None,
            "created_at": _text(self.now),
            "run_started_at": _text(self.now),
            "updated_at": _text(self.now),
        }
        self._post("workflow_run", "requested", workflow_run=self.runs[number])

    def _advance(self, number: int) -> None:
        run = self.runs[number]
        ends = run["status"] == "in_progress"
        run["status"] = "completed" if ends else "in_progress"
        run["conclusion"] = self.random.choice(["success", "failure"]) if ends else None
        run["updated_at"] = _text(self.now)
        self._post("workflow_run", run["status"], workflow_run=run)

    def _deploy(self) -> None:
        number = 7_000 + len(self.deployments)
        sample = json.loads(body("deployment.created.00"))["deployment"]
        self.deployments[number] = {
            **_at_home(sample, f"deployments/{number}"),
            "id": number,
            "created_at": _text(self.now),
            "updated_at": _text(self.now),
        }
        self.statuses[number] = []
        self._post("deployment", "created", deployment=self.deployments[number])

    def _status(self, number: int) -> None:
        said = json.loads(body("deployment_status.created.00"))["deployment_status"]
        count = sum(map(len, self.statuses.values()))
        status = {
            **_at_home(said, f"deployments/{number}/statuses/{9_000 + count}"),
            "id": 9_000 + count,
            "deployment_url": self.deployments[number]["url"],
            "state": self.random.choice(["in_progress", "success", "failure"]),
            "created_at": _text(self.now),
            "updated_at": _text(self.now),
        }
        self.deployments[number]["updated_at"] = _text(self.now)
        self.statuses[number].append(status)
        self._post(
            "deployment_status", "created", deployment_status=status, deployment=self.deployments[number]
        )

    def _post(self, event: str, action: str, **things: Json) -> None:
        sample = json.loads(
            body({"issues": "issues.opened.15"}.get(event, f"{event}.{_SAMPLES.get(event, '')}"))
        )
        said = {
            "action": action,
            "repository": {**sample["repository"], **HOME},
            "sender": sample["sender"],
            **things,
        }
        guid = f"{len(self.sent):08d}-0000-4000-8000-000000000000"
        self.sent.append(Webhook(event, guid, json.dumps(said).encode(), self.now))

    # What its API shows.

    def serve(self, api: Api) -> None:
        """Answer as GitHub's API does."""
        api.routes = _Routes(self, api.routes)

    def handler(self, path: str) -> Handler | Reply:
        """What answers a path below the repository's."""
        match path.split("/"):
            case ["issues"]:
                return self._issues
            case ["issues", number]:
                issue = self.issues.get(int(number))
                gone = issue is None or int(number) in self.deleted
                return GONE if gone else Reply(issue)
            case ["pulls"]:
                return Reply([])
            case ["actions", "runs"]:
                return self._runs
            case ["actions", "runs", number]:
                return Reply(self.runs[int(number)])
            case ["actions", "runs", _, "jobs"]:
                return Reply({"total_count": 0, "jobs": []})
            case ["deployments"]:
                return by_link(sorted(self.deployments.values(), key=lambda each: -each["id"]))
            case ["deployments", number, "statuses"]:
                return by_link(self.statuses[int(number)][::-1])
            case ["hooks"]:
                config = {"url": ENDPOINT, "content_type": "json"}
                return Reply([{"id": HOOK, "active": True, "events": ["*"], "config": config}])
            case ["hooks", _, "deliveries"]:
                return by_link(self._attempts)
            case ["hooks", _, "deliveries", number, "attempts"]:
                return lambda call: self._redeliver(int(number))
        return NOT_FOUND

    def _issues(self, call: Call) -> Reply:
        key = {"created": "number", "updated": "updated_at"}[call.query["sort"]]
        since = call.query.get("since", "")
        shown = [
            issue
            for number, issue in self.issues.items()
            if number not in self.deleted and issue["updated_at"] >= since
        ]
        return by_link(sorted(shown, key=lambda issue: issue[key]))(call)

    def _runs(self, call: Call) -> Reply:
        wanted = call.query.get("status")
        shown = [run for run in self.runs.values() if wanted in (None, run["status"])]
        page = by_link(sorted(shown, key=lambda run: -run["id"]))(call)
        return replace(page, body={"total_count": len(shown), "workflow_runs": page.body})

    def _attempts(self) -> list[Json]:
        attempts = [
            {
                "id": 100 * n + tries,
                "guid": webhook.guid,
                "delivered_at": _text(webhook.at + timedelta(seconds=tries)),
                "redelivery": tries > 0,
                "status": "OK" if ok else "failed to connect to host",
                "status_code": 200 if ok else 502,
                "event": webhook.event,
                "action": None,
            }
            for n, webhook in enumerate(self.sent)
            for tries, ok in enumerate(webhook.attempts)
        ]
        return sorted(attempts, key=lambda each: str(each["delivered_at"]), reverse=True)

    def _redeliver(self, number: int) -> Reply:
        webhook = self.sent[number // 100]
        webhook.attempts.append(True)
        self.asked_again.append(webhook.guid)
        return ACCEPTED

    def redelivered(self, guids: Iterable[str]) -> list[Delivery]:
        """What arrived because we had asked for it, just now."""
        chosen = set(guids)
        return [each.delivery(datetime.now(UTC)) for each in self.sent if each.guid in chosen]


_SAMPLES = {"workflow_run": "completed.00", "deployment": "created.00", "deployment_status": "created.00"}


class _Routes(dict[str, Any]):
    """The paths of one repository, answered by it, and others."""

    def __init__(self, repository: Repository, others: dict[str, Any]) -> None:
        super().__init__(others)
        self._repository = repository

    def get(self, path: str, otherwise: Any = None) -> Any:
        prefix = f"/repos/{NAME}/"
        if path == prefix.rstrip("/"):
            return Reply(HOME)
        if path.startswith(prefix):
            return self._repository.handler(path[len(prefix) :])
        return super().get(path, otherwise)


def _at_home(sample: Json, path: str) -> Json:
    """A sample as a thing of this repository."""
    place = f"https://api.github.com/repos/{NAME}"
    known = {"repository_url": place, "url": f"{place}/{path}".rstrip("/")}
    return {**sample, **{name: value for name, value in known.items() if name in sample}}


def _text(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
