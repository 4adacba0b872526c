"""The traps of deployments."""

from __future__ import annotations

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
