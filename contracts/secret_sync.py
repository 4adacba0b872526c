"""Syncs of secrets from one store to another: which names, never a value and nothing made of one."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from contracts.own import RUNNING, Concluded, Name, OwnRun, Slug, own_ref

_NAME = re.compile(r"[A-Z0-9_]{1,128}")
_REASON = re.compile(r"[a-z][a-z_]{0,63}")
NAMES_MAX = 500


def _names(stated: list[str]) -> list[str]:
    if not all(_NAME.fullmatch(name) for name in stated):
        raise PydanticCustomError("not_names_of_secrets", "names of secrets are upper case")
    return stated


def _reasons(stated: dict[str, str]) -> dict[str, str]:
    # Judged as a whole: an error that led to the entry would show a key, which may be a value by mistake.
    _names(list(stated))
    if not all(_REASON.fullmatch(reason) for reason in stated.values()):
        raise PydanticCustomError("not_reasons", "a reason is lower-case letters and underscores")
    return stated


SecretNames = Annotated[list[str], Field(max_length=NAMES_MAX), AfterValidator(_names)]
"""Names as `[A-Z0-9_]{1,128}`."""
Reasons = Annotated[dict[str, str], Field(max_length=NAMES_MAX), AfterValidator(_reasons)]
"""Name to reason; a reason is `[a-z][a-z_]{0,63}`, too little for a value or a hash of one."""
ErrorSlug = Annotated[str, Field(pattern=r"^[a-z][a-z_]{0,63}$")]


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
