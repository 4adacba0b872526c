"""One run: a world, a load, a plan of acts; then healing, quiet and the verdicts."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.judge import NAMED_MAX, gather, verdicts
from tests.chaos.load import Load
from tests.chaos.plan import is_short, plan
from tests.chaos.world import DOORS, SECRET, World, world

PER_S = 40.0
RUNS_PER_S = 0.4
"""Ends of runs, of which Slack takes one a second at most."""
SHORT_RUNS_PER_S = 1.0
SHORT_ACK_WAIT_S = 2.0


@dataclass
class Run:
    """What one run came to."""

    seed: int
    seconds: float
    acts: Mapping[str, int]
    tally: Mapping[str, int]
    parked: int = 0
    quiet_s: float = 0.0
    broken: dict[str, list[str]] = field(default_factory=dict)
    """What breaks each law, by law."""

    @property
    def holds(self) -> bool:
        return not any(self.broken.values())


async def run(seed: int, seconds: float, logs: Path | None = None) -> Run:
    """Everything at once for `seconds`, and what held. The processes' logs go to `logs` where something did not."""
    acts = plan(seed, seconds)
    short = is_short(seconds)
    async with world(SHORT_ACK_WAIT_S if short else None) as made:
        load = Load(seed, {name: made.links[f"senders>{name}"].port for name in DOORS}, SECRET)
        async with asyncio.TaskGroup() as group:
            group.create_task(made.carry_out_all(acts))
            group.create_task(load.send(seconds, PER_S, SHORT_RUNS_PER_S if short else RUNS_PER_S))
        result = Run(seed, seconds, Counter(act.verb for act in acts), load.tally())
        healed_at = time.monotonic()
        try:
            facts = await gather(made, load.sent)
            result.broken = verdicts(facts)
            result.parked = sum(status == "parked" for _, status, _ in facts.ledger)
        except TimeoutError as error:
            result.broken = {"it becomes quiet": [str(error)]}
        result.quiet_s = time.monotonic() - healed_at
        result.broken["no process is left"] = await made.end()
        result.broken["no process ends by itself"] = made.troubles()
        if not result.holds and logs is not None:
            _keep_logs(made, logs / f"seed-{seed}")
    return result


def _keep_logs(made: World, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for process in made.processes.values():
        shutil.copy(process.log, folder)


def told(result: Run) -> str:
    """One run, in lines."""
    lines = [
        "  acts      " + ", ".join(f"{verb} {count}" for verb, count in sorted(result.acts.items())),
        "  delivered " + ", ".join(f"{name} {count}" for name, count in result.tally.items()),
        f"  then      parked {result.parked}, quiet after {result.quiet_s:.1f} s",
    ]
    for law, broken in result.broken.items():
        lines.append(f"  {'BROKEN' if broken else 'holds '}    {law}")
        lines += [f"              {each}" for each in broken[:NAMED_MAX]]
        if len(broken) > NAMED_MAX:
            lines.append(f"              and {len(broken) - NAMED_MAX} more")
    if not result.holds:
        lines.append(f"  again by  {command(result.seed, result.seconds)}")
    return "\n".join(lines)


def command(seed: int, seconds: float) -> str:
    """What repeats a run."""
    return f".venv/bin/python -m tests.chaos --seed {seed} --seconds {seconds:g} --runs 1"
