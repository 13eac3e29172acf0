"""The rules that others use: each keeps its level where it says so (or is shown not to) and finds a gross bug."""

import json
import math

import pytest
import torch
from scipy import stats

from harness.adapters import adapt
from harness.mutants import mutated
from harness.mutants.planted import PLANTED, Affine, Lattice, LatticeTwoModes, Normal, TwoModes
from harness.streams import generator
from suites.rivals import __main__ as command
from suites.rivals.binned import OURS, RefusedError, binned
from suites.rivals.measure import Case, cases, measure, run_case, selected
from suites.rivals.rules import Exhibit, alarms, rules
from suites.rivals.truth import Gaussians, covariance_of, margins_of

RULES = {rule.name: rule for rule in rules()}
THINGS = [Normal(3, 2.0), Normal(3, 2.0, rho=0.4), Affine(3, 1.0), TwoModes(3, 1.0), Lattice(3), Lattice(3, rho=0.4)]
THINGS += [LatticeTwoModes(3)]


def exhibit(rule: str, model, correct, seed: int, n: int) -> Exhibit:
    x = model.sample(n, generator=generator(seed, "test of a rival", rule))
    return Exhibit(model, correct, x, generator(seed, "second sample", rule))


def alarm_count(rule: str, correct, seeds: int, n: int) -> int:
    return sum(alarms(RULES[rule], exhibit(rule, correct, correct, seed, n)) for seed in range(seeds))


# A correct model, draws and seeds that keep the whole set in seconds.
SETTINGS = {
    "ks": (Normal(2, 1.0), 2000, 200),
    "chi_square": (Lattice(2), 2000, 100),
    "moments": (Normal(2, 1.0), 2000, 400),
    "covariances": (Normal(3, 1.0, rho=0.1), 2000, 200),
    "entropy": (Normal(2, 1.0), 2000, 400),
    "binned": (Normal(1, 1.0), 2000, 400),
    "binned_margins": (Normal(2, 1.0), 2000, 200),
    "ks_two_sample": (Normal(2, 1.0), 1000, 200),
    "energy": (Normal(2, 1.0), 100, 20),
}


def test_every_rule_is_tried_here():
    assert set(SETTINGS) == {name for name in RULES if not name.startswith("pyro")}


@pytest.mark.parametrize("rule", SETTINGS)
def test_a_rule_is_silent_on_a_correct_model_at_about_its_level(rule):
    thing, n, seeds = SETTINGS[rule]
    count = alarm_count(rule, adapt(thing, "correct"), seeds, n)
    # The binned rule's own level is wrong by a factor of up to a few tens, which is what the next tests are about.
    level = 20 * RULES[rule].nominal(2) if rule.startswith("binned") else RULES[rule].nominal(3)
    assert stats.binom.sf(count - 1, seeds, level) > 1e-4


@pytest.mark.parametrize("rule", SETTINGS)
def test_a_rule_finds_a_gross_bug(rule):
    thing, n, _ = SETTINGS[rule]
    correct = adapt(thing, "correct")
    if rule == "entropy":
        broken = mutated(correct, lambda model: {"entropy": lambda: model.entropy() + 0.5})
    elif isinstance(thing, Lattice):
        broken = mutated(
            correct, lambda model: {"sample": lambda n, *, generator: model.sample(n, generator=generator) + 1}
        )
    else:
        broken = mutated(
            correct, lambda model: {"sample": lambda n, *, generator: 1.0 + 1.5 * model.sample(n, generator=generator)}
        )
    assert all(alarms(RULES[rule], exhibit(rule, broken, correct, seed, n)) for seed in range(5))


def test_dividing_by_n_p_1_minus_p_raises_twenty_times_the_stated_false_alarms_on_a_coin():
    """For two cells the statistic is twice a squared standard normal Z: P(2 Z^2 > c) with c the 0.001 point is 0.02."""
    expected = 2 * stats.norm.sf(math.sqrt(stats.chi2.isf(1e-3, 1) / 2))
    assert expected == pytest.approx(0.02, abs=5e-4)
    runs, n = 4000, 1000
    heads = (torch.rand(runs, n, generator=generator(0, "coin")) < 0.5).sum(1).double()
    counts, masses = torch.stack([heads, n - heads], 1), torch.tensor([0.5, 0.5]).double()
    theirs = sum(OURS.multinomial(masses, each, None) < 1e-3 for each in counts)
    pearson = int((stats.chisquare(counts.numpy(), n / 2, axis=1).pvalue < 1e-3).sum())
    # The draws are seeded; 1e-6 says how unlikely the seed would have to be. Heads are whole, hence a tenth of slack.
    assert stats.binom.ppf(1e-6, runs, 0.9 * expected) <= theirs <= stats.binom.ppf(1 - 1e-6, runs, 1.1 * expected)
    assert stats.binom.sf(theirs - 1, runs, 1e-3) < 1e-6
    assert pearson <= stats.binom.ppf(1 - 1e-6, runs, 1.1e-3)


def test_pearsons_statistic_is_the_rule_without_the_factor():
    counts, masses = torch.tensor([52.0, 28.0, 20.0]).double(), torch.tensor([0.5, 0.3, 0.2]).double()
    same = (counts - 100 * masses).square() / (100 * masses * (1 - masses))
    assert OURS.multinomial(masses, counts, None) == pytest.approx(stats.chi2.sf(float(same.sum()), 2), rel=1e-9)
    assert OURS.multinomial(masses, counts, None) < stats.chisquare(counts.numpy(), 100 * masses.numpy()).pvalue


