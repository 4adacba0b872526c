"""Polls of things that GitHub's lists show without the id of their repository, which its webhooks always state.

https://docs.github.com/en/rest/repos/repos#get-a-repository
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from providers.github.answers import listed
from providers.github.observed import with_repository
from providers.github.payloads import Identified
from providers.polling import Ask, Failed, Keep, Look, Part, Show, Step, Steps, ask

REPOSITORY_ID = "repository_id"


def at_home(part: Part) -> Part:
    """The same part, and each thing that it shows says the repository's id, which is asked for once."""

    def polled(look: Look) -> Steps:
        number = look.state.get(REPOSITORY_ID)
        if not isinstance(number, int):
            reply = yield from ask(Ask(path="/" + "/".join(look.scope.split("/")[:3])))
            [found] = listed(Identified, b"[" + reply.body + b"]")
            number = found.id
        inner = part(look)
        came: Any = None
        failure: Failed | None = None
        try:
            while True:
                try:
                    step = inner.send(came) if failure is None else inner.throw(failure)
                except StopIteration:
                    return
                came, failure = None, None
                try:
                    came = yield _said(step, number)
                except Failed as error:
                    failure = error
        finally:
            inner.close()

    return polled


def _said(step: Step, number: int) -> Step:
    """The step with the repository's id in what it shows and keeps."""
    if isinstance(step, Show):
        return replace(step, items=[with_repository(item, number) for item in step.items])
    if isinstance(step, Keep):
        return Keep({**step.state, REPOSITORY_ID: number})
    return step
