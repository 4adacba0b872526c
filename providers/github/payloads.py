"""The fields of GitHub's payloads that we use, and no others: pydantic skips the rest without building it.

What old captures lack has a default; what gives a thing its name (ids, numbers, full names) has none.
A list gives up at its first wrong item: a body of a million wrong ones must not fill the memory with complaints.
A field typed `None` belongs to the body of another event: where it is filled, header and body do not match.
Payloads in full: https://docs.github.com/en/webhooks/webhook-events-and-payloads
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from contracts.version import Int64


class Upstream(BaseModel):
    """Any object that GitHub sends."""

    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)


class Account(Upstream):
    """A user, a bot, an organisation or an enterprise (which has a slug and no login)."""

    login: str | None = None
    slug: str | None = None


class Home(Upstream):
    """The repository that a thing is in. What a poll sees does not always show the repository's id."""

    full_name: str
    id: Int64 | None = None


class Repository(Home):
    """A repository, as far as the thing inside it needs it."""

    id: Int64


class Payload(Upstream):
    """A whole body; `sender` is the account whose doing it was."""

    sender: Account | None = None

    @property
    def actor(self) -> str | None:
        return self.sender.login if self.sender else None


class Action(Payload):
    """A body about something in a repository; `action` says what happened to it."""

    action: str
    repository: Repository


class Named(Upstream):
    """A workflow or an application."""

    name: str | None = None
    slug: str | None = None


class Commit(Upstream):
    message: str | None = None


class Numbered(Upstream):
    """An issue or pull request where only its number matters."""

    number: Int64


class Identified(Upstream):
    """Anything where only its id matters."""

    id: Int64


class RunId(Upstream):
    """A workflow run where only its name matters. Captures from before re-runs have no `run_attempt`."""

    id: Int64
    run_attempt: Int64 | None = None


class WorkflowRun(RunId):
    run_number: Int64 | None = None
    name: str | None = None
    display_title: str | None = None
    head_branch: str | None = None
    head_sha: str | None = None
    head_repository: Identified | None = None
    """Where the branch is. A fork may call its own `main`, too."""
    head_commit: Commit | None = None
    event: str | None = None
    pull_requests: list[Numbered] | None = Field(default=None, fail_fast=True)
    actor: Account | None = None
    triggering_actor: Account | None = None
    """Who asked for this attempt; `actor` is who asked for the first. Old captures have neither."""
    status: str | None = None
    conclusion: str | None = None
    html_url: str | None = None
    created_at: AwareDatetime | None = None
    run_started_at: AwareDatetime | None = None
    updated_at: AwareDatetime | None = None


class WorkflowRunPayload(Action):
    workflow_run: WorkflowRun
    workflow: Named | None = None
    deployment: None = None


class Step(Upstream):
    number: Int64
    name: str
    status: str | None = None
    conclusion: str | None = None
    started_at: AwareDatetime | None = None
    completed_at: AwareDatetime | None = None


class WorkflowJob(Upstream):
    id: Int64
    run_id: Int64
    run_attempt: Int64 | None = None
    name: str
    workflow_name: str | None = None
    head_branch: str | None = None
    head_sha: str | None = None
    status: str | None = None
    conclusion: str | None = None
    runner_id: Int64 | None = None
    runner_name: str | None = None
    runner_group_name: str | None = None
    labels: list[str] | None = Field(default=None, fail_fast=True)
    steps: list[Step] | None = Field(default=None, fail_fast=True)
    html_url: str | None = None
    created_at: AwareDatetime | None = None
    started_at: AwareDatetime | None = None
    completed_at: AwareDatetime | None = None


class WorkflowJobPayload(Action):
    workflow_job: WorkflowJob


class SuiteBranch(Upstream):
    head_branch: str | None = None


class Check(Upstream):
    """What check runs and check suites share."""

    id: Int64
    app: Named | None = None
    head_sha: str | None = None
    status: str | None = None
    conclusion: str | None = None


