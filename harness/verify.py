"""Is a certificate true? Every verdict is judged again from its evidence, and a random subset is made again.

Judging again is pure and cheap, so it is done for all records. Making again needs the model: records carry the seed,
effort, dtype and device of the run, draws are a function of the seed, so on the same versions and platform the evidence
must come out the same to the last bit. Elsewhere rounding differs: then the errors of an exact check must agree within
what its arithmetic allows, and the confidence intervals of a statistical one must overlap, since both hold the truth.
"""

from __future__ import annotations

import math
import random
import secrets
from collections.abc import Iterator, Sequence, Set
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from harness.effort import EFFORTS
from harness.errors import InterruptedRunError
from harness.evidence import Absent, Estimated, Exact, Raised, Record, Verdict
from harness.isolate import ENDED, Listed, Options, Unwatched, Watcher, examine, expand
from harness.judge import judge
from harness.processes import Processes
from harness.report import Report, versions

SHARE = 0.2
"""Part of the records that is made again."""

ROUNDING = 1e-9
"""Relative slack of comparisons between products of a few float64 numbers that were rounded in another order."""


@dataclass(frozen=True)
class Verification:
    """What was made again, and every difference to what is stored, a sentence each. `notes` say how it was compared."""

    path: str
    records: int
    repeated: tuple[tuple[str, str], ...]
    differences: tuple[str, ...]
    notes: tuple[str, ...]
    seed: int

    @property
    def status(self) -> int:
        """Exit status: 0 when everything agrees, else 1."""
        return 1 if self.differences else 0

    def __str__(self) -> str:
        outcome = f"{len(self.differences)} differ" if self.differences else "all agree"
        first = (
            f"{self.path}: {self.records} verdicts judged again, {len(self.repeated)} checks made again "
            f"(subset {self.seed}): {outcome}"
        )
        return "\n".join([first, *(f"  differs: {line}" for line in self.differences), *(f"  {n}" for n in self.notes)])


def verify(
    path: str | Path,
    *,
    share: float = SHARE,
    seed: int | None = None,
    processes: Processes | None = None,
    watcher: Watcher | None = None,
) -> Verification:
    """Check the report in a file. ValueError, with one line that names the fix, where that cannot be done.

    `seed` chooses the subset; without it nobody, the author of the file included, knows it beforehand. Models are
    examined in `processes` of their own, with their limits of time and memory; `watcher` sees the progress.
    """
    from harness.store import read

    if not 0 < share <= 1:
        raise ValueError(f"share is {share}: give the part of the records to make again, above 0 and at most 1")
    report = read(path)
    chosen_by = secrets.randbits(32) if seed is None else seed
    differences = [*_unfounded(report), *_run_differences(report)]
    absent = _absent_devices(report)
    if set(report.run.devices) == absent:
        raise ValueError("the run was made on cuda, and torch finds no CUDA device here: verify it where there is one")
    chosen = _chosen(report, share, chosen_by, absent)
    if not (chosen or differences):
        raise ValueError(
            f"{path} names no SPEC, so nothing in it can be made again: models given in Python leave none; "
            "run `harness check SPEC --json` for a report that can be verified"
        )
    exactly, notes = _comparison(report)
    notes += [f"{device} is not here, so what was made there is judged again only" for device in sorted(absent)]
    with Processes() if processes is None else nullcontext(processes) as running:
        again = _made_again(report, chosen, running, watcher or Unwatched())
    for instance in dict.fromkeys(record.instance for record in chosen):
        stored, made = ([r for r in records if r.instance == instance] for records in (chosen, again))
        differences += _differences(report, stored, made, exactly)
    repeated = tuple((record.instance, record.check) for record in chosen)
    return Verification(str(path), len(report.records), repeated, tuple(differences), tuple(notes), chosen_by)


# ------------------------------------------------------------------------------------------- judged again: all


def _unfounded(report: Report) -> Iterator[str]:
    """Verdicts that do not follow from the evidence, and evidence that was not judged as the run says."""
    tolerances, statistical = _tolerances(report), _statistical(report)
    for record in report.records:
        named = f"{record.instance}::{record.check}"
        follows = judge(record.evidence, record.alpha)
        if follows is not record.verdict:
            yield f"{named}: the verdict is {record.verdict}, from the evidence follows {follows}"
        if not isinstance(record.evidence, Estimated):
            continue
        least = report.run.alpha / len(report.instances) / statistical[record.instance]
        if not record.alpha >= least * (1 - ROUNDING):
            yield f"{named}: alpha is {record.alpha:.3g}, its share of {report.run.alpha:.3g} is at least {least:.3g}"
        tolerance = tolerances.get(record.check, record.evidence.tolerance)
        if not record.evidence.tolerance <= tolerance * (1 + ROUNDING):  # a statistic may ask for a stricter one
            yield f"{named}: the tolerance is {record.evidence.tolerance:.3g}, at this effort it is {tolerance:.3g}"


