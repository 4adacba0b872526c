"""Whether a sender may deliver: it asks by OPTIONS before it posts, and SSOT says whom we let.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/http-webhook.md (sections 3 and 4)
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qsl

from pydantic import Field, StringConstraints

from contracts.ssot import Strict
from contracts.standard_webhooks import TOLERANCE_S
from providers.port import Answer, Refused, Request, Source, Stored
from providers.port import answer as plain_answer

REQUESTED_ORIGIN = "webhook-request-origin"
ALLOWED_ORIGIN = "webhook-allowed-origin"
ALLOWED_RATE = "webhook-allowed-rate"
ANYBODY = "*"
UNLIMITED = "*"
TOKEN_PARAMETER = "access_token"  # noqa: S105  # a name
PARAMETERS_COUNT_MAX = 32
TOLERANCE_S_MAX = 24 * 3600

Origin = Annotated[str, StringConstraints(pattern=r"^(\*|[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?)$")]


class Options(Strict):
    """`options` of a source of CloudEvents."""

    allowed_origins: tuple[Origin, ...] = ()
    """DNS names of senders that are told, when they ask, that they may deliver; `*` stands for any. It lets in nobody:
    what they deliver has to prove itself all the same."""
    allowed_rate_per_min: int | None = Field(default=None, ge=1)
    """The rate that they are told, in requests a minute; no limit unless given. It is told, not enforced."""
    tolerance_s: int = Field(default=TOLERANCE_S, ge=1, le=TOLERANCE_S_MAX)
    """How far the time of an attempt may be from ours, where it is signed by Standard Webhooks."""


def handshake(request: Request, source: Source) -> Answer | None:
    """The answer to a sender that asks; None where it asked for something else."""
    origin = request.headers.get(REQUESTED_ORIGIN)
    if origin is None:
        return None
    options: Options = source.options
    allowed = {name.lower(): name for name in options.allowed_origins}
    granted = ANYBODY if ANYBODY in allowed else allowed.get(origin.lower())
    if granted is None:
        sentence = f"this origin is not among the allowed_origins of {source.name}"
        refused = Refused(403, "origin_not_allowed", sentence)
        return Answer(status=403, body=plain_answer(refused, request).body, headers={"allow": "POST"})
    rate = options.allowed_rate_per_min
    return Answer(
        status=200,
        body={"ok": True},
        headers={
            "allow": "POST",
            ALLOWED_ORIGIN: granted,
            ALLOWED_RATE: UNLIMITED if rate is None else str(rate),
        },
    )


def answer(outcome: Stored | Refused, asked: Request) -> Answer:
    """The usual answer; where the address held the token, no shared cache may keep it."""
    said = plain_answer(outcome, asked)
    if token_in(asked.query) is None:
        return said
    return Answer(
        status=said.status, body=said.body, headers={**said.headers, "cache-control": "private, no-store"}
    )


def token_in(query: str) -> str | None:
    """The token in the address, if it holds exactly one."""
    try:
        found = parse_qsl(query, keep_blank_values=True, max_num_fields=PARAMETERS_COUNT_MAX)
    except ValueError:
        return None
    tokens = [value for name, value in found if name == TOKEN_PARAMETER]
    return tokens[0] if len(tokens) == 1 else None
