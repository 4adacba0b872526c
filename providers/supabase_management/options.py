"""What `options` in the SSOT file of Supabase's management API may say."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from contracts.ssot import Strict

ProjectRef = Annotated[str, Field(pattern=r"^[a-z]{20}$")]
"""The name of a project in its address: 20 small letters."""


class ManagementOptions(Strict):
    """Which projects are polled: all that the token may see, where none is named."""

    projects: list[ProjectRef] = Field(default=[])
