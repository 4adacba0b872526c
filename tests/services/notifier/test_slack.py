"""What each answer of Slack means, and that a post is never repeated blindly. Against a real HTTP server."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tenacity import wait_none

from runtime import http as outgoing
from runtime.embedded import free_port
from runtime.http import HttpClient
from runtime.settings import BadSettings, Settings
from services.notifier import slack as subject
from services.notifier.app import destination_of
from services.notifier.dry_run import DryRun
from services.notifier.message import Message
from services.notifier.slack import Bot, Later, NotThere, Posted, Refused, Unknown, Webhook
from tests.slack_double import CHANNEL, TOKEN, WEBHOOK_PATH, Reply, SlackDouble

pytestmark = pytest.mark.anyio

HELLO = Message(
    about="github:run/1/1", kind="build.finished", text="hello", blocks=[{"type": "divider"}], plain="hello"
)
ID = "5f0c8f0e-0000-5000-8000-000000000001"


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for nothing that a test does not ask for."""
    monkeypatch.setattr(subject, "PACE_S", 0.0)
    monkeypatch.setattr(outgoing, "READ_S_MAX", 0.5)
    monkeypatch.setattr(outgoing, "_backoff_s", wait_none())


@pytest.fixture
def slack() -> Iterator[SlackDouble]:
    with SlackDouble() as double:
        yield double


@pytest.fixture
async def http(hasty: None) -> AsyncIterator[HttpClient]:
    async with HttpClient() as client:
        yield client


@pytest.fixture
def bot(slack: SlackDouble, http: HttpClient) -> Bot:
    return Bot(http, f"{slack.api_url}/", TOKEN, CHANNEL)


@pytest.fixture
def webhook(slack: SlackDouble, http: HttpClient) -> Webhook:
    return Webhook(http, slack.webhook_url)


async def test_a_bot_posts_with_our_id_in_the_metadata(slack: SlackDouble, bot: Bot) -> None:
    posted = await bot.post(ID, HELLO)
    assert posted == Posted(slack.messages[0]["ts"])
    assert slack.posts == [
        {
            "channel": CHANNEL,
            "text": "hello",
            "blocks": [{"type": "divider"}],
            "metadata": {"event_type": "odooops_message", "event_payload": {"id": ID}},
            "unfurl_links": False,
            "unfurl_media": False,
        }
    ]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (
            Reply(error="invalid_blocks", details=("[ERROR] /blocks/0",)),
            Refused("invalid_blocks", "[ERROR] /blocks/0"),
        ),
        (Reply(error="msg_too_long"), Refused("msg_too_long")),
        (Reply(error="no_text"), Refused("no_text")),
        (Reply(error="invalid_auth"), Later(60, "invalid_auth")),
        (Reply(error="not_in_channel"), Later(60, "not_in_channel")),
        (Reply(error="channel_not_found"), Later(60, "channel_not_found")),
        (Reply(error="token_revoked"), Later(60, "token_revoked")),
        (Reply(error="account_inactive"), Later(60, "account_inactive")),
        (Reply(error="an_error_of_tomorrow"), Later(60, "an_error_of_tomorrow")),
        (Reply(error="<script>"), Later(60, "unexpected_answer")),
        (Reply(error="ratelimited", retry_after_s=7), Later(7, "ratelimited", everything=True)),
        (Reply(status=429, error="ratelimited", retry_after_s=17), Later(17, "ratelimited", everything=True)),
        (Reply(status=429, error="ratelimited"), Later(30, "ratelimited", everything=True)),
        (
            Reply(status=429, error="ratelimited", retry_after_s=10**9),
            Later(600, "ratelimited", everything=True),
        ),
        (Reply(status=404), Later(60, "http_404")),
        (Reply(status=302), Later(60, "http_302")),
        (Reply(error="fatal_error"), Unknown("fatal_error")),
        (Reply(error="internal_error"), Unknown("internal_error")),
        (Reply(status=503), Unknown("http_503")),
        (Reply(body=b"<html>maintenance</html>"), Unknown("unexpected_answer")),
        (Reply(body=b"[]"), Unknown("unexpected_answer")),
        (Reply(drops=True), Unknown("remote_protocol_error")),
        (Reply(hangs=True), Unknown("read_timeout")),
    ],
)
async def test_each_answer_to_a_bot_means_one_thing_and_is_asked_for_once(
    slack: SlackDouble, bot: Bot, reply: Reply, expected: object
) -> None:
    slack.replies.append(reply)
    assert await bot.post(ID, HELLO) == expected
    assert len(slack.posts) == 1


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(), Posted(None)),
        (Reply(status=429, error="ratelimited", retry_after_s=9), Later(9, "ratelimited", everything=True)),
        (Reply(status=500, error="rollup_error"), Later(None, "http_500")),
        (Reply(status=503, retry_after_s=4), Later(4, "http_503")),
        (Reply(status=400, error="invalid_payload"), Refused("invalid_payload")),
        (Reply(status=400, error="user_not_found"), Refused("user_not_found")),
        (Reply(status=400, body=b"<html>"), Refused("http_400")),
        (Reply(status=403, error="action_prohibited"), Later(60, "http_403")),
        (Reply(status=404, error="no_service"), Later(60, "http_404")),
        (Reply(status=410, error="channel_is_archived"), Later(60, "http_410")),
        (Reply(body=b"welcome to the hotel network"), Later(60, "unexpected_answer")),
        (Reply(drops=True), Unknown("remote_protocol_error")),
        (Reply(hangs=True), Unknown("read_timeout")),
    ],
)
async def test_each_answer_to_a_webhook_means_one_thing_and_is_asked_for_once(
    slack: SlackDouble, webhook: Webhook, reply: Reply, expected: object
) -> None:
    slack.replies.append(reply)
    assert await webhook.post(ID, HELLO) == expected
    assert slack.posts == [{"text": "hello", "blocks": [{"type": "divider"}]}]


