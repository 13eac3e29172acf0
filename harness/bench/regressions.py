"""`harness regressions`: a stored history is read and judged. Exit status: 1 for a step that stands, 0 without."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.bench.attribute import Found, Judgement, judged
from harness.bench.history import History, read
from harness.errors import CallError

SCHEMA_VERSION = "1.0"


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
    failed = bool(kept.regressions or kept.failures or (strict and history.troubles))
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
        f"level {judgement.alpha:g} over all of them together"
    )
    if judgement.smallest:
        told = ", ".join(f"{metric} {_size(metric, size)}" for metric, size in sorted(judgement.smallest.items()))
        yield f"at the newest commit, half of the series would show a step from: {told}"


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
    return f"{size:+.4f} nats/dim" if metric == "nll" else f"{math.expm1(size):+.1%}".replace("%", " %")


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
        "smallest_step_shown": {metric: _finite(size) for metric, size in judgement.smallest.items()},
    }


def _finite(size: float) -> float | None:
    return size if math.isfinite(size) else None
