"""python -m suites.history [--full] [--device cpu|cuda] [--only REGEX] [--again] [--results FOLDER] [--no-publish]

Measures this commit by asv, keeps the numbers in results/asv without paths of the machine, and publishes the site in
.asv/html. What was measured before is not measured again, so a run that was interrupted goes on where it was: cells are
kept every few. With files that are not committed, the numbers are nobody's: they go to .asv/uncommitted.

By default every preset that is not of the size that real data want is measured, in float32 with 1,000 rows; with
--full every case of the device, and memory of each.
Exit status: 1 when a benchmark failed, 2 when the call was wrong. `harness regressions` judges what is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

from harness.errors import CallError
from suites import asv_store
from suites.asv_store import Setting

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ("harness", "reference_impls", "suites", "asv.conf.json", "pyproject.toml")
"""What has to be committed for numbers to be those of a commit."""

CHUNK = 100
"""Cells between two savings, each of which costs some seconds of importing torch."""

LOG = ROOT / ".asv" / "failures.txt"
"""What asv said of benchmarks that failed in the last run."""

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


class HistoryError(RuntimeError):
    """What went wrong, with what asv or git said of it."""


@dataclass(frozen=True)
class Case:
    """A benchmark at one setting, whose words are as asv writes them: strings in quotes."""

    benchmark: str
    setting: Setting

    def __str__(self) -> str:
        return f"{self.benchmark}({', '.join(self.setting)})" if self.setting else self.benchmark

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(word.strip("'\"") for word in self.setting)

    def on(self, device: str) -> bool:
        """Is this one of the device's? What has no device runs on the CPU."""
        return device in self.words if {"cpu", "cuda"} & set(self.words) else device == "cpu"


# ------------------------------------------------------------------------------------------ which are measured


def useful(cases: Sequence[Case]) -> list[Case]:
    """Under ten minutes of two processors: float32, a thousand rows, no large preset, and memory as it grows."""
    return [case for case in cases if _is_useful(case)]


def _is_useful(case: Case) -> bool:
    module, _, track = case.benchmark.partition(".")
    words = (*case.words, "")
    if "float64" in words or "64-d Gaussian" in words:
        return False
    if module == "models":
        enough = track.startswith("Quality") or words[1] in ("128", "1000")
        return enough and ".full_" not in words[0] and not track.endswith("peak_bytes")
    sizes = {"scaling": ("16", "128"), "examiner": ("4096", "16384")}
    return words[1] in sizes.get(module, (words[1],))


# ------------------------------------------------------------------------------------------ one run of asv


class Asv:
    """asv in a folder of its own, so that two runs share nothing."""

    def __init__(self, folder: Path, device: str):
        self.folder, self.device, self.machine = folder, device, asv_store.asv_machine(device)
        self.results, self.said = folder / "results", ""
        known = {self.machine["machine"]: self.machine, "version": 1}
        (folder / ".asv-machine.json").write_text(json.dumps(known))

    def config(self, results: Path, html: Path) -> Path:
        told = json.loads((ROOT / "asv.conf.json").read_text(encoding="utf-8"))
        told |= {"repo": str(ROOT), "benchmark_dir": str(ROOT / told["benchmark_dir"]), "env_dir": str(self.folder)}
        told |= {"results_dir": str(results), "html_dir": str(html)}
        file = self.folder / "asv.conf.json"
        file.write_text(json.dumps(told))
        return file

    def call(self, config: Path, *arguments: str) -> int:
        """The exit status of asv, which finds its machine file in our folder; what it says is kept in `said`."""
        where = {"HOME": str(self.folder), "USERPROFILE": str(self.folder)}
        command = [sys.executable, "-m", "asv", arguments[0], "--config", str(config), *arguments[1:]]
        told = subprocess.STDOUT
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **where, **ONE_THREAD}, stdout=subprocess.PIPE, stderr=told, text=True
        )
        self.said = done.stdout
        return done.returncode

    def run(self, *arguments: str) -> int:
        config = self.config(self.results, self.folder / "html")
        method = "forkserver" if self.device == "cpu" and hasattr(os, "fork") else "spawn"
        here = ("--environment", f"existing:{sys.executable}", "--machine", self.machine["machine"])
        return self.call(config, "run", *here, "--launch-method", method, *arguments)

    def discover(self) -> dict[str, dict[str, Any]]:
        """All benchmarks, by name. HistoryError where they cannot be imported."""
        if self.run("--bench", "just-discover") != 0:
            raise HistoryError(f"asv cannot import the benchmarks: {self.said}")
        told = json.loads((self.results / "benchmarks.json").read_text(encoding="utf-8"))
        return {name: about for name, about in told.items() if isinstance(about, dict)}

    def measure(self, cases: Sequence[Case], commit: str) -> None:
        """Leave the results of these cases in our folder. HistoryError where asv leaves none."""
        for file in self.results.glob("*/*.json"):
            file.unlink()
        pattern = f"^(?:{'|'.join(re.escape(str(case)) for case in cases)})$"
        options = ("--record-samples", "--show-stderr", "--set-commit-hash", commit, "--bench", pattern)
        status = self.run(*options)
        if status not in (0, 2):  # 2: a benchmark failed, which its cell says
            raise HistoryError(f"asv left with status {status}: {self.said}")
        if status != 0:
            with LOG.open("a", encoding="utf-8") as log:
                log.write(self.said)


