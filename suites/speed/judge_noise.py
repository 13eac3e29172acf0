"""python -m suites.speed.judge_noise [--runs N | --again FILE] [--histories N] [--json results/judge.json]

How often the two judges of speed are wrong. First the noise of this machine is measured: the same cases in fresh
processes, again and again. Then histories in which nothing happens are made of it, and of noise of other kinds, and
`harness regressions` judges them; so does the rule of `harness bench`, with real rounds of one model beside itself and
simulated ones. Other rows plant a step, and count how often it is named. Rows that are `held_out` are of noise that was
first tried when the rule was finished. With --again the noise that an earlier file holds is judged, and its rows of
`harness bench` are kept: a change of the rule of histories can be measured on a busy machine. Intervals are Clopper and
Pearson's, of 95 %.
"""

from __future__ import annotations

import argparse
import json
import math
import os
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
Noise = Callable[[np.random.Generator, int, int], np.ndarray]
"""Logarithms of n runs of k benchmarks, (k, n), apart from a constant."""

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
    """Runs of one measured case each, drawn with replacement: independent from commit to commit."""
    pools = list(cases.values())
    return lambda random, k, n: np.array([random.choice(pools[random.integers(len(pools))], n) for _ in range(k)])


def in_order(cases: dict[str, np.ndarray]) -> Noise:
    """Runs of one measured case each, in the order they were made, from a place of its own and round again."""
    pools = list(cases.values())

    def stretch(random: np.random.Generator, k: int, n: int) -> np.ndarray:
        chosen = [pools[random.integers(len(pools))] for _ in range(k)]
        return np.array([np.take(y, random.integers(len(y)) + np.arange(n), mode="wrap") for y in chosen])

    return stretch


def normal(deviation: float) -> Noise:
    return lambda random, k, n: deviation * random.standard_normal((k, n))


def unequal(random: np.random.Generator, k: int, n: int) -> np.ndarray:
    """Normal, with a deviation of its own for each series, around 1 %."""
    return 0.01 * np.exp(0.7 * random.standard_normal((k, 1))) * random.standard_normal((k, n))


def heavy(random: np.random.Generator, k: int, n: int) -> np.ndarray:
    """Student's law of four degrees of freedom, with a scale of 1 %."""
    return 0.01 * random.standard_t(4, (k, n))


def disturbed(random: np.random.Generator, k: int, n: int) -> np.ndarray:
    """1 %, and one run of a hundred slower by 20 % on average."""
    return normal(0.01)(random, k, n) + (random.random((k, n)) < 0.01) * random.exponential(0.2, (k, n))


def once(random: np.random.Generator, k: int, n: int) -> np.ndarray:
    """The same, but one run of a whole history: what no history can warn of."""
    return normal(0.01)(random, k, n) + (random.random((k, n)) < 1 / (k * n)) * random.exponential(0.2, (k, n))


def tripled(random: np.random.Generator, k: int, n: int) -> np.ndarray:
    """1 %, and one run of twenty takes three times as long."""
    return normal(0.01)(random, k, n) + (random.random((k, n)) < 0.05) * math.log(3)


def bursts(random: np.random.Generator, k: int, n: int) -> np.ndarray:
    """1 %, and disturbances of 20 % on average that last for two runs on average, once in a hundred."""
    y, on = normal(0.01)(random, k, n), random.random(k) < 0.02
    for i in range(n):
        on = np.where(on, random.random(k) < 0.5, random.random(k) < 0.01)
        y[:, i] += on * random.exponential(0.2, k)
    return y


def drifting(coefficient: float) -> Noise:
    """An autoregression: noise that stays for some commits, of 1 % in the long run."""

    def drift(random: np.random.Generator, k: int, n: int) -> np.ndarray:
        y, fresh = random.standard_normal((k, n)), math.sqrt(1 - coefficient**2)
        for i in range(1, n):
            y[:, i] = coefficient * y[:, i - 1] + fresh * y[:, i]
        return 0.01 * y

    return drift


def waves(random: np.random.Generator, k: int, n: int) -> np.ndarray:
    """1 %, and a sine of 5 % with a period of 15 to 40 commits, each series at a place of its own."""
    turns = np.arange(n) / random.uniform(15, 40) + random.random((k, 1))
    return normal(0.01)(random, k, n) + 0.05 * np.sin(2 * np.pi * turns)


