"""A certificate is verified: verdicts are judged again, checks made again, and whatever was edited is found."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import check_model
from harness.adapters import adapt
from harness.checks import CHECKS
from harness.effort import EFFORTS, FALSE_ALARM_BUDGET
from harness.evidence import Carried, Estimated, Exact, Look, Record, Verdict
from harness.examine import examine_model
from harness.plan import plan, select
from harness.processes import Processes
from harness.report import Report
from harness.run import Settings
from harness.verify import Verification, _difference
from harness.verify import verify as verify_with

SOURCE = """
import torch

class Off:
    def sample(self, n, *, generator):
        return torch.randn(n, generator=generator)

    def log_prob(self, x):
        return -x * x / 2 - 0.9

models = [torch.distributions.Normal(0.0, 1.0), Off]
"""
ONLY = ("density", "sample", "sampler.bridge")
TIMEOUT = 20.0
"""Seconds, many times what any one check takes here."""
NAMES = {"Normal": "[0]", "Off": "[1]"}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A run at `quick`, as the command line makes it: one thread, equal shares, SPECs recorded."""
    path = tmp_path_factory.mktemp("author") / "certified_models.py"
    path.write_text(SOURCE)
    from harness.reproduce import model_from

    settings, specs = (
        Settings(EFFORTS["quick"], seed=5),
        {name: f"{path}:models{place}" for name, place in NAMES.items()},
    )
    records: list[Record] = []
    for name, spec in specs.items():
        model = adapt(model_from(spec), name)
        records += examine_model(model, plan(model, select(CHECKS, ONLY), FALSE_ALARM_BUDGET / 2), settings)
    return Report.of(
        records, settings, alpha=FALSE_ALARM_BUDGET, specs=specs, command="harness check certified_models.py"
    )


@pytest.fixture
def stored(report: Report, tmp_path: Path) -> Path:
    path = tmp_path / "certificate.json"
    report.to_json(path)
    return path


@pytest.fixture(scope="module")
def verify() -> Iterator[Callable[..., Verification]]:
    """`verify` by one server of processes for all tests."""
    with Processes(timeout=TIMEOUT) as processes:
        yield partial(verify_with, processes=processes)


Edit = Callable[[dict[str, Any]], None]
Verify = Callable[..., Verification]


def edited(path: Path, check: str, edit: Edit, model: str = "Off") -> Path:
    """The certificate with one record changed by hand, and its summary made to fit."""
    data = json.loads(path.read_text())
    (record,) = (r for r in data["records"] if (r["model"], r["check"]) == (model, check))
    edit(record)
    verdicts = [r["verdict"] for r in data["records"]]
    data["counts"] = {verdict: verdicts.count(verdict) for verdict in data["counts"]}
    data["passed"] = not {"FAIL", "ERROR"} & set(verdicts)
    path.write_text(json.dumps(data))
    return path


def passed(record: dict[str, Any]) -> None:
    record["verdict"] = "PASS"


def test_a_true_certificate_agrees_to_the_last_bit(stored: Path, report: Report, verify: Verify):
    outcome = verify(stored, share=1.0, seed=1)
    assert outcome.differences == ()
    assert outcome.status == 0
    assert len(outcome.repeated) == len(report.records)
    assert not any("within bounds" in note for note in outcome.notes)
    assert "all agree" in str(outcome)
    assert Verdict.FAIL in {record.verdict for record in report.records}  # it certifies a defect, too


