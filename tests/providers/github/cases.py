"""Everything recorded of GitHub: what it sent, and what its API answered."""

from contracts.observation import observed_kind
from providers.port import Secret
from tests.providers.case import Case, Sample
from tests.providers.github.deliveries import ANSWERS, JSON_TYPE, SAMPLES, SOURCE, listed

CASE = Case(
    source=SOURCE,
    secret=Secret("GITHUB_WEBHOOK_SECRET", b"It's a Secret to Everybody"),
    samples=[
        *(
            Sample(
                name=path.stem,
                body=path.read_bytes(),
                event=path.parent.name,
                headers={"x-github-event": path.parent.name, "content-type": JSON_TYPE},
            )
            for path in SAMPLES
        ),
        *(
            Sample(name=f"{path.stem}-{n}", body=item.body, event=observed_kind(item.kind), via="poll")
            for path in ANSWERS
            for n, item in enumerate(listed(path))
        ),
    ],
)
