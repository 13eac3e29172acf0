"""The measurement of costs, at sizes at which its numbers mean nothing, and the page that shows all results."""

import json
import math
import re
import time

import pytest
import torch

from harness.adapters import adapt
from suites import cost, cost_models, results_page
from suites.stopwatch import Stopwatch, watched


def burn(seconds: float) -> None:
    """Use the CPU for so long."""
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


class _Slow(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        burn(0.02)
        return x.sum(1)

    @staticmethod
    def backward(ctx, gradient):
        burn(0.03)
        return gradient[:, None].expand(-1, 2)


class SlowModel:
    """0.01 s a sample, 0.02 s a density, 0.03 s a gradient."""

    def sample(self, n, *, generator):
        burn(0.01)
        return torch.randn(n, 2, generator=generator)

    def log_prob(self, x):
        return _Slow.apply(x)


def test_the_stopwatch_counts_the_models_methods_and_gradients_and_nothing_else():
    watch = Stopwatch()
    model = watched(adapt(SlowModel(), "slow"), watch)
    x = model.sample(3, generator=torch.Generator().manual_seed(0))
    assert 0.01 <= watch.seconds < 0.02
    burn(0.05)  # ours
    leaf = x.requires_grad_(True)
    value = model.log_prob(leaf)
    assert 0.03 <= watch.seconds < 0.05
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    assert 0.06 <= watch.seconds < 0.09
    torch.testing.assert_close(gradient, torch.ones(3, 2))


def test_the_stopwatch_does_not_change_what_a_model_says():
    model = adapt(cost_models.coupling_flow(), "flow")
    timed = watched(model, Stopwatch())
    x = model.sample(5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(x, timed.sample(5, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(model.log_prob(x), timed.log_prob(x))


def test_the_coupling_flow_is_a_density_of_its_own_draws():
    """log p(f(e)) + log |det df/de| = log N(e): the determinant from autograd's Jacobian, in float64."""
    flow = cost_models.CouplingFlow(d=4, layers=3)
    x = flow.sample(1, generator=torch.Generator().manual_seed(0)).double()

    def pull(point):  # the way back of the flow, read off its density by its own layers
        a, b = point.split(flow.half, -1)
        for weights in reversed(flow.layers):
            log_s, t = flow._conditioned(b, weights)
            a, b = b, (a - t) * torch.exp(-log_s)
        return torch.cat([a, b], -1)

    jacobian = torch.autograd.functional.jacobian(lambda v: pull(v[None])[0], x[0])
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(pull(x)).sum() + torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(flow.log_prob(x)[0], expected)


def test_a_slope_of_one_is_linear():
    assert cost.slope([{"x": 2**k, "seconds": 3.0 * 2**k} for k in range(8)]) == pytest.approx(1.0)
    assert cost.slope([{"x": 2**k, "seconds": 4.0**k} for k in range(3)]) == pytest.approx(2.0)
    started = [{"x": 2**k, "seconds": 1000 + 2.0**k} for k in range(16)]
    assert 0 < cost.slope(started) < 1


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A tiny run of everything but whole commands, which take seconds each."""
    path = tmp_path_factory.mktemp("cost") / "cost.json"
    sections = [word for name in ("share", "memory", "curves") for word in ("--only", name)]
    assert cost.main(["--small", *sections, "--json", str(path)]) == 0
    return json.loads(path.read_text())


def test_a_tiny_run_tells_shares_memory_and_curves(told):
    assert told["schema_version"] == "1.0"
    assert told["machine"]["threads"] == 1
    assert {"torch", "numpy", "scipy", "genharness", "python"} == set(told["versions"])
    assert len(told["share"]) == 3
    for row in told["share"]:
        assert 0 < row["model_seconds"] < row["seconds"]
        assert row["share_ours"] == pytest.approx(1 - row["model_seconds"] / row["seconds"])
    for row in told["memory"]:
        assert 0 < row["before_mib"] <= row["peak_mib"] < 4096
    assert [curve["curve"] for curve in told["curves"]] == ["draws", "dimensions", "checks"]
    for curve in told["curves"]:
        assert all(point["seconds"] > 0 for point in curve["points"])
        assert math.isfinite(curve["slope"])


def test_a_command_that_fails_is_no_measurement():
    with pytest.raises(RuntimeError, match="status 3"):
        cost._wall(["python3", "-c", "raise SystemExit(3)"])


def test_an_examination_with_a_false_verdict_is_no_measurement():
    class Wrong:
        def sample(self, n, *, generator):
            return torch.randn(n, 1, generator=generator)

        def log_prob(self, x):
            return -x.square().sum(1)

    with pytest.raises(RuntimeError, match="FAIL"):
        cost.examined(Wrong(), 4096, ["density"])


def test_wrong_calls_have_status_2(tmp_path, capsys):
    for arguments in (["--only", "nothing"], ["--json", str(tmp_path / "no" / "cost.json")]):
        with pytest.raises(SystemExit) as left:
            cost.main(arguments)
        assert left.value.code == 2
    assert "no folder" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------- the page


def planted(**changes):
    row = {"group": "planted", "mutant": "mean_shifted", "defect": "mean + 0.05 sd", "model": "continuous"}
    row |= {"dimension": 1, "scale": 1.0, "effort": "standard", "check": "sampler.bridge", "seeds": 100, "found": 97}
    return row | {"draws_median": 8192.0, "false_alarms": 0, "alpha": 1e-6, "erratum": ""} | changes


def selftest(*rows):
    return {"schema_version": "1.0", "versions": {"python": "3"}, "rows": list(rows)}


def test_the_page_prints_every_rate_and_says_what_is_not_found(tmp_path, told):
    (tmp_path / "selftest.json").write_text(
        json.dumps(
            selftest(
                planted(),
                planted(mutant="tails_cut", defect="<b>tails</b>", found=40, draws_median=123456.0),
                planted(
                    group="correct", mutant="none", model="Normal", check="", found=0, seeds=1000, draws_median=None
                ),
            )
        )
    )
    (tmp_path / "cost.json").write_text(json.dumps(told))
    assert results_page.main(["--results", str(tmp_path)]) == 0
    page = (tmp_path / "index.html").read_text()
    for text in ("97 %", "8,192", "40 of 100", "123,456", "0 of 1,000", "&lt;b&gt;tails", "python -m suites.rivals"):
        assert text in page
    assert "<b>tails" not in page
    assert not re.search(r"(src|href|url|@import)\s*[=(]", page)  # nothing is fetched


def test_limits_are_clopper_pearsons():
    assert results_page.limits(0, 1000) == pytest.approx((0.0, 1 - 0.01 ** (1 / 1000)))
    assert results_page.limits(1000, 1000) == pytest.approx((0.01 ** (1 / 1000), 1.0))
    low, high = results_page.limits(50, 1000)
    assert low < 0.05 < high
    assert results_page.limits(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("text", ["{", '{"schema_version": "9"}'])
def test_a_file_that_cannot_be_shown_names_its_command(tmp_path, text, capsys):
    (tmp_path / "rivals.json").write_text(text)
    with pytest.raises(SystemExit) as left:
        results_page.main(["--results", str(tmp_path)])
    assert left.value.code == 2
    assert "python -m suites.rivals" in capsys.readouterr().err
    assert not (tmp_path / "index.html").exists()
