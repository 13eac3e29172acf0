"""The plugin in pytest runs of its own: one test per model and check, each verdict as the outcome that it is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings

import pytest
import torch

from harness import check_model, parametrize_with_checks
from harness.checks.law import StatisticalCheck
from harness.effort import EFFORTS
from harness.evidence import Absent, Estimated, Exact, Look, Raised, Record, Verdict
from harness.pytest_outcome import Examination, InconclusiveWarning, ModelCheck, ModelError, settle

pytest_plugins = "pytester"

AUTHOR = """
    import torch

    class Off:
        def sample(self, n, *, generator):
            return torch.randn(n, generator=generator)

        def log_prob(self, x):
            return -x * x / 2 - 1.0

    class Raises(Off):
        def log_prob(self, x):
            return self.helper(x)

        def helper(self, x):
            raise RuntimeError("no weights")

    class Leaves(Off):
        def log_prob(self, x):
            raise SystemExit(3)

    normal = torch.distributions.Normal(0.0, 1.0)
    zoo = [normal, Off]
"""


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)


@pytest.fixture
def author(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project with a few models in author.py."""
    pytester.makepyfile(author=AUTHOR)
    pytester.makeini("[pytest]\naddopts = -p no:cacheprovider\npythonpath = .")
    return pytester


def outcomes(result: pytest.RunResult) -> dict[str, str]:
    """Test id to outcome, from the lines of a run with -v (or of xdist, where the outcome comes first)."""
    text = "\n".join(result.outlines)
    serial = dict(re.findall(r"^(\S.*::.*?) (PASSED|FAILED|SKIPPED|XFAIL)\b", text, re.MULTILINE))
    spread = {
        name: said for said, name in re.findall(r"\] (PASSED|FAILED|SKIPPED|XFAIL) (\S.*::.*?) *$", text, re.MULTILINE)
    }
    return {name.strip(): said for name, said in (spread or serial).items()}


# ------------------------------------------------------------------------------------------------- the decorator

DECORATED = """
    import torch
    from harness import parametrize_with_checks
    from author import Off, Raises

    KNOWN = {"Off::density.integrates_to_one": "0.08 nat are too many", "Raises::sample.any_batch_size": "no longer"}

    @parametrize_with_checks(
        [Off(), Raises(), torch.distributions.Normal(0.0, 1.0)],
        effort="quick", only=["density.integrates_to_one", "sample.any_batch_size"], expected_failures=KNOWN,
    )
    def test_conforms(model, check):
        check(model)

    class Shifted(Off):
        def log_prob(self, x):
            return super().log_prob(x) - 1.0

    @parametrize_with_checks([torch.distributions.Normal(0.0, 1.0)], effort="quick", only=["density.integrates_to_one"])
    def test_wrapped(model, check):
        check(Shifted())
"""


GATES = ("support.in_common", "support.has_volume")  # of what compares a density