def _statistical(report: Report) -> dict[str, int]:
    """How many statistical checks share an instance's budget, at most."""
    from harness.checks import CHECKS
    from harness.checks.law import StatisticalCheck

    known = {check.id: isinstance(check, StatisticalCheck) for check in CHECKS}
    counts = dict.fromkeys(report.instances, 0)
    for record in report.records:
        counts[record.instance] += known.get(record.check, True)
    return counts


def _tolerances(report: Report) -> dict[str, float]:
    """The widest tolerance of each statistical check at the run's effort, where this harness made the run."""
    from harness.checks import CHECKS
    from harness.checks.law import StatisticalCheck

    if report.run.versions.get("harness") != versions()["harness"]:
        return {}
    scale = report.run.effort.tolerance
    return {check.id: check.tolerance * scale for check in CHECKS if isinstance(check, StatisticalCheck)}


def _run_differences(report: Report) -> Iterator[str]:
    """An effort that is not what its name says."""
    effort = report.run.effort
    same_harness = report.run.versions.get("harness") == versions()["harness"]
    if same_harness and EFFORTS.get(effort.name, effort) != effort:
        yield f"the run says {effort}, but that effort is {EFFORTS[effort.name]}"


# ------------------------------------------------------------------------------------------- made again: a subset


def _chosen(report: Report, share: float, seed: int, absent: Set[str]) -> list[Record]:
    """A random part of the records that can be made again here, at least one; how a process died is not tried again."""
    named = [r for r in report.records if r.model in report.run.specs and r.device not in absent]
    able = [r for r in named if not isinstance(r.evidence, Raised)]
    if not able:
        return []
    places = random.Random(seed).sample(range(len(able)), math.ceil(share * len(able)))
    return [able[place] for place in sorted(places)]


def _made_again(report: Report, chosen: Sequence[Record], processes: Processes, watcher: Watcher) -> list[Record]:
    """Records of the same checks, with those that could block them, at the stored shares of alpha.

    Each instance is in a process of its own, as in `harness check`: one that hangs or dies costs its own records.
    """
    from harness.checks import CHECKS

    run = report.run
    known = {check.id for check in CHECKS}
    models: list[Listed] = []
    found: dict[str, Listed] = {}
    for first in {record.instance: record for record in chosen}.values():
        own = [record for record in chosen if record.instance == first.instance]
        ids = tuple(dict.fromkeys(id for record in own for id in _asked(record) if id in known))
        alphas = {record.check: record.alpha for record in report.records if record.instance == first.instance}
        if ids:
            spec = run.specs[first.model]
            one = found[spec] = found.get(spec) or _listed(processes, spec)
            models.append(replace(one, name=first.model, only=ids, alphas=alphas, seed=first.seed, device=first.device))
    options = Options(run.effort, run.seeds[0], run.alpha, run.devices[0], run.dtype)
    records, interrupted = examine(processes, models, options, watcher) if models else ((), False)
    if interrupted:
        raise InterruptedRunError("interrupted before the checks were made again")
    return list(records)


def _listed(processes: Processes, spec: str) -> Listed:
    """The one model of a SPEC."""
    found = expand(processes, [spec])
    if len(found) != 1:
        raise ValueError(f"{spec} names {len(found)} models: write {found[0].spec} for the first")
    return found[0]


def _asked(record: Record) -> tuple[str, ...]:
    """The check, and the one that blocked it: made alone, a check does not yield to others of the same claim."""
    seen = record.evidence
    return (record.check, seen.blocked_by) if isinstance(seen, Absent) and seen.blocked_by else (record.check,)


def _absent_devices(report: Report) -> Set[str]:
    """Devices of the run that are not here."""
    if "cuda" not in report.run.devices:
        return set()
    import torch

    return set() if torch.cuda.is_available() else {"cuda"}


