"""What is said, of what nothing is said, and that provider text stays text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.builds import BuildQueued, BuildStatus
from contracts.deployments import DeploymentCreated, DeploymentStatus
from contracts.envelope import Event
from services.notifier import message
from services.notifier.message import Message, message_id, render
from tests.services.notifier.events import (
    NOON,
    SAME_AS,
    build,
    by_github,
    by_vercel,
    deployment,
    webhook_failing,
    webhook_mended,
)

OUR_LINK = re.compile(r"<https?://[^<>|\s]+\|[^<>|]*>")
LONE_AMPERSAND = re.compile("&(?!amp;|lt;|gt;)")


def rendered(event: Event) -> Message:
    found = render(event)
    assert found is not None
    return found


def text_objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every text object in a message's blocks."""
    if isinstance(value, list):
        for item in value:
            yield from text_objects(item)
    elif isinstance(value, dict):
        if value.get("type") in ("mrkdwn", "plain_text"):
            yield value
        for item in value.values():
            yield from text_objects(item)


def all_text(told: Message) -> list[str]:
    return [told.text, *(each["text"] for each in text_objects(told.blocks))]


@pytest.mark.parametrize(
    ("status", "headline"),
    [
        ("success", "✅ Build succeeded: org/shop"),
        ("failed", "❌ Build failed: org/shop"),
        ("cancelled", "🚫 Build cancelled: org/shop"),
        ("skipped", "⏭ Build skipped: org/shop"),
        ("neutral", "➖ Build ended without a verdict: org/shop"),
        ("unknown", "❔ Build ended, outcome unknown: org/shop"),
    ],
)
def test_a_finished_build_is_told_with_its_outcome(status: str, headline: str) -> None:
    told = rendered(build(NOON, status=status))
    assert told.kind == "build.finished"
    assert told.blocks[0]["text"] == {"type": "plain_text", "text": headline, "emoji": True}
    assert told.text.startswith(headline)


@pytest.mark.parametrize("status", get_args(BuildStatus))
def test_every_status_that_a_build_may_end_with_can_be_told(status: str) -> None:
    assert rendered(build(NOON, status=status)).kind == "build.finished"


@pytest.mark.parametrize("status", get_args(DeploymentStatus))
def test_a_deployment_is_told_when_it_succeeds_or_fails_only(status: str) -> None:
    told = render(deployment(NOON, status=status))
    if status in ("success", "failed"):
        assert told is not None
        assert told.kind == f"deployment.{status}"
    else:
        assert told is None


def test_a_webhook_that_fails_is_told_with_what_to_do_and_again_when_it_works() -> None:
    failing, mended = rendered(webhook_failing(NOON)), rendered(webhook_mended(NOON))
    assert ("webhook.failing", "webhook.mended") == (failing.kind, mended.kind)
    assert failing.plain.splitlines()[:3] == [
        "🔕 Webhook fails: github",
        "  it is switched off: switch it on",
        "  Webhook of: repos/org/shop",
    ]
    assert mended.plain.startswith("🔔 Webhook works again: github\n  Webhook of: repos/org/shop\n")


def test_each_time_that_a_webhook_fails_is_a_message_of_its_own() -> None:
    first, again = (rendered(webhook_failing(NOON + timedelta(hours=n))) for n in range(2))
    assert first.about != again.about


@pytest.mark.parametrize("event_type", [BuildQueued, DeploymentCreated])
def test_what_has_not_ended_says_nothing(event_type: type[Event]) -> None:
    like = build(NOON, status="queued") if event_type is BuildQueued else deployment(NOON)
    assert render(event_type.model_validate(like.model_dump())) is None


def test_a_build_names_what_a_reader_asks_for() -> None:
    told = rendered(build(NOON, run_attempt=2, pull_request=31))
    assert told.blocks[1]["text"]["text"] == "<https://github.com/org/shop/actions/runs/421|Fix the cart>"
    assert [field["text"] for field in told.blocks[2]["fields"]] == [
        "*Workflow*\ntest #12",
        "*Branch*\nmain",
        "*Attempt*\n2",
        "*Commit*\n3484a3f",
        "*Pull request*\n#31",
        "*Trigger*\npush",
        "*Duration*\n3 min 4 s",
        "*Who*\noctocat",
    ]
    footer = told.blocks[3]["elements"][0]["text"]
    assert footer.startswith("github:run/421/1 · event ")