def two_frequencies(random: np.random.Generator, k: int, n: int) -> np.ndarray:
    """1 %, and a host that is slower by 15 % in half of the commits, for ten on average; some series feel it more."""
    slow = np.cumsum(random.random(n) < 0.1) + random.integers(2)
    return normal(0.01)(random, k, n) + 0.15 * (slow % 2) * (1 + 0.2 * random.standard_normal((k, 1)))


# Kinds that were first tried when the rule was finished.


def two_layouts(random: np.random.Generator, k: int, n: int) -> np.ndarray:
    """1 %, and three processes of ten are slower by 8 %, as memory is laid out."""
    return normal(0.01)(random, k, n) + 0.08 * (random.random((k, n)) < 0.3)


def waiting(random: np.random.Generator, k: int, n: int) -> np.ndarray:
    """1 %, and three runs of ten wait: by a tenth of a Pareto law with index 1.5."""
    return normal(0.01)(random, k, n) + (random.random((k, n)) < 0.3) * np.log1p(0.1 * random.pareto(1.5, (k, n)))


def busy_days(random: np.random.Generator, k: int, n: int) -> np.ndarray:
    """The deviation of all runs of a commit is its own, with a median of 1 % and one in six beyond 2.7 %."""
    return 0.01 * np.exp(random.standard_normal(n)) * random.standard_normal((k, n))


def weeks(random: np.random.Generator, k: int, n: int) -> np.ndarray:
    """1 %, and on two days of seven all are slower by 10 % or so, each by its own share of it."""
    day = (np.arange(n) + random.integers(7)) % 7
    return normal(0.01)(random, k, n) + 0.1 * (day >= 5) * random.uniform(0.5, 1.5, (k, 1))


def drift_and_noise(random: np.random.Generator, k: int, n: int) -> np.ndarray:
    """1 %, and an autoregression of coefficient 0.95 with as much, hidden in it."""
    return normal(0.01)(random, k, n) + drifting(0.95)(random, k, n)


# ------------------------------------------------------------------------------------------------------ histories


def history(
    noise: Noise, n: int, random: np.random.Generator, step: float = 0.0, first: int = 0, series: int = SERIES
) -> History:
    """So many timings and as many NLLs without noise; `step` is added to one of each from commit `first` on."""
    where = Environment("simulated", "existing")
    told = History(files=n)
    planted = step * (np.arange(n) >= first)
    for unit, logs in (("seconds", noise(random, series, n)), ("exp(nats/dim)", np.ones((series, n)))):
        logs[0] += planted if unit == "seconds" else np.minimum(planted, WORSE)
        for i, y in enumerate(logs):
            points = tuple(Point(f"{k:08x}", float(k), math.exp(value)) for k, value in enumerate(y))
            told.series.append(Series(f"{unit[0]}{i}", "", unit, where, points))
    return told


def quiet(name: str, noise: Noise, n: int, count: int, seed: int, series: int = SERIES) -> Row:
    """How many histories without a step fail."""
    judgements = (judged(history(noise, n, random, series=series), ALPHA) for random in streams(seed, count))
    found = sum(bool(judgement.regressions) for judgement in judgements)
    told = {"judge": "regressions", "noise": name, "series": series, "commits": n, "planted": 0.0}
    return {**told, **rate("alarms", found, count)}


def planted(name: str, noise: Noise, n: int, first: int, count: int, seed: int) -> Row:
    """In how many histories the two planted steps are what is reported: these series, this commit, nothing else."""
    exact = 0
    for random in streams(seed, count):
        found = judged(history(noise, n, random, SLOWER, first), ALPHA).regressions
        exact += sorted((f.series, int(f.commit, 16)) for f in found) == [("e0", first), ("s0", first)]
    told = {"judge": "regressions", "noise": name, "series": SERIES, "commits": n, "planted": SLOWER}
    return {**told, "planted_nll": WORSE, "first": first, **rate("said exactly that", exact, count)}


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


KINDS: dict[str, Noise] = {
    **{"normal 1 %": normal(0.01), "unequal": unequal, "heavy": heavy, "disturbed": disturbed, "tripled": tripled},
    **{"bursts": bursts, "drifting 0.6": drifting(0.6), "drifting 0.8": drifting(0.8), "waves": waves},
    **{"two frequencies": two_frequencies, "disturbed once": once},
}
HELD_OUT: dict[str, Noise] = {
    **{"two layouts": two_layouts, "waiting": waiting, "busy days": busy_days, "weeks": weeks},
    **{"drift and noise": drift_and_noise},
}
"""Kinds that were first tried when the rule was finished; what came out is what is reported."""


