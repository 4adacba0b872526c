"""The sources of the committed SSOT, each with a secret, as a door takes them."""

from __future__ import annotations

from pathlib import Path

from providers.port import Secret, Source
from providers.registry import sources
from runtime import ssot
from services.ingest.receive import Endpoint

SECRET_BYTES = bytes(range(32))


def _endpoint(source: Source) -> Endpoint:
    secret = Secret("A_SECRET", source.provider.new_secret(SECRET_BYTES).encode())
    return Endpoint(source, lambda: [secret])


ENDPOINTS = {
    str(source.file.endpoint): _endpoint(source)
    for source in sources(ssot.load(Path(__file__).parents[2] / "ssot")).values()
    if source.file.endpoint is not None
}
"""By path."""