def _comparison(report: Report) -> tuple[bool, list[str]]:
    """Must evidence agree to the last bit? And what a reader must know of the comparison."""
    import platform

    here = {**versions(), "platform": platform.platform()}
    there = {**report.run.versions, "platform": report.run.platform}
    other = [
        f"{name} {there.get(name, 'unknown')} there, {here[name]} here"
        for name in here
        if here[name] != there.get(name)
    ]
    notes = [f"compared within bounds, not to the last bit: {'; '.join(other)}"] if other else []
    unnamed = [model for model in report.models if model not in report.run.specs]
    if unnamed:
        notes.append(f"no SPEC, so judged again only: {', '.join(unnamed)}")
    return not other, notes


def _differences(report: Report, stored: Sequence[Record], again: Sequence[Record], exactly: bool) -> Iterator[str]:
    """Of one model. Where its process ended, what was not made again is a line, and not one a record."""
    found = {record.check: record for record in again}
    end = _end(again)
    lost = [record for record in stored if end is not None and _lost(found.get(record.check), end)]
    if end is not None and lost:
        yield f"{end.instance}: {len(lost)} of {len(stored)} checks could not be made again: {end.message}"
    for record in stored:
        if record in lost:
            continue
        named = f"{record.instance}::{record.check}"
        made = found.get(record.check)
        if made is None:
            yield f"{named}: this harness has no such check"
            continue
        difference = _difference(record, made, exactly, cut=report.run.budget is not None)
        if difference:
            yield f"{named}: {difference}"


def _end(again: Sequence[Record]) -> Record | None:
    """The record with which the model's process ended, where it ended before everything was made."""
    blocked = (r.evidence for r in again if isinstance(r.evidence, Absent) and r.evidence.reason.startswith(ENDED))
    by = next((evidence.blocked_by for evidence in blocked), None)
    return next((record for record in again if record.check == by), None)


def _lost(made: Record | None, end: Record) -> bool:
    """Is it the record of the end, or of a check that was not made for that?"""
    if made is None or made is end:
        return made is end
    return isinstance(made.evidence, Absent) and made.evidence.reason == f"{ENDED} {end.check}"


def _difference(stored: Record, made: Record, exactly: bool, cut: bool) -> str:
    """How a record made again differs from the stored one, if it does. `cut` runs may have ended early."""
    was, is_ = stored.evidence, made.evidence
    said = f"stored {stored.verdict} ({stored.message}), made again {made.verdict} ({made.message})"
    if type(was) is not type(is_):
        return said
    if isinstance(was, Estimated) and isinstance(is_, Estimated):
        early = cut and stored.verdict is Verdict.INCONCLUSIVE
        agree = _same_looks(was, is_, early) if exactly else _overlap(was, is_)
        return "" if agree and (early or _compatible(stored, made, exactly)) else said
    if isinstance(was, Exact) and isinstance(is_, Exact):
        agree = _same(was, is_) if exactly else _near(was, is_)
        return "" if agree and _compatible(stored, made, exactly) else said
    if isinstance(was, Absent) and isinstance(is_, Absent):
        return "" if was.blocked_by == is_.blocked_by else said
    return said


def _compatible(stored: Record, made: Record, exactly: bool) -> bool:
    """The same verdict and label; where rounding differs, INCONCLUSIVE may stand beside anything."""
    if stored.verdict is made.verdict:
        return stored.label == made.label
    return not exactly and Verdict.INCONCLUSIVE in (stored.verdict, made.verdict)


def _same(was: object, is_: object) -> bool:
    """Equal in every bit, where NaN equals NaN."""
    from harness.store import plain

    return bool(plain(was) == plain(is_))


def _same_looks(was: Estimated, is_: Estimated, early: bool) -> bool:
    """The same evidence; of a run that was cut short, the same up to where it was."""
    if not early:
        if was.carried is None:  # a report of before reports had it
            is_ = replace(is_, carried=None)
        return _same(was, is_)
    return _same(was.path, is_.path[: len(was.path)])


def _overlap(was: Estimated, is_: Estimated) -> bool:
    """Do the intervals at the last look have a point in common, held against the same tolerance?"""
    same = math.isclose(was.tolerance, is_.tolerance, rel_tol=ROUNDING)
    return same and was.last.low <= is_.last.high and is_.last.low <= was.last.high


def _near(was: Exact, is_: Exact) -> bool:
    """Do the errors agree within what both allow?"""
    if _same(was, is_):
        return True
    allowed = max(was.allowed, is_.allowed) + was.uncertainty + is_.uncertainty
    return abs(was.error - is_.error) <= allowed
