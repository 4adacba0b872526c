"""Slack: posting by bot token or incoming webhook, and finding again what a bot has posted.

Slack takes no idempotency key, so a post whose answer is lost may have been made. A bot's message carries our
id in its metadata and is searched for before it is posted again; a webhook's cannot be found.
Tokens and webhook addresses stay inside the two destinations: no error, value or name holds them.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from runtime.http import Answer, HttpClient, NoAnswer, NotSent
from services.notifier.message import Message

PACE_S = 1.0
"""Slack takes about one message a second per channel and per webhook."""
RATE_LIMITED_S = 30.0
"""Slack limits us and does not say for how long."""
MEND_S = 60.0
"""An operator can mend a token or a channel, and the message is not too old yet."""
HISTORY_MESSAGES_PER_PAGE = 200
HISTORY_PAGES_MAX = 20
"""An hour of a channel as busy as Slack lets one application make it."""
CLOCK_SKEW_S_MAX = 300
"""How much earlier than our own note of it a message may seem to have been posted."""
DETAIL_CHARS_MAX = 300
WEBHOOK_HASH_CHARS = 12

METADATA_TYPE = "odooops_message"

UNEXPECTED = "unexpected_answer"
RATE_LIMITED = "ratelimited"
MALFORMED_MESSAGE = frozenset(
    {
        "attachment_payload_limit_exceeded",
        "invalid_arguments",
        "invalid_attachments",
        "invalid_blocks",
        "invalid_blocks_format",
        "invalid_metadata_format",
        "invalid_metadata_schema",
        "invalid_payload",
        "metadata_too_large",
        "missing_text_or_fallback_or_attachments",
        "msg_blocks_too_long",
        "msg_too_long",
        "no_text",
        "too_many_attachments",
    }
)
"""Errors that are about the message itself: it will not be taken tomorrow either."""
LIMITS = frozenset({RATE_LIMITED, "rate_limited", "message_limit_exceeded"})
PERHAPS_POSTED = frozenset({"fatal_error", "internal_error", "service_unavailable"})
"""Slack says of these that part of the work may have been done."""

_SLUG = re.compile("[a-z0-9_]{1,64}")


@dataclass(frozen=True, slots=True)
class Posted:
    """It is in the channel; `ts` is Slack's name for it, which a webhook does not tell."""

    ts: str | None


@dataclass(frozen=True, slots=True)
class Unknown:
    """It may be in the channel: look before posting it again."""

    reason: str


@dataclass(frozen=True, slots=True)
class Later:
    """It is surely not in the channel, or that cannot be told now."""

    seconds: float | None
    """When to come again, where that is known."""
    reason: str
    everything: bool = False
    """Whether any other message would meet the same obstacle."""


@dataclass(frozen=True, slots=True)
class Refused:
    """It is not in the channel and never will be."""

    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class NotThere:
    """The channel was searched and does not hold it."""


Outcome = Posted | Unknown | Later | Refused
Search = Posted | NotThere | Later


class _Said(BaseModel):
    """What every answer of Slack's API says."""

    ok: bool
    error: str = ""


class _Notes(BaseModel):
    messages: list[str] = []
    next_cursor: str = ""


class _PostAnswer(_Said):
    ts: str | None = None
    response_metadata: _Notes = _Notes()


class _Seen(BaseModel):
    ts: str
    metadata: Any = None
    """Other applications' metadata has whatever shape they like."""


class _History(_Said):
    messages: list[_Seen] = []
    response_metadata: _Notes | None = None


A = TypeVar("A", bound=_Said)


