"""Our own deliveries: every committed example of an event is one."""

from providers.odooops import PROVIDER
from tests.contracts.examples import EXAMPLES, type_of
from tests.providers.case import Case, Sample
from tests.providers.driving import source_of

CASE = Case(
    source=source_of(PROVIDER),
    samples=[
        Sample(name=path.stem, body=path.read_bytes(), event=type_of(path), via="job") for path in EXAMPLES
    ],
)
