"""Any sender of CloudEvents 1.0 over HTTP: binary, structured and batched JSON.

https://github.com/cloudevents/spec (HTTP binding, JSON format and web-hook document, version 1.0.2)
What we rely on, and the traps: contracts/upstream/cloudevents.md
"""

from contracts.standard_webhooks import new_secret
from providers.cloudevents.handshake import Options, answer, handshake
from providers.cloudevents.normalize import normalize
from providers.cloudevents.verify import KEPT_HEADERS, compose, open_verification
from providers.port import Provider

PROVIDER = Provider(
    name="cloudevents",
    headers=KEPT_HEADERS,
    verify=open_verification,
    normalize=normalize,
    compose=compose,
    answer=answer,
    handshake=handshake,
    new_secret=new_secret,
    options=Options,
)
