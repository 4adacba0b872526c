"""The traps of deployments."""

from __future__ import annotations

from typing import Any

import pytest

from tests.providers.github.deliveries import only, sample


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("queued", "queued"),
        ("pending", "queued"),
        ("in_progress", "deploying"),
        ("success", "success"),
        ("failure", "failed"),
        ("error", "failed"),
        ("inactive", "inactive"),
        ("invented", "unknown"),
    ],
)
def test_a_deployment_state_has_one_normalised_word(state: str, status: str) -> None:
    body = sample("deployment_status.created.00")
    body["deployment_status"]["state"] = state
    changed = only("deployment_status", body)
    assert (status, state) == (changed.status, changed.provider_status)


def test_deployment_statuses_of_one_second_go_by_their_ids() -> None:
    body = sample("deployment_status.created.00")
    earlier = only("deployment_status", body)
    body["deployment_status"]["id"] += 1
    later = only("deployment_status", body)
    assert earlier.moment < later.moment
    assert earlier.moment[:2] == later.moment[:2]


@pytest.mark.parametrize("event", ["deployment", "deployment_status"])
def test_a_deployment_names_the_build_that_deploys_where_the_payload_shows_it(event: str) -> None:
    assert "github:run/289782451/1" == only(event, sample(f"{event}.created.01")).build_ref
    assert None is only(event, sample(f"{event}.created.02")).build_ref


def test_a_deployed_thing_answers_at_the_environment_url_or_else_at_the_target_url() -> None:
    body = sample("deployment_status.created.01")
    body["deployment_status"] |= {
        "environment_url": "https://shop.example",
        "target_url": "https://ci.example",
    }
    assert "https://shop.example" == only("deployment_status", body).url
    body["deployment_status"]["environment_url"] = ""
    assert "https://ci.example" == only("deployment_status", body).url
    body["deployment_status"]["target_url"] = ""
    assert None is only("deployment_status", body).url


def vercels(**status: object) -> Any:
    """A status of a deployment that Vercel made."""
    body = sample("deployment_status.created.00")
    body["deployment"]["creator"]["login"] = "vercel[bot]"
    body["deployment_status"] |= status
    return only("deployment_status", body)


@pytest.mark.parametrize(
    ("environment_url", "target_url", "same_as"),
    [
        ("https://shop-1a2b.vercel.app", "", "vercel:url/shop-1a2b.vercel.app"),
        ("https://Shop-1a2b.Vercel.app/", None, "vercel:url/shop-1a2b.vercel.app"),
        ("", "https://shop-1a2b.vercel.app/path", "vercel:url/shop-1a2b.vercel.app"),
        ("https://one.vercel.app", "https://two.vercel.app", "vercel:url/one.vercel.app"),
        (None, "https://vercel.com/team/shop/9xYz", None),
        ("https://one.vercel.app", "https://vercel.com/team/shop/9xYz", "vercel:url/one.vercel.app"),
        ("shop-1a2b.vercel.app", None, None),
        ("https://[", None, None),
        (None, None, None),
    ],
)
def test_vercels_deployment_is_known_by_the_host_that_it_got(
    environment_url: str | None, target_url: str | None, same_as: str | None
) -> None:
    assert same_as == vercels(environment_url=environment_url, target_url=target_url).same_as


def test_a_status_that_vercel_reports_for_another_is_vercels_too() -> None:
    body = sample("deployment_status.created.00")
    body["deployment_status"] |= {"environment_url": "https://a.vercel.app"}
    assert None is only("deployment_status", body).same_as
    body["deployment_status"]["creator"]["login"] = "vercel[bot]"
    assert "vercel:url/a.vercel.app" == only("deployment_status", body).same_as


@pytest.mark.parametrize(
    ("environment", "git_ref", "env"),
    [
        ("production", "feature/x", "prod"),
        ("Preview", "main", "stage"),
        ("github-pages", "main", "prod"),
        ("github-pages", "refs/heads/staging-1", "stage"),
        ("github-pages", "v1.0", "unknown"),
        ("github-pages", None, "unknown"),
    ],
)
@pytest.mark.parametrize("event", ["deployment", "deployment_status"])
def test_the_target_and_else_the_branch_say_which_environment_a_deployment_is_for(
    event: str, environment: str, git_ref: str | None, env: str
) -> None:
    body = sample(f"{event}.created.01")
    body["deployment"] |= {"environment": environment, "ref": git_ref}
    assert env == only(event, body).env