class _Pace:
    """Lets its callers through one by one, PACE_S apart."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._next = 0.0

    async def wait(self) -> None:
        async with self._lock:
            await asyncio.sleep(max(0.0, self._next - time.monotonic()))
            self._next = time.monotonic() + PACE_S


class Bot:
    """A channel, by its id (its history is found by nothing else), written to with a bot token."""

    ages: ClassVar[bool] = True
    done: ClassVar[Literal["posted"]] = "posted"

    def __init__(self, http: HttpClient, api_url: str, token: str, channel: str) -> None:
        self.name = f"slack:{channel}"
        self.channel = channel
        self._http = http
        self._api = api_url.rstrip("/")
        self._headers = {"authorization": f"Bearer {token}"}
        self._pace = _Pace()

    async def post(self, message_id: str, message: Message) -> Outcome:
        """Post once, without repeating what may have arrived."""
        await self._pace.wait()
        payload = {
            "channel": self.channel,
            "text": message.text,
            "blocks": message.blocks,
            "metadata": {"event_type": METADATA_TYPE, "event_payload": {"id": message_id}},
            "unfurl_links": False,
            "unfurl_media": False,
        }
        try:
            answer = await self._http.send(
                "POST", f"{self._api}/chat.postMessage", headers=self._headers, json=payload, repeatable=False
            )
        except NotSent as error:
            return Later(None, str(error), everything=True)
        except NoAnswer as error:
            return Unknown(str(error))
        if answer.status >= 500:
            return Unknown(f"http_{answer.status}")
        refused = _http_problem(answer)
        if refused is not None:
            return refused
        said = _parsed(_PostAnswer, answer)
        if said is None:
            return Unknown(UNEXPECTED)
        return Posted(said.ts) if said.ok else _problem_of_post(said, answer)

    async def find(self, message_id: str, since: datetime) -> Search:
        """The message of this id among those posted after `since`; bounded to HISTORY_PAGES_MAX pages."""
        oldest = since - timedelta(seconds=CLOCK_SKEW_S_MAX)
        params = {
            "channel": self.channel,
            "oldest": f"{oldest.timestamp():.6f}",
            "limit": str(HISTORY_MESSAGES_PER_PAGE),
            "include_all_metadata": "true",
        }
        for _ in range(HISTORY_PAGES_MAX):
            page = await self._history_page(params)
            if isinstance(page, Later):
                return page
            for seen in page.messages:
                if _id_of(seen.metadata) == message_id:
                    return Posted(seen.ts)
            cursor = page.response_metadata.next_cursor if page.response_metadata else ""
            if not cursor:
                return NotThere()
            params["cursor"] = cursor
        return Later(MEND_S, "history_too_long")

    async def _history_page(self, params: dict[str, str]) -> _History | Later:
        try:
            answer = await self._http.send(
                "GET",
                f"{self._api}/conversations.history",
                headers=self._headers,
                params=params,
                repeatable=True,
            )
        except (NotSent, NoAnswer) as error:
            return Later(None, str(error))
        if answer.status >= 500:
            return Later(answer.retry_after_s, f"http_{answer.status}")
        refused = _http_problem(answer)
        if refused is not None:
            return refused
        page = _parsed(_History, answer)
        if page is None:
            return Later(None, UNEXPECTED)
        return page if page.ok else _later(_slug(page.error), answer)


class Webhook:
    """An incoming webhook. Its address is its secret, so it is known by the start of the address's hash."""

    ages: ClassVar[bool] = True
    done: ClassVar[Literal["posted"]] = "posted"

    def __init__(self, http: HttpClient, url: str) -> None:
        self.name = f"webhook:{hashlib.sha256(url.encode()).hexdigest()[:WEBHOOK_HASH_CHARS]}"
        self.channel = None
        self._http = http
        self._url = url
        self._pace = _Pace()

    async def post(self, message_id: str, message: Message) -> Outcome:
        """Post once; a webhook carries no metadata, so `message_id` goes nowhere."""
        await self._pace.wait()
        payload = {"text": message.text, "blocks": message.blocks}
        try:
            answer = await self._http.send("POST", self._url, json=payload, repeatable=False)
        except NotSent as error:
            return Later(None, str(error), everything=True)
        except NoAnswer as error:
            return Unknown(str(error))
        said = answer.body[: DETAIL_CHARS_MAX + 1].decode(errors="replace").strip()
        if answer.status == 200 and said == "ok":
            return Posted(None)
        slug = _slug(said)
        if answer.status >= 500:
            return Later(answer.retry_after_s, f"http_{answer.status}")
        if slug in MALFORMED_MESSAGE or answer.status in (400, 413):
            return Refused(slug if slug != UNEXPECTED else f"http_{answer.status}")
        return _http_problem(answer) or Later(MEND_S, UNEXPECTED)

    async def find(self, message_id: str, since: datetime) -> Search:
        """A webhook cannot look: what may have been posted is posted again, so at least once."""
        return NotThere()


def _parsed(model: type[A], answer: Answer) -> A | None:
    try:
        return model.model_validate_json(answer.body)
    except ValidationError:
        return None


def _http_problem(answer: Answer) -> Later | None:
    """What a status below 500 alone says; None for 200, whose body decides."""
    if answer.status == 200:
        return None
    if answer.status == 429:
        return Later(answer.retry_after_s or RATE_LIMITED_S, RATE_LIMITED, everything=True)
    return Later(MEND_S, f"http_{answer.status}")


def _problem_of_post(said: _PostAnswer, answer: Answer) -> Outcome:
    slug = _slug(said.error)
    if slug in MALFORMED_MESSAGE:
        return Refused(slug, "; ".join(said.response_metadata.messages)[:DETAIL_CHARS_MAX])
    if slug in PERHAPS_POSTED:
        return Unknown(slug)
    return _later(slug, answer)


def _later(slug: str, answer: Answer) -> Later:
    """Limits pass by themselves; any other error is about token, scopes or channel: an operator mends it."""
    if slug in LIMITS:
        return Later(answer.retry_after_s or RATE_LIMITED_S, RATE_LIMITED, everything=True)
    return Later(MEND_S, slug)


def _slug(error: str) -> str:
    """Slack's own word for an error where it is one: it goes into logs, metrics and the table."""
    return error if _SLUG.fullmatch(error) else UNEXPECTED


def _id_of(metadata: Any) -> str | None:
    """Our id in a message's metadata, where it is ours."""
    if not isinstance(metadata, dict) or metadata.get("event_type") != METADATA_TYPE:
        return None
    payload = metadata.get("event_payload")
    found = payload.get("id") if isinstance(payload, dict) else None
    return found if isinstance(found, str) else None
