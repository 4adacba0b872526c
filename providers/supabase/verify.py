"""Verify a database webhook: nothing is signed, so the trigger carries a bearer token.

It stands in the definition of the trigger, where whoever may read the catalogue of the database can read it.
https://supabase.com/docs/guides/database/webhooks
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, ValidationError

from contracts.delivery import MalformedName, subject_token
from contracts.signing import first_equal
from contracts.text import NotJson, parse
from providers.port import Composed, Parcel, Receipt, Refused, Request, Secret, Source, problems_of

AUTHORIZATION = "authorization"
_BEARER = re.compile(r"bearer +([\x21-\x7e]+)", re.IGNORECASE)


class _Typed(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)

    type: str


def compose(parcel: Parcel, source: Source, secret: Secret) -> Composed:
    """The trigger's request for a body. It has no name for a delivery: each request is one."""
    headers = {"content-type": "application/json", AUTHORIZATION: f"Bearer {secret.value.decode('latin-1')}"}
    return Composed(headers=headers, body=parcel.body)


def open_verification(request: Request, source: Source, secrets: Sequence[Secret]) -> BearerRequest:
    """Begin to verify a request; the head alone decides who it is."""
    given = request.headers.get(AUTHORIZATION)
    if given is None:
        raise Refused(401, "missing_token", "The header Authorization is missing.")
    bearer = _BEARER.fullmatch(given)
    if bearer is None:
        raise _bad_token()
    return BearerRequest(_holder(bearer[1].encode(), secrets), request.receipt_id)


class BearerRequest:
    """A request that showed a token of ours."""

    __slots__ = ("_receipt_id", "_verified_by")

    def __init__(self, verified_by: str, receipt_id: str) -> None:
        self._verified_by = verified_by
        self._receipt_id = receipt_id

    def update(self, chunk: bytes) -> None:
        """Nothing about the body is signed."""

    def finish(self, body: bytes) -> Receipt:
        """The receipt of a well-formed body; raises Refused for any other.

        The same change of a row may rightly come again and the sender never repeats itself, so each request counts.
        """
        try:
            kind = subject_token(parse(_Typed, body).type)
        except NotJson as error:
            raise Refused(400, "malformed_json", f"The body cannot be read: {error}.") from None
        except ValidationError as error:
            raise Refused(
                400, "shape_mismatch", f"This is no database webhook: {problems_of(error)}."
            ) from None
        except MalformedName as error:
            raise Refused(400, "bad_event", f"The field type is unusable: {error}.") from None
        return Receipt(identity=self._receipt_id, kind=kind, verified_by=self._verified_by)


def _holder(token: bytes, secrets: Sequence[Secret]) -> str:
    """The name of the secret that was shown. Every secret is tried, so that the time tells nothing."""
    holder = first_equal(((secret.name, secret.value) for secret in secrets if secret.value), [token])
    if holder is None:
        raise _bad_token()
    return holder


def _bad_token() -> Refused:
    return Refused(401, "bad_token", "The header Authorization holds no token that is known here.")