class CheckRun(Check):
    name: str
    check_suite: SuiteBranch | None = None
    html_url: str | None = None
    started_at: AwareDatetime | None = None
    completed_at: AwareDatetime | None = None


class CheckRunPayload(Action):
    check_run: CheckRun
    deployment_status: None = None


class CheckSuite(Check):
    head_branch: str | None = None
    created_at: AwareDatetime | None = None
    updated_at: AwareDatetime | None = None


class CheckSuitePayload(Action):
    check_suite: CheckSuite


class Deployment(Upstream):
    id: Int64
    environment: str
    production_environment: bool | None = None
    ref: str | None = None
    sha: str | None = None
    task: str | None = None
    creator: Account | None = None
    created_at: AwareDatetime | None = None


class DeploymentPayload(Action):
    deployment: Deployment
    workflow_run: RunId | None = None
    deployment_status: None = None
    workflow_job: None = None


class DeploymentStatus(Upstream):
    id: Int64
    state: str
    creator: Account | None = None
    description: str | None = None
    environment_url: str | None = None
    target_url: str | None = None
    log_url: str | None = None
    created_at: AwareDatetime | None = None
    updated_at: AwareDatetime | None = None


class DeploymentStatusPayload(Action):
    deployment: Deployment
    deployment_status: DeploymentStatus
    workflow_run: RunId | None = None


class Label(Upstream):
    name: str


class Titled(Upstream):
    title: str


class Item(Upstream):
    """What issues and pull requests share. Pinned and unpinned samples lack `state`, `labels`, `assignee`."""

    number: Int64
    title: str | None = None
    state: str | None = None
    labels: list[Label] | None = Field(default=None, fail_fast=True)
    assignee: Account | None = None
    assignees: list[Account] | None = Field(default=None, fail_fast=True)
    milestone: Titled | None = None
    user: Account | None = None
    html_url: str | None = None
    created_at: AwareDatetime | None = None
    updated_at: AwareDatetime | None = None
    closed_at: AwareDatetime | None = None


class PullRequestLink(Upstream):
    """What an issue says where it is a pull request's. Older captures lack `merged_at`."""

    merged_at: AwareDatetime | None = None


class Issue(Item):
    state_reason: str | None = None
    type: Named | None = None
    """What the organisation calls this kind of work; pull requests and older captures have none."""
    pull_request: PullRequestLink | None = None


class Branch(Upstream):
    ref: str | None = None
    sha: str | None = None


class PullRequest(Item):
    merged: bool | None = None
    merged_at: AwareDatetime | None = None
    draft: bool | None = None
    head: Branch | None = None
    base: Branch | None = None


class ItemPayload(Action):
    """What an action on an item may be about stands beside the item."""

    label: Label | None = None
    assignee: Account | None = None
    milestone: Titled | None = None


class Transfer(Upstream):
    """Where a transferred issue went, or where an opened one came from. Other changes we do not read."""

    new_issue: Issue | None = None
    new_repository: Repository | None = None
    old_issue: Numbered | None = None
    old_repository: Repository | None = None


class IssuePayload(ItemPayload):
    issue: Issue
    changes: Transfer | None = None
    comment: None = None


class PullRequestPayload(ItemPayload):
    pull_request: PullRequest
    requested_reviewer: Account | None = None
    requested_team: Named | None = None
    after: str | None = None
    comment: None = None
    review: None = None
    thread: None = None


class Comment(Upstream):
    id: Int64
    html_url: str | None = None
    created_at: AwareDatetime | None = None
    updated_at: AwareDatetime | None = None


class IssueCommentPayload(Action):
    issue: Issue
    comment: Comment


class PushedRepository(Repository):
    """In a push `pushed_at` is a number of seconds, elsewhere text; pydantic reads both."""

    pushed_at: AwareDatetime | None = None