async def test_nobody_listening_is_surely_not_posted(http: HttpClient) -> None:
    bot = Bot(http, f"http://127.0.0.1:{free_port()}/api", TOKEN, CHANNEL)
    outcome = await bot.post(ID, HELLO)
    assert isinstance(outcome, Later)
    assert outcome.reason.startswith("connect_error")
    assert outcome.everything


async def test_a_message_is_found_by_our_id_on_a_later_page(slack: SlackDouble, bot: Bot) -> None:
    slack.page_size_max = 3
    wanted = slack.seed(ID, ago_s=50)
    for n in range(7):
        slack.seed(f"another {n}", ago_s=n)
    assert await bot.find(ID, datetime.now(UTC)) == Posted(wanted)
    assert len(slack.searches) == 3
    assert slack.searches[0]["include_all_metadata"] == "true"


async def test_a_message_that_is_not_in_the_channel_is_not_there(slack: SlackDouble, bot: Bot) -> None:
    slack.messages += [
        {"ts": "9999999999.000001", "text": "a person"},
        {"ts": "9999999999.000002", "metadata": {"event_type": "task", "event_payload": {"id": ID}}},
        {"ts": "9999999999.000003", "metadata": {"event_type": "odooops_message", "event_payload": ["x"]}},
        {"ts": "9999999999.000004", "metadata": "odd"},
    ]
    assert await bot.find(ID, datetime.now(UTC)) == NotThere()


async def test_the_search_looks_back_further_than_clocks_may_differ(slack: SlackDouble, bot: Bot) -> None:
    now = datetime.now(UTC)
    ts = slack.seed(ID, ago_s=subject.CLOCK_SKEW_S_MAX - 10)
    assert await bot.find(ID, now) == Posted(ts)
    assert await bot.find(ID, now + timedelta(seconds=20)) == NotThere()


async def test_a_search_is_bounded_and_a_channel_too_busy_to_search_is_not_posted_to(
    slack: SlackDouble, bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "HISTORY_PAGES_MAX", 2)
    slack.page_size_max = 1
    for n in range(3):
        slack.seed(f"another {n}")
    assert await bot.find(ID, datetime.now(UTC)) == Later(60, "history_too_long")
    assert len(slack.searches) == 2


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(error="missing_scope"), Later(60, "missing_scope")),
        (Reply(status=429, retry_after_s=40), Later(40, "ratelimited", everything=True)),
        (Reply(status=503, retry_after_s=40), Later(40, "http_503")),
        (Reply(body=b"{}"), Later(None, "unexpected_answer")),
    ],
)
async def test_a_search_that_slack_refuses_is_for_later(
    slack: SlackDouble, bot: Bot, reply: Reply, expected: object
) -> None:
    slack.history_replies.append(reply)
    assert await bot.find(ID, datetime.now(UTC)) == expected


async def test_a_search_is_repeated_where_a_post_would_not_be(slack: SlackDouble, bot: Bot) -> None:
    ts = slack.seed(ID)
    slack.history_replies += [
        Reply(status=503),
        Reply(drops=True),
        Reply(hangs=True),
        Reply(status=429, retry_after_s=0),
    ]
    assert await bot.find(ID, datetime.now(UTC)) == Posted(ts)
    assert len(slack.searches) == 5


async def test_a_search_gives_up_after_its_attempts(slack: SlackDouble, bot: Bot) -> None:
    slack.history_default = Reply(status=500)
    assert await bot.find(ID, datetime.now(UTC)) == Later(None, "http_500")
    assert len(slack.searches) == outgoing.ATTEMPTS_MAX


