"""What ssot/providers/vercel.yaml says about what is polled."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from contracts.ssot import Strict

ProjectId = Annotated[str, Field(pattern=r"^prj_[A-Za-z0-9]{1,64}$")]


class VercelOptions(Strict):
    """An account and the projects of it that are polled."""

    team_id: str | None = Field(
        default=None, pattern=r"^team_[A-Za-z0-9]{1,64}$", description="none for a personal account"
    )
    projects: list[ProjectId] = Field(
        default=[], description="ids of the projects that are polled; empty: all"
    )
