"""What a GitHub source needs to know to be polled."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from contracts.ssot import Strict

RepositoryName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9_-]{1,64}/\.{0,2}[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$", description="<org>/<repo>"
    ),
]


def _each_once(repositories: list[str]) -> list[str]:
    if len({name.lower() for name in repositories}) < len(repositories):
        raise ValueError("a repository is named twice: letter case does not tell two apart")
    return repositories


class GithubOptions(Strict):
    """`options` in the file of a GitHub source."""

    repositories: Annotated[list[RepositoryName], AfterValidator(_each_once)] = Field(
        default=[], description="what is polled: <org>/<repo>, by today's names"
    )
    repository_webhooks: bool = Field(
        default=True,
        description="whether each of them has a webhook of its own, which polls look after; "
        "false where an organisation's or an app's posts to us",
    )
