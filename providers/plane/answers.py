"""Answers of Plane's API, as its polls read them."""

from __future__ import annotations

from pydantic import ValidationError

from contracts.text import Model, NotJson, parse
from providers.polling import Failed, Look, Reply
from providers.port import problems_of


def workspace(look: Look, version: str = "v1") -> str:
    """The path of the workspace in a version of the API."""
    return f"/api/{version}/workspaces/{look.source.options.workspace}"


def answer(shape: type[Model], reply: Reply) -> Model:
    """What an answer says; raises Failed."""
    try:
        return parse(shape, reply.body)
    except NotJson:
        raise Failed("not_json", "an answer is not JSON", reply.status) from None
    except ValidationError as error:
        sentence = f"an answer has another shape: {problems_of(error)}"
        raise Failed("shape_mismatch", sentence, reply.status) from None
