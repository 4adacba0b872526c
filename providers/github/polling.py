"""How GitHub's API is polled: its headers, its allowance, and what is read of each repository.

https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api
"""

from __future__ import annotations

from collections.abc import Mapping

from providers.github.options import GithubOptions
from providers.github.poll_deployments import deployments
from providers.github.poll_home import at_home
from providers.github.poll_hooks import hook, redelivery
from providers.github.poll_items import all_issues, issues, pulls
from providers.github.poll_runs import runs
from providers.polling import Part, Polling, Scope, rate_limit
from providers.port import Source

ALL_EVERY_S = 86_400

CHANGES: Mapping[str, Part] = {
    "issues": at_home(issues),
    "pulls": at_home(pulls),
    "runs": at_home(runs),
    "deployments": at_home(deployments),
}
WEBHOOK: Mapping[str, Part] = {"redelivery": redelivery, "hook": hook}


def scopes(source: Source) -> list[Scope]:
    """Two for each repository: what changed in it and how its webhook is; and, more seldom, all its issues."""
    options: GithubOptions = source.options
    has_webhook = options.repository_webhooks and source.file.endpoint is not None
    parts = {**CHANGES, **WEBHOOK} if has_webhook else CHANGES
    # As webhooks have them, whose letters are GitHub's: it takes either.
    return [
        scope
        for repository in map(str.lower, options.repositories)
        for scope in (
            Scope(name=f"repos/{repository}", parts=parts),
            Scope(
                name=f"repos/{repository}/issues",
                parts={"all_issues": at_home(all_issues)},
                every_s=ALL_EVERY_S,
            ),
        )
    ]


POLLING = Polling(
    scopes=scopes,
    allowance=rate_limit(),
    headers={
        "Accept": "application/vnd.github+json",
        "User-Agent": "OdooOps",
        "X-GitHub-Api-Version": "2022-11-28",
    },
)