def test_each_verdict_is_its_outcome_and_the_same_under_xdist(author: pytest.Pytester):
    author.makepyfile(test_models=DECORATED)
    result = author.runpytest_subprocess("-v", "-p", "no:xdist")
    assert outcomes(result) == {
        **{
            f"test_models.py::test_conforms[{name}-sample.well_formed]": "PASSED"
            for name in ("Off", "Raises", "Normal")
        },
        **{f"test_models.py::test_conforms[{name}-sample.any_batch_size]": "PASSED" for name in ("Off", "Normal")},
        "test_models.py::test_conforms[Raises-sample.any_batch_size]": "FAILED",  # expected to fail, and does not
        "test_models.py::test_conforms[Off-log_prob.well_formed]": "PASSED",
        "test_models.py::test_conforms[Off-density.integrates_to_one]": "XFAIL",
        "test_models.py::test_conforms[Raises-log_prob.well_formed]": "FAILED",
        "test_models.py::test_conforms[Raises-density.integrates_to_one]": "SKIPPED",
        "test_models.py::test_conforms[Normal-log_prob.well_formed]": "PASSED",
        "test_models.py::test_conforms[Normal-density.integrates_to_one]": "PASSED",
        **{f"test_models.py::test_wrapped[Normal-{w}.well_formed]": "PASSED" for w in ("sample", "log_prob")},
        "test_models.py::test_wrapped[Normal-density.integrates_to_one]": "FAILED",
        **{f"test_models.py::test_conforms[{m}-{gate}]": "PASSED" for m in ("Off", "Normal") for gate in GATES},
        **{f"test_models.py::test_conforms[Raises-{gate}]": "SKIPPED" for gate in GATES},
        **{f"test_models.py::test_wrapped[Normal-{gate}]": "PASSED" for gate in GATES},
    }
    text = "\n".join(result.outlines)
    assert "Raises::sample.any_batch_size was expected to fail (no longer) but is PASS: remove the expectation" in text
    assert "helper" in text  # the model's own traceback
    assert "raise RuntimeError" in text
    assert re.search(r"E +AssertionError: Normal::density.integrates_to_one is a FAIL: error", text)
    assert re.search(
        r"E +reproduce: check_model\(model, only=\['density.integrates_to_one'\], seed=0, effort='quick'\)", text
    )
    assert "harness/run.py" not in text
    assert "pytest_outcome.py" not in text  # no frames of ours
    spread = author.runpytest_subprocess("-v", "-n", "2")
    assert outcomes(spread) == outcomes(result)


@pytest.mark.parametrize(
    ("call", "line"),
    [
        ("[]", "parametrize_with_checks got no model: put at least one in its list"),
        ("[object()]", r"object \(builtins.object\) is no model"),
        ("[Off()], expected_failures={'density.nothing': 'why'}", "'density.nothing' .why. matches no check"),
        ("[Off()], expected_failures={'sampler.pit_uniform': 'why'}", "'sampler.pit_uniform' .why. matches no check"),
        ("[Off()], expected_failures={'density.bridge_mass': ''}", "'density.bridge_mass' has no reason"),
        ("[Off()], only=['density.nothing']", "no check is called 'density.nothing'"),
    ],
)
def test_a_wrong_decorator_is_one_clear_line(call: str, line: str):
    class Off:
        def sample(self, n: int, *, generator: torch.Generator) -> torch.Tensor:
            return torch.randn(n, generator=generator)

        def log_prob(self, x: torch.Tensor) -> torch.Tensor:
            return -x * x / 2 - 0.9

    with pytest.raises(pytest.Collector.CollectError, match=line) as caught:
        eval(f"parametrize_with_checks({call})", {"parametrize_with_checks": parametrize_with_checks, "Off": Off})
    assert "\n" not in str(caught.value)


def test_models_of_one_type_are_numbered_and_share_alpha_before_a_draw():
    laws = [torch.distributions.Normal(0.0, 1.0), torch.distributions.Normal(5.0, 1.0)]
    mark = parametrize_with_checks(laws, only=["sampler.bridge", "density.bridge_mass"], alpha=0.04)
    params = mark.args[1]
    assert {param.id for param in params} >= {"Normal0-sampler.bridge", "Normal1-density.bridge_mass"}
    examinations = {id(p.values[1].examination): p.values[1].examination for p in params}.values()
    plans = [examination.plan(examination.adapted(examination.thing)) for examination in examinations]
    assert len(plans) == 2
    for planned in plans:
        sharing = sum(isinstance(item.check, StatisticalCheck) for item in planned)
        assert sharing >= 2
        assert {item.alpha for item in planned} == {0.04 / 2 / sharing}


def examination(thing: object, **other: object) -> Examination:
    return Examination("it", thing, seed=4, effort=EFFORTS["quick"], share=1e-6, **other)  # type: ignore[arg-type]