def rows_of_histories(cases: dict[str, np.ndarray], count: int) -> Iterator[Row]:
    """Each with a seed of its own."""
    real = {"measured": resampled(cases), "measured, in order": in_order(cases)} if cases else {}
    for seed, (name, noise) in enumerate({**real, **KINDS, **HELD_OUT}.items()):
        for n in (6, 20):
            yield {**quiet(name, noise, n, count, 100 * n + seed), "held_out": name in HELD_OUT}
    for seed, name in enumerate(("normal 1 %", "disturbed", "drifting 0.8")):
        yield {**quiet(name, KINDS[name], 20, count, 5000 + seed, series=4), "held_out": False}
    for first, n in ((10, 20), (18, 20), (19, 20)):
        yield planted("normal 0.5 %", normal(0.005), n, first, count, 100 + first)


def rows_of_bench(real: list[Round], count: int) -> Iterator[Row]:
    """Each with a seed of its own, on rounds that were measured and on simulated ones."""
    for ratio in (1.0, 1.10, 1.20) if real else ():
        yield verdicts("measured", ratio, count, 300, real)
    for kind in ("light", "heavy", "drifting"):
        for ratio in (1.0, 1.05, 1.10, 1.20):
            yield verdicts(kind, ratio, 10 * count, 200)


def _line(row: Row) -> str:
    size = f"{row['series']} series of {row['commits']} commits" if "commits" in row else f"ratio {row['ratio']}"
    where = f", step at {row['first']}" if "first" in row else ""
    share = f"{row['rate']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
    return f"{row['judge']}, {row['noise']}, {size}{where}: {row['what']} {share}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m suites.speed.judge_noise", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here, such as results/judge.json")
    parser.add_argument("--runs", type=int, default=12, help="processes in which the noise is measured; 0 for none")
    parser.add_argument("--again", type=Path, metavar="FILE", help="the noise, and the rows of bench, of this file")
    parser.add_argument("--histories", type=int, default=200, help="simulated histories of each row")
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    call = parser.parse_args(arguments)
    if call.once:
        print(json.dumps(one_run()))
        return 0
    if call.runs < 0 or call.histories < 1:
        parser.error("--runs should be 0 or more, --histories 1 or more")
    if call.again is not None and not call.again.is_file():
        parser.error(f"--again {call.again} is no file: give one that --json wrote")
    began = time.perf_counter()
    told = _of_before(json.loads(call.again.read_text())) if call.again else _measured_now(call.runs)
    cases = {name: np.array(values) for name, values in told["measured"].items()}
    for name, found in cases.items():
        print(f"{name}: {len(found)} runs, deviation {found.std(ddof=1):.1%}, furthest {np.abs(found).max():.1%}")
    bench = told.pop("bench", None)
    made = []
    for row in rows_of_histories(cases, call.histories):
        made.append(row)
        print(_line(row), flush=True)
    for row in bench if bench is not None else rows_of_bench(told.pop("real"), call.histories):
        made.append(row)
        print(_line(row), flush=True)
    if call.json is not None:
        how = f"--again {call.again.name}" if call.again else f"--runs {call.runs}"
        text = {
            "schema_version": "2.0",
            "what": "false alarms and power of harness regressions (alpha over a history) and of harness bench",
            "command": f"python -m suites.speed.judge_noise {how} --histories {call.histories}",
            "alpha": ALPHA,
            "policy": POLICY,
            "machine": machine(),
            "seconds": time.perf_counter() - began,
            **told,
            "rows": made,
        }
        call.json.write_text(json.dumps(text, indent=1, allow_nan=False) + "\n")
        print(f"{len(made)} rows written to {call.json}")
    return 0


def _measured_now(runs: int) -> Row:
    """The noise, the rounds of `harness bench`, and how many processes wanted a processor before, between and after."""
    load = [os.getloadavg()[0]]
    cases = residuals(measured(runs)) if runs else {}
    load.append(os.getloadavg()[0])
    real = real_rounds(runs) if runs >= 5 else []
    load.append(os.getloadavg()[0])
    rounds = [{"log_ratio": made.log_ratio, "log_null": made.log_null} for made in real]
    noise = {name: found.tolist() for name, found in cases.items()}
    return {"load": load, "measured": noise, "measured_rounds": rounds, "real": real}


def _of_before(told: Row) -> Row:
    """The same of an earlier file, with its rows of bench instead of rounds."""
    kept = {key: told[key] for key in ("load", "measured", "measured_rounds") if key in told}
    return {**kept, "bench": [row for row in told["rows"] if row["judge"] == "bench"]}


if __name__ == "__main__":
    sys.exit(main())
