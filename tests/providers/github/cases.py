"""Everything recorded of GitHub."""

from providers.port import Secret
from tests.providers.case import Case, Sample
from tests.providers.github.deliveries import JSON_TYPE, SAMPLES, SOURCE

CASE = Case(
    source=SOURCE,
    secret=Secret("GITHUB_WEBHOOK_SECRET", b"It's a Secret to Everybody"),
    samples=[
        Sample(
            name=path.stem,
            body=path.read_bytes(),
            event=path.parent.name,
            headers={"x-github-event": path.parent.name, "content-type": JSON_TYPE},
        )
        for path in SAMPLES
    ],
)
