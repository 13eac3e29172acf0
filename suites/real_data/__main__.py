"""python -m suites.real_data [--only WORD]... [--data PATH] [--json FILE] [--device cuda] [--checkpoints FOLDER]"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from harness.store import check_writable
from suites.data import DataError
from suites.real_data import cases
from suites.real_data import rows as file
from suites.real_data.bars import bars_of
from suites.real_data.cases import Case
from suites.real_data.conv_cases import CLASSIFIERS
from suites.real_data.deep_cases import DEEP, DeepCase
from suites.real_data.deep_fits import Run
from suites.real_data.gpu_cases import ON_GPU

CASES = (*cases.CASES, *CLASSIFIERS, *DEEP)


def main(arguments: list[str] | None = None) -> int:
    """Measure, show a line a row, write each row as it comes.

    Exit status 0 where all is measured and every bar is reached, 1 where not, 2 when the call was wrong.
    """
    parser = argparse.ArgumentParser(prog="python -m suites.real_data", description="Reference models on real data.")
    parser.add_argument("--only", action="append", default=[], metavar="WORD", help="names with this word; repeatable")
    parser.add_argument("--data", type=Path, metavar="PATH", help="the folder of the data, instead of HARNESS_DATA")
    parser.add_argument("--json", type=Path, metavar="FILE", help="merge rows into it, results/real_data.json")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="cuda: the long runs, on a GPU")
    parser.add_argument(
        "--checkpoints", type=Path, metavar="FOLDER", help="keep trainings there; a killed one goes on, where it was"
    )
    call = parser.parse_args(arguments)
    try:
        chosen, known = placed(call), file.read(call.json) if call.json else []
        if call.data is not None and not call.data.is_dir():
            raise ValueError(f"--data {call.data} is no folder: give the one that holds debd/, small/, ...")
        if call.json is not None:
            check_writable(call.json)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    torch.set_num_threads(1)
    good = True
    for place, case in enumerate(chosen, 1):
        print(f"[{place}/{len(chosen)}] {case.name}", flush=True)
        try:
            for row in measured(case, call.data):
                good &= _show(row)
                if call.json is not None:
                    known = file.merged(known, row)
                    file.write(call.json, known)
        except DataError as error:
            good = False
            print(f"  left out: {error}", flush=True)
    return 0 if good else 1


def placed(call: argparse.Namespace) -> list[Case]:
    """The cases of the call, with the folder of their checkpoints. ValueError where a GPU is missing, or a folder."""
    if call.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda is for the long runs on a GPU, and torch finds none: leave it out")
    if call.checkpoints is not None and not call.checkpoints.is_dir():
        raise ValueError(f"--checkpoints {call.checkpoints} is no folder: create it first")
    chosen = selected(call.only, CASES if call.device == "cpu" else ON_GPU)
    if call.checkpoints is None:
        return chosen
    run = Run(call.device, call.checkpoints)
    return [replace(case, run=run) if isinstance(case, DeepCase) else case for case in chosen]


def selected(words: Sequence[str], cases: Sequence[Case] | None = None) -> list[Case]:
    """The cases with one of the words in their name; without words, all. ValueError for a word in none.

    A whole name is that case alone, though it may begin the name of another.
    """
    cases = CASES if cases is None else cases
    names = {case.name for case in cases}
    for word in words:
        if not any(_has(case, word) for case in cases):
            raise ValueError(f"no case has {word!r} in its name: choose from {', '.join(case.name for case in cases)}")
    chosen = {
        name for word in words for name in ({word} if word in names else {c.name for c in cases if _has(c, word)})
    }
    return [case for case in cases if not words or case.name in chosen]


def _has(case: Case, word: str) -> bool:
    return word.lower() in case.name.lower()


def measured(case: Case, folder: Path | None) -> Iterator[file.Row]:
    """The rows of a case with their CPU seconds, or on a GPU seconds; loading and fitting count in the first."""
    clock = time.process_time if case.device == "cpu" else time.perf_counter
    began = clock()
    for figure in case.figures(folder):
        yield file.row(case, figure, clock() - began)
        began = clock()


def _show(row: file.Row) -> bool:
    """Print the row; are its bars reached?"""
    bars = bars_of(row)
    reached = all(bar.reached_by(row["value"]) for bar in bars)
    told = "".join(f"; {bar}: {'reached' if bar.reached_by(row['value']) else 'MISSED'}" for bar in bars)
    print(f"  {row['split']}: {row['metric']} {row['value']:.10g} ({row['seconds']:.1f} s){told}", flush=True)
    return reached


if __name__ == "__main__":
    sys.exit(main())