def cases_of(benchmarks: dict[str, dict[str, Any]], device: str) -> list[Case]:
    """Every setting of every benchmark that is the device's."""
    every = (Case(name, setting) for name, about in benchmarks.items() for setting in product(*about["params"]))
    return [case for case in every if case.on(device)]


# ------------------------------------------------------------------------------------------ the command


def history(results: Path | None, device: str, full: bool, only: str, again: bool, publish: bool) -> int:
    """Measure what is missing, keep it, publish; the exit status."""
    (commit, clean), trees = _state(), _trees()
    folder = results if results is not None else ROOT / ("results/asv" if clean else ".asv/uncommitted")
    if not clean:
        print(f"there are changes that are not committed: the numbers go to {folder}")
    facts = asv_store.environment(device)
    LOG.parent.mkdir(exist_ok=True)
    LOG.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="history-") as place:
        asv = Asv(Path(place), device)
        benchmarks = asv.discover()
        cases = cases_of(benchmarks, device)
        chosen = [case for case in (cases if full else useful(cases)) if re.search(only, str(case))]
        if not chosen:
            raise CallError(f"--only {only} is in the name of no case, such as {', '.join(map(str, cases[:2]))}")
        file = asv_store.path_of(folder, asv.machine["machine"], commit, facts["name"])
        versions = {name: str(about["version"]) for name, about in benchmarks.items()}
        before = set() if again or not clean else asv_store.done(file, versions)
        left = [case for case in chosen if (case.benchmark, case.setting) not in before]
        print(f"{len(chosen)} cases of commit {commit[:8]}, {len(left)} of them to be measured", flush=True)
        for i in range(0, len(left), CHUNK):
            asv.measure(left[i : i + CHUNK], commit)
            if clean and (_trees(), _state()[1]) != (trees, True):
                raise HistoryError("the files changed while they were measured: call this again when they rest")
            asv_store.keep(asv.results, folder, facts)
            print(f"{min(i + CHUNK, len(left))} of {len(left)} are measured", flush=True)
        failed = _failed(file, chosen)
        if publish:
            _publish(asv, folder)
    for case in failed:
        print(f"FAILED {case}: see {LOG}", file=sys.stderr)
    return 1 if failed else 0


def _state() -> tuple[str, bool]:
    """The commit, and whether the files that matter are those of it."""
    return _git("rev-parse", "HEAD"), not _git("status", "--porcelain", "--", *MEASURED)


def _trees() -> str:
    """The names of what the commit holds of the files that matter: a commit of other files leaves them as they are."""
    return _git("rev-parse", *(f"HEAD:{path}" for path in MEASURED))


def _failed(file: Path, chosen: Sequence[Case]) -> list[Case]:
    """Cases of this call that have no value."""
    told = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"results": {}}
    empty = {Case(name, setting) for name, _, setting, cell in asv_store.cells(told) if cell["result"] is None}
    return [case for case in chosen if case in empty]


def _publish(asv: Asv, folder: Path) -> None:
    """The site of all that is kept. HistoryError where asv makes none."""
    html = ROOT / ".asv" / "html"
    with asv_store.locked(html.parent):
        if asv.call(asv.config(folder, html), "publish") != 0:
            raise HistoryError(f"asv could not publish: {asv.said}")
    print(f"{folder} is published in {html}: {sys.executable} -m asv preview shows it")


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        raise HistoryError("a history needs git, which is not installed") from None
    if done.returncode != 0:
        raise HistoryError(f"a history is one of a git repository: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout.strip()


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m suites.history", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("--full", action="store_true", help="every case: all sizes, dtypes and presets")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", default="", metavar="REGEX", help="cases such as 'LogProb.track_seconds.*gaussian'")
    parser.add_argument("--again", action="store_true", help="measure what was measured before, too")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="where the numbers are kept; else results/asv")
    parser.add_argument("--no-publish", action="store_true", help="make no site")
    call = parser.parse_args(arguments)
    try:
        re.compile(call.only)
    except re.error as error:
        parser.error(f"--only {call.only} is no regular expression: {error}")
    if find_spec("asv") is None:
        parser.error("asv is not installed: pip install 'genharness[asv]'")
    results = None if call.results is None else call.results.resolve()
    try:
        return history(results, call.device, call.full, call.only, call.again, not call.no_publish)
    except CallError as error:
        parser.error(str(error))
    except HistoryError as error:
        print(f"suites.history: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
