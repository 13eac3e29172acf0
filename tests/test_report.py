"""A report passes only when nothing failed that was not expected to, and every expectation was met."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from rich.console import Console

import harness
from harness import Effort, Report, Verdict, check_model
from harness.evidence import Absent, Estimated, Exact, Look, Raised, Record, Reproducer
from harness.judge import explain, judge
from harness.report import COLUMNS, merge
from harness.run import Settings
from harness.terminal import show

SETTINGS = Settings(Effort("quick", draws=1000, tolerance=0.05), seed=7)
SEEN = {
    Verdict.PASS: Exact(0.0, 1.0, 3),
    Verdict.FAIL: Estimated((Look(100, 0.5, 0.4, 0.6, 40.0),), 0.05, 0.999, "probability"),
    Verdict.INCONCLUSIVE: Estimated((Look(100, 0.0, -0.4, 0.4, 0.0),), 0.05, 0.999, "probability"),
    Verdict.SKIP: Absent("the model has no log_prob"),
    Verdict.ERROR: Raised("RuntimeError", "boom", "Traceback"),
}


def record(model: str, check: str, verdict: Verdict) -> Record:
    seen = SEEN[verdict]
    assert judge(seen, 1e-7) is verdict
    return Record(model, check, verdict, seen, 1e-7, 0.5, explain(seen, verdict, 1e-7))


def report(*records: Record, expected: dict[str, str] | None = None, **facts) -> Report:
    return Report.of(records, SETTINGS, alpha=1e-6, expected_failures=expected, **facts)


@pytest.mark.parametrize(
    ("verdict", "passes", "strictly"),
    [
        (Verdict.PASS, True, True),
        (Verdict.SKIP, True, True),
        (Verdict.INCONCLUSIVE, True, False),
        (Verdict.FAIL, False, False),
        (Verdict.ERROR, False, False),
    ],
)
def test_one_verdict_decides(verdict, passes, strictly):
    made = report(record("m", "a.ok", Verdict.PASS), record("m", "a.b", verdict))
    assert (made.passed, made.passes(strict=True)) == (passes, strictly)


def test_nothing_examined_is_not_passed():
    assert not report().passed
    assert "nothing was examined" in report().problems[0]


def test_failures_and_errors_are_told_apart():
    made = report(*(record("m", f"a.{verdict}", verdict) for verdict in Verdict))
    assert [r.check for r in made.failures] == ["a.FAIL"]
    assert [r.check for r in made.errors] == ["a.ERROR"]
    assert [r.check for r in made.undecided] == ["a.INCONCLUSIVE"]
    assert made.counts == dict.fromkeys(Verdict, 1)


# -------------------------------------------------------------------------------------------- expected failures


@pytest.mark.parametrize("key", ["a.b", "m::a.b", "x::y::a.b"])
def test_an_expected_failure_is_met_while_the_check_fails(key):
    model = key.rpartition("::")[0] or "m"
    made = report(record(model, "a.b", Verdict.FAIL), expected={key: "known"})
    assert made.passed
    assert made.failures == ()
    assert made.met[0].expected == "known"
    assert made.problems == ()


@pytest.mark.parametrize("verdict", [v for v in Verdict if v is not Verdict.FAIL])
def test_an_expected_failure_that_does_not_fail_is_a_problem(verdict):
    made = report(record("m", "a.b", verdict), expected={"m::a.b": "known"})
    assert not made.passed
    assert f"was expected to fail (known) but is {verdict}" in made.problems[0]


@pytest.mark.parametrize("key", ["a.c", "other::a.b", "a", "m::a"])
def test_an_expected_failure_that_matches_nothing_is_a_problem(key):
    made = report(record("m", "a.b", Verdict.PASS), expected={key: "known"})
    assert not made.passed
    assert f"{key!r} (known) matches no check" in made.problems[0]


def test_a_bare_check_speaks_of_the_models_on_which_it_was_made():
    """A model that lacks the capability is not meant; one on which the check passes is."""
    fails, skips = record("m", "a.b", Verdict.FAIL), record("n", "a.b", Verdict.SKIP)
    assert report(fails, skips, expected={"a.b": "known"}).passed
    assert not report(fails, record("n", "a.b", Verdict.PASS), expected={"a.b": "known"}).passed
    assert "matches no check" in report(skips, expected={"a.b": "known"}).problems[0]


def test_the_model_s_own_reason_comes_before_the_general_one():
    records = record("m", "a.b", Verdict.FAIL), record("n", "a.b", Verdict.FAIL)
    made = report(*records, expected={"a.b": "all", "m::a.b": "this"})
    assert [r.expected for r in made.records] == ["this", "all"]
    assert made.passed


@pytest.mark.parametrize("reason", ["", "  ", None, 3])
def test_an_expectation_needs_a_reason(reason):
    with pytest.raises(ValueError, match=r"'a\.b' has no reason"):
        report(record("m", "a.b", Verdict.FAIL), expected={"a.b": reason})


# ------------------------------------------------------------------------------------------------------- faces


def test_the_frame_has_a_row_a_record_and_fixed_columns_first():
    frame = report(*(record("m", f"a.{verdict}", verdict) for verdict in Verdict), dtype="float64").to_frame()
    assert list(frame.columns[:8]) == [
        *("model", "check", "verdict", "statistic", "bound", "n_samples", "seconds", "message")
    ]
    assert tuple(frame.columns) == COLUMNS
    assert list(frame.verdict) == list(Verdict)
    failed = frame.set_index("verdict").loc["FAIL"]
    assert (failed.statistic, failed.bound, failed.n_samples, failed.log_e) == (0.5, 0.6, 100, 40.0)
    assert set(frame.seed) == {7}
    assert set(frame.dtype) == {"float64"}


def test_the_frame_of_nothing_has_its_columns():
    assert tuple(report().to_frame().columns) == COLUMNS


def test_the_summary_names_what_needs_attention():
    made = report(
        record("good", "a.b", Verdict.PASS),
        record("bad", "a.b", Verdict.FAIL),
        record("bad", "a.c", Verdict.ERROR),
        expected={"no.check": "why"},
    )
    text = str(made)
    for words in (
        "FAIL bad a.b: deviation +0.5",
        "ERROR bad a.c: RuntimeError: boom",
        "'no.check' (why)",
        "did not pass",
    ):
        assert words in text
    assert "FAIL good" not in text


def test_the_summary_is_inert():
    """Markup and terminal escapes in a model's name are shown or dropped, never obeyed."""
    made = report(record("[red]x[/red]\x1b[2J<b>", "a.b", Verdict.FAIL))
    assert "[red]x[/red] [2J<b>" in str(made)
    assert "\x1b" not in str(made)
    assert "&lt;b&gt;" in made._repr_html_()
    assert "<b>" not in made._repr_html_().replace("<b>did not pass</b>", "")


