"""python -m suites.speed.judge_noise [--runs N] [--histories N] [--json results/judge.json]

How often the two judges of speed are wrong. First the noise of this machine is measured: the same cases in fresh
processes, again and again. Then histories in which nothing happens are made of it, and of noise of other kinds, and
`harness regressions` judges them; so does the rule of `harness bench`, with real rounds of one model beside itself and
simulated ones. Other rows plant a step, and count how often it is named. Intervals are Clopper and Pearson's, of 95 %.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.bench.attribute import POLICY, judged
from harness.bench.history import Environment, History, Point, Series
from harness.bench.machine import machine
from harness.bench.rounds import Contender, Outcome, Setting, one_round
from harness.bench.trees import here
from harness.bench.verdict import Round, Side, compared, level

Row = dict[str, Any]
Noise = Callable[[np.random.Generator, int], np.ndarray]
"""Logarithms of n runs of one benchmark, apart from a constant."""

SERIES, ALPHA = 40, 0.01
SLOWER, WORSE = math.log(1.05), 0.01


# ------------------------------------------------------------------------------------------------ measured noise


def one_run() -> dict[str, list[float]]:
    """Seconds of some small cases in this process."""
    import torch

    from harness.bench.clock import timed
    from suites.speed.cases import a_chain, a_gaussian, a_mixture

    g = torch.Generator().manual_seed(0)
    models = {"gaussian": a_gaussian(16, g), "mixture": a_mixture(4, 5, g), "markov": a_chain(4, 20, g)}
    found = {}
    for name, model in models.items():
        x = model.sample(500, generator=g)
        calls = {"log_prob": lambda x=x, m=model: m.log_prob(x), "sample": lambda m=model: m.sample(500, generator=g)}
        for what, call in calls.items():
            found[f"{name}.{what}"] = list(timed(call, budget=0.3, fewest=20, most=100).seconds)
    return found


def measured(runs: int) -> dict[str, list[list[float]]]:
    """Samples of each case, of so many fresh processes."""
    found: dict[str, list[list[float]]] = {}
    for _ in range(runs):
        call = [sys.executable, "-m", "suites.speed.judge_noise", "--once"]
        for name, seconds in json.loads(
            subprocess.run(call, capture_output=True, text=True, check=True).stdout
        ).items():
            found.setdefault(name, []).append(seconds)
    return found


def residuals(samples: dict[str, list[list[float]]]) -> dict[str, np.ndarray]:
    """Of each case, the levels of its runs around their median."""
    levels = {name: np.array([level(run) for run in runs]) for name, runs in samples.items()}
    return {name: found - np.median(found) for name, found in levels.items()}


# ------------------------------------------------------------------------------------------------ kinds of noise


def resampled(cases: dict[str, np.ndarray]) -> Noise:
    """Runs of one measured case, drawn with replacement: independent from commit to commit."""
    pools = list(cases.values())
    return lambda random, n: random.choice(pools[random.integers(len(pools))], n)


def normal(deviation: float) -> Noise:
    return lambda random, n: deviation * random.standard_normal(n)


def unequal(random: np.random.Generator, n: int) -> np.ndarray:
    """Normal, with a deviation of its own for each series, around 1 %."""
    return 0.01 * math.exp(0.7 * random.standard_normal()) * random.standard_normal(n)


def heavy(random: np.random.Generator, n: int) -> np.ndarray:
    """Student's law of four degrees of freedom, with a scale of 1 %."""
    return 0.01 * random.standard_t(4, n)


def disturbed(random: np.random.Generator, n: int) -> np.ndarray:
    """1 %, and one run of a hundred slower by 20 % on average."""
    return 0.01 * random.standard_normal(n) + (random.random(n) < 0.01) * random.exponential(0.2, n)


def drifting(random: np.random.Generator, n: int) -> np.ndarray:
    """An autoregression of coefficient 0.6: noise that stays for some commits, of 1 % in the long run."""
    y = np.empty(n)
    y[0] = random.standard_normal()
    for i in range(1, n):
        y[i] = 0.6 * y[i - 1] + 0.8 * random.standard_normal()
    return 0.01 * y