def test_a_deployment_names_environment_and_addresses() -> None:
    told = rendered(deployment(NOON, description="rolled out", log_url="https://ci.example.com/1?a=1&b=2"))
    assert told.blocks[1]["text"]["text"] == (
        "<https://shop.example.com/|rolled out> · <https://ci.example.com/1?a=1&amp;b=2|Log>"
    )
    assert [field["text"] for field in told.blocks[2]["fields"]] == [
        "*Environment*\nlive (production)",
        "*Branch*\nmain",
        "*Commit*\nf95f852",
        "*Duration*\n1 h 2 min",
        "*Who*\nrelease-bot",
    ]


def test_a_deployment_is_remembered_by_what_its_reports_have_in_common() -> None:
    assert {SAME_AS} == {rendered(by_github(NOON)).about, rendered(by_vercel(NOON)).about}
    assert "github:deployment/99" == rendered(deployment(NOON)).about
    assert "github:run/421/1" == rendered(build(NOON)).about


def test_a_deployment_without_repository_is_named_by_its_project() -> None:
    bare: dict[str, Any] = dict.fromkeys(("repository", "git_ref", "commit_sha", "creator", "environment"))
    told = rendered(by_vercel(NOON, **bare, production=None, pull_request=31))
    assert told.text.startswith("🚀 Deployment succeeded: shop-web\n")
    assert [field["text"] for field in told.blocks[2]["fields"]] == [
        "*Project*\nshop-web",
        "*Pull request*\n#31",
        "*Duration*\n1 h 2 min",
        "*Who*\noctocat",
    ]


def test_production_is_not_said_twice() -> None:
    told = rendered(by_vercel(NOON, environment="production"))
    assert told.blocks[2]["fields"][0]["text"] == "*Environment*\nproduction"


def test_what_is_not_known_is_left_out() -> None:
    unknown: dict[str, Any] = dict.fromkeys(
        ("actor", "number", "workflow", "title", "branch", "commit_sha", "trigger", "url", "started_at")
    )
    told = rendered(build(NOON, **unknown))
    assert [block["type"] for block in told.blocks] == ["header", "section", "context"]
    assert [field["text"] for field in told.blocks[1]["fields"]] == ["*Workflow*\nrun"]


@pytest.mark.parametrize("mention", ["<!channel>", "<!here>", "<@U012AB3CD>", "<#C012|x>", "<!subteam^S1>"])
def test_a_mention_in_provider_text_pings_nobody(mention: str) -> None:
    told = rendered(
        build(NOON, title=mention, branch=mention, workflow=mention, actor=mention, repository=mention)
    )
    for text in all_text(told):
        assert mention not in text
        assert "<!" not in text
        assert "<@" not in text
    assert "&lt;" in told.text


def test_slack_is_told_to_look_for_nothing_in_the_text() -> None:
    objects = list(text_objects(rendered(build(NOON)).blocks))
    assert {each["type"] for each in objects} == {"plain_text", "mrkdwn"}
    assert all(each["verbatim"] for each in objects if each["type"] == "mrkdwn")


def test_a_link_label_cannot_end_its_link() -> None:
    told = rendered(build(NOON, title="a|b> <https://evil.example|click"))
    assert told.blocks[1]["text"]["text"] == (
        "<https://github.com/org/shop/actions/runs/421|a b&gt; &lt;https://evil.example click>"
    )


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "slack://channel?id=1",
        "//evil.example/",
        "https://",
        "https://a b/",
        "https://[::1",
        "https://x/\n<!channel>",
        "https://x/" + "a" * message.URL_CHARS_MAX,
        "https://x/" + "&" * (message.URL_CHARS_MAX // 4),
    ],
)
def test_only_a_sound_web_address_becomes_a_link(url: str) -> None:
    told = rendered(build(NOON, url=url))
    assert told.blocks[1]["text"]["text"] == "Fix the cart"
    assert url not in told.plain


def test_an_address_cannot_break_out_of_its_link() -> None:
    told = rendered(build(NOON, url="https://x/?a=1&b=<!channel>|y"))
    assert told.blocks[1]["text"]["text"] == "<https://x/?a=1&amp;b=%3C!channel%3E%7Cy|Fix the cart>"


