"""Syncs of secrets from one store to another: which names, never a value and nothing made of one."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from contracts.own import RUNNING, Concluded, Name, OwnRun, Slug, own_ref

NAMES_MAX = 500
NAME = r"^[A-Z0-9_]{1,128}$"
REASON = r"^[a-z][a-z_]{0,63}$"
"""Too little for a value or a hash of one."""


def _reasons(stated: Any) -> Any:
    # Judged as a whole: an error about one entry would show its key, which may be a value by mistake.
    if not (isinstance(stated, dict) and all(_fits(*entry) for entry in stated.items())):
        raise PydanticCustomError("not_names_with_reasons", "names are upper case, reasons are slugs")
    return stated


def _fits(name: object, reason: object) -> bool:
    words = isinstance(name, str) and isinstance(reason, str)
    return words and bool(re.fullmatch(NAME, str(name)) and re.fullmatch(REASON, str(reason)))


SecretNames = Annotated[list[Annotated[str, Field(pattern=NAME)]], Field(max_length=NAMES_MAX)]
Reasons = Annotated[
    dict[str, str],
    Field(
        max_length=NAMES_MAX,
        json_schema_extra={
            "propertyNames": {"pattern": NAME},
            "additionalProperties": {"type": "string", "pattern": REASON},
        },
    ),
    BeforeValidator(_reasons),
]
ErrorSlug = Annotated[str, Field(pattern=REASON)]


class SecretSyncEvent(OwnRun):
    """One try to bring secrets from one store to another. `ref` is it: `odooops:secret_sync/<sync id>`."""

    service: ClassVar[str] = "secrets"

    sync_id: Name
    source_store: Slug
    """`vault`."""
    target_store: Slug
    """`github_actions`."""

    def named(self) -> str:
        return own_ref("secret_sync", self.sync_id)

    @property
    def summary(self) -> str:
        return f"secrets from {self.source_store} to {self.target_store}: {self.outcome}"


class SecretSyncStarted(SecretSyncEvent):
    """A sync began."""

    type: ClassVar[str] = "secret_sync.started"
    stage: ClassVar[int] = RUNNING
    state: ClassVar[str] = "running"


class SecretSyncFinished(SecretSyncEvent, Concluded):
    """A sync has ended: which names it wrote, and which it did not, with the reason."""

    type: ClassVar[str] = "secret_sync.finished"

    pushed: SecretNames = []
    """Names that were written. Never values."""
    skipped: Reasons = {}
    """Name to reason: `{"SLACK_BOT_TOKEN": "not_in_source"}`."""
    error: ErrorSlug | None = None
    """Why it is not a success: a slug, since a sentence could quote a value."""

    @property
    def summary(self) -> str:
        return f"{super().summary}, {len(self.pushed)} pushed, {len(self.skipped)} skipped"
