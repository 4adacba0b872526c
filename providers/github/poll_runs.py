"""Polls of workflow runs, their attempts and their jobs.

https://docs.github.com/en/rest/actions/workflow-runs#list-workflow-runs-for-a-repository
https://docs.github.com/en/rest/actions/workflow-jobs#list-jobs-for-a-workflow-run

Runs have no filter by change. So three nets are cast: what was created in the window, what GitHub calls open, and what
was open when we last looked. A run that is older, was asked for again and ended between two polls slips through.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from providers.github.answers import PER_PAGE, VANISHED, WINDOW, SeenRun, listed, show, written
from providers.github.builds import ACTION_REQUIRED, FIRST_ATTEMPT
from providers.paging import by_link, each_page
from providers.polling import Ask, Keep, Look, Reply, Step, Steps, Warn, ask

COMPLETED = "completed"
OPEN_WORDS = ("in_progress", "queued", "waiting", "requested", "pending", ACTION_REQUIRED)
"""What GitHub's filter calls runs that go on or wait."""
OPEN_PAGES_MAX = 2
OPEN_ASKED_MAX = 100
RESULTS_MAX = 1_000
"""Where GitHub ends a filtered list, whatever else there is."""
RUNS_MAX = 1_500
"""The newest, which are remembered from one poll to the next, in less than 64 KB."""
JOBS_RUNS_MAX = 100
"""Runs whose jobs are read in one poll, the newest first; the turn of the others comes with the next."""
JOBS_RUNS_PER_KEEP = 20
ATTEMPTS_MAX = 10
"""Earlier attempts of one run that are read."""

Mark = list[int]
"""A run as it was when its jobs were last read: attempt, `updated_at` in seconds, whether it was open."""


def runs(look: Look) -> Steps:
    """Runs that are new or open, what was missed of their attempts, and the jobs of those that changed."""
    marks: dict[str, Mark] = look.state.get("runs", {})
    seen: dict[str, SeenRun] = {}
    yield from _window(look, seen)
    for word in OPEN_WORDS:
        yield from _list(look, {"status": word}, seen, OPEN_PAGES_MAX)
    for number in islice((number for number, (*_, is_open) in marks.items() if is_open), OPEN_ASKED_MAX):
        if number not in seen:
            yield from _one(look, number, seen)

    newest = sorted(seen.values(), key=lambda run: run.created_at, reverse=True)[:RUNS_MAX]
    marks = {str(run.id): marks[str(run.id)] for run in newest if str(run.id) in marks}
    due = [run for run in newest if look.since or _moves(run) or marks.get(str(run.id)) != _mark(run)]
    for some in _portions(due if look.since else due[:JOBS_RUNS_MAX]):
        for run in some:
            first = _first_unseen(marks.get(str(run.id)))
            yield from _attempts(look, run, first)
            yield from _jobs(look, run, "all" if first < _attempt(run) else "latest")
            marks[str(run.id)] = _mark(run)
        yield Keep({"runs": dict(marks)})


def _window(look: Look, seen: dict[str, SeenRun]) -> Steps:
    """Runs by the time of their creation, the newest first. Where GitHub ends the list, it is asked for the rest."""
    start = written(look.since or look.started_at - WINDOW)
    created = f">={start}"
    while True:
        before = len(seen)
        if (yield from _list(look, {"created": created}, seen)) < RESULTS_MAX or len(seen) == before:
            return
        if len(seen) >= RUNS_MAX:
            yield Warn(
                "too_many_runs",
                f"{look.scope} has more than {RUNS_MAX} workflow runs since {start}: older ones were not read",
            )
            return
        created = f"{start}..{written(min(run.created_at for run in seen.values()))}"


def _list(
    look: Look, filtered: Mapping[str, str], seen: dict[str, SeenRun], pages_max: int = RESULTS_MAX
) -> Generator[Step, Any, int]:
    """Show the runs of a list and note them in `seen`; how many there were."""
    found = page = 0

    def read(reply: Reply) -> Generator[Step, Any, bool]:
        nonlocal found, page
        found += yield from _take(look, reply, reply.body, seen)
        page += 1
        return page < pages_max and found < RESULTS_MAX

    first = Ask(path=f"/{look.scope}/actions/runs", params={**filtered, "per_page": PER_PAGE})
    yield from each_page(first, by_link, read)
    return found


def _one(look: Look, path: str, seen: dict[str, SeenRun]) -> Steps:
    """Show one run, or one attempt of it, unless it vanished."""
    reply = yield from ask(Ask(path=f"/{look.scope}/actions/runs/{path}", also=VANISHED))
    if reply.status not in VANISHED:
        yield from _take(look, reply, b'{"workflow_runs":[' + reply.body + b"]}", seen)


def _take(look: Look, reply: Reply, page: bytes, seen: dict[str, SeenRun]) -> Generator[Step, Any, int]:
    found = listed(SeenRun, page, "workflow_runs")
    yield show("runs", f"{look.scope}/actions/runs", reply, page)
    seen.update((str(run.id), run) for run in found)
    return len(found)


def _attempts(look: Look, run: SeenRun, first: int) -> Steps:
    """Show the attempts of a run from `first` on, but for the last, which was shown."""
    for attempt in range(max(first, _attempt(run) - ATTEMPTS_MAX), _attempt(run)):
        yield from _one(look, f"{run.id}/attempts/{attempt}", {})


def _jobs(look: Look, run: SeenRun, attempts: str) -> Steps:
    path = f"/{look.scope}/actions/runs/{run.id}/jobs"

    def read(reply: Reply) -> Generator[Step, Any, bool]:
        if reply.status in VANISHED:
            return False
        yield show("jobs", path[1:], reply)
        return True

    params = {"filter": attempts, "per_page": PER_PAGE}
    yield from each_page(Ask(path=path, params=params, also=VANISHED), by_link, read)


def _first_unseen(mark: Mark | None) -> int:
    """The first attempt whose end nobody has read."""
    if mark is None:
        return FIRST_ATTEMPT
    attempt, _, was_open = mark
    return attempt if was_open else attempt + 1


def _mark(run: SeenRun) -> Mark:
    is_open = run.status != COMPLETED or run.conclusion == ACTION_REQUIRED
    return [_attempt(run), int(run.updated_at.timestamp()), int(is_open)]


def _moves(run: SeenRun) -> bool:
    """Whether its jobs may change without it. One that waits for an approval of the whole run has none that do."""
    return run.status != COMPLETED


def _attempt(run: SeenRun) -> int:
    return run.run_attempt or FIRST_ATTEMPT


def _portions(due: Iterable[SeenRun]) -> Iterator[list[SeenRun]]:
    """`due` in portions, and one that is empty where there is none."""
    left = iter(due)
    portion = list(islice(left, JOBS_RUNS_PER_KEEP))
    yield portion
    while portion := list(islice(left, JOBS_RUNS_PER_KEEP)):
        yield portion
