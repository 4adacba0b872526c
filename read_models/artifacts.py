"""ops.artifacts: one row per thing that a run left behind. The bodies lie in the bucket ARTIFACTS."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from contracts.jobs import ArtifactStored
from contracts.record import record
from read_models.port import EARLIEST, FACT, KEY, Index, ReadModel, Statement


@record
class Artifact:
    """An artifact, which never changes."""

    ref: Annotated[str, KEY]
    kind: Annotated[str | None, FACT] = None
    name: Annotated[str | None, FACT] = None
    env: Annotated[str | None, FACT] = None
    sha256: Annotated[str | None, FACT] = None
    size_bytes: Annotated[int | None, FACT] = None
    content_type: Annotated[str | None, FACT] = None
    run_ref: Annotated[str | None, FACT] = None
    object_name: Annotated[str | None, FACT] = None
    url: Annotated[str | None, FACT] = None
    stored_at: Annotated[datetime | None, EARLIEST] = None


def _stored(statement: Statement[ArtifactStored]) -> Artifact:
    event = statement.event
    return Artifact(
        ref=event.ref,
        kind=event.kind,
        name=event.name,
        env=event.env,
        sha256=event.sha256,
        size_bytes=event.size_bytes,
        content_type=event.content_type,
        run_ref=event.run_ref,
        object_name=event.object_name,
        url=event.url,
        stored_at=event.occurred_at,
    )


READ_MODEL = ReadModel(
    name="artifacts",
    row=Artifact,
    folds={ArtifactStored: _stored},
    ref_column="ref",
    indexes=(Index("artifacts_run_ref", ("run_ref",)), Index("artifacts_sha256", ("sha256",))),
)
