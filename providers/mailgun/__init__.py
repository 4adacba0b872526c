"""Mailgun: what became of each mail, by webhook (JSON, and the form of before 2018) and by the Events API.

Webhooks: https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/webhooks
Signatures: https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/securing-webhooks
Events: https://documentation.mailgun.com/docs/mailgun/user-manual/events/event-structure
What we rely on, and the traps: contracts/upstream/mailgun.md
"""

from providers.mailgun.answer import answer
from providers.mailgun.normalize import normalize
from providers.mailgun.options import MailgunOptions
from providers.mailgun.poll import items
from providers.mailgun.polling import POLLING
from providers.mailgun.verify import KEPT_HEADERS, compose, open_verification
from providers.port import Provider

PROVIDER = Provider(
    name="mailgun",
    headers=KEPT_HEADERS,
    verify=open_verification,
    normalize=normalize,
    compose=compose,
    answer=answer,
    options=MailgunOptions,
    items=items,
    polling=POLLING,
)