# ------------------------------------------------------------------------------------------------------ histories


def history(noise: Noise, n: int, random: np.random.Generator, step: float = 0.0, first: int = 0) -> History:
    """SERIES timings and as many NLLs without noise; `step` is added to one of each from commit `first` on."""
    where = Environment("simulated", "existing")
    told = History(files=n)
    for i in range(SERIES):
        for unit, logs in (("seconds", noise(random, n)), ("exp(nats/dim)", np.ones(n))):
            size = step if unit == "seconds" else min(step, WORSE)
            shifted = logs + size * (np.arange(n) >= first) * (i == 0)
            points = tuple(Point(f"{k:08x}", float(k), math.exp(y)) for k, y in enumerate(shifted))
            told.series.append(Series(f"{unit[0]}{i}", "", unit, where, points))
    return told


def quiet(name: str, noise: Noise, n: int, count: int, seed: int) -> Row:
    """How many histories without a step fail."""
    found = sum(bool(judged(history(noise, n, random), ALPHA).regressions) for random in streams(seed, count))
    return {"judge": "regressions", "noise": name, "commits": n, "planted": 0.0, **rate("alarms", found, count)}


def planted(name: str, noise: Noise, n: int, first: int, count: int, seed: int) -> Row:
    """In how many histories the two planted steps are what is reported: these series, this commit, nothing else."""
    exact = 0
    for random in streams(seed, count):
        found = judged(history(noise, n, random, SLOWER, first), ALPHA).regressions
        exact += sorted((f.series, int(f.commit, 16)) for f in found) == [("e0", first), ("s0", first)]
    told = {
        "judge": "regressions",
        "noise": name,
        "commits": n,
        "planted": SLOWER,
        "planted_nll": WORSE,
        "first": first,
    }
    return {**told, **rate("said exactly that", exact, count)}


# ----------------------------------------------------------------------------------------------- harness bench


def turns(kind: str, ratio: float, random: np.random.Generator, rounds: int = 5, count: int = 40) -> list[Round]:
    """Rounds in which B takes `ratio` times as long as A; each process has a layout of its own, worth 1 %."""
    made = []
    for _ in range(rounds):
        layout = 0.01 * random.standard_normal(3)
        drift = 0.1 * random.random() * np.linspace(0, 1, count) if kind == "drifting" else np.zeros(count)
        sides = []
        for side in range(3):
            noise = 0.02 * np.abs(random.standard_normal(count))
            if kind == "heavy":  # half of the turns wait for another process, for as long as the turn itself or longer
                noise = noise + (random.random(count) < 0.5) * np.log1p(random.pareto(1.5, count) + 1)
            shift = math.log(ratio) * (side == 1)
            sides.append(tuple(map(float, np.exp(layout[side] + drift + noise + shift))))
        made.append(Round(*sides))
    return made


def real_rounds(count: int) -> list[Round]:
    """Rounds of `harness bench` with the same model on both sides, in processes that take turns for two seconds."""
    same = Contender("the same", "gaussian.gaussian_64d", here())
    outcome = Outcome(500)
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(count):
            one_round(same, same, Setting("log_prob", 500, budget=2.0, rounds=1), Path(folder), outcome)
    return outcome.rounds


def drawn(real: list[Round], ratio: float, random: np.random.Generator) -> list[Round]:
    """Five of the real rounds, in which B is made slower."""
    chosen = [real[i] for i in random.choice(len(real), 5, replace=False)]
    return [replace(each, b=tuple(ratio * turn for turn in each.b)) for each in chosen]


