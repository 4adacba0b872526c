"""Everything that we have of Plane."""

from __future__ import annotations

import json

from providers.plane.verify import kind_of
from providers.port import Secret
from tests.providers.case import Case, Sample
from tests.providers.plane.deliveries import PAGES, SOURCE, WEBHOOKS, observations

CASE = Case(
    source=SOURCE,
    secret=Secret("PLANE_WEBHOOK_SECRET", b"plane_wh_00000000000000000000000000000000"),
    samples=[
        *(
            Sample(
                name=f"{path.parent.name}-{path.stem}",
                body=path.read_bytes(),
                event=json.loads(path.read_bytes())["event"],
                kind=kind_of(json.loads(path.read_bytes())["event"]),
            )
            for path in WEBHOOKS
        ),
        *(
            Sample(name=f"{path.stem}-{n}", body=item.body, event=item.kind, kind=item.kind, via="poll")
            for path in PAGES
            for n, item in enumerate(observations(path.read_bytes()))
        ),
    ],
)
