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


@pytest.mark.parametrize(
    ("git_ref", "env"),
    [("refs/heads/main", "prod"), ("refs/heads/feature/main", "unknown"), ("refs/tags/main", "unknown")],
)
def test_a_push_is_about_the_environment_of_its_branch_and_a_tag_is_none(git_ref: str, env: str) -> None:
    assert env == only("push", sample("push.04") | {"ref": git_ref}).env


def test_a_repository_changed_no_earlier_than_its_last_push() -> None:
    body = sample("repository.renamed.09")
    body["repository"] |= {"updated_at": "2019-05-15T15:20:41Z", "pushed_at": "2019-06-01T00:00:00Z"}
    assert datetime(2019, 6, 1, tzinfo=UTC) == only("repository", body).occurred_at


def test_an_installation_says_what_it_may_do_and_since_when_it_may_do_nothing() -> None:
    suspended = only("installation", sample("installation.suspend.05"))
    free = only("installation", sample("installation.unsuspend.06"))
    assert datetime(2021, 4, 29, 2, 32, 50, tzinfo=UTC) == suspended.suspended_at
    assert None is free.suspended_at
    assert ("write", "read") == (free.permissions["contents"], free.permissions["issues"])


def test_an_installation_that_ends_is_later_than_everything_that_it_was() -> None:
    body = sample("installation.unsuspend.06")
    changes = ("created", "suspend", "unsuspend", "deleted")
    moments = [only("installation", body | {"action": change}).moment for change in changes]
    assert sorted(set(moments)) == moments


def test_a_permission_in_words_that_are_no_text_is_left_out() -> None:
    body = sample("installation.created.01")
    body["installation"]["permissions"] = {"issues": "write", "checks": None, "pages": {"read": True}}
    assert {"issues": "write"} == only("installation", body).permissions
