"""Slack: slash commands, interactivity, events. They are stored and acknowledged; what they do comes later.

Signatures: https://docs.slack.dev/authentication/verifying-requests-from-slack
What we rely on, and the traps: contracts/upstream/slack.md
"""

from providers.port import Provider
from providers.slack.answer import answer
from providers.slack.normalize import normalize
from providers.slack.verify import KEPT_HEADERS, compose, new_secret, open_verification

ANSWER_S_MAX = 2.5
"""Slack shows a person an error after 3 s: https://docs.slack.dev/interactivity/handling-user-interaction"""

PROVIDER = Provider(
    name="slack",
    headers=KEPT_HEADERS,
    verify=open_verification,
    normalize=normalize,
    compose=compose,
    new_secret=new_secret,
    answer=answer,
    answer_s_max=ANSWER_S_MAX,
)