def test_records_are_those_of_check_model_and_made_once():
    law = torch.distributions.Normal(0.0, 1.0)
    only = ("sampler.bridge", "log_prob")
    report = check_model(law, effort="quick", seed=4, only=only)
    ours = examination(law, only=only)
    for record in report.records:
        assert ours.record(record.check, law).evidence == record.evidence
        assert ours.record(record.check, law).verdict is record.verdict
        ours.wanted |= {r.check for r in report.records}
    first = ours.record("sampler.bridge", law)
    assert ours.record("sampler.bridge", law) is first


def test_one_selected_check_is_made_with_its_share_of_the_whole_run():
    law = torch.distributions.Normal(0.0, 1.0)
    (whole,) = (r for r in check_model(law, effort="quick", seed=4).records if r.check == "sampler.bridge")
    alone = examination(law, wanted={"sampler.bridge"})
    assert alone.record("sampler.bridge", law).evidence == whole.evidence
    assert alone.record("sampler.bridge", law).alpha == whole.alpha
    assert set(alone.records) < {r.check for r in check_model(law, effort="quick", seed=4, only=["sampler"]).records}


def test_a_model_that_leaves_costs_one_error_and_blocks_the_rest():
    class Leaves:
        def sample(self, n: int, *, generator: torch.Generator) -> torch.Tensor:
            return torch.randn(n, generator=generator)

        def log_prob(self, x: torch.Tensor) -> torch.Tensor:
            raise SystemExit(3)

    thing = Leaves()
    ours = examination(thing, only=("density.bridge_mass",), wanted={"density.bridge_mass", "sample.well_formed"})
    ModelCheck("sample.well_formed", ours)(thing)
    with pytest.raises(ModelError, match=r"the model called sys.exit\(3\)"):
        ModelCheck("log_prob.well_formed", ours)(thing)
    with pytest.raises(pytest.skip.Exception, match=r"blocked: log_prob\.well_formed did not pass"):
        ModelCheck("density.bridge_mass", ours)(thing)


# --------------------------------------------------------------------------------------------- verdict to outcome

SEEN = Estimated((Look(64, 0.5, 0.4, 0.6, 50.0),), 0.1, 0.999, "probability")


def record(verdict: Verdict, evidence: Estimated | Exact | Absent | Raised = SEEN) -> Record:
    return Record("m", "a.b", verdict, evidence, 1e-7, 0.0, "what was seen")


def test_pass_passes_in_silence():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        settle(record(Verdict.PASS))


def test_fail_states_what_was_seen_and_the_bound():
    with pytest.raises(AssertionError, match=r"m::a\.b is a FAIL: what was seen\nstatistic 0\.5, bound 0\.6, 64 draws"):
        settle(record(Verdict.FAIL))


def test_skip_skips_with_its_reason():
    with pytest.raises(pytest.skip.Exception, match="what was seen"):
        settle(record(Verdict.SKIP, Absent("what was seen")))


def test_inconclusive_warns_and_fails_when_strict():
    with pytest.warns(InconclusiveWarning, match="m::a.b is INCONCLUSIVE: what was seen"):
        settle(record(Verdict.INCONCLUSIVE))
    with pytest.raises(AssertionError, match="INCONCLUSIVE"):
        settle(record(Verdict.INCONCLUSIVE), strict=True)


def test_error_fails_with_the_models_own_traceback():
    ours = os.path.dirname(settle.__code__.co_filename)
    trace = (
        f'Traceback (most recent call last):\n  File "{ours}/run.py", line 1, in f\n'
        '    ours()\n    ^^^^^^\n  File "theirs.py", line 2, in g\n    theirs()\nValueError: no'
    )
    with pytest.raises(ModelError) as caught:
        settle(record(Verdict.ERROR, Raised("ValueError", "no", trace)))
    assert "theirs()" in str(caught.value)
    assert "ours()" not in str(caught.value)


