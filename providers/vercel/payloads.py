"""The fields of Vercel's payloads and answers that we use, and no others: pydantic skips the rest.

Payloads in full: https://vercel.com/docs/webhooks/webhooks-api
Answers in full: https://vercel.com/docs/rest-api/deployments/list-deployments
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

MILLIS_MAX = 253_402_300_799_999
"""The last millisecond that a datetime can hold."""

Millis = Annotated[int, Field(ge=0, le=MILLIS_MAX)]
"""Milliseconds since 1970."""
Name = Annotated[str, Field(min_length=1)]


def _unnamed(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    try:
        return validate(value)
    except ValidationError:
        raise PydanticCustomError("wrong_member", "a member is none that we know") from None


UnnamedMembers = WrapValidator(_unnamed)
"""Annotates an object whose keys are the sender's words and no names of fields: no complaint may quote them."""


class Upstream(BaseModel):
    """Any object that Vercel sends; its names are in camelCase."""

    model_config = ConfigDict(extra="ignore", frozen=True, alias_generator=to_camel)


class Envelope(Upstream):
    """What every webhook has around its payload. `id` is the delivery's."""

    id: str
    type: str


class Identified(Upstream):
    """A project or an account where only its id matters."""

    id: Name


class Meta(Upstream):
    """The git facts of a deployment. All values are text, numbers too; a deployment by CLI has none of them."""

    github_org: str | None = None
    github_repo: str | None = None
    github_repo_id: str | int | None = None
    github_commit_ref: str | None = None
    github_commit_sha: str | None = None
    github_commit_author_login: str | None = None
    github_pr_id: str | int | None = None


class Links(Upstream):
    deployment: str | None = None


class Deployment(Upstream):
    """A deployment in a webhook. Only `deployment.cleanup` puts the target in here."""

    id: Name
    name: str | None = None
    url: str | None = None
    inspector_url: str | None = None
    meta: Meta | None = None
    target: str | None = None
    custom_environment_id: str | None = None


class DeploymentPayload(Upstream):
    """`target` is null for a preview; where the key itself is missing, nothing is said about the target."""

    deployment: Deployment
    project: Identified | None = None
    user: Identified | None = None
    links: Links | None = None
    name: str | None = None
    target: str | None = None
    custom_environment_id: str | None = None


class DeploymentWebhook(Upstream):
    created_at: Millis
    payload: DeploymentPayload


class RollbackPayload(Upstream):
    """A rollback names two deployments by id and shows neither."""

    project: Identified
    user: Identified | None = None
    from_deployment_id: Name | None = None
    to_deployment_id: Name


class RollbackWebhook(Upstream):
    created_at: Millis
    payload: RollbackPayload


class CustomEnvironment(Upstream):
    id: str | None = None


class Creator(Upstream):
    uid: str | None = None


class ListedDeployment(Upstream):
    """A deployment in an answer of `GET /v6/deployments`. It has no address while it is being uploaded."""

    uid: Name
    name: str | None = None
    project_id: Name | None = None
    url: str | None = None
    inspector_url: str | None = None
    created: Millis | None = None
    created_at: Millis | None = None
    building_at: Millis | None = None
    ready: Millis | None = None
    ready_state: str | None = None
    state: str | None = None
    error_message: str | None = None
    target: str | None = None
    custom_environment: CustomEnvironment | None = None
    creator: Creator | None = None
    meta: Meta | None = None


class ObservedDeployment(Upstream):
    """The body of an observation: see contracts/observation.py."""

    item: ListedDeployment


class Project(Upstream):
    """A project in the answer of `GET /v9/projects/<id>`: its targets and what each of them serves."""

    id: Name
    name: str | None = None
    targets: Annotated[dict[Name, Identified | None] | None, UnnamedMembers] = None


class ObservedProject(Upstream):
    """The body of an observation: see contracts/observation.py."""

    item: Project