def test_a_long_title_is_cut_with_an_ellipsis_and_never_inside_an_escape() -> None:
    for length in range(message.TITLE_CHARS_MAX - 10, message.TITLE_CHARS_MAX + 10):
        told = rendered(build(NOON, url=None, title="x" * length + "&&&&"))
        shown = told.blocks[1]["text"]["text"]
        assert len(shown) <= message.TITLE_CHARS_MAX
        assert shown.endswith(("…", "&amp;"))
        assert not LONE_AMPERSAND.search(shown)


def test_only_the_first_line_of_a_message_is_the_title() -> None:
    told = rendered(build(NOON, title=None, url=None, commit_message="\n first\r\nsecond"))
    assert told.blocks[1]["text"]["text"] == "first"


def test_a_terminal_is_safe_from_provider_text() -> None:
    told = rendered(build(NOON, title="\x1b[2J\x07 red \u202e txt.exe", branch="a\x00b"))
    assert "\x1b" not in told.plain
    assert "\x07" not in told.plain
    assert "\u202e" not in told.plain
    assert "  Branch: a b" in told.plain.splitlines()


def test_a_duration_that_clocks_disagree_about_is_not_shown() -> None:
    told = rendered(build(NOON, started_at=NOON, finished_at=NOON.replace(hour=11)))
    assert "Duration" not in told.plain


def test_the_id_of_a_message_is_derived_and_never_changes() -> None:
    assert (
        message_id("slack:C1", "github:run/1/1", "build.finished") == "c9681a7b-8573-5ddf-96cc-58b777076dcf"
    )
    others = {
        message_id("slack:C2", "github:run/1/1", "build.finished"),
        message_id("slack:C1", "github:run/1/2", "build.finished"),
        message_id("slack:C1", "github:run/1/1", "deployment.failed"),
    }
    assert len(others) == 3


nasty = st.text(
    alphabet=st.one_of(st.sampled_from("<>&|!@#*\n\r\t\x00\x1b\u202e"), st.characters()), max_size=400
)
urls = st.one_of(nasty, nasty.map("https://x/{}".format), st.just("https://x/" + "&" * 180))


@given(
    text=st.fixed_dictionaries(
        dict.fromkeys(("title", "branch", "workflow", "actor", "trigger", "ref"), nasty)
    ),
    repository=nasty,
    commit=nasty,
    url=urls,
    status=st.sampled_from(get_args(BuildStatus)),
)
def test_no_build_breaks_the_markup_or_the_limits(
    text: dict[str, Any], repository: str, commit: str, url: str, status: str
) -> None:
    event = build(NOON, **text, repository=repository, commit_sha=commit, url=url, status=status)
    require_sound(rendered(event))


@given(
    text=st.fixed_dictionaries(dict.fromkeys(("environment", "git_ref", "task", "creator", "ref"), nasty)),
    repository=nasty,
    description=nasty,
    url=urls,
    log_url=urls,
    status=st.sampled_from(["success", "failed"]),
)
def test_no_deployment_breaks_the_markup_or_the_limits(
    text: dict[str, Any], repository: str, description: str, url: str, log_url: str, status: str
) -> None:
    event = deployment(
        NOON, **text, repository=repository, description=description, url=url, log_url=log_url, status=status
    )
    require_sound(rendered(event))


encodable = nasty.map(lambda text: text.encode(errors="replace").decode() or "?")


@given(text=st.fixed_dictionaries(dict.fromkeys(("problem", "ref", "scope"), encodable)))
def test_no_webhook_breaks_the_markup_or_the_limits(text: dict[str, Any]) -> None:
    require_sound(rendered(webhook_failing(NOON, **text)))


def require_sound(told: Message) -> None:
    """Nothing unescaped but our own links, and within what Slack takes."""
    for text in all_text(told):
        rest = OUR_LINK.sub("", text)
        assert "<" not in rest
        assert ">" not in rest
        assert not LONE_AMPERSAND.search(text)
        assert text.strip()
    assert len(told.text) <= 40_000
    assert len(told.blocks) <= 50
    assert sum(len(text) for text in all_text(told)) < 10_000
    for block in told.blocks:
        if block["type"] == "header":
            assert len(block["text"]["text"]) <= 150
        elif "fields" in block:
            assert 0 < len(block["fields"]) <= 10
            assert all(len(field["text"]) <= 2_000 for field in block["fields"])
        elif block["type"] == "section":
            assert len(block["text"]["text"]) <= 3_000
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", told.plain)