def test_a_subset_is_a_function_of_its_seed(stored: Path, report: Report, verify: Verify):
    first, again, other = (verify(stored, share=0.1, seed=seed).repeated for seed in (1, 1, 2))
    assert first == again != other
    assert len(first) == -(-len(report.records) // 10)


def test_a_verdict_that_does_not_follow_from_its_evidence_is_found_in_every_record(stored: Path, verify: Verify):
    outcome = verify(edited(stored, "density.integrates_to_one", passed), share=0.01, seed=1)
    assert outcome.status == 1
    assert any("the verdict is PASS, from the evidence follows FAIL" in line for line in outcome.differences)


def test_edited_evidence_is_found_when_its_check_is_made_again(stored: Path, verify: Verify):
    def edit(record: dict[str, Any]) -> None:
        record["verdict"], record["statistic"] = "PASS", 0.0
        record["evidence"]["error"] = 0.0

    outcome = verify(edited(stored, "density.integrates_to_one", edit), share=1.0, seed=1)
    assert outcome.status == 1
    (line,) = outcome.differences
    assert line.startswith("Off::density.integrates_to_one: stored PASS")
    assert "made again FAIL" in line


def test_a_statistic_changed_in_its_last_digit_is_found(stored: Path, verify: Verify):
    def edit(record: dict[str, Any]) -> None:
        record["statistic"] = record["evidence"]["path"][-1]["estimate"] = record["statistic"] * (1 + 1e-15) + 5e-324

    outcome = verify(edited(stored, "sampler.bridge", edit, "Normal"), share=1.0, seed=1)
    assert [line.partition(": ")[0] for line in outcome.differences] == ["Normal::sampler.bridge"]


def test_a_failure_that_was_hidden_as_a_skip_is_found(stored: Path, verify: Verify):
    def edit(record: dict[str, Any]) -> None:
        record |= {"verdict": "SKIP", "statistic": None, "bound": None, "n_samples": 0, "reproducer": None}
        record["evidence"] = {"type": "absent", "reason": "no reason", "blocked_by": ""}

    outcome = verify(edited(stored, "density.integrates_to_one", edit), share=1.0, seed=1)
    assert any(line.startswith("Off::density.integrates_to_one") for line in outcome.differences)


def test_a_share_of_alpha_that_was_lowered_is_found(stored: Path, verify: Verify):
    def edit(record: dict[str, Any]) -> None:
        record["alpha"] = 1e-300

    outcome = verify(edited(stored, "sampler.bridge", edit, "Normal"), share=0.01, seed=1)
    assert any("alpha is 1e-300" in line for line in outcome.differences)


def test_a_tolerance_that_was_widened_is_found(stored: Path, verify: Verify):
    def edit(record: dict[str, Any]) -> None:
        record["evidence"]["tolerance"] = 10.0

    outcome = verify(edited(stored, "sampler.bridge", edit, "Normal"), share=0.01, seed=1)
    assert any("the tolerance is 10" in line for line in outcome.differences)


@pytest.mark.parametrize("torch_there", ["", "1.0"])  # to the last bit, and within bounds
def test_a_stricter_tolerance_that_was_given_up_is_found_when_its_check_is_made_again(
    stored: Path, torch_there: str, verify: Verify
):
    def edit(record: dict[str, Any]) -> None:
        assert record["evidence"]["tolerance"] < 3 * EFFORTS["quick"].tolerance  # draws of a Normal hardly repeat
        record["evidence"]["tolerance"] = 3 * EFFORTS["quick"].tolerance

    data = json.loads(edited(stored, "sample.not_repeated", edit, "Normal").read_text())
    data["run"]["versions"]["torch"] = torch_there or data["run"]["versions"]["torch"]
    stored.write_text(json.dumps(data))
    outcome = verify(stored, share=1.0, seed=1)
    assert any(line.startswith("Normal::sample.not_repeated: stored") for line in outcome.differences)


def test_an_effort_under_another_ones_name_is_found(stored: Path, verify: Verify):
    data = json.loads(stored.read_text())
    data["run"]["effort"]["name"] = "thorough"
    stored.write_text(json.dumps(data))
    assert any("that effort is" in line for line in verify(stored, share=0.01, seed=1).differences)


def test_other_versions_are_said_and_compared_within_bounds(stored: Path, verify: Verify):
    data = json.loads(stored.read_text())
    data["run"]["versions"]["torch"] = "1.0"
    stored.write_text(json.dumps(data))
    outcome = verify(stored, share=1.0, seed=1)
    assert outcome.status == 0
    assert any("torch 1.0 there" in note for note in outcome.notes)


def test_a_model_that_was_changed_since_is_found(stored: Path, report: Report, tmp_path: Path, verify: Verify):
    repaired = tmp_path / "repaired_models.py"
    repaired.write_text(SOURCE.replace("- 0.9", "- 0.91893853"))
    data = json.loads(stored.read_text())
    data["run"]["specs"]["Off"] = f"{repaired}:models[1]"
    stored.write_text(json.dumps(data))
    assert any(line.startswith("Off::density") for line in verify(stored, share=1.0, seed=1).differences)


def test_a_report_of_objects_given_in_python_says_what_to_do(tmp_path: Path, verify: Verify):
    path = tmp_path / "python.json"
    check_model(torch.distributions.Normal(0.0, 1.0), effort="quick", only=["density.bridge_mass"]).to_json(path)
    with pytest.raises(ValueError, match=r"names no SPEC.*harness check SPEC --json"):
        verify(path)


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(stored: Path, share: float, verify: Verify):
    with pytest.raises(ValueError, match="share is"):
        verify(stored, share=share)


def test_a_file_that_is_no_report_is_refused(tmp_path: Path, verify: Verify):
    path = tmp_path / "no.json"
    path.write_text("{")
    with pytest.raises(ValueError, match="truncated"):
        verify(path)


def looks(*numbers: tuple[int, float, float]) -> Estimated:
    path = tuple(Look(n, (low + high) / 2, low, high, 0.0) for n, low, high in numbers)
    return Estimated(path, tolerance=0.1, confidence=0.999, unit="")


def record(evidence: Estimated | Exact, verdict: Verdict) -> Record:
    return Record("m", "c", verdict, evidence, 1e-7, 0.0, "")


PASSED = record(looks((8, -1, 1), (16, -0.05, 0.05)), Verdict.PASS)


def test_intervals_that_overlap_agree_on_another_platform_only():
    other = replace(PASSED, evidence=looks((8, -1, 1), (16, -0.04, 0.06)))
    apart = replace(PASSED, evidence=looks((8, -1, 1), (16, 0.06, 0.08)))
    assert _difference(PASSED, other, exactly=False, cut=False) == ""
    assert _difference(PASSED, other, exactly=True, cut=False) != ""
    assert _difference(PASSED, apart, exactly=False, cut=False) != ""


def test_a_run_that_was_cut_short_agrees_up_to_there():
    cut = record(looks((8, -1, 1)), Verdict.INCONCLUSIVE)
    assert _difference(cut, PASSED, exactly=True, cut=True) == ""
    assert _difference(cut, PASSED, exactly=True, cut=False) != ""
    other = record(looks((8, -1, 0.5)), Verdict.INCONCLUSIVE)
    assert _difference(other, PASSED, exactly=True, cut=True) != ""


def test_a_report_of_before_runs_could_go_on_agrees_in_what_it_has():
    sums = Carried(0.0, 1, (0,), (0.5,), (1.0,), (-0.5,), (1.0,))
    newer = replace(PASSED, evidence=replace(PASSED.evidence, carried=sums))
    other = replace(newer, evidence=replace(newer.evidence, carried=replace(sums, above=(0.25,))))
    assert _difference(PASSED, newer, exactly=True, cut=False) == ""
    assert _difference(newer, newer, exactly=True, cut=False) == ""
    assert _difference(newer, PASSED, exactly=True, cut=False) != ""
    assert _difference(newer, other, exactly=True, cut=False) != ""


def test_nan_is_no_agreement_within_bounds():
    nan = record(looks((16, float("nan"), float("nan"))), Verdict.PASS)
    assert _difference(PASSED, nan, exactly=False, cut=False) != ""
    assert _difference(nan, nan, exactly=True, cut=False) == ""  # the same bits
    exact = record(Exact(float("nan"), 1.0, 1), Verdict.PASS)
    assert _difference(record(Exact(0.0, 1.0, 1), Verdict.PASS), exact, exactly=False, cut=False) != ""
