"""Vercel: deployments, and which of them serves production.

Events and payloads: https://vercel.com/docs/webhooks/webhooks-api
Signatures: https://vercel.com/docs/headers/request-headers#x-vercel-signature
What we rely on, and the traps: contracts/upstream/vercel.md
"""

from providers.port import Provider
from providers.vercel.normalize import normalize
from providers.vercel.options import VercelOptions
from providers.vercel.poll import items
from providers.vercel.polling import POLLING
from providers.vercel.verify import compose, open_verification

PROVIDER = Provider(
    name="vercel",
    verify=open_verification,
    normalize=normalize,
    compose=compose,
    options=VercelOptions,
    items=items,
    polling=POLLING,
)
