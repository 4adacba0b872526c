"""What an event looks like in Slack, or nothing. Pure: an event in, text and Block Kit out.

Provider text is untrusted. It becomes text in `_shown` alone, which escapes it, so `<!channel>` in a title
pings nobody; and every mrkdwn object is `verbatim`, so Slack looks for no names or addresses in it either.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid5

from contracts.builds import BuildFinished, BuildStatus
from contracts.deployments import DeploymentStatus, DeploymentStatusChanged
from contracts.envelope import Event
from contracts.webhooks import WebhookFailing, WebhookMended

NAMESPACE = UUID("0b9c2c44-5a0f-5d53-9a43-6c0f2f6f8d17")
"""The uuid5 namespace of message ids. It never changes: messages already posted are found by them."""

# Slack's limits.
TEXT_CHARS_MAX = 40_000
BLOCKS_COUNT_MAX = 50
HEADER_CHARS_MAX = 150
SECTION_CHARS_MAX = 3_000
FIELD_CHARS_MAX = 2_000
FIELDS_COUNT_MAX = 10

# Ours, well below: all blocks together may hold some 12,000 characters, which Slack does not document.
TITLE_CHARS_MAX = 600
VALUE_CHARS_MAX = 250
URL_CHARS_MAX = 1_000
"""As it stands in the message, escaped."""
SHORT_COMMIT_CHARS = 7

Block = dict[str, Any]

BUILD_FINISHED = "build.finished"
BUILD_WORDS: Mapping[BuildStatus, tuple[str, str]] = {
    "success": ("✅", "Build succeeded"),
    "failed": ("❌", "Build failed"),
    "cancelled": ("🚫", "Build cancelled"),
    "skipped": ("⏭", "Build skipped"),
    "neutral": ("➖", "Build ended without a verdict"),
}
BUILD_ENDED = ("❔", "Build ended, outcome unknown")

DEPLOYMENT_WORDS: Mapping[DeploymentStatus, tuple[str, str]] = {
    "success": ("🚀", "Deployment succeeded"),
    "failed": ("❌", "Deployment failed"),
}
"""The states worth a message. A cancelled one says nothing: a newer commit took its place, or somebody stopped it."""

_ESCAPES: Mapping[str, str] = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_URL_ESCAPES = str.maketrans({"&": "&amp;", "<": "%3C", ">": "%3E", "|": "%7C"})
# Control characters move a terminal's cursor; bidirectional ones make text read as what it is not.
_INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_LINE_END = re.compile("[\n\r\x85\u2028\u2029]")
_NOT_IN_URL = re.compile(r"[^\x21-\x7e]")


@dataclass(frozen=True, slots=True)
class Message:
    """One message: `text` is what notifications and old clients show, `plain` what a terminal does.

    `about` and `kind` are what it is remembered by: of all events with equal ones, the first is told.
    """

    about: str
    kind: str
    text: str
    blocks: list[Block] = field(repr=False)
    plain: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Card:
    """What a message says, in the provider's own characters."""

    about: str
    kind: str
    icon: str
    headline: str
    title: str | None
    links: tuple[tuple[str, str | None], ...]
    """Labels and addresses; the title is the first link's label where there is one."""
    facts: tuple[tuple[str, str | None], ...]
    footer: str


def message_id(destination: str, about: str, kind: str) -> str:
    """The id of the one message of `kind` about one thing at `destination`."""
    return str(uuid5(NAMESPACE, "\x1f".join((destination, about, kind))))


def render(event: Event) -> Message | None:
    """The message that `event` is worth, or None."""
    if isinstance(event, BuildFinished):
        return _message(_build(event))
    if isinstance(event, DeploymentStatusChanged) and event.status in DEPLOYMENT_WORDS:
        return _message(_deployment(event))
    if isinstance(event, (WebhookFailing, WebhookMended)):
        return _message(_webhook(event))
    return None


def _build(event: BuildFinished) -> _Card:
    icon, word = BUILD_WORDS.get(event.status, BUILD_ENDED)
    workflow = event.workflow or "run"
    return _Card(
        about=event.ref,
        kind=BUILD_FINISHED,
        icon=icon,
        headline=f"{word}: {event.repository}",
        title=event.title or event.commit_message,
        links=(("Open the run", event.url),),
        facts=(
            ("Workflow", workflow if event.number is None else f"{workflow} #{event.number}"),
            ("Branch", event.branch),
            ("Attempt", str(event.run_attempt) if event.run_attempt > 1 else None),
            ("Commit", _short(event.commit_sha)),
            ("Pull request", None if event.pull_request is None else f"#{event.pull_request}"),
            ("Trigger", event.trigger),
            ("Duration", _duration(event.started_at, event.finished_at)),
            ("Who", event.actor),
        ),
        footer=f"{event.ref} · event {event.id}",
    )


def _deployment(event: DeploymentStatusChanged) -> _Card:
    """A deployment is known by what all who report it have in common, and told by whoever is first."""
    icon, word = DEPLOYMENT_WORDS[event.status]
    environment = event.environment or ""
    return _Card(
        about=event.same_as or event.ref,
        kind=f"deployment.{event.status}",
        icon=icon,
        headline=f"{word}: {event.repository or event.project or event.ref}",
        title=event.description,
        links=(("Open it", event.url), ("Log", event.log_url)),
        facts=(
            ("Environment", f"{environment} (production)" if _tells_more(event) else environment),
            ("Project", event.project),
            ("Branch", event.git_ref),
            ("Commit", _short(event.commit_sha)),
            ("Pull request", None if event.pull_request is None else f"#{event.pull_request}"),
            ("Task", event.task),
            ("Duration", _duration(event.created_at, event.occurred_at)),
            ("Who", event.creator or event.actor),
        ),
        footer=f"{event.ref} · event {event.id}",
    )


