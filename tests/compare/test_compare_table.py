"""Who is ranked, who is below the line and why, and what is flagged."""

import math

import numpy as np
import pytest

from harness.compare.table import judged

DATA = {"d": 4, "entropy_ceiling_nats": 2.0, "frontier_nats": 3.0, "frontier_source": "somebody 2020"}
EXACT = "density.sums_to_one"


def certificate(*bad: str, exact: str = EXACT, passes: int = 3) -> dict:
    records = [{"check": id, "verdict": "FAIL", "message": "it does not hold"} for id in bad]
    counts = {"PASS": passes, "FAIL": len(bad), "INCONCLUSIVE": 0, "SKIP": 1, "ERROR": 0}
    return {
        **{"passed": not bad and passes > 0, "counts": counts, "records": records},
        **{"normalised_exactly_by": exact, "alpha": 1e-7},
    }


def cost(seconds: float = 1.0, cached: bool = False) -> dict:
    figure = {"value": seconds, "cached": cached}
    return {"seconds_per_log_prob": figure, "seconds_per_sample": figure, "peak_memory_bytes": {"value": 10}}


def row(name: str, level: float, **changes) -> dict:
    points = (level + 0.01 * np.random.default_rng(len(name)).normal(size=100)).tolist()
    return {
        **{"name": name, "spec": f"m.py:{name}", "points": points, "meaning": "exact", "trouble": ""},
        **{"certificate": certificate(), "cost": cost(), **changes},
    }


def by_name(*rows: dict, data: dict = DATA) -> dict[str, dict]:
    return {each["name"]: each for each in judged(rows, data)}


def test_the_order_is_best_first_and_below_the_line_last():
    rows = [row("worse", 5.0), row("failing", 4.0, certificate=certificate("density.bridge_mass")), row("good", 4.0)]
    assert [each["name"] for each in judged(rows, DATA)] == ["good", "worse", "failing"]


def test_a_failed_certificate_names_what_failed():
    bad = certificate("density.bridge_mass", "support.in_common")
    seen = by_name(row("failing", 4.0, certificate=bad))["failing"]
    assert seen["rank"] is None
    assert seen["reason"] == "no certificate: FAIL density.bridge_mass: it does not hold, and 1 more"
    assert seen["nll"]["mean"] == pytest.approx(4.0, abs=0.01)  # shown, not ranked


def test_a_certificate_of_nothing_is_none():
    assert "no check applies" in by_name(row("empty", 4.0, certificate=certificate(passes=0)))["empty"]["reason"]


def test_trouble_and_half_a_measurement_are_reasons():
    half = row("half", 4.0)
    del half["certificate"]
    seen = by_name(row("dead", 4.0, trouble="Died: killed"), half)
    assert seen["dead"]["reason"] == "Died: killed"
    assert seen["half"]["reason"] == "it was not measured to the end"


def test_bits_per_coordinate_are_nats_over_d_log_2():
    seen = by_name(row("good", 4.0))["good"]
    assert seen["bits_per_dim"] == pytest.approx(seen["nll"]["mean"] / (4 * math.log(2)), rel=1e-15)


def test_better_than_the_entropy_of_the_test_rows_is_impossible():
    seen = by_name(row("liar", 1.5), row("good", 4.0))
    assert seen["liar"]["rank"] is None
    assert "impossible" in seen["liar"]["reason"]
    assert any("entropy ceiling" in flag for flag in seen["liar"]["flags"])
    assert seen["good"]["rank"] == 1


def test_the_ceiling_itself_may_be_reached():
    points = [2.0] * 100  # to the last digit, and one rounding of float32 below
    assert by_name(row("perfect", 0, points=points))["perfect"]["rank"] == 1
    assert by_name(row("rounded", 0, points=[2.0 - 2.0**-24] * 100))["rounded"]["rank"] == 1


def test_a_bound_below_the_ceiling_is_flagged_and_stays():
    seen = by_name(row("noisy", 1.5, meaning="upper bound on the NLL (dequantised)"))["noisy"]
    assert seen["rank"] == 1
    assert any("dequantisation" in flag for flag in seen["flags"])


def test_better_than_what_is_published_needs_an_exact_certificate():
    seen = by_name(row("sound", 2.5), row("unsure", 2.5, certificate=certificate(exact="")))
    assert not any("published" in flag for flag in seen["sound"]["flags"])
    assert any("somebody 2020" in flag for flag in seen["unsure"]["flags"])
    assert not any("published" in flag for flag in by_name(row("modest", 3.5))["modest"]["flags"])


def test_continuous_data_has_neither_ceiling_nor_frontier():
    data = {"d": 4, "entropy_ceiling_nats": None, "frontier_nats": None}
    assert by_name(row("negative", -50.0), data=data)["negative"]["flags"] == []


def test_a_figure_that_came_from_a_cache_is_flagged():
    seen = by_name(row("cached", 4.0, cost=cost(cached=True)))["cached"]
    assert sum("it remembers" in flag for flag in seen["flags"]) == 2


def test_dominated_points_are_among_the_ranked_only():
    failing = row("failing", 1.0, certificate=certificate("x.y"), cost=cost(0.1))
    seen = by_name(row("good", 4.0), row("slow", 5.0, cost=cost(9.0)), failing)
    assert seen["slow"]["dominated_by_log_prob"]
    assert not seen["good"]["dominated_by_log_prob"]
