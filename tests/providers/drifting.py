"""Whether a poll that sees what webhooks told of finds drift, by the pure rules of the read models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from contracts.delivery import Delivery
from providers.port import Source
from read_models.merge import join_all
from read_models.port import ReadModel
from services.projector.understand import understand


def drift(
    model: ReadModel[Any], sources: Mapping[str, Source], told: Sequence[Delivery], *seen: Delivery
) -> dict[str, tuple[Any, Any]]:
    """What the row that `told` makes has in each column by which `seen` finds drift, before and after."""
    log = [replace(each, seq=seq, identity=f"{seq}") for seq, each in enumerate([*told, *seen], 1)]
    stated = [[row for name, row in understand(sources, each).rows if name == model.name] for each in log]
    rows = [row for each in stated[: len(told)] for row in each]
    [before] = join_all(model, rows).values()
    [after] = join_all(model, [*rows, *(row for each in stated[len(told) :] for row in each)]).values()
    was, found = asdict(before), asdict(after)
    return {name: (was[name], found[name]) for name in model.drifted(was, found)}