def test_our_wording_is_pyros_rule_where_its_tail_can_be_had():
    gof = pytest.importorskip("pyro.distributions.testing.gof")
    x = torch.randn(3000, 2, generator=generator(0, "pyro"), dtype=torch.float64)
    density = torch.distributions.Normal(0.0, 1.0).log_prob(x).exp()
    # Pyro sums float32 counts; its p-values have about that many digits.
    assert OURS.one_dimension(x[:, 0], density[:, 0]) == pytest.approx(
        float(gof.density_goodness_of_fit(x[:, 0], density[:, 0])), rel=1e-3
    )
    assert OURS.several_dimensions(x, density.prod(1)) == pytest.approx(
        float(gof.vector_density_goodness_of_fit(x, density.prod(1))), rel=1e-3
    )
    assert binned().who.startswith("pyro-ppl")


def test_the_series_of_pyro_lets_a_gross_bug_pass_with_p_1():
    """Its chi-square tail loses all digits: if this fails, Pyro has been mended, and the page may say so."""
    special = pytest.importorskip("pyro.distributions.testing.special")
    assert special.chi2sf(50, 12) == pytest.approx(stats.chi2.sf(50, 12), rel=1e-6)
    assert stats.chi2.sf(300, 12) < 1e-50
    assert special.chi2sf(300, 12) > 0.99


def test_the_rule_for_several_dimensions_refuses_few_draws():
    with pytest.raises(RefusedError):
        OURS.several_dimensions(torch.zeros(2000, 2), torch.ones(2000))
    row = run_case(Case("binned", "none", "continuous", 50, 1.0, 10_001, 1))
    assert row.refused
    assert (row.seeds, row.false_alarms) == (0, 0)


def test_kolmogorov_is_scipys():
    """The least p-value over margins is that of the largest distance, since all margins have the same n."""
    correct = adapt(Normal(3, 1.0), "correct")
    for shift in (0.0, 0.05, 0.1, 0.15, 0.2):
        x = correct.sample(500, generator=generator(1, "kolmogorov")) + shift
        each = [
            stats.kstest(column, lambda v, j=j: stats.norm.cdf(v, float(correct.target.location[j]), 1.0)).pvalue
            for j, column in enumerate(x.double().numpy().T)
        ]
        assert alarms(RULES["ks"], Exhibit(correct, correct, x, generator(0))) == (min(each) < 1e-3 / 3)


@pytest.mark.parametrize("thing", THINGS, ids=lambda thing: f"{type(thing).__name__} {getattr(thing, 'rho', '')}")
def test_the_exact_moments_and_margins_are_those_of_the_draws(thing):
    n = 40_000
    x = thing.sample(n, generator=generator(0, "truth")).double()
    margins = margins_of(thing)
    products = (x - margins.mean())[:, :, None] * (x - margins.mean())[:, None, :]
    # Six standard errors: 2e-9 a comparison, and the draws are seeded.
    assert bool(((x.mean(0) - margins.mean()).abs() <= 6 * (margins.variance() / n).sqrt()).all())
    assert bool(((products.mean(0) - covariance_of(thing)).abs() <= 6 * products.std(0) / math.sqrt(n)).all())
    torch.testing.assert_close(covariance_of(thing).diagonal(), margins.variance())
    if isinstance(margins, Gaussians):
        point = x[:1].clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(margins.cdf(point).sum(), point)
        torch.testing.assert_close(slope, margins.density(point.detach()))


def test_every_planted_bug_meets_every_rule_in_rows_that_say_what_is_hidden():
    everything = list(cases(1))
    assert {case.mutant for case in everything} == {"none", *(bug.name for bug in PLANTED)}
    assert {case.rule for case in everything} == set(RULES)
    assert {case.scale for case in everything} == {1.0, 1e3}
    row = run_case(Case("moments", "entropy_off", "continuous", 1, 1.0, 100, 5))
    assert (row.hidden, row.seeds, row.found) == ("entropy", 0, 0)
    row = run_case(Case("entropy", "entropy_off", "continuous", 1, 1.0, 50_000, 2))
    assert (row.hidden, row.seeds, row.found) == ("", 2, 2)


def test_rows_do_not_depend_on_the_number_of_workers(tmp_path, capsys):
    path = tmp_path / "rivals.json"
    part = ["--only", "moments", "--only", "continuous", "--only", "d=1", "--only", "n=10000"]
    assert command.main([*part, "--seeds", "2", "--workers", "2", "--json", str(path)]) == 0
    told = json.loads(path.read_text())
    words = ["moments", "continuous", "d=1", "n=10000"]
    assert told["rows"] == [vars(row) for row in measure(words, seeds=2, workers=1)]
    assert "mean_shifted" in capsys.readouterr().out


def test_a_wrong_word_names_the_right_ones(capsys):
    with pytest.raises(ValueError, match=r"no_such_rule.*energy"):
        selected(["no_such_rule"], 1)
    with pytest.raises(SystemExit) as left:
        command.main(["--only", "no_such_rule"])
    assert left.value.code == 2
    assert "no_such_rule" in capsys.readouterr().err
