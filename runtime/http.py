"""Outgoing HTTP: the one place that uses httpx. Bounded in time, size and attempts; never logs an address.

A request that surely was not sent is repeated here, and so is one whose repetition is harmless. Whether any
other request arrived is for the caller to find out: `NotSent` and `NoAnswer` tell the two cases apart.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from types import TracebackType
from typing import Any, Self

import httpx
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    stop_after_attempt,
    stop_before_delay,
    wait_random_exponential,
)

CONNECT_S_MAX = 3.0
READ_S_MAX = 10.0
ATTEMPT_S_MAX = 15.0
"""One attempt from start to end: a server that trickles bytes never lets a read time out."""
ATTEMPTS_MAX = 5
ATTEMPTS_S_MAX = 20.0
"""No further attempt begins later than this after the first."""
BACKOFF_S_MIN = 0.2
BACKOFF_S_MAX = 3.0
RETRY_AFTER_WAITED_S_MAX = 5.0
"""A longer Retry-After is not sat out here: the caller gets the answer and decides."""
RETRY_AFTER_S_MAX = 600.0
ANSWER_BYTES_MAX = 16_000_000
TOO_LARGE = "answer_too_large"
"""The reason of a NoAnswer that another attempt would only fetch again."""
CONNECTIONS_MAX = 10
REASON_CHARS_MAX = 200

_WORD_START = re.compile(r"(?<!^)(?=[A-Z])")


class NotSent(Exception):
    """the request did not leave: no connection could be made"""


class NoAnswer(Exception):
    """the request left, or may have; no whole answer came back"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the other side said. Header names are lower case."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def retry_after_s(self) -> float | None:
        """How long it asks to wait, at most RETRY_AFTER_S_MAX; None where it does not say."""
        stated = self.stated_retry_after_s
        return None if stated is None else min(stated, RETRY_AFTER_S_MAX)

    @property
    def stated_retry_after_s(self) -> float | None:
        """The same, however long."""
        stated = self.headers.get("retry-after", "").strip()
        if stated.isascii() and stated.isdigit():
            # Cut before converting: Python refuses to read numbers of thousands of digits.
            return float(stated[:10])
        try:
            at = parsedate_to_datetime(stated)
        except (ValueError, OverflowError):
            return None
        if at.tzinfo is None:
            at = at.replace(tzinfo=UTC)
        return max(0.0, (at - datetime.now(UTC)).total_seconds())


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long an answer that is worth it is waited for."""

    within_s: float
    """No attempt begins later than this after the first."""
    sat_out_s_max: float
    """An answer that asks for a longer pause than this is not sat out: the caller gets it and decides."""
    pause_s: Callable[[Answer], float | None]
    """For how long an answer asks to be left alone. A 403 that does is repeated after it, as a 429 is."""


class HttpClient:
    """A pool of connections, closed by leaving the `async with` block."""

    def __init__(self) -> None:
        # httpx logs whole addresses at INFO, and an address can be a secret (an incoming webhook's is).
        for name in ("httpx", "httpcore"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(READ_S_MAX, connect=CONNECT_S_MAX),
            limits=httpx.Limits(max_connections=CONNECTIONS_MAX),
            follow_redirects=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def send(
        self,
        method: str,
        url: str,
        *,
        repeatable: bool,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        json: Any = None,
        patience: Patience | None = None,
    ) -> Answer:
        """The answer to a request, of whatever status; raises NotSent or NoAnswer, each with a short reason.

        At most ATTEMPTS_MAX attempts, whatever goes wrong with each: where no connection could be made, and, if the
        request is `repeatable`, after a lost answer, a 5xx or a 429 whose pause is short, or as `patience` says.
        """
        patient = patience or Patience(
            within_s=ATTEMPTS_S_MAX, sat_out_s_max=RETRY_AFTER_WAITED_S_MAX, pause_s=_retry_after_s
        )

        def again(state: RetryCallState) -> bool:
            assert state.outcome is not None
            error = state.outcome.exception()
            if error is not None:
                lost = isinstance(error, NoAnswer) and str(error) != TOO_LARGE
                return isinstance(error, NotSent) or (repeatable and lost)
            return repeatable and _worth_repeating(state.outcome.result(), patient)

        retrying = AsyncRetrying(
            stop=stop_after_attempt(ATTEMPTS_MAX) | stop_before_delay(patient.within_s),
            wait=partial(_pause_s, patient),
            retry=again,
            retry_error_callback=_last_outcome,
        )
        answer: Answer = await retrying(self._attempt, method, url, headers, params, json)
        return answer

    async def _attempt(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        params: Mapping[str, str] | None,
        json: Any,
    ) -> Answer:
        body = bytearray()
        try:
            async with (
                asyncio.timeout(ATTEMPT_S_MAX),
                self._client.stream(method, url, headers=headers, params=params, json=json) as response,
            ):
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > ANSWER_BYTES_MAX:
                        raise NoAnswer(TOO_LARGE)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError) as error:
            raise NotSent(_reason(error)) from None
        except TimeoutError:
            raise NoAnswer("attempt_timeout") from None
        except httpx.RequestError as error:
            raise NoAnswer(_reason(error)) from None
        return Answer(response.status_code, {k.lower(): v for k, v in response.headers.items()}, bytes(body))


def _retry_after_s(answer: Answer) -> float | None:
    return None if answer.status == 403 else answer.retry_after_s


def _worth_repeating(answer: Answer, patience: Patience) -> bool:
    asked = patience.pause_s(answer)
    if answer.status != 429 and answer.status < 500 and not (answer.status == 403 and asked is not None):
        return False
    return (asked or 0.0) <= patience.sat_out_s_max


_backoff_s = wait_random_exponential(multiplier=BACKOFF_S_MIN, max=BACKOFF_S_MAX)


def _pause_s(patience: Patience, state: RetryCallState) -> float:
    assert state.outcome is not None
    if state.outcome.exception() is None:
        asked = patience.pause_s(state.outcome.result())
        if asked is not None:
            return asked
    return _backoff_s(state)


def _last_outcome(state: RetryCallState) -> Answer:
    """After the last attempt: its answer, or its own exception rather than tenacity's."""
    assert state.outcome is not None
    answer: Answer = state.outcome.result()
    return answer


def _reason(error: httpx.RequestError) -> str:
    """`read_timeout` and the like. Only a failed connection's own words are added: they hold no address."""
    word = _WORD_START.sub("_", type(error).__name__).lower()
    if isinstance(error, httpx.ConnectError) and str(error):
        return f"{word}: {error}"[:REASON_CHARS_MAX]
    return word
