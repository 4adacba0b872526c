"""Backups, and the jobs that restore, clone or take them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import AwareDatetime, Field

from contracts.envelope import Env
from contracts.own import (
    AFTER_END,
    ASKED,
    END_WORDS,
    RUNNING,
    Concluded,
    Name,
    OwnRun,
    Vocabulary,
    own_ref,
    vocabulary,
)
from contracts.version import INT64_MAX, Int64

BackupType = Literal["daily", "weekly", "monthly", "manual", "other"]
BackupAction = Literal["restore", "clone", "snapshot", "other"]

SizeBytes = Annotated[Int64, Field(ge=0, le=INT64_MAX)]

TYPES: Mapping[str, Vocabulary] = {
    "backup_type": vocabulary(
        BackupType, {"auto": "daily", "on_demand": "manual", "adhoc": "manual"}, "other"
    )
}
ACTIONS: Mapping[str, Vocabulary] = {"action": vocabulary(BackupAction, {"backup": "snapshot"}, "other")}


class BackupEvent(OwnRun):
    """One snapshot of a database. `ref` is it: `odooops:backup/<backup id>`."""

    service: ClassVar[str] = "backup"
    words: ClassVar[Mapping[str, Vocabulary]] = TYPES

    backup_id: Name
    database: str | None = None
    backup_type: BackupType | None = None
    stated_backup_type: str | None = None
    """The producer's own word."""
    provider: str | None = None
    """Who keeps it: `digitalocean`, `odoo.sh`."""
    created_by: str | None = None
    created_at: AwareDatetime | None = None

    def named(self) -> str:
        return own_ref("backup", self.backup_id)

    @property
    def summary(self) -> str:
        return f"backup {self.backup_id} of {self.database or 'an unnamed database'} {self.outcome}"


class BackupStarted(BackupEvent):
    """A snapshot is being taken."""

    type: ClassVar[str] = "backup.started"
    stage: ClassVar[int] = RUNNING
    state: ClassVar[str] = "running"


class BackupFinished(BackupEvent, Concluded):
    """A snapshot was taken, or was not: `status` says which."""

    type: ClassVar[str] = "backup.finished"
    words: ClassVar[Mapping[str, Vocabulary]] = {**TYPES, "status": END_WORDS}

    storage_ref: str | None = None
    """Where it lies, without credentials."""
    size_bytes: SizeBytes | None = None
    checksum: str | None = None
    postgres_version: str | None = None
    expires_at: AwareDatetime | None = None
    """Until when it is kept; null where it never expires."""


class BackupExpired(BackupEvent):
    """A snapshot was removed, as its retention asks: it cannot be restored any more."""

    type: ClassVar[str] = "backup.expired"
    stage: ClassVar[int] = AFTER_END
    state: ClassVar[str] = "expired"


class BackupJobEvent(OwnRun):
    """One restore, clone or snapshot that somebody asked for. `ref` is it: `odooops:backup_job/<job id>`."""

    service: ClassVar[str] = "backup"
    words: ClassVar[Mapping[str, Vocabulary]] = ACTIONS

    backup_job_id: Name
    action: BackupAction
    stated_action: str | None = None
    """The producer's own word."""
    backup_ref: str | None = None
    """The backup that it reads or makes; `env` is the environment that this one comes from."""
    target_env: Env | None = None
    target_database: str | None = None
    runner: str | None = None

    def named(self) -> str:
        return own_ref("backup_job", self.backup_job_id)

    @property
    def summary(self) -> str:
        target = self.target_database or self.target_env or "nowhere named"
        return f"{self.action} of {self.backup_ref or 'no backup named'} to {target} {self.outcome}"


class BackupJobQueued(BackupJobEvent):
    """A restore, clone or snapshot was asked for; `actor` is who did."""

    type: ClassVar[str] = "backup_job.queued"
    stage: ClassVar[int] = ASKED
    state: ClassVar[str] = "queued"


class BackupJobStarted(BackupJobEvent):
    """A restore, clone or snapshot is being worked on."""

    type: ClassVar[str] = "backup_job.started"
    stage: ClassVar[int] = RUNNING
    state: ClassVar[str] = "running"


class BackupJobFinished(BackupJobEvent, Concluded):
    """A restore, clone or snapshot has ended."""

    type: ClassVar[str] = "backup_job.finished"
    words: ClassVar[Mapping[str, Vocabulary]] = {**ACTIONS, "status": END_WORDS}
