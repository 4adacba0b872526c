"""What a page of Plane's API shows: one delivery for each work item.

Ask with `expand=state,labels,assignees`: without, an item shows ids where people expect names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from contracts.observation import observed_body
from contracts.text import NotJson, parse
from providers.plane.normalize import WORK_ITEM
from providers.plane.payloads import Page, Shown
from providers.plane.work_items import item_ref
from providers.port import Item, Unintelligible, problems_of

WORK_ITEMS = "work_items"


def items(kind: str, scope: str, body: bytes) -> list[Item]:
    """What an answer shows: `work_items` (a list) or `work_item` (one). Nothing in them is secret."""
    try:
        if kind == WORK_ITEM:
            return [_item(scope, parse(Shown, body).root)]
        if kind == WORK_ITEMS:
            return [_item(scope, shown) for shown in parse(Page, body).results]
    except NotJson as error:
        raise Unintelligible("not_json", f"The answer cannot be read: {error}.") from None
    except ValidationError as error:
        raise Unintelligible("shape_mismatch", f"These are no work items: {problems_of(error)}.") from None
    raise Unintelligible("no_such_kind", f"Plane is read for {WORK_ITEMS} only.")


def absent(scope: str, project: str, item: str) -> Item:
    """The item that states that a work item is not there any more."""
    return _item(scope, {"id": item, "project": project, "deleted": True})


def _item(scope: str, shown: Mapping[str, Any]) -> Item:
    name = shown.get("id")
    if not isinstance(name, str) or not name:
        raise Unintelligible("shape_mismatch", "A work item in the list has no id.")
    return Item(ref=item_ref(name), kind=WORK_ITEM, body=observed_body(scope, shown))
