"""Asks one API on behalf of one run: whose secret, how fast, how long, and what an answer is taken for."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from time import monotonic
from urllib.parse import urlencode, urlsplit

from prometheus_client import Counter

from contracts.ssot import Api
from contracts.text import NotJson, decode
from providers.polling import Allowance, Ask, Failed, Polling, Reply
from runtime.http import Answer, HttpClient, NoAnswer, NotSent, Patience
from runtime.settings import BadSettings
from services.poller.pace import LATER_S_MAX, Limits, pause_s

REQUESTS = Counter("odooops_poller_requests_total", "Requests to APIs, by their answer", ["source", "status"])

ADDRESS_CHARS_MAX = 8_000
PATH_CHARS_SHOWN = 80
MESSAGE_CHARS_SHOWN = 160
RATE_LIMITED_S = 60.0
"""For how long an API is left alone that says 429 and not for how long: GitHub asks for a minute."""
USER_AGENT = "odooops"
HIDDEN = "(secret)"

BUDGET = "budget"
RATE_LIMITED = "rate_limited"
USED_UP = frozenset((BUDGET, RATE_LIMITED))
"""Reasons for which a run asks nothing more."""

_TOKEN = re.compile(rb"[\x21-\x7e]+")
_BEFORE_PATH = re.compile(r"^https?://[^/?#]*")
_DEFAULT_PORTS = {"https": 443, "http": 80}
_REASONS = {401: "unauthorized", 403: "forbidden", 429: RATE_LIMITED}
_HINTS = {
    401: "is {secret} still valid?",
    403: "does {secret} have the right to it?",
    404: "is it there, and may {secret} see it?",
}


def credentials(api: Api, secret: bytes) -> dict[str, str]:
    """The header that shows the secret; raises BadSettings for one that no header can hold."""
    value = secret.strip()
    if not _TOKEN.fullmatch(value):
        raise BadSettings(f"{api.secret} holds a space or a character that no token has")
    shown = value.decode()
    if api.auth == "basic":
        login = base64.b64encode(f"{api.user}:{shown}".encode()).decode()
        return {"Authorization": f"Basic {login}"}
    if api.auth == "header":
        assert api.header is not None
        return {api.header: shown}
    return {"Authorization": f"Bearer {shown}"}


class Asker:
    """The requests of one run, one after the other. `ask` raises Failed, each time with the reason as a slug."""

    def __init__(
        self, http: HttpClient, source: str, api: Api, polling: Polling, secret: bytes, limits: Limits
    ) -> None:
        self._http = http
        self._source = source
        self._api = api
        self._polling = polling
        shown = credentials(api, secret)
        self._headers = {"User-Agent": USER_AGENT, **polling.headers, **shown}
        self._secrets = [secret.strip().decode(), *(value.split()[-1] for value in shown.values())]
        self._origin = _origin(api.base_url)
        self._limits = limits
        self._ends_at = monotonic() + limits.run_s_max
        self._ready_at = self._post_ready_at = 0.0
        self.calls = 0
        self.not_before: datetime | None = None
        """From when on the API lets itself be asked again, if it will not during this run."""

    async def ask(self, request: Ask) -> Reply:
        """The reply to a request; raises Failed."""
        address = self._address(request)
        await self._wait_for_turn(request)
        self.calls += 1
        asked_at = datetime.now(UTC)
        try:
            answer = await self._http.send(
                request.method,
                address,
                repeatable=request.method == "GET",
                headers=self._headers | ({"If-None-Match": request.etag} if request.etag else {}),
                patience=Patience(
                    within_s=self._left_s(), sat_out_s_max=self._limits.sit_out_s_max, pause_s=self._pause_s
                ),
            )
        except (NotSent, NoAnswer) as error:
            reason = "not_sent" if isinstance(error, NotSent) else "no_answer"
            REQUESTS.labels(self._source, reason).inc()
            asked = f"{_shown(request)} at {urlsplit(self._api.base_url).netloc}"
            raise Failed(reason, f"{asked}: {self.harmless(str(error))}") from None
        fetched_at = datetime.now(UTC)
        REQUESTS.labels(self._source, str(answer.status)).inc()
        if request.method == "POST":
            self._post_ready_at = monotonic() + self._limits.post_pause_s
        self._mind(answer, fetched_at)
        if 200 <= answer.status < 300 or answer.status in request.also:
            return Reply(
                status=answer.status,
                headers=answer.headers,
                body=answer.body,
                asked_at=asked_at,
                fetched_at=fetched_at,
            )
        raise self._failure(request, answer, fetched_at)

    def harmless(self, text: str) -> str:
        """`text` on one line, printable, and without the secret."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return " ".join("".join(char if char.isprintable() else " " for char in text).split())

    def _address(self, request: Ask) -> str:
        """Where to send it: to the API's own origin and nowhere else, because the secret goes with it."""
        whole = request.path.startswith(("https://", "http://"))
        if not whole and not request.path.startswith("/"):
            raise Failed("bad_address", f"{_shown(request)}: a path begins with /")
        address = request.path if whole else self._api.base_url.rstrip("/") + request.path
        if request.params:
            address += ("&" if "?" in address else "?") + urlencode(request.params)
        if len(address) > ADDRESS_CHARS_MAX or not address.isprintable():
            raise Failed("bad_address", f"{_shown(request)}: this can be no address")
        try:
            origin = _origin(address)
        except ValueError:
            raise Failed("bad_address", f"{_shown(request)}: this can be no address") from None
        if origin != self._origin:
            raise Failed("other_origin", "an answer names a page elsewhere: nothing is sent there")
        return address

    async def _wait_for_turn(self, request: Ask) -> None:
        if self.not_before is not None:
            raise Failed(RATE_LIMITED, f"the API is not to be asked again before {_time(self.not_before)}")
        if self.calls >= self._limits.calls_max:
            raise Failed(BUDGET, f"the {self._limits.calls_max:,} requests that a run has are used up")
        ready_at = max(self._ready_at, self._post_ready_at if request.method == "POST" else 0.0)
        pause = max(0.0, ready_at - monotonic())
        if pause >= self._left_s():
            raise Failed(BUDGET, f"the {self._limits.run_s_max:g} seconds that a run has are used up")
        await asyncio.sleep(pause)

    def _left_s(self) -> float:
        return self._ends_at - monotonic()

    def _mind(self, answer: Answer, fetched_at: datetime) -> None:
        """Slow down before the limit is reached, or end where the run has no time for that."""
        allowance = self._allowance(answer.headers, fetched_at)
        pause = pause_s(allowance, self._left_s())
        if pause is None:
            assert allowance is not None
            self._end(fetched_at, allowance.renewed_in_s)
        else:
            self._ready_at = monotonic() + pause

    def _allowance(self, headers: Mapping[str, str], fetched_at: datetime) -> Allowance | None:
        try:
            return self._polling.allowance(headers, fetched_at)
        except (ValueError, ArithmeticError):
            return None  # a header that holds no number states nothing

    def _end(self, fetched_at: datetime, wait_s: float) -> None:
        until = fetched_at + timedelta(seconds=min(max(wait_s, 0.0), LATER_S_MAX))
        self.not_before = max(until, self.not_before or until)

    def _pause_s(self, answer: Answer) -> float | None:
        """For how long an answer asks to be left alone; None where it is no refusal for asking too often."""
        if answer.status not in (403, 429):
            return answer.stated_retry_after_s
        allowance = self._allowance(answer.headers, datetime.now(UTC))
        renewed_in_s = allowance.renewed_in_s if allowance is not None and allowance.left <= 0 else None
        stated = [s for s in (answer.stated_retry_after_s, renewed_in_s) if s is not None]
        return max(0.0, *stated) if stated else None

    def _failure(self, request: Ask, answer: Answer, fetched_at: datetime) -> Failed:
        reason = _REASONS.get(answer.status, f"http_{answer.status}")
        hint = _HINTS.get(answer.status, "").format(secret=self._api.secret)
        pause = self._pause_s(answer)
        if answer.status == 429 or (answer.status == 403 and pause is not None):
            reason = RATE_LIMITED
            self._end(fetched_at, RATE_LIMITED_S if pause is None else pause)
            assert self.not_before is not None
            hint = f"not to be asked again before {_time(self.not_before)}"
        said = self.harmless(_message(answer.body))[:MESSAGE_CHARS_SHOWN]
        sentence = f"{_shown(request)} answered {answer.status}{f': {said}' if said else ''}"
        return Failed(reason, f"{sentence}; {hint}" if hint else sentence, answer.status)


def _origin(address: str) -> tuple[str, str, int | None]:
    """Scheme, host and port; raises ValueError for an address with a login, or without a host."""
    parts = urlsplit(address)
    if not parts.hostname or "@" in parts.netloc:
        raise ValueError("no origin")
    return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)


def _shown(request: Ask) -> str:
    """Method and path, without what a login or a query may hold."""
    path = _BEFORE_PATH.sub("", request.path).partition("?")[0].partition("#")[0]
    return f"{request.method} {path[:PATH_CHARS_SHOWN]}"


def _time(moment: datetime) -> str:
    return moment.strftime("%H:%M:%SZ")


def _message(body: bytes) -> str:
    """What an error says about itself, where it does in one of the usual fields."""
    try:
        said = decode(body)
    except NotJson:
        return ""
    for name in ("error", "message"):
        if isinstance(said, dict) and isinstance(said.get(name), (str, dict)):
            said = said[name]
    return said if isinstance(said, str) else ""
