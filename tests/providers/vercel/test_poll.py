"""What is taken from an answer of the API, and what never is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from contracts.observation import observed_body
from providers.port import Unintelligible
from providers.vercel.poll import items
from tests.providers.vercel.deliveries import page

SECRETS = (
    "mona@example.com",
    "Mona Lisa",
    "eyJ2IjoidjIifQ",
    "buildCommand",
    "DATABASE_URL",
    "passwordProtection",
)


def test_a_page_of_deployments_is_one_item_each() -> None:
    found = items("deployments", "team_1", page("deployments"))
    assert 7 == len(found)
    assert {"deployment"} == {item.kind for item in found}
    assert "vercel:dpl_3QueuedByCli00000000000000a1" == found[0].ref
    assert {"team_1"} == {json.loads(item.body)["scope"] for item in found}


def test_a_project_is_one_item_with_the_ids_of_what_its_targets_serve() -> None:
    [found] = items("project", "shop", page("project"))
    shown = {
        "id": "prj_6yRbTn3kQ9wMx2vLz8hFcJ5dGs4p",
        "name": "shop",
        "targets": {"production": {"id": "dpl_3ReadyInProduction000000000c"}},
    }
    assert observed_body("shop", shown) == found.body
    assert ("vercel:project/prj_6yRbTn3kQ9wMx2vLz8hFcJ5dGs4p", "project") == (found.ref, found.kind)


def test_what_is_no_plain_value_is_not_kept() -> None:
    strange = {"token": "hunter2"}
    given: dict[str, Any] = {
        "uid": "dpl_1",
        "errorMessage": strange,
        "source": [strange],
        "target": None,
        "created": 7,
    }
    given |= {"meta": {"githubCommitMessage": strange, "githubRepo": "r"}, "creator": {"uid": [strange]}}
    [found] = items("deployments", "s", json.dumps({"deployments": [given]}).encode())
    kept = {"uid": "dpl_1", "target": None, "created": 7, "meta": {"githubRepo": "r"}, "creator": {}}
    assert kept == json.loads(found.body)["item"]
    project = {"id": "prj_1", "targets": {"production": {"id": strange}}}
    [found] = items("project", "s", json.dumps(project).encode())
    assert {} == json.loads(found.body)["item"]["targets"]


@pytest.mark.parametrize("kind", ["deployments", "project"])
def test_addresses_of_people_and_settings_never_leave_the_answer(kind: str) -> None:
    answer = page(kind).decode()
    assert any(secret in answer for secret in SECRETS)
    stored = " ".join(item.body.decode() for item in items(kind, "s", answer.encode()))
    assert [secret for secret in SECRETS if secret in stored] == []


def test_the_order_of_keys_and_what_is_not_kept_make_no_new_body() -> None:
    answer = json.loads(page("deployments"))
    again = {
        "deployments": [dict(reversed(each.items())) | {"oomReport": "no"} for each in answer["deployments"]]
    }
    assert items("deployments", "s", page("deployments")) == items(
        "deployments", "s", json.dumps(again).encode()
    )


def test_a_project_that_serves_nothing_yet_is_an_item_too() -> None:
    for targets in ("null", "{}", '{"production": null}', '{"production": {}}'):
        [found] = items("project", "s", f'{{"id": "prj_1", "targets": {targets}}}'.encode())
        assert {} == json.loads(found.body)["item"]["targets"]


@pytest.mark.parametrize(
    ("kind", "body", "reason"),
    [
        ("deployments", b"", "not_json"),
        ("deployments", b"[]", "shape_mismatch"),
        ("deployments", b'{"error": {"code": "forbidden"}}', "shape_mismatch"),
        ("deployments", b'{"deployments": [7]}', "shape_mismatch"),
        ("deployments", b'{"deployments": [{"name": "hunter2"}]}', "shape_mismatch"),
        ("project", b'{"id": null}', "shape_mismatch"),
        ("project", b'{"id": "p", "targets": {"hunter2": 7}}', "shape_mismatch"),
        ("domains", b"{}", "no_such_page"),
    ],
)
def test_an_answer_of_another_shape_is_named_without_its_values(kind: str, body: bytes, reason: str) -> None:
    with pytest.raises(Unintelligible) as caught:
        items(kind, "s", body)
    assert reason == caught.value.reason
    assert "hunter2" not in str(caught.value)