def test_expected_failures_are_strict():
    with pytest.raises(pytest.xfail.Exception, match="a reason"):
        settle(record(Verdict.FAIL), "a reason")
    for verdict in (Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.SKIP):
        with pytest.raises(pytest.fail.Exception, match=f"was expected to fail .a reason. but is {verdict}"):
            settle(record(verdict), "a reason")
    with pytest.raises(ModelError):
        settle(record(Verdict.ERROR, Raised("ValueError", "no")), "a reason")


# ------------------------------------------------------------------------------------------- pytest --conformance


def test_the_command_line_collects_one_test_per_model_and_check_also_under_xdist(author: pytest.Pytester):
    options = ("--conformance", "author:zoo", "--conformance", "author:Raises", "--conformance-effort", "quick", "-v")
    serial = author.runpytest_subprocess(*options, "-p", "no:xdist")  # no test file exists
    said = outcomes(serial)
    for name, check, outcome in (
        ("zoo[0] Normal", "sampler.bridge", "PASSED"),
        ("Off", "density.integrates_to_one", "FAILED"),
        ("Off", "sampler.pit_uniform", "SKIPPED"),
        ("Raises", "log_prob.well_formed", "FAILED"),
        ("Raises", "density.bridge_mass", "SKIPPED"),
    ):
        assert said[f"conformance::{name}::{check}"] == outcome
    text = "\n".join(serial.outlines)
    assert "reproduce: harness check 'author:zoo[1]' --only density.integrates_to_one --seed 0 --effort quick" in text
    spread = author.runpytest_subprocess(*options, "-n", "2", "--dist", "loadgroup")
    assert {name.partition("@")[0]: outcome for name, outcome in outcomes(spread).items()} == said
    assert serial.ret == spread.ret == pytest.ExitCode.TESTS_FAILED


def test_tests_are_chosen_by_name_and_strict_fails_what_is_undecided(author: pytest.Pytester):
    call = (
        "--conformance",
        "author:normal",
        "--conformance-effort",
        "quick",
        "-k",
        "density.integrates_to_one",
        "-p",
        "no:xdist",
    )
    result = author.runpytest_subprocess(*call, "--conformance-strict", "-v")
    assert outcomes(result) == {"conformance::normal::density.integrates_to_one": "PASSED"}
    assert result.ret == pytest.ExitCode.OK


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_a_spec_that_names_no_model_is_a_usage_error_of_one_line(author: pytest.Pytester, workers: tuple[str, ...]):
    result = author.runpytest_subprocess("--conformance", "author:norml", *workers)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in result.errlines if line]
    assert line == "ERROR: author:norml: author has no 'norml'; did you mean 'normal'?"


def test_a_pytest_run_that_does_not_need_torch_does_not_import_it():
    code = "import harness.pytest_plugin, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


class LeavesWhenCopied:
    """Its densities have a shape that is none, in any dtype; copied, to be tried in float64, it leaves."""

    def __init__(self) -> None:
        self.loc = torch.zeros(1)

    def __deepcopy__(self, memo: object) -> object:
        raise SystemExit(3)

    def sample(self, n: int, *, generator: torch.Generator) -> torch.Tensor:
        return self.loc + torch.randn(n, 1, generator=generator)

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        return -((x - self.loc) ** 2) / 2


def test_a_model_that_leaves_between_two_checks_is_one_error_and_the_rest_is_blocked_by_it():
    model = LeavesWhenCopied()
    examination = Examination("leaves", model, 0, EFFORTS["quick"], 1e-6)
    left = examination.record("log_prob.well_formed", model)
    assert left.verdict is Verdict.ERROR
    assert "the model called sys.exit(3)" in left.message
    examination.records.clear()
    examination.wanted = {"log_prob.well_formed", "log_prob.deterministic"}
    after = examination.record("log_prob.deterministic", model)
    assert after.verdict is Verdict.SKIP
    assert isinstance(after.evidence, Absent)
    assert after.evidence.blocked_by == "log_prob.well_formed"
    assert examination.records["sample.well_formed"].verdict is Verdict.PASS  # what was finished is kept
