"""What Slack is answered. It shows some answers to people, so each kind of request has its own.

Slash commands: https://docs.slack.dev/interactivity/implementing-slash-commands
Interactivity: https://docs.slack.dev/interactivity/handling-user-interaction
"""

from __future__ import annotations

from collections.abc import Mapping

from providers import port
from providers.port import Answer, Refused, Request, Stored
from providers.slack.body import COMMAND, INTERACTION, URL_VERIFICATION, challenge_of

NOTHING: Mapping[str, object] = {}
INTERACTIONS: Mapping[str, Mapping[str, object]] = {
    # With any other JSON the form stays open and says that there was some trouble connecting.
    f"{INTERACTION}.view_submission": {"response_action": "clear"},
    f"{INTERACTION}.block_suggestion": {"options": []},
}
COMMAND_TEXT = "Noted. Commands are recorded, but nothing is done about them yet."


def answer(outcome: Stored | Refused, asked: Request) -> Answer:
    """The answer to a request, always 200 once it is stored: anything else is shown as a failure, or sent again."""
    if isinstance(outcome, Refused):
        return port.answer(outcome, asked)
    delivery = outcome.delivery
    root = delivery.kind.partition(".")[0]
    if delivery.kind == URL_VERIFICATION:
        return Answer(status=200, body={"challenge": challenge_of(delivery.body) or ""})
    if root == COMMAND:
        return Answer(status=200, body={"response_type": "ephemeral", "text": COMMAND_TEXT})
    if root == INTERACTION:
        return Answer(status=200, body=INTERACTIONS.get(delivery.kind, NOTHING))
    return port.answer(outcome, asked)
