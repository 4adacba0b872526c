"""Any other sender, without code: SSOT says how it proves itself and where its words stand.

How to connect one: docs/senders.md. What we rely on, and the limits: contracts/upstream/generic.md
"""

from providers.generic.normalize import normalize
from providers.generic.options import Options, problem
from providers.generic.verify import KEPT_HEADERS, compose, open_verification
from providers.port import Provider

PROVIDER = Provider(
    name="generic",
    headers=KEPT_HEADERS,
    verify=open_verification,
    normalize=normalize,
    compose=compose,
    may_be_unsigned=True,
    options=Options,
    problem=problem,
)
