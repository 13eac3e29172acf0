"""Every FAIL carries its reproducer: a script that runs, fails on the defect, and does not fail without it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harness import check_model
from harness.adapters import adapt
from harness.checks import CHECKS
from harness.effort import EFFORTS, FALSE_ALARM_BUDGET, Effort
from harness.evidence import Estimated, Record, Verdict
from harness.examine import examine_model
from harness.mutants.planted import PLANTED
from harness.plan import plan, select
from harness.reproduce import Origin, described, model_from, rerun
from harness.run import Settings

ALPHA = FALSE_ALARM_BUDGET / 10


def failures(model: object, only: tuple[str, ...], effort: str | Effort, origin: Origin) -> list[Record]:
    adapted = adapt(model)
    settings = Settings(EFFORTS[effort] if isinstance(effort, str) else effort, seed=3)
    planned = plan(adapted, select(CHECKS, only), FALSE_ALARM_BUDGET)
    return [r for r in examine_model(adapted, planned, settings, origin) if r.verdict is Verdict.FAIL]


def planted(name: str, kind: str, d: int = 2, fixed: bool = False) -> object:
    (defect,) = (defect for defect in PLANTED if defect.name == name)
    return (defect.correct if fixed else defect.broken)(kind, d, 1.0)


FOUND = (
    ("mean_shifted", "continuous", "sampler.bridge", "standard"),  # sums over a chunk
    ("correlation_ignored", "continuous", "sampler.bridge_pairs", "standard"),
    ("mass_moved", "continuous", "sampler.stein", "standard"),  # rows of a chunk
    ("tails_cut", "discrete", "sampler.region_masses", "standard"),  # counts
    ("scale_widened", "continuous", "sampler.adversary", "standard"),  # remembers earlier chunks
    ("density_off", "continuous", "density.bridge_mass", "quick"),  # beyond three dimensions
    ("density_off", "continuous", "density.integrates_to_one", "quick"),  # exact
)


@pytest.mark.parametrize(("name", "kind", "check", "effort"), FOUND)
def test_the_reproducer_fails_on_the_defect_and_not_without_it(name: str, kind: str, check: str, effort: str):
    d = 10 if check == "density.bridge_mass" else 2  # no integral gives the mass in ten dimensions
    broken, correct = planted(name, kind, d), planted(name, kind, d, fixed=True)
    (record,) = (r for r in failures(broken, (check,), effort, Origin(thing="it")) if r.check == check)
    assert record.reproducer is not None
    n = record.reproducer.n
    assert 0 < n <= record.n_samples
    how = {"seed": 3, "effort": effort, "n": n, "alpha": record.alpha}
    again = rerun(broken, check, **how)
    assert again.verdict is Verdict.FAIL
    assert again.n_samples == n
    assert rerun(correct, check, **how).verdict in (Verdict.PASS, Verdict.INCONCLUSIVE)


def test_fewer_draws_than_the_first_look_are_enough_for_a_large_defect():
    (record,) = failures(
        planted("log_det_sign", "continuous", 8), ("density.bridge_mass",), "quick", Origin(thing="it")
    )
    assert record.n_samples == EFFORTS["quick"].first_look
    assert record.reproducer is not None
    n = record.reproducer.n
    assert n < record.n_samples / 10
    fewer = rerun(
        planted("log_det_sign", "continuous", 8), record.check, seed=3, effort="quick", n=n // 2, alpha=record.alpha
    )
    assert fewer.verdict is not Verdict.FAIL  # a half is not: n is near the fewest


def test_a_check_alone_sees_what_it_saw_in_a_run_of_all_checks():
    model = planted("mass_moved", "continuous")
    report = check_model(model, effort="quick", seed=3)
    seen = [r for r in report.records if isinstance(r.evidence, Estimated) and r.evidence.columns == 1]
    assert len(seen) >= 2
    for record in seen:
        again = rerun(model, record.check, seed=3, effort="quick", n=record.n_samples, alpha=record.alpha)
        assert isinstance(again.evidence, Estimated)
        assert isinstance(record.evidence, Estimated)
        assert again.evidence.last == record.evidence.last


def test_a_rerun_names_the_quantity_with_the_strongest_evidence():
    (record,) = failures(planted("correlation_ignored", "continuous"), ("sampler.bridge_pairs",), "standard", Origin())
    again = rerun(planted("correlation_ignored", "continuous"), record.check, seed=3, alpha=record.alpha)
    assert "coordinates 0 and 1" in again.message
    shifted = rerun(planted("mean_shifted", "continuous"), "sampler.stein", seed=3, alpha=record.alpha)
    assert isinstance(shifted.evidence, Estimated)
    assert "coordinate 0" in shifted.evidence.where
    assert not shifted.evidence.last.low <= 0 <= shifted.evidence.last.high


def test_passing_records_have_no_reproducer_and_failing_ones_have():
    report = check_model(planted("density_off", "continuous"), effort="quick", only=["density", "sample"])
    assert report.failures
    for record in report.records:
        assert (record.reproducer is not None) is (record.verdict is Verdict.FAIL)


@pytest.mark.parametrize(
    ("name", "check"), [("density_off", "density.integrates_to_one"), ("mass_moved", "sampler.stein")]
)
def test_the_script_runs_and_its_exit_status_follows_the_defect(tmp_path: Path, name: str, check: str):
    place = next(i for i, defect in enumerate(PLANTED) if defect.name == name)
    source = f"from harness.mutants.planted import PLANTED\nmodel = PLANTED[{place}].WHICH('continuous', 2, 1.0)\n"
    (tmp_path / "author.py").write_text(source.replace("WHICH", "broken"))
    origin = Origin("author.py:model")
    (record,) = (r for r in failures(planted(name, "continuous"), (check,), "standard", origin) if r.check == check)
    assert record.reproducer is not None
    (tmp_path / "again.py").write_text(record.reproducer.script)
    seen = script(tmp_path)
    assert seen.returncode == 1, seen.stderr
    assert seen.stdout.startswith("FAIL: ")
    (tmp_path / "author.py").write_text(source.replace("WHICH", "correct"))
    repaired = script(tmp_path)
    assert repaired.returncode == 0, repaired.stdout + repaired.stderr


def script(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "again.py"], cwd=folder, capture_output=True, text=True, timeout=120)


def test_the_command_repeats_the_check_alone():
    (record,) = failures(
        planted("density_off", "continuous", 10), ("density.bridge_mass",), "quick", Origin("a.b:c", dtype="float64")
    )
    assert record.reproducer is not None
    assert record.reproducer.command == (
        "harness check a.b:c --only density.bridge_mass --seed 3 --effort quick --dtype float64"
    )


def test_a_larger_budget_is_part_of_the_command():
    model = adapt(planted("density_off", "continuous", 10))
    planned = plan(model, select(CHECKS, ["density.bridge_mass"]), 0.05)
    records = examine_model(model, planned, Settings(EFFORTS["quick"]), Origin("a.b:c"))
    (record,) = (r for r in records if r.verdict is Verdict.FAIL and r.check == "density.bridge_mass")
    assert record.reproducer is not None
    assert record.reproducer.command.endswith(" --alpha 0.05")


def test_an_object_given_in_python_is_repeated_in_python():
    own = Effort("own", draws=2**12, tolerance=0.1)
    (record,) = failures(
        planted("density_off", "continuous", 10), ("density.bridge_mass",), own, Origin(thing="Mine()")
    )
    assert record.reproducer is not None
    assert record.reproducer.command.startswith(
        "check_model(model, only=['density.bridge_mass'], seed=3, effort=Effort("
    )
    assert "model = ...  # your model: Mine()" in record.reproducer.script
    compile(record.reproducer.script, "again.py", "exec")


def test_model_from_asks_for_one_model(tmp_path: Path):
    path = tmp_path / "several.py"
    path.write_text(
        "import torch\nzoo = [torch.distributions.Normal(0.0, 1.0), torch.distributions.Cauchy(0.0, 1.0)]\n"
    )
    with pytest.raises(ValueError, match=r"names 2 models: write .*zoo\[0\] for the first"):
        model_from(f"{path}:zoo")
    assert isinstance(model_from(f"{path}:zoo[1]"), torch.distributions.Cauchy)


def test_rerun_of_a_model_that_raises_is_an_error():
    class Raises:
        def sample(self, n: int, *, generator: torch.Generator) -> torch.Tensor:
            raise RuntimeError("no weights")

    record = rerun(Raises(), "sample.well_formed", effort="quick", alpha=ALPHA)
    assert record.verdict is Verdict.ERROR
    assert "no weights" in record.message


def test_a_repr_that_raises_does_no_harm():
    class Shy:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    assert described(Shy()) == "a Shy"
    assert "\n" not in described("a\nb")
