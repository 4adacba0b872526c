"""Everything recorded of DigitalOcean: each thing that its answers show is a delivery."""

from tests.providers.case import Case, Sample
from tests.providers.digitalocean.answers import KINDS, SOURCE, shown

CASE = Case(
    source=SOURCE,
    samples=[
        Sample(name=f"{name}-{n}", body=item.body, event=f"observed.{item.kind}", via="poll")
        for name in KINDS
        for n, item in enumerate(shown(name))
    ],
)
