"""How an answer is cut: every recorded one against its reviewed outcome, and what is not taken."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.digitalocean.items import ERRORS, items, total
from providers.port import Unintelligible
from tests.conformance.test_every_provider import mutated
from tests.providers.digitalocean.answers import (
    ANSWERS,
    EXPECTED,
    KINDS,
    REFUSED,
    answer,
    expected_path,
    outcome,
    refusal,
    shown,
)


@pytest.mark.parametrize("path", ANSWERS, ids=lambda path: path.stem)
def test_an_answer_becomes_what_was_reviewed(path: Path) -> None:
    assert json.loads(expected_path(path).read_bytes()) == outcome(path)


def test_there_is_an_outcome_for_each_answer_and_no_other() -> None:
    assert sorted(map(expected_path, ANSWERS)) == sorted(EXPECTED.glob("*.json"))
    assert {path.stem for path in ANSWERS} == {*KINDS, *REFUSED}


def test_an_answer_about_one_thing_shows_what_a_list_shows_of_it() -> None:
    listed = {item.ref: item.body for item in shown("all_droplets.all_droplets")}
    [single] = shown("existing_droplet.single_droplet")

    assert single.body == listed[single.ref]


def test_the_same_content_has_the_same_body_in_whatever_order_it_is_written() -> None:
    page = json.loads(answer("all_droplets.all_droplets"))
    for droplet in page["droplets"]:
        droplet["tags"].reverse()
        droplet["features"].reverse()
    turned = [dict(reversed(droplet.items())) for droplet in page["droplets"]]

    assert [item.body for item in shown("all_droplets.all_droplets")] == [
        item.body for item in items("droplets", "droplets", json.dumps({"droplets": turned}).encode())
    ]


VOLATILE: dict[str, Any] = {
    "backup_ids": [1, 2],
    "snapshot_ids": [3],
    "next_backup_window": {"start": "2026-11-22T00:00:00Z", "end": "2026-11-22T23:00:00Z"},
    "size": {"slug": "s-1vcpu-1gb", "price_monthly": 6.0, "regions": ["nyc3"]},
    "region": {"slug": "nyc3", "sizes": ["s-2vcpu-2gb"], "available": False},
}


@pytest.mark.parametrize("key", VOLATILE)
def test_what_changes_without_the_thing_changing_does_not_change_its_body(key: str) -> None:
    [before] = shown("existing_droplet.single_droplet")
    page = json.loads(answer("existing_droplet.single_droplet"))
    page["droplet"][key] = VOLATILE[key]

    [after] = items("droplets", "droplets", json.dumps(page).encode())
    assert before.body == after.body


def test_an_id_beyond_31_bits_is_kept_to_the_last_digit() -> None:
    page = json.dumps({"actions": [{"id": 2**31 + 2**53 + 1}]}).encode()

    assert ["digitalocean:action/9007201402224641"] == [
        item.ref for item in items("actions", "actions", page)
    ]


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_is_refused_by_its_own_name(name: str) -> None:
    page = json.dumps({"id": name, "message": "the token dop_v1_0123", "request_id": "x"}).encode()
    refused = refusal("droplets", page)

    assert name == refused.reason
    assert ERRORS[name] == str(refused)


def test_an_error_without_a_known_name_is_refused_without_repeating_it() -> None:
    refused = refusal("droplets", b'{"id": "dop_v1_0123", "message": "dop_v1_0123"}')

    assert ("error_answer", False) == (refused.reason, "dop_v1" in str(refused))


@pytest.mark.parametrize(
    ("kind", "page", "reason"),
    [
        ("droplets", b"", "not_json"),
        ("droplets", b"<html>", "not_json"),
        ("droplets", b"[" * 100_000, "not_json"),
        ("droplets", b"[]", "shape_mismatch"),
        ("droplets", b"{}", "shape_mismatch"),
        ("droplets", b'{"droplets": null}', "shape_mismatch"),
        ("droplets", b'{"droplets": {"id": 1}}', "shape_mismatch"),
        ("droplets", b'{"droplets": [1]}', "shape_mismatch"),
        ("droplets", b'{"droplets": [{}]}', "shape_mismatch"),
        ("droplets", b'{"droplets": [{"id": true}]}', "shape_mismatch"),
        ("droplets", b'{"droplets": [{"id": 1.5}]}', "shape_mismatch"),
        ("databases", b'{"databases": [{"id": "a b"}]}', "shape_mismatch"),
        ("databases", b'{"databases": [{"id": {"password": "x"}}]}', "shape_mismatch"),
        ("databases", b'{"droplets": []}', "shape_mismatch"),
        ("volumes", b'{"volumes": []}', "unknown_kind"),
    ],
)
def test_what_shows_nothing_is_refused_by_name(kind: str, page: bytes, reason: str) -> None:
    assert reason == refusal(kind, page).reason


def test_gpu_droplets_are_a_listing_of_their_own() -> None:
    """`/v2/droplets` leaves them out: as a part of it they would be missing from every later listing."""
    assert "another_scope" == refusal("droplets", answer("all_droplets.gpu_droplets")).reason
    assert "another_scope" == refusal("gpu_droplets", answer("all_droplets.all_droplets")).reason
    assert "another_scope" == (
        refusal("droplets", answer("all_droplets.all_droplets"), scope="gpu_droplets").reason
    )


def test_a_filtered_listing_may_have_a_scope_of_its_own() -> None:
    page = answer("all_droplets.droplets_filtered_by_tag")
    found = items("droplets", "droplets?tag_name=env:prod", page)

    assert {"droplets?tag_name=env:prod"} == {json.loads(item.body)["scope"] for item in found}


@pytest.mark.parametrize(
    ("name", "says"),
    [("all_droplets.all_droplets", 3), ("list_firewalls_response", 1), ("database_clusters", None)],
)
def test_a_page_says_how_many_things_the_listing_has(name: str, says: int | None) -> None:
    assert says == total(answer(name))


@pytest.mark.parametrize("name", ["existing_droplet.single_droplet", "database_cluster", "unauthorized"])
def test_an_answer_about_one_thing_is_no_listing(name: str) -> None:
    with pytest.raises(Unintelligible) as refused:
        total(answer(name))
    assert "no_listing" == refused.value.reason


@given(seed=st.integers(0, 2**32))
@settings(max_examples=100)
def test_a_mutated_answer_is_cut_or_refused_by_name(seed: int) -> None:
    chance = Random(seed)
    name = chance.choice(sorted(KINDS))
    page = mutated(chance, answer(name))
    try:
        bodies = [item.body for item in items(KINDS[name], KINDS[name], page)]
    except Unintelligible as refused:
        bodies = [json.dumps(refused.reason).encode()]

    for body in bodies:
        assert json.loads(body, parse_constant=pytest.fail)
