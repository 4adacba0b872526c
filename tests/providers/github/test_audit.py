"""The traps of pushes, repositories, installations and hooks."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.providers.github.deliveries import only, sample


def test_a_push_that_deletes_a_branch_has_no_commit() -> None:
    pushed = only("push", sample("push.01"))
    assert (True, "0" * 40, None, 0) == (
        pushed.deleted,
        pushed.after_sha,
        pushed.head_message,
        pushed.commits,
    )


def test_a_push_is_dated_by_a_number_or_by_text() -> None:
    body = sample("push.04")
    by_number = only("push", body)
    body["repository"]["pushed_at"] = "2019-05-15T15:20:57Z"
    assert by_number == only("push", body)


@pytest.mark.parametrize(("commits", "capped"), [(0, False), (2047, False), (2048, True)])
def test_a_push_says_when_its_list_of_commits_is_full(commits: int, capped: bool) -> None:
    pushed = only("push", sample("push.04") | {"commits": [{}] * commits})
    assert (commits, capped) == (pushed.commits, pushed.commits_capped)


def test_a_push_without_sender_was_done_by_its_pusher() -> None:
    body = sample("push.04") | {"sender": None, "pusher": {"name": "deploy-key"}}
    assert "deploy-key" == only("push", body).actor


def test_a_renamed_repository_keeps_its_id_and_names_its_past() -> None:
    body = sample("repository.renamed.09")
    body["changes"]["repository"]["name"]["from"] = "Old-World"
    renamed = only("repository", body)
    assert ("github:repository/186853261", "Octocoders/Old-World") == (renamed.ref, renamed.previous_name)


@pytest.mark.parametrize("owner", ["user", "organization"])
def test_a_transferred_repository_names_its_past_owner(owner: str) -> None:
    body = sample("repository.transferred.10")
    body["changes"] = {"owner": {"from": {owner: {"login": "before"}}}}
    assert "before/Hello-World" == only("repository", body).previous_name


def test_the_time_of_an_installation_may_be_a_number_or_text() -> None:
    assert (
        datetime(2019, 5, 15, 15, 19, 51, tzinfo=UTC)
        == only("installation", sample("installation.created.01")).occurred_at
    )
    assert (
        datetime(2021, 4, 29, 2, 32, 50, tzinfo=UTC)
        == only("installation", sample("installation.suspend.05")).occurred_at
    )


def test_a_removed_hook_is_later_than_every_ping_of_it() -> None:
    body = sample("meta.deleted.00")
    removed = only("meta", body)
    del body["action"]
    pinged = only("ping", body)
    assert ("webhook.removed", removed.ref) == (removed.type, pinged.ref)
    assert pinged.moment < removed.moment


def test_two_pings_of_one_hook_are_two_facts() -> None:
    first, second = (only("ping", sample("ping.00"), identity=identity) for identity in ("one", "two"))
    assert first.moment == second.moment
    assert first.id != second.id


def test_an_organisations_ping_carries_no_repository() -> None:
    body = sample("ping.00") | {"organization": {"login": "Octocoders"}}
    del body["repository"]
    assert "Octocoders" == only("ping", body).target


def test_an_apps_ping_carries_neither() -> None:
    body = sample("ping.00")
    del body["repository"]
    assert None is only("ping", body).target
