"""`harness regressions`: a stored history is read and judged. Exit status: 1 for a step that stands, 0 without."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.bench.attribute import Found, Judgement, Missed, judged
from harness.bench.history import History, read
from harness.bench.show import changes
from harness.bench.steps import FEWEST_BEFORE, NEWEST
from harness.errors import CallError

SCHEMA_VERSION = "2.0"


def regressions(
    folder: Path, *, alpha: float, since: str = "", strict: bool = False, json_path: Path | None = None
) -> int:
    """Show what the history says, write it down, and leave with 1 where something got worse and still is."""
    if json_path is not None:
        from harness.calls import check_outputs
        from harness.store import write_text

        check_outputs({"--json": json_path}, [folder / "benchmarks.json", *folder.glob("*/*.json")])
    try:
        history = read(folder)
        judgement = judged(history, alpha)
    except ValueError as error:
        raise CallError(str(error)) from None
    kept = _since(judgement, history, since)
    for trouble in history.troubles:
        print(f"harness regressions: {trouble}", file=sys.stderr)
    shared = any(each.shared and each.worse and each.stands for each in kept.found)
    failed = bool(kept.regressions or kept.failures or (strict and (history.troubles or shared)))
    for line in lines(kept, history):
        print(line)
    if json_path is not None:
        write_text(json_path, json.dumps(as_json(kept, history, failed), indent=1, allow_nan=False) + "\n")
    return 1 if failed else 0


def _since(judgement: Judgement, history: History, since: str) -> Judgement:
    """Without the steps of commits before the one named. CallError where the history has none of that name."""
    if not since:
        return judgement
    dates = {point.commit: point.date for series in history.series for point in series.points}
    named = [commit for commit in dates if commit.startswith(since)]
    if len(named) != 1:
        what = "no commit" if not named else f"{len(named)} commits"
        raise CallError(f"--since {since} is the beginning of {what} of the history: give one that was measured")
    judgement.found = [each for each in judgement.found if dates[each.commit] >= dates[named[0]]]
    return judgement


def lines(judgement: Judgement, history: History) -> Iterator[str]:
    """What was found, the worst first; then what could have been."""
    for each in sorted(judgement.found, key=lambda found: (not found.fails, -found.size)):
        yield line(each)
    for failure in judgement.failures:
        yield f"FAILED {failure}"
    found = len(judgement.regressions)
    yield (
        f"{found} {'regression' if found == 1 else 'regressions'} and {len(judgement.failures)} missing values in "
        f"{judgement.judged} series of {history.files} runs; {judgement.short} are too short to be judged; "
        f"a history without a step fails with probability {judgement.alpha:g} at most"
    )
    if not judgement.judged:
        fewest = 2 + NEWEST
        yield f"too few to tell: a timing needs {fewest} runs of different commits in one environment, an NLL needs 2"
    for metric, missed in sorted(judgement.missed.items()):
        yield f"could have been missed in {metric}: {_missed(metric, missed)}"


def _missed(metric: str, missed: Missed) -> str:
    """Half of the series, and all, at the newest run and in the newest few."""
    half, most = (_size(metric, size) for size in missed.lasting)
    told = f"up to {half} ({most} in the noisiest series) by the newest {missed.runs} runs"
    if missed.runs == 1:
        return told.replace("the newest 1 runs", "the newest run")
    if not math.isfinite(missed.newest[0]):
        return f"{told}; anything by the newest run alone, which is judged after {FEWEST_BEFORE} others"
    half, most = (_size(metric, size) for size in missed.newest)
    return f"{told}, {half} ({most}) by the newest run alone"


def line(found: Found) -> str:
    """One step in one sentence."""
    word = "WORSE" if found.fails else "worse, taken back" if found.worse and not found.stands else "better"
    if found.worse and found.stands and not found.fails:
        word = "differs"
    where = (
        f"at {found.commit[:8]}, after {found.before[:8]}" if found.commit != found.before else f"{found.commit[:8]}"
    )
    cause = f"{found.cause}{': ' + found.note if found.note else ''}"
    size = f"{_size(found.metric, found.size)} (noise allows {_size(found.metric, found.needed)})"
    return f"{word} {found.series} {found.metric} {size} {where}; {cause} [{found.environment}]"


def _size(metric: str, size: float) -> str:
    if math.isinf(size):
        return "any size"
    return f"{size:+.4f} nats/dim" if metric == "nll" else changes(size)[0]


def as_json(judgement: Judgement, history: History, failed: bool) -> dict[str, Any]:
    """Strict JSON: a size is a logarithm of a ratio, or nats per dimension; infinity is null."""
    return {
        "schema_version": SCHEMA_VERSION,
        "what": "harness regressions",
        "failed": failed,
        "alpha": judgement.alpha,
        "tests": judgement.tests,
        "runs": history.files,
        "series": {"judged": judgement.judged, "too_short": judgement.short},
        "size": "log of after / before; of nll, nats per dimension; above 0 is worse",
        "steps": [
            {**asdict(each), "needed": _finite(each.needed), "worse": each.worse, "fails": each.fails}
            for each in judgement.found
        ],
        "failures": judgement.failures,
        "troubles": history.troubles,
        "could_be_missed": {metric: _missed_json(missed) for metric, missed in judgement.missed.items()},
    }


def _missed_json(missed: Missed) -> dict[str, Any]:
    """Each size in half of the series, and in the noisiest."""
    sizes = {"newest_run": missed.newest, "newest_runs": missed.lasting}
    told = {key: dict(zip(("half", "noisiest"), map(_finite, each), strict=True)) for key, each in sizes.items()}
    return {**told, "runs": missed.runs}


def _finite(size: float) -> float | None:
    return size if math.isfinite(size) else None
