"""GitHub: issues, pull requests, workflow runs and jobs, checks, deployments, pushes, repositories.

Events and payloads: https://docs.github.com/en/webhooks/webhook-events-and-payloads
Signatures: https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
What we rely on, and the traps: contracts/upstream/github.md
"""

from providers.github.normalize import normalize
from providers.github.observed import items
from providers.github.options import GithubOptions
from providers.github.polling import POLLING
from providers.github.verify import KEPT_HEADERS, compose, open_verification
from providers.port import Provider

PROVIDER = Provider(
    name="github",
    headers=KEPT_HEADERS,
    verify=open_verification,
    normalize=normalize,
    compose=compose,
    options=GithubOptions,
    items=items,
    polling=POLLING,
)
