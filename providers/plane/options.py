"""What ssot/providers/plane.yaml says about a workspace: no payload holds the address of a work item."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from contracts.ssot import Strict

ProjectId = Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]


class PlaneOptions(Strict):
    """One workspace of one Plane server; webhooks belong to a workspace, so another one is another source."""

    base_url: str = Field(pattern=r"^https?://[^\s/?#]+[^\s?#]*$", description="where its web pages are")
    workspace: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="the workspace's slug in addresses")
    projects: list[ProjectId] = Field(
        default=[], description="ids of the projects that are polled; empty: all"
    )

    def item_url(self, project: str | None, item: str) -> str | None:
        """The page of a work item; None where its project is not known."""
        if not project:
            return None
        return f"{self.base_url.rstrip('/')}/{self.workspace}/projects/{project}/issues/{item}/"