def verdicts(kind: str, ratio: float, count: int, seed: int, real: list[Round] | None = None) -> Row:
    """How often B is called slower than A, on simulated turns or on rounds that were measured."""
    made = (drawn(real, ratio, r) if real else turns(kind, ratio, r) for r in streams(seed, count))
    found = [compared(rounds, 0.05).side for rounds in made]
    shares = {str(side): found.count(side) / count for side in Side}
    told = {"judge": "bench", "noise": kind, "ratio": ratio, "policy": 0.05, "verdicts": shares}
    return {**told, **rate("called slower", found.count(Side.MORE), count)}


def streams(seed: int, count: int) -> Iterator[np.random.Generator]:
    return (np.random.default_rng([seed, i]) for i in range(count))


def rate(what: str, found: int, count: int) -> Row:
    """A share with its interval."""
    from scipy.stats import binomtest

    between = binomtest(found, count).proportion_ci(0.95, method="exact")
    return {"what": what, "of": count, "rate": found / count, "low": float(between.low), "high": float(between.high)}


def rows(cases: dict[str, np.ndarray], real: list[Round], count: int) -> Iterator[Row]:
    """All rows; each with a seed of its own."""
    kinds: dict[str, Noise] = {
        **({"measured": resampled(cases)} if cases else {}),
        **{
            "normal 1 %": normal(0.01),
            "unequal": unequal,
            "heavy": heavy,
            "disturbed": disturbed,
            "drifting": drifting,
        },
    }
    for seed, (name, noise) in enumerate(kinds.items()):
        for n in (6, 20):
            yield quiet(name, noise, n, count, 10 * seed + n)
    for first, n in ((10, 20), (18, 20), (19, 20)):
        yield planted("normal 0.5 %", normal(0.005), n, first, count, 100 + first)
    for ratio in (1.0, 1.10, 1.20) if real else ():
        yield verdicts("measured", ratio, count, 300, real)
    for kind in ("light", "heavy", "drifting"):
        for ratio in (1.0, 1.05, 1.10, 1.20):
            yield verdicts(kind, ratio, 10 * count, 200)


def _line(row: Row) -> str:
    size = f"{row['commits']} commits" if "commits" in row else f"ratio {row['ratio']}"
    where = f", step at {row['first']}" if "first" in row else ""
    share = f"{row['rate']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
    return f"{row['judge']}, {row['noise']}, {size}{where}: {row['what']} {share}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m suites.speed.judge_noise", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here, such as results/judge.json")
    parser.add_argument("--runs", type=int, default=12, help="processes in which the noise is measured; 0 for none")
    parser.add_argument("--histories", type=int, default=200, help="simulated histories of each row")
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    call = parser.parse_args(arguments)
    if call.once:
        print(json.dumps(one_run()))
        return 0
    if call.runs < 0 or call.histories < 1:
        parser.error("--runs should be 0 or more, --histories 1 or more")
    began = time.perf_counter()
    cases = residuals(measured(call.runs)) if call.runs else {}
    for name, found in cases.items():
        print(
            f"{name}: {len(found)} runs, deviation {found.std(ddof=1):.1%}, furthest {np.abs(found).max():.1%}",
            flush=True,
        )
    told = []
    real = real_rounds(call.runs) if call.runs >= 5 else []
    for made in real:
        print(
            f"the same model in both processes: {made.log_ratio:+.1%}, beside itself {made.log_null:+.1%}", flush=True
        )
    for row in rows(cases, real, call.histories):
        told.append(row)
        print(_line(row), flush=True)
    if call.json is not None:
        text = {
            "schema_version": "1.0",
            "what": "false alarms and power of harness regressions (alpha over a history) and of harness bench",
            "command": f"python -m suites.speed.judge_noise --runs {call.runs} --histories {call.histories}",
            "alpha": ALPHA,
            "policy": POLICY,
            "machine": machine(),
            "seconds": time.perf_counter() - began,
            "measured": {name: found.tolist() for name, found in cases.items()},
            "measured_rounds": [{"log_ratio": made.log_ratio, "log_null": made.log_null} for made in real],
            "rows": told,
        }
        call.json.write_text(json.dumps(text, indent=1, allow_nan=False) + "\n")
        print(f"{len(told)} rows written to {call.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