def _webhook(event: WebhookFailing | WebhookMended) -> _Card:
    """A webhook may fail again and again, and each time is told: so its time belongs to what it is known by."""
    problem = event.problem if isinstance(event, WebhookFailing) else None
    icon, word = ("🔔", "Webhook works again") if problem is None else ("🔕", "Webhook fails")
    return _Card(
        about=f"{event.ref}@{event.occurred_at.isoformat()}",
        kind=event.type,
        icon=icon,
        headline=f"{word}: {event.source}",
        title=problem,
        links=(),
        facts=(("Webhook of", event.scope), ("Webhook", event.ref)),
        footer=f"{event.ref} · event {event.id}",
    )


def _tells_more(event: DeploymentStatusChanged) -> bool:
    """Whether the name of the environment does not say already that it is the production."""
    return bool(event.production) and (event.environment or "").lower() != "production"


def _message(card: _Card) -> Message:
    facts = [(label, seen) for label, value in card.facts if (seen := _visible(value or ""))][
        :FIELDS_COUNT_MAX
    ]
    links = [(label, url) for label, url in card.links if url and _is_link(url)]
    title = _visible(card.title or "")
    headline = _shown(f"{card.icon} {card.headline}", HEADER_CHARS_MAX)
    body = _linked_title(title, links)
    fields = [
        _mrkdwn(f"*{label}*\n{_shown(value, VALUE_CHARS_MAX)}", FIELD_CHARS_MAX) for label, value in facts
    ]
    blocks: list[Block] = [
        {"type": "header", "text": {"type": "plain_text", "text": headline, "emoji": True}}
    ]
    if body:
        blocks.append({"type": "section", "text": _mrkdwn(body, SECTION_CHARS_MAX)})
    if fields:
        blocks.append({"type": "section", "fields": fields})
    footer = _mrkdwn(_shown(card.footer, TITLE_CHARS_MAX), FIELD_CHARS_MAX)
    blocks.append({"type": "context", "elements": [footer]})
    assert len(blocks) <= BLOCKS_COUNT_MAX
    summary = " · ".join(_shown(value, VALUE_CHARS_MAX) for _, value in facts[:2])
    parts = [headline, summary, _shown(title, TITLE_CHARS_MAX)]
    return Message(
        about=card.about,
        kind=card.kind,
        text=_within("\n".join(part for part in parts if part), TEXT_CHARS_MAX),
        blocks=blocks,
        plain=_plain(card, title, facts, links),
    )


def _linked_title(title: str, links: Iterable[tuple[str, str]]) -> str:
    """The title as the first link's label, then the other links by their own."""
    shown = []
    for n, (label, url) in enumerate(links):
        text = _shown((title if n == 0 else "") or label, TITLE_CHARS_MAX).replace("|", " ").strip()
        shown.append(f"<{url.translate(_URL_ESCAPES)}|{text or label}>")
    return " · ".join(shown) if shown else _shown(title, TITLE_CHARS_MAX)


def _plain(card: _Card, title: str, facts: list[tuple[str, str]], links: list[tuple[str, str]]) -> str:
    lines = [_visible(f"{card.icon} {card.headline}")]
    if title:
        lines.append(f"  {title}")
    lines += [f"  {label}: {value}" for label, value in facts]
    lines += [f"  {label}: {url}" for label, url in links]
    return "\n".join([*lines, f"  {_visible(card.footer)}"])


def _mrkdwn(text: str, chars_max: int) -> Block:
    return {"type": "mrkdwn", "text": _within(text, chars_max), "verbatim": True}


def _within(text: str, chars_max: int) -> str:
    """`text`, which its pieces' own limits keep within Slack's: cutting here could cut through a link."""
    assert len(text) <= chars_max
    return text


def _shown(text: str, chars_max: int) -> str:
    """Provider text on one line, escaped, at most `chars_max` characters, never cut inside an escape."""
    text = _visible(text)
    pieces = [_ESCAPES.get(character, character) for character in text[: chars_max + 1]]
    if sum(map(len, pieces)) <= chars_max:
        return "".join(pieces)
    kept, length = [], 1
    for piece in pieces:
        length += len(piece)
        if length > chars_max:
            break
        kept.append(piece)
    return "".join(kept) + "…"


def _visible(text: str) -> str:
    """The first line of `text` that holds anything, without characters that act instead of showing."""
    lines = (" ".join(_INVISIBLE.sub(" ", line).split()) for line in _LINE_END.split(text))
    return next((line for line in lines if line), "")


def _is_link(url: str) -> bool:
    """Whether `url` may become a link: http or https, printable ASCII, of sensible length."""
    if len(url.translate(_URL_ESCAPES)) > URL_CHARS_MAX or _NOT_IN_URL.search(url):
        return False
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _short(commit: str | None) -> str | None:
    return commit[:SHORT_COMMIT_CHARS] if commit else None


def _duration(start: datetime | None, end: datetime | None) -> str | None:
    """`1 h 2 min`, `3 min 4 s` or `5 s`; None where a time is missing or the clocks disagree."""
    if start is None or end is None or end < start:
        return None
    minutes, seconds = divmod(int((end - start).total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
