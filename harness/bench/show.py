"""What `harness bench` prints: a short table, then the verdict in one sentence."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from typing import Any

from harness.bench.verdict import level

Told = dict[str, Any]
_SECONDS = {"wall": "seconds", "cpu": "processor seconds"}


def lines(told: Told) -> Iterator[str]:
    """The lines of a result, as it is stored."""
    yield from _two(told) if "difference" in told else _one(told)
    yield _machine(told["machine"])


def _one(told: Told) -> Iterator[str]:
    limits = told["ceilings"]
    yield from table(
        [
            ("call", "rows", "a row", "a call", "quartiles", "first call", "roofline", "memory", ""),
            *(_row(row) for row in told["rows"]),
        ]
    )
    yield (
        f"ceilings, measured now: copy {limits['copy_bytes_per_second'] / 1e9:.3g} GB/s, "
        f"matmul {limits['matmul_flops_per_second'] / 1e9:.4g} GFLOP/s in {limits['dtype']}"
    )


def _row(row: Told) -> tuple[str, ...]:
    timing = row["timing"]
    low, _, high = statistics.quantiles(timing["seconds"], n=4)
    notes = ["answered from memory"] * timing["cached"] + [f"{timing['dropped']} throttled"] * bool(timing["dropped"])
    return (
        row["of"],
        f"{row['n']:,}",
        seconds(row["seconds_per_row"]),
        seconds(timing["median"]),
        f"{seconds(low)} to {seconds(high)}",
        seconds(timing["first"]),
        f"{row['roofline']:.2g}",
        size(row["bytes"]) if "bytes" in row else "",
        ", ".join(notes),
    )


def _two(told: Told) -> Iterator[str]:
    """The two sides, then what their difference is held against."""
    yield from table([("", "", _what(told)), *_values(told)])
    d, metric = told["difference"], told["metric"]
    if metric == "nll":
        found = f"{d['estimate']:+.5f} nats per dimension, {d['low']:+.5f} to {d['high']:+.5f}"
        against = f"{d['policy']:g} of policy, {d['floor']:.2g} of A beside itself"
    else:
        estimate, low, high = changes(d["estimate"], d["low"], d["high"])
        found = f"{estimate}, {low} to {high}"
        against = f"{percent(d['policy'])} of policy, {percent(d['floor'])} of A beside itself"
    yield from _busy(told)
    yield f"{told['verdict']}: B differs by {found} at {d['confidence']:.0%} confidence; held against {against}"


def _busy(told: Told) -> Iterator[str]:
    """A word on a machine that has too much to do, where that matters."""
    turns = sum(len(each[key]) for each in told.get("rounds", []) for key in ("a", "b", "again"))
    share = told.get("turns_interrupted", 0) / max(turns, 1)
    if share > 0.5 and told["verdict"] == "AMBIGUOUS":
        hint = "" if told["clock"] == "cpu" else ", or try --clock cpu"
        yield f"other processes interrupted {share:.0%} of the turns: wait for a quieter machine{hint}"


def _what(told: Told) -> str:
    if told["metric"] == "nll":
        return f"NLL per dimension, {told['points']:,} points"
    return f"{'bytes' if told['metric'] == 'memory' else _SECONDS[told['clock']]} of {told['of']}, {told['n']:,} rows"


def _values(told: Told) -> Iterator[tuple[str, ...]]:
    for key in "ab":
        side = told[key]
        if told["metric"] == "nll":
            value = f"{told['nll_per_dimension'][key]:.5f}"
        else:
            found = math.exp(statistics.fmean(level(each[key]) for each in told["rounds"]))
            value = size(found) if told["metric"] == "memory" else seconds(found)
        yield side["label"], side["commit"][:12] or side["name"], value


def _machine(machine: Told) -> str:
    versions = machine["versions"]
    threads = f"{machine['threads']} {'thread' if machine['threads'] == 1 else 'threads'}"
    told = ", ".join(f"{name} {versions[name]}" for name in ("torch", "python", "cuda", "driver") if versions[name])
    return f"{machine['device_name']} ({machine['device']}), {threads}, {told}"


def table(rows: list[tuple[str, ...]]) -> Iterator[str]:
    """Columns as wide as their widest entry, two spaces apart; empty ones are left out."""
    columns = [column for column in zip(*rows, strict=True) if any(column)]
    widths = [max(map(len, column)) for column in columns]
    for row in zip(*columns, strict=True):
        yield "  ".join(entry.ljust(width) for entry, width in zip(row, widths, strict=True)).rstrip()


def percent(log_ratio: float) -> str:
    """The change that a logarithm of a ratio stands for, in words: +5.1 %."""
    return f"{math.expm1(log_ratio):+.1%}".replace("%", " %")


def changes(*log_ratios: float) -> list[str]:
    """All as percents; all as factors where one of them is beyond 2 or below 1/2."""
    if max(map(abs, log_ratios)) <= math.log(2):
        return [percent(each) for each in log_ratios]
    return [f"x {math.exp(each):.3g}" for each in log_ratios]


def seconds(value: float) -> str:
    """Three digits in a unit that fits."""
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")):
        if value >= scale or unit == "ns":
            return f"{value / scale:.3g} {unit}"
    raise AssertionError


def size(value: float) -> str:
    """Bytes in megabytes."""
    return f"{value / 1e6:.3g} MB"
