"""Answers of Supabase's management API, made by its documentation and not recorded: see the contract for sources.

Each object holds what is documented, and beside it what must never be stored: SECRET in fields that answers are known
to have, and in one that nobody knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from providers.polling import Ask, Reply
from tests.providers.polled import reply

SECRET = "postgresql://postgres:SAMPLE-PASSWORD-NOT-REAL@db.example/postgres"
REF = "abcdefghijklmnopqrst"
OTHER = "bcdefghijklmnopqrstu"

Answers = Mapping[str, Any]
"""Decoded answers by path; a number is a status."""


def with_secrets(value: Any) -> Any:
    """The same answer with SECRET in each object, in fields that are not asked for."""
    if isinstance(value, list):
        return [with_secrets(each) for each in value]
    if not isinstance(value, dict):
        return value
    hidden = {
        "db_pass": SECRET,
        "error": SECRET,
        "connection_string": SECRET,
        "new_field": {"token": [SECRET]},
    }
    return {**hidden, **{key: with_secrets(each) for key, each in value.items()}}


def project(ref: str = REF, status: str = "ACTIVE_HEALTHY") -> dict[str, Any]:
    return {
        "id": ref,
        "ref": ref,
        "organization_id": "o",
        "organization_slug": "acme",
        "name": "erp",
        "region": "eu-central-1",
        "created_at": "2026-01-02T03:04:05.678901Z",
        "status": status,
        "database": {
            "host": f"db.{ref}.supabase.co",
            "version": "17.4.1.043",
            "postgres_engine": "17",
            "release_channel": "ga",
        },
    }


def service(name: str, status: str = "ACTIVE_HEALTHY") -> dict[str, Any]:
    return {"name": name, "healthy": status == "ACTIVE_HEALTHY", "status": status}


def branch(number: int, status: str = "FUNCTIONS_DEPLOYED", **more: Any) -> dict[str, Any]:
    return {
        "id": f"00000000-0000-4000-8000-{number:012}",
        "name": f"b{number}",
        "project_ref": OTHER,
        "parent_project_ref": REF,
        "is_default": False,
        "git_branch": f"feature/{number}",
        "pr_number": number,
        "persistent": False,
        "status": status,
        "created_at": "2026-10-30T10:00:00Z",
        "updated_at": "2026-10-31T10:00:00Z",
        "with_data": False,
        "notify_url": SECRET,
        **more,
    }


def backup(number: int, status: str = "COMPLETED", at: str | None = None) -> dict[str, Any]:
    inserted_at = at or f"2026-10-{number:02}T02:00:00Z"
    return {"id": number, "is_physical_backup": False, "status": status, "inserted_at": inserted_at}


def backups(*listed: Mapping[str, Any]) -> dict[str, Any]:
    kept = {"region": "eu-central-1", "walg_enabled": True, "pitr_enabled": False, "physical_backup_data": {}}
    return {**kept, "backups": list(listed)}


def lint(table: str, level: str = "ERROR", name: str = "rls_disabled_in_public") -> dict[str, Any]:
    return {
        "name": name,
        "title": "RLS Disabled in Public",
        "level": level,
        "facing": "EXTERNAL",
        "categories": ["SECURITY"],
        "description": "Detects tables without row level security.",
        "detail": f"Table `public.{table}` is public, but RLS has not been enabled.",
        "remediation": "https://supabase.com/docs/guides/database/database-linter?lint=0013_rls_disabled_in_public",
        "metadata": {"name": table, "type": "table", "schema": "public"},
        "cache_key": f"{name}_public_{table}",
    }


DISK = {
    "timestamp": "2026-11-01T11:58:00Z",
    "metrics": {"fs_size_bytes": 8_000, "fs_avail_bytes": 5_500, "fs_used_bytes": 2_500},
}
USAGE = {
    "result": [
        {
            "timestamp": f"2026-11-01T11:{minute}:00",
            "total_auth_requests": 1,
            "total_realtime_requests": 0,
            "total_rest_requests": minute,
            "total_storage_requests": 2,
        }
        for minute in (30, 45)
    ]
}


def of_project(ref: str = REF, **changed: Any) -> Answers:
    """All answers about one project; `changed` replaces some of them."""
    answers = {
        "health": [service(name) for name in ("auth", "db", "realtime", "rest", "storage")],
        "branches": [branch(1), branch(2, is_default=True)],
        "backups": backups(backup(30), backup(31)),
        "security": {"lints": [lint("a"), lint("b", "WARN")]},
        "performance": {"lints": []},
        "disk": DISK,
        "usage": USAGE,
        **changed,
    }
    base = f"/v1/projects/{ref}"
    return {
        base: changed.get("project", project(ref)),
        f"{base}/health": answers["health"],
        f"{base}/branches": answers["branches"],
        f"{base}/database/backups": answers["backups"],
        f"{base}/advisors/security": answers["security"],
        f"{base}/advisors/performance": answers["performance"],
        f"{base}/config/disk/util": answers["disk"],
        f"{base}/analytics/endpoints/usage.api-counts": answers["usage"],
    }


def answering(answers: Answers) -> Callable[[Ask], Reply]:
    """What the API says; of a path that is not among `answers` it knows nothing."""

    def answer(asked: Ask) -> Reply:
        found = answers.get(asked.path, 404)
        return reply({"message": SECRET}, found) if isinstance(found, int) else reply(with_secrets(found))

    return answer
