"""One run: a world, a load, a plan of acts; then healing, quiet and the verdicts."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runtime import streams
from tests.chaos.judge import NAMED_MAX, gather, verdicts
from tests.chaos.load import Load
from tests.chaos.plan import Act, Kind, is_short, plan
from tests.chaos.world import World, world

PER_S = 40.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long somebody waits for somebody, and how often a run ends that Slack is told of."""

    accept_s: float
    """Ingest for the broker, before it spools."""
    answer_s: float
    """Senders for ingest."""
    ack_wait_s: float | None
    """The broker for who took a message, before another one gets it; None for what is provisioned."""
    runs_per_s: float
    """Slack takes one message a second at most."""


LONG = Patience(streams.ACCEPT_S_MAX, answer_s=10.0, ack_wait_s=None, runs_per_s=0.4)
"""What is real: GitHub waits 10 s."""
SHORT = Patience(accept_s=0.4, answer_s=2.0, ack_wait_s=2.0, runs_per_s=1.0)


@dataclass
class Run:
    """What one run came to."""

    seed: int
    seconds: float
    brokers: int
    planned: Mapping[Kind, int]
    hit: Mapping[Kind, int]
    """Of what was planned, what somebody felt: no process is killed that is down already."""
    tally: Mapping[str, int]
    parked: int = 0
    quiet_s: float = 0.0
    broken: dict[str, list[str]] = field(default_factory=dict)
    """What breaks each law, by law."""
    evidence: Path | None = None
    """A folder with logs, where something does not hold."""

    @property
    def holds(self) -> bool:
        return not any(self.broken.values())


def command(seed: int, seconds: float, brokers: int) -> str:
    """What repeats a run."""
    return f".venv/bin/python -m tests.chaos --seed {seed} --seconds {seconds:g} --runs 1 --brokers {brokers}"


async def run(seed: int, seconds: float, brokers: int) -> Run:
    """Everything at once for `seconds`, and what held."""
    acts = plan(seed, seconds, brokers)
    patience = SHORT if is_short(seconds) else LONG
    async with world(patience.ack_wait_s, patience.accept_s, brokers) as made:
        doors = {name: made.links[f"senders>{name}"].port for name in made.doors}
        load = Load(seed, doors, patience.answer_s)
        async with asyncio.TaskGroup() as group:
            hitting = group.create_task(made.carry_out_all(acts))
            group.create_task(load.send(seconds, PER_S, patience.runs_per_s))
        planned, hit = (Counter(act.kind for act in those) for those in (acts, hitting.result()))
        result = Run(seed, seconds, brokers, planned, hit, load.tally())
        healed_at = time.monotonic()
        try:
            facts = await gather(made, load.sent)
            result.broken = verdicts(facts)
            result.parked = sum(status == "parked" for _, status, _ in facts.ledger)
        except TimeoutError as error:
            result.broken = {"it becomes quiet": [str(error)]}
        except Exception as error:  # what cannot even be read is broken too, and its logs are wanted
            result.broken = {"it can be read": [f"{type(error).__name__}: {error}"]}
        result.quiet_s = time.monotonic() - healed_at
        result.broken["no process is left"] = await made.end()
        result.broken["no process ends by itself"] = made.troubles()
        if not result.holds:
            result.evidence = _kept(made, load, acts, result)
    return result


def _kept(made: World, load: Load, acts: Iterable[Act], result: Run) -> Path:
    """A folder with the processes' logs, what was done to whom, each sender's answers, and all that is broken."""
    folder = Path(tempfile.mkdtemp(prefix="odooops-chaos-"))
    for process in made.processes.values():
        shutil.copy(process.log, folder)
    (folder / "acts").write_text("".join(f"{act}\n" for act in acts))
    (folder / "sent").write_text("".join(f"{sent.identity} {sent.tries}\n" for sent in load.sent))
    broken = (f"{law}: {each}\n" for law, all_of_it in result.broken.items() for each in all_of_it)
    (folder / "broken").write_text("".join(broken))
    return folder


def told(result: Run) -> str:
    """One run, in lines."""
    lines = [f"  {verb:<9} {', '.join(counts)}" for verb, counts in _by_verb(result.hit).items()]
    lines += [
        "  delivered " + ", ".join(f"{name} {count}" for name, count in result.tally.items()),
        f"  then      parked {result.parked}, quiet after {result.quiet_s:.1f} s",
    ]
    for law, broken in result.broken.items():
        lines.append(f"  {'BROKEN' if broken else 'holds '}    {law}")
        lines += [f"              {each}" for each in broken[:NAMED_MAX]]
        if len(broken) > NAMED_MAX:
            lines.append(f"              and {len(broken) - NAMED_MAX} more")
    if not result.holds:
        again = command(result.seed, result.seconds, result.brokers)
        lines += [f"  again by  {again}", f"  evidence  {result.evidence}"]
    return "\n".join(lines)


def _by_verb(hit: Mapping[Kind, int]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for (verb, group), count in sorted(hit.items()):
        found.setdefault(verb, []).append(f"{group} {count}")
    return found


def never(results: Iterable[Run]) -> list[str]:
    """What was planned and hit nobody in any of the runs, and what senders should have been answered and were not."""
    planned: Counter[Kind] = Counter()
    hit: Counter[Kind] = Counter()
    answered: Counter[str] = Counter()
    for result in results:
        planned.update(result.planned)
        hit.update(result.hit)
        answered.update({**result.tally, "parked": result.parked})
    missing = [f"{verb} {group}" for verb, group in sorted(planned.keys() - hit.keys())]
    expected = ["large", "stored", "spooled", "unknown", "parked"]
    if ("fill", "nats") in planned:
        expected.append("refused (spool_full)")
    return missing + [f"a delivery that is {name}" for name in expected if not answered[name]]
