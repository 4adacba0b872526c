"""Everything recorded of CloudEvents."""

from tests.providers.case import Case, Sample
from tests.providers.cloudevents.deliveries import (
    BATCH_TYPE,
    BINARY_BODY,
    BINARY_HEADERS,
    SECRET,
    SOURCE,
    STRUCTURED_TYPE,
    batch,
    body,
    event,
    fixture,
)

TYPE = "com.example.someevent"

CASE = Case(
    source=SOURCE,
    secret=SECRET,
    samples=[
        Sample(
            name="json-object",
            body=body("structured.json-object"),
            event=TYPE,
            headers=STRUCTURED_TYPE,
        ),
        Sample(
            name="xml-string",
            body=body("structured.xml-string"),
            event=TYPE,
            headers=STRUCTURED_TYPE,
        ),
        Sample(name="binary", body=BINARY_BODY, event=TYPE, headers=BINARY_HEADERS),
        Sample(
            name="batch",
            body=batch(fixture("structured.json-object"), fixture("structured.xml-string"), event()),
            event="batch",
            headers=BATCH_TYPE,
        ),
        Sample(name="empty-batch", body=b"[]", event="batch", headers=BATCH_TYPE),
    ],
)
