"""The backups of a project's database."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from contracts.backups import BackupEvent, BackupExpired, BackupFinished, BackupStarted
from providers.polling import Ask, Look, Say, Step, ask
from providers.supabase_management.payloads import Backup, Backups, parsed
from providers.supabase_management.target import Target

BACKUPS_MAX = 60
"""The newest backups of a project that are told of and remembered."""
ENDED: Mapping[str, str] = {"COMPLETED": "success", "FAILED": "failed", "CANCELLED": "cancelled"}


def backups(look: Look, target: Target, before: Mapping[str, Any]) -> Generator[Step, Any, Mapping[str, Any]]:
    """Each backup whose status is not the one last told; one that is not listed any more cannot be restored.

    Kept: the status by id. An equal statement has an equal id, whenever it is made.
    """
    reply = yield from ask(Ask(path=f"{target.path}/database/backups"))
    listed = sorted(parsed(Backups, reply).backups, key=lambda backup: backup.inserted_at)
    there = {_id(backup): backup for backup in listed}
    newest = dict(list(there.items())[-BACKUPS_MAX:])
    known = {} if look.since is not None else before
    for backup_id, backup in newest.items():
        if known.get(backup_id) != backup.status:
            yield Say(_told(look, target, backup_id, backup))
    for backup_id, status in before.items():
        if backup_id not in there and status != "REMOVED":
            yield Say(BackupExpired(**_shared(look, target, backup_id), occurred_at=look.started_at))
    return {backup_id: backup.status for backup_id, backup in newest.items()}


def _told(look: Look, target: Target, backup_id: str, backup: Backup) -> BackupEvent:
    stated = {
        **_shared(look, target, backup_id),
        "occurred_at": backup.inserted_at,
        "created_at": backup.inserted_at,
        "backup_type": "daily",
    }
    if backup.status == "PENDING":
        return BackupStarted(**stated)
    if backup.status == "REMOVED":
        return BackupExpired(**stated)
    return BackupFinished(**stated, status=ENDED.get(backup.status, "unknown"), stated_status=backup.status)


def _shared(look: Look, target: Target, backup_id: str) -> dict[str, Any]:
    return {
        "source": look.source.name,
        "env": target.env,
        "backup_id": f"supabase-{target.ref}-{backup_id}",
        "database": target.name,
        "provider": "supabase",
    }


def _id(backup: Backup) -> str:
    return str(backup.id) if backup.id is not None else backup.inserted_at.isoformat()