class PushPayload(Payload):
    repository: PushedRepository
    ref: str
    before: str
    after: str
    created: bool = False
    deleted: bool = False
    forced: bool = False
    commits: list[Upstream] | None = Field(default=None, fail_fast=True)
    head_commit: Commit | None = None
    compare: str | None = None
    pusher: Named | None = None

    @property
    def actor(self) -> str | None:
        return super().actor or (self.pusher.name if self.pusher else None)


class ChangedRepository(PushedRepository):
    name: str | None = None
    private: bool | None = None
    archived: bool | None = None
    updated_at: AwareDatetime | None = None


class FormerName(Upstream):
    """GitHub calls a former value `from`, which is a keyword here."""

    former: str | None = Field(default=None, alias="from")


class NameChange(Upstream):
    name: FormerName | None = None


class FormerOwner(Upstream):
    user: Account | None = None
    organization: Account | None = None


class OwnerChange(Upstream):
    former: FormerOwner | None = Field(default=None, alias="from")


class RepositoryChanges(Upstream):
    """What a repository was called, or whose it was, before."""

    repository: NameChange | None = None
    owner: OwnerChange | None = None


class RepositoryPayload(Payload):
    """Most bodies have a repository and an action, so the other events' main objects are refused by name."""

    action: str
    repository: ChangedRepository
    changes: RepositoryChanges | None = None
    check_run: None = None
    check_suite: None = None
    deployment: None = None
    hook: None = None
    issue: None = None
    pull_request: None = None
    workflow_job: None = None
    workflow_run: None = None


class Installation(Upstream):
    """Times are numbers or text. Other bodies carry a stub with an id alone: `app_id` tells the real one."""

    id: Int64
    app_id: Int64
    app_slug: str | None = None
    account: Account | None = None
    permissions: dict[str, Any] | None = None
    suspended_at: AwareDatetime | None = None
    updated_at: AwareDatetime | None = None


class InstallationPayload(Payload):
    action: str
    installation: Installation
    repositories: list[Repository] | None = Field(default=None, fail_fast=True)


class Hook(Upstream):
    id: Int64
    events: list[str] | None = Field(default=None, fail_fast=True)
    active: bool | None = None
    updated_at: AwareDatetime | None = None


class HookPayload(Payload):
    """A hook belongs to a repository, an organisation or (neither is named) an app."""

    hook: Hook
    repository: Repository | None = None
    organization: Account | None = None


class PingPayload(HookPayload):
    action: None = None


class MetaPayload(HookPayload):
    action: str


class Addressed(Upstream):
    """An item of an API's answer: its own address in the API names its repository, by today's name."""

    repository: Repository | None = None
    repository_url: str | None = None
    url: str | None = None


A = TypeVar("A", bound=Addressed)


class Observed(Upstream, Generic[A]):
    """What a poll fetched: one item of an API's answer and the scope that it was found in."""

    scope: str
    item: A


class ListedId(Identified, Addressed):
    """An item as far as its ref needs it."""


class ListedNumber(Numbered, Addressed):
    pass


class ListedRun(RunId, Addressed):
    pass


class RunItem(WorkflowRun, Addressed):
    repository: Repository


class JobItem(WorkflowJob, Addressed):
    pass


class CheckRunItem(CheckRun, Addressed):
    pass


class CheckSuiteItem(CheckSuite, Addressed):
    pass


class DeploymentItem(Deployment, Addressed):
    pass


class DeploymentStatusItem(DeploymentStatus, Addressed):
    """It names its deployment by address alone."""

    deployment_url: str
    environment: str


class IssueItem(Issue, Addressed):
    pass


class BaseBranch(Branch):
    repo: Repository | None = None


class PullRequestItem(PullRequest, Addressed):
    base: BaseBranch | None = None


class CommentItem(Comment, Addressed):
    """It names its issue by address alone, and only `html_url` tells whether that is a pull request."""

    issue_url: str
    html_url: str
    user: Account | None = None
