"""What happened around the things that have tables of their own: code, repositories, installations, hooks."""

from __future__ import annotations

from typing import ClassVar

from pydantic import AwareDatetime

from contracts.envelope import Event, Level, Short
from contracts.version import Int64


class CodePushed(Event):
    """A branch or tag moved. `ref` is it: `github:<org>/<repo>@refs/heads/main`."""

    type: ClassVar[str] = "code.pushed"
    service: ClassVar[str] = "code"

    repository: str
    repository_id: Int64
    git_ref: str
    before_sha: str
    after_sha: Short
    created: bool = False
    deleted: bool = False
    forced: bool = False
    commits: Int64 = 0
    commits_capped: bool = False
    """True where the sender's list of commits is full, so that there may be more than `commits`."""
    head_message: str | None = None
    """First line of the head commit's message."""
    url: str | None = None

    @property
    def correlation(self) -> str | None:
        return None if self.deleted else self.after_sha

    @property
    def summary(self) -> str:
        commits = f"{self.commits} commit{'' if self.commits == 1 else 's'}"
        what = "deleted" if self.deleted else f"{commits} to"
        return f"{self.repository}: {what} {self.git_ref}"


class RepositoryChanged(Event):
    """A repository was created, renamed, moved, archived …: `change` says what. `ref`: `github:repository/<id>`."""

    type: ClassVar[str] = "repository.changed"
    service: ClassVar[str] = "platform"

    change: str
    repository: str
    repository_id: Int64
    previous_name: str | None = None
    """Full name before a rename or transfer."""
    private: bool | None = None
    archived: bool | None = None

    @property
    def summary(self) -> str:
        return f"{self.repository}: repository {self.change}"


class InstallationChanged(Event):
    """An app was installed, suspended, removed …: `change` says what. `ref`: `github:installation/<id>`."""

    type: ClassVar[str] = "installation.changed"
    service: ClassVar[str] = "platform"

    change: str
    installation_id: Int64
    account: str | None = None
    app: str | None = None
    repositories: list[str] = []
    permissions: dict[str, str] = {}
    """What the app may do now: `{"issues": "write"}`. One that is not named was never given, or is lost."""
    suspended_at: AwareDatetime | None = None
    """Since when it may do nothing at all; null while it may."""

    @property
    def summary(self) -> str:
        return f"{self.account or 'unknown account'}: app {self.app or self.installation_id} {self.change}"


class WebhookPinged(Event):
    """A provider tried a webhook of ours. `ref` is the hook: `github:hook/<id>`."""

    type: ClassVar[str] = "webhook.pinged"
    service: ClassVar[str] = "platform"

    hook_id: Int64
    target: str | None = None
    """The repository or organisation that the hook belongs to."""
    events: list[str] = []
    active: bool | None = None

    @property
    def summary(self) -> str:
        return f"{self.target or 'unknown target'}: webhook {self.hook_id} answers"


class WebhookRemoved(Event):
    """A webhook of ours was deleted at the provider: nothing more will come through it."""

    type: ClassVar[str] = "webhook.removed"
    service: ClassVar[str] = "platform"

    hook_id: Int64
    target: str | None = None
    events: list[str] = []

    @property
    def level(self) -> Level:
        return "error"

    @property
    def summary(self) -> str:
        return f"{self.target or 'unknown target'}: webhook {self.hook_id} was deleted, nothing more comes through it"
