"""From an answer of Vercel's API to what may be stored of it: the fields named here, and no others.

Addresses of people, settings and build environments are in these answers too; they never reach the log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from contracts.observation import observed_body
from contracts.text import NotJson, parse
from providers.port import Item, Unintelligible, problems_of
from providers.vercel.deployments import deployment_ref
from providers.vercel.payloads import UnnamedMembers

DEPLOYMENT_FIELDS = frozenset(
    {
        "uid", "name", "projectId", "url", "inspectorUrl", "created", "createdAt", "buildingAt", "ready", "readyState",
        "state", "readySubstate", "target", "source", "errorCode", "errorMessage", "isRollbackCandidate",
    }
)  # fmt: skip
NESTED_FIELDS: Mapping[str, frozenset[str]] = {
    "creator": frozenset({"uid", "username", "githubLogin"}),
    "customEnvironment": frozenset({"id", "slug"}),
    "meta": frozenset(
        {
            "githubOrg", "githubRepo", "githubRepoId", "githubCommitOrg", "githubCommitRepo", "githubCommitRepoId",
            "githubCommitRef", "githubCommitSha", "githubCommitMessage", "githubCommitAuthorLogin", "githubDeployment",
            "githubPrId", "branchAlias", "action", "originalDeploymentId",
        }
    ),
}  # fmt: skip


class DeploymentsPage(BaseModel):
    """`GET /v6/deployments`."""

    deployments: list[dict[str, Any]] = Field(fail_fast=True)


class ProjectsPage(BaseModel):
    """`GET /v9/projects`."""

    projects: list[dict[str, Any]] = Field(fail_fast=True)


class ProjectPage(BaseModel):
    """`GET /v9/projects/<id>`: one project, of which the ids in `targets` are kept."""

    id: str
    name: str | None = None
    targets: Annotated[dict[str, dict[str, Any] | None] | None, UnnamedMembers] = None


def items(kind: str, scope: str, page: bytes) -> list[Item]:
    """What a page shows: `deployments` and `projects` (lists of them) or `project` (one). Raises Unintelligible."""
    cut = PAGES.get(kind)
    if cut is None:
        raise Unintelligible("no_such_page", f"Known pages: {', '.join(PAGES)}.")
    try:
        return cut(scope, page)
    except NotJson as error:
        raise Unintelligible("not_json", f"The answer cannot be read: {error}.") from None
    except ValidationError as error:
        raise Unintelligible("shape_mismatch", f"This is no page of {kind}: {problems_of(error)}.") from None


def _deployments(scope: str, page: bytes) -> list[Item]:
    return [_deployment(scope, each) for each in parse(DeploymentsPage, page).deployments]


def _deployment(scope: str, given: Mapping[str, Any]) -> Item:
    uid = given.get("uid")
    if not isinstance(uid, str) or not uid:
        raise Unintelligible("shape_mismatch", "A deployment of this page has no uid.")
    kept: dict[str, Any] = _plain(given, DEPLOYMENT_FIELDS)
    for name, fields in NESTED_FIELDS.items():
        part = given.get(name)
        if isinstance(part, dict):
            kept[name] = _plain(part, fields)
    return Item(ref=deployment_ref(uid), kind="deployment", body=observed_body(scope, kept))


def _plain(given: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    """The fields called so that hold one plain value. An object or a list could hold anything."""
    return {name: given[name] for name in given.keys() & names if not isinstance(given[name], dict | list)}


def _project(scope: str, page: bytes) -> list[Item]:
    return [_serving(scope, parse(ProjectPage, page))]


def _projects(scope: str, page: bytes) -> list[Item]:
    shown = parse(ProjectsPage, page).projects
    return [_serving(scope, ProjectPage.model_validate(each)) for each in shown]


def _serving(scope: str, project: ProjectPage) -> Item:
    """A project by what its targets serve, of which no answer gives a time."""
    serving = {
        target: {"id": served["id"]}
        for target, served in (project.targets or {}).items()
        if served is not None and served.get("id") and isinstance(served["id"], str)
    }
    kept = {"id": project.id, "name": project.name, "targets": serving}
    body = observed_body(scope, kept)
    return Item(ref=f"vercel:project/{project.id}", kind="project", body=body, undated=True)


PAGES: Mapping[str, Callable[[str, bytes], list[Item]]] = {
    "deployments": _deployments,
    "project": _project,
    "projects": _projects,
}
