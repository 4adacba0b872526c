"""Everything recorded of Standard Webhooks."""

from tests.providers.case import Case, Sample
from tests.providers.standard.deliveries import FULL, SECRET, SOURCE, THIN, VECTORS

CASE = Case(
    source=SOURCE,
    secret=SECRET,
    samples=[
        Sample(name="full", body=FULL, event="contact.created"),
        Sample(name="thin", body=THIN, event="contact.created"),
        Sample(name="no-type", body=VECTORS[0]["body"].encode(), event="message"),
        Sample(name="no-json", body=b"plain words", event="message"),
    ],
)