async def test_messages_keep_slacks_pace(
    slack: SlackDouble, bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "PACE_S", 0.3)
    for n in range(3):
        await bot.post(f"{ID}{n}", HELLO)
    gaps = [later - sooner for sooner, later in zip(slack.post_times, slack.post_times[1:], strict=False)]
    assert min(gaps) > 0.25


async def test_an_answer_too_large_is_not_read_to_its_end(
    slack: SlackDouble, bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "ANSWER_BYTES_MAX", 1000)
    slack.replies.append(Reply(body=b"x" * 5000))
    assert await bot.post(ID, HELLO) == Unknown("answer_too_large")


async def test_an_attempt_ends_however_slowly_the_answer_trickles(
    slack: SlackDouble, bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "ATTEMPT_S_MAX", 0.1)
    slack.replies.append(Reply(hangs=True))
    assert await bot.post(ID, HELLO) == Unknown("attempt_timeout")


async def test_a_retry_after_may_be_a_date_or_nonsense() -> None:
    def asked(value: str) -> float | None:
        return outgoing.Answer(429, {"retry-after": value}, b"").retry_after_s

    soon = asked(f"{datetime.now(UTC) + timedelta(seconds=90):%a, %d %b %Y %H:%M:%S GMT}")
    assert soon is not None
    assert 80 < soon <= 90
    assert asked("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert asked("") is None
    assert asked("soon") is None
    assert asked("-5") is None
    assert asked("9" * 5000) == outgoing.RETRY_AFTER_S_MAX
    assert asked("²") is None


async def test_no_secret_reaches_a_name_an_error_or_a_log(
    slack: SlackDouble, bot: Bot, webhook: Webhook, http: HttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    gone = Webhook(http, f"http://127.0.0.1:{free_port()}{WEBHOOK_PATH}")
    slack.replies += [
        Reply(drops=True),
        Reply(error="invalid_auth"),
        Reply(status=404),
        Reply(body=WEBHOOK_PATH.encode()),
    ]
    outcomes = [await each.post(ID, HELLO) for each in (bot, bot, webhook, webhook, gone)]
    said = f"{caplog.text} {outcomes} {bot!r} {webhook!r} {bot.name} {webhook.name}"
    assert TOKEN not in said
    assert WEBHOOK_PATH not in said
    assert "secret-that-nobody-may-see" not in said


def settings(**given: Any) -> Settings:
    return Settings(**{"slack_bot_token": None, "slack_channel": None, "slack_webhook_url": None, **given})


async def test_the_settings_decide_where_messages_go(http: HttpClient) -> None:
    token, hook = "xoxb-1", "https://hooks.slack.com/services/T/B/x"
    assert (
        destination_of(settings(slack_bot_token=token, slack_channel=CHANNEL), http).name
        == f"slack:{CHANNEL}"
    )
    both = settings(slack_bot_token=token, slack_channel=CHANNEL, slack_webhook_url=hook)
    assert isinstance(destination_of(both, http), Bot)
    by_hook = destination_of(settings(slack_webhook_url=hook), http)
    assert by_hook.name == f"webhook:{hashlib.sha256(hook.encode()).hexdigest()[:12]}"
    assert by_hook.channel is None
    for nothing in (
        settings(),
        settings(slack_bot_token="", slack_webhook_url=" "),
        settings(slack_channel=CHANNEL),
    ):
        assert isinstance(destination_of(nothing, http), DryRun)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"slack_bot_token": "xoxb-1"}, "SLACK_CHANNEL"),
        ({"slack_bot_token": "xoxb-1", "slack_channel": "#ops"}, "SLACK_CHANNEL"),
        ({"slack_bot_token": "xoxb-1\nxoxb-2", "slack_channel": CHANNEL}, "SLACK_BOT_TOKEN"),
        ({"slack_bot_token": "x", "slack_channel": CHANNEL, "slack_api_url": "slack.com"}, "SLACK_API_URL"),
        ({"slack_webhook_url": "hooks.slack.com/services/T/B/secret"}, "SLACK_WEBHOOK_URL"),
        ({"slack_webhook_url": "https://hooks.slack.com:port/secret"}, "SLACK_WEBHOOK_URL"),
    ],
)
async def test_a_setting_that_cannot_work_is_named_and_not_repeated(
    http: HttpClient, given: dict[str, object], named: str
) -> None:
    with pytest.raises(BadSettings, match=named) as raised:
        destination_of(settings(**given), http)
    assert "secret" not in str(raised.value)
    assert "xoxb" not in str(raised.value)
