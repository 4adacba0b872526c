"""Slack: slash commands, interactivity, events. They are stored and acknowledged; what they do comes later.

Signatures: https://docs.slack.dev/authentication/verifying-requests-from-slack
What we rely on, and the traps: contracts/upstream/slack.md
"""

from providers.port import Provider
from providers.slack.answer import answer
from providers.slack.normalize import normalize
from providers.slack.verify import KEPT_HEADERS, compose, new_secret, open_verification

PROVIDER = Provider(
    name="slack",
    headers=KEPT_HEADERS,
    verify=open_verification,
    normalize=normalize,
    compose=compose,
    new_secret=new_secret,
    answer=answer,
)
