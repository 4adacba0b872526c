"""A hook of schemathesis: requests to a source are signed as their sender would sign them."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import requests
import schemathesis

from providers.port import Composed, Parcel, Refused
from tests.contracts.serving import ENDPOINTS

TURNS = itertools.count()


class Signed(requests.auth.AuthBase):
    """Signs a request that is ready to be sent, where its body allows it."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        body = request.body.encode() if isinstance(request.body, str) else request.body or b""
        assert isinstance(body, bytes)
        made = composed(urlsplit(request.url or "").path, body)
        if made is not None:
            request.headers.update(made.headers)
            request.prepare_body(made.body, None)
        return request


def composed(path: str, body: bytes) -> Composed | None:
    """The request by which the sender would deliver `body`; None where it would not."""
    endpoint = ENDPOINTS.get(path)
    if endpoint is None or endpoint.source.provider.compose is None:
        return None
    parcel = Parcel(body=body, event="example", delivery=f"d-{next(TURNS)}", at=datetime.now(UTC))
    try:
        return endpoint.source.provider.compose(parcel, endpoint.source, endpoint.secrets()[0])
    except (ValueError, Refused):
        return None


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    if case.method.upper() == "POST":
        kwargs["auth"] = Signed()
