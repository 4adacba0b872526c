"""The source that the tests of Standard Webhooks speak of, and its recorded bodies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from providers.port import Secret
from providers.standard import PROVIDER
from tests.providers.driving import source_of

FIXTURES = Path(__file__).with_name("fixtures")
VECTORS: list[dict[str, Any]] = json.loads((FIXTURES / "signature-vectors.json").read_bytes())["vectors"]
FULL = (FIXTURES / "payload.full.json").read_bytes()
THIN = (FIXTURES / "payload.thin.json").read_bytes()

SOURCE = source_of(PROVIDER, "shop")
SECRET = Secret("SHOP_SECRET", b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
IDENTITY = "msg_p5jXN8AQM9LWM0D4loKWxJek"
