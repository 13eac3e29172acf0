"""A history as asv writes it, with noise of a stated size and steps planted where a test wants them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

COLUMNS = (
    *("result", "params", "version", "started_at", "duration", "stats_ci_99_a", "stats_ci_99_b"),
    *("stats_q_25", "stats_q_75", "stats_number", "stats_repeat", "samples", "profile"),
)
UNITS = {"time": "seconds", "memory": "bytes", "nll": "exp(nats/dim)"}
LEVELS = {"time": 1e-4, "memory": 3e7, "nll": math.exp(1.4)}
NOISE = {"time": 0.005, "memory": 0.002, "nll": 0.0}

Planted = Callable[[str, int], float]  # benchmark, number of the commit -> a logarithm that is added


def commit(i: int) -> str:
    return f"{i + 1:02x}" * 20


@dataclass
class Written:
    """`kinds` says how many benchmarks of each metric; each has two settings. Noise is normal, independent by run."""

    folder: Path
    commits: int = 16
    kinds: dict[str, int] = field(default_factory=lambda: {"time": 8, "memory": 4, "nll": 4})
    noise: dict[str, float] = field(default_factory=lambda: NOISE)
    seed: int = 0
    settings: Sequence[str] = ("10", "100")
    levels: dict[str, float] = field(default_factory=lambda: LEVELS)

    def names(self) -> list[tuple[str, str]]:
        """Benchmark and metric."""
        return [(f"models.Model{i}.track_{kind}", kind) for kind, count in self.kinds.items() for i in range(count)]

    def write(
        self,
        planted: Planted = lambda name, i: 0.0,
        *,
        machine: str = "runner",
        environment: str = "existing",
        torch: str = "2.13.0",
        only: Sequence[int] | None = None,
        stream: int = 0,
    ) -> Path:
        """Add the runs of these commits in one environment."""
        random = np.random.default_rng([self.seed, stream])
        home = self.folder / machine
        home.mkdir(parents=True, exist_ok=True)
        (home / "machine.json").write_text(json.dumps({"machine": machine, "version": 1}))
        about = {name: {"name": name, "unit": UNITS[kind], "version": "1"} for name, kind in self.names()}
        (self.folder / "benchmarks.json").write_text(json.dumps({**about, "version": 2}))
        for i in only if only is not None else range(self.commits):
            results = {name: self._row(name, kind, i, planted, random) for name, kind in self.names()}
            told = {
                **{"commit_hash": commit(i), "env_name": environment, "date": 1_700_000_000_000 + 86_400_000 * i},
                **{"params": {"machine": machine, "torch": torch, "ram": str(i)}, "python": "3.11"},
                **{"requirements": {}, "env_vars": {}, "result_columns": COLUMNS, "results": results},
                **{"durations": {}, "version": 2},
            }
            (home / f"{commit(i)[:8]}-{environment}.json").write_text(json.dumps(told))
        return self.folder

    def _row(self, name: str, kind: str, i: int, planted: Planted, random: np.random.Generator) -> list[object]:
        shift = self.noise[kind] * random.standard_normal(len(self.settings)) + planted(name, i)
        values = [self.levels[kind] * math.exp(each) for each in shift]
        return [values, [list(self.settings)], "1", 1_700_000_000_000, 1.0]


def only(name: str, first: int, size: float, last: int = 10**6) -> Planted:
    """A step of one benchmark, from a commit on, up to another."""
    return lambda benchmark, i: size if benchmark == name and first <= i < last else 0.0
