"""The richest of the styles, as every provider has to show it."""

from providers.generic import PROVIDER
from providers.port import Secret
from tests.providers.case import Case, Sample
from tests.providers.driving import source_of
from tests.providers.generic.styles import KEY, STYLES

BY_NAME = {style.name: style for style in STYLES}
OPTIONS = {
    "verify": {
        "hmac": {
            "header": "X-Signature",
            "separator": ",",
            "prefix": "v1=",
            "signed": "{timestamp}.{body}",
            "timestamp": {"header": "X-Signature", "separator": ",", "prefix": "t="},
        }
    },
    "identity": {"header": "X-Delivery"},
    "kind": {"pointer": "/event/event_type"},
    "time": {"pointer": "/event/occurred_at"},
    "ref": "/event/data/id",
    "title": "/event/data/title",
}

CASE = Case(
    source=source_of(PROVIDER, "alerts", OPTIONS, secrets=["ALERTS_SECRET"]),
    secret=Secret("ALERTS_SECRET", KEY),
    samples=[
        Sample(name="pagerduty", body=BY_NAME["pagerduty"].body, event="incident.triggered"),
        Sample(name="stripe", body=BY_NAME["stripe"].body, event="message"),
        Sample(name="list", body=BY_NAME["hubspot"].body, event="message"),
    ],
)
