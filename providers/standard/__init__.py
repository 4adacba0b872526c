"""Any sender that keeps to Standard Webhooks 1.0.0: one source in SSOT for each.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
What we rely on, and the traps: contracts/upstream/standard.md
"""

from contracts.standard_webhooks import new_secret
from providers.port import Provider
from providers.standard.normalize import normalize
from providers.standard.options import Options
from providers.standard.verify import compose, open_verification

PROVIDER = Provider(
    name="standard",
    verify=open_verification,
    normalize=normalize,
    compose=compose,
    new_secret=new_secret,
    options=Options,
)