def test_a_long_summary_is_cut_and_says_so():
    made = report(*(record("m", f"a.c{i}", Verdict.FAIL) for i in range(100)))
    assert "… and 60 more" in str(made)


def test_the_facts_of_the_run_are_kept():
    run = report(record("m", "a.b", Verdict.PASS), device="cuda", seconds=2.5, command="harness check x").run
    assert {"python", "harness", "torch", "numpy", "scipy"} <= set(run.versions)
    assert run.versions["torch"] == torch.__version__
    assert (run.seed, run.effort, run.alpha, run.device, run.seconds) == (7, SETTINGS.effort, 1e-6, "cuda", 2.5)
    assert run.started.endswith("+00:00")
    assert run.contract == harness.contract.CONTRACT_VERSION


def test_check_model_returns_a_report_whose_laws_explain_it():
    made = check_model(torch.distributions.Normal(0.0, 1.0), effort="quick", seed=3, name="N")
    assert made.models == ("N",)
    assert made.run.seed == 3
    assert set(made.laws) == {r.check for r in made.records}
    assert all(law.law for law in made.laws.values())


# ------------------------------------------------------------------------------------------------------- merge


def test_runs_made_alike_merge():
    one = report(record("m", "a.b", Verdict.FAIL), expected={"m::a.b": "known"}, seconds=1.0)
    two = report(record("n", "a.b", Verdict.PASS), expected={"m::a.b": "known"}, seconds=2.0)
    both = merge([one, two])
    assert both.models == ("m", "n")
    assert both.run.seconds == 3.0
    assert both.passed  # what matches nothing in one of them matches in the other
    assert not two.passed


def test_runs_made_differently_do_not_merge():
    one = report(record("m", "a.b", Verdict.PASS))
    with pytest.raises(ValueError, match="differ in seed"):
        merge([one, replace(one, run=replace(one.run, seed=8))])
    with pytest.raises(ValueError, match=r"m::a\.b is in two"):
        merge([one, one])
    with pytest.raises(ValueError, match="no report"):
        merge([])


# -------------------------------------------------------------------------------------------------- the package


def test_the_package_exports_lazily():
    for name in harness.__all__:
        if name != "parametrize_with_checks":
            assert getattr(harness, name).__name__ == name
    assert set(harness.__all__) <= set(dir(harness))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = harness.nonsense


@pytest.mark.parametrize("module", ["harness", "harness.report", "harness.store", "harness.junit", "harness.html"])
def test_stored_reports_open_without_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("width", [40, 80])
def test_a_command_is_one_line_however_narrow_the_terminal(width):
    command = "harness check some/very/long/path/to/models.py:factory --only sampler.bridge_pairs --seed 3 --alpha 1e-6"
    failed = replace(record("m", "a.b", Verdict.FAIL), reproducer=Reproducer(command, "script", 8))
    console = Console(file=io.StringIO(), width=width, color_system=None)
    show(report(failed), console)
    lines = console.file.getvalue().splitlines()
    assert f"  ↳ {command}" in lines
    assert all(len(line) <= width for line in lines if command not in line)  # sentences are wrapped as ever
    assert f"  ↳ {command * 2}" in str(report(replace(failed, reproducer=Reproducer(command * 2, "", 8)))).splitlines()
