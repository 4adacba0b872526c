"""Which refusals Mailgun may repeat: it stops at 406 and tries again after any other answer but 200.

https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/webhooks
"""

from __future__ import annotations

from dataclasses import replace

from providers import port
from providers.port import Answer, Refused, Request, Stored

NOT_ACCEPTABLE = 406
FINAL = frozenset(
    {
        "bad_event",
        "bad_timestamp",
        "bad_token",
        "body_too_large",
        "header_not_ascii",
        "header_too_long",
        "headers_too_long",
        "malformed_form",
        "malformed_json",
        "missing_event",
        "missing_signature",
        "shape_mismatch",
        "stale_signature",
        "unsupported_content_type",
    }
)
"""What no repetition of the same bytes can mend. All else may be our own mistake or pass with time: a key that is
not set yet, a clock that is behind, a broker that is away."""


def answer(outcome: Stored | Refused, asked: Request) -> Answer:
    """The default answer, with 406 where the request must not come again."""
    shaped = port.answer(outcome, asked)
    if isinstance(outcome, Refused) and outcome.reason in FINAL:
        return replace(shaped, status=NOT_ACCEPTABLE, body={**shaped.body, "code": NOT_ACCEPTABLE})
    return shaped
