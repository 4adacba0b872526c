"""The fields that are used of the answers. Nothing else of them leaves the process that asked.

Project and branch answers may hold passwords and connection strings, and errors whatever a service had to say: none of
these is named here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    TypeAdapter,
    ValidationError,
)

from contracts.version import Int64
from providers.polling import Failed, Reply
from providers.port import problems_of
from providers.supabase_management.options import ProjectRef

T = TypeVar("T")

Time = Annotated[datetime, AfterValidator(lambda at: at if at.tzinfo else at.replace(tzinfo=UTC))]
"""A time; one without a zone is UTC."""
Word = Annotated[str, Field(pattern=r"^[A-Za-z_]{1,64}$")]
"""A word of an enumeration, which may grow."""
Count = Annotated[FiniteFloat, Field(ge=0)]


class Part(BaseModel):
    """Any object of an answer."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Project(Part):
    ref: ProjectRef
    status: Word


class Health(Part):
    name: str
    status: Word


class Branch(Part):
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")]
    status: Word
    is_default: bool = False
    git_branch: str | None = None
    pr_number: Int64 | None = None


class Backup(Part):
    id: Int64 | None = None
    """Missing in older forms of the answer."""
    status: Word
    inserted_at: Time
    is_physical_backup: bool | None = None


class Backups(Part):
    backups: Annotated[list[Backup], Field(fail_fast=True)]


class Subject(Part):
    """What a finding is about."""

    schema_name: str | None = Field(default=None, alias="schema")
    name: str | None = None
    entity: str | None = None
    type: str | None = None


class Lint(Part):
    name: Annotated[str, Field(min_length=1)]
    title: str
    level: Word
    detail: str | None = None
    remediation: str | None = None
    metadata: Subject | None = None
    cache_key: str


class Lints(Part):
    lints: Annotated[list[Lint], Field(fail_fast=True)]


class DiskFigures(Part):
    fs_size_bytes: Annotated[FiniteFloat, Field(gt=0)]
    fs_used_bytes: Count


class Disk(Part):
    timestamp: Time
    metrics: DiskFigures


class Requests(Part):
    total_auth_requests: Count = 0
    total_realtime_requests: Count = 0
    total_rest_requests: Count = 0
    total_storage_requests: Count = 0


class Usage(Part):
    result: Annotated[list[Requests], Field(fail_fast=True)]


def parsed(shape: TypeAdapter[T] | type[T], reply: Reply) -> T:
    """An answer as `shape`; raises Failed."""
    adapter = shape if isinstance(shape, TypeAdapter) else TypeAdapter(shape)
    try:
        return adapter.validate_python(reply.json())
    except ValidationError as error:
        raise Failed("shape_mismatch", f"an answer has another shape: {problems_of(error)}") from None
