"""The source that the tests of CloudEvents speak of, its recorded requests, and batches made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from providers.cloudevents import PROVIDER
from providers.port import Secret
from tests.providers.driving import source_of

FIXTURES = Path(__file__).with_name("fixtures")
STRUCTURED_TYPE = {"content-type": "application/cloudevents+json"}
BATCH_TYPE = {"content-type": "application/cloudevents-batch+json"}

SOURCE = source_of(PROVIDER)
SECRET = Secret("CLOUDEVENTS_SECRET", b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")


def fixture(name: str) -> Any:
    """A decoded fixture: `structured.json-object`."""
    return json.loads((FIXTURES / f"{name}.json").read_bytes())


def body(name: str) -> bytes:
    """A fixture as it was recorded."""
    return (FIXTURES / f"{name}.json").read_bytes()


BINARY = fixture("binary.json-object.http")
BINARY_HEADERS: dict[str, str] = BINARY["headers"]
BINARY_BODY: bytes = BINARY["body"].encode()


def event(**changes: Any) -> dict[str, Any]:
    """A small event, changed; None removes nothing but says null."""
    return {"specversion": "1.0", "id": "1", "source": "/s", "type": "com.example.made", **changes}


def batch(*events: dict[str, Any]) -> bytes:
    """A batch's body."""
    return json.dumps(list(events)).encode()
