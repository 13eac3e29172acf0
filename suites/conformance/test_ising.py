"""The Ising grid: enumeration, the transfer matrix and numbers that are known agree."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness import check_model
from reference_impls import ising
from reference_impls.ising import IsingGrid

PRESETS = (ising.ising_3x3, ising.ising_in_a_field)
EPS = torch.finfo(torch.float64).eps
examples = settings(derandomize=True, deadline=None, max_examples=15)
grids = st.builds(
    lambda rows, columns, coupling, field: IsingGrid(rows, columns, torch.tensor(coupling).double(), field),
    st.integers(1, 3),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.4, -0.7, 5.0, 1e-8]),
    st.sampled_from([0.0, 0.3, -20.0]),
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def naive_energy(model, s):
    """The definition, pair by pair."""
    total = torch.zeros(len(s), dtype=torch.float64)
    for i in range(model.rows):
        for j in range(model.columns):
            total -= model.field.double() * s[:, i, j]
            if i + 1 < model.rows:
                total -= model.coupling.double() * s[:, i, j] * s[:, i + 1, j]
            if j + 1 < model.columns:
                total -= model.coupling.double() * s[:, i, j] * s[:, i, j + 1]
    return total


def test_known_numbers():
    model = ising.ising_3x3(dtype=torch.float64)
    assert abs(model.log_partition() - 7.2676527704) <= 5e-11  # the digits that are known
    assert abs(model.entropy() - 5.0912936770) <= 5e-11
    p = model.log_prob(model.states()).exp()
    assert abs(-(p * p.log()).sum() - 5.0912936770) <= 5e-11


@examples
@given(grids)
def test_both_routes_to_log_z_agree(model):
    s = model.states()
    size = 1 + model.log_partition().abs() + naive_energy(model, s).abs().max()
    assert len(s.flatten(1).unique(dim=0)) == 2 ** (model.rows * model.columns)
    assert ((model.energy(s) - naive_energy(model, s)).abs() <= 50 * EPS * size).all()
    assert abs(model.log_partition() - (-naive_energy(model, s)).logsumexp(0)) <= 100 * EPS * size
    assert abs(model.log_partition() - model.log_partition_by_enumeration()) <= 100 * EPS * size


@examples
@given(grids)
def test_moments_and_entropy_are_sums_over_states(model):
    s = model.states()
    p = (-naive_energy(model, s)).softmax(0)
    flat = s.flatten(1)
    mean = p @ flat
    covariance = (p[:, None] * (flat - mean)).mT @ (flat - mean)
    bound = 1e3 * EPS * (1 + naive_energy(model, s).abs().max())
    assert ((model.mean().flatten() - mean).abs() <= bound).all()
    assert ((model.variance().flatten() - covariance.diagonal()).abs() <= 4 * bound).all()
    assert ((model.covariance() - covariance).abs() <= 4 * bound).all()
    assert abs(model.entropy() + torch.xlogy(p, p).sum()) <= 4 * bound


def test_a_chain_of_spins_has_a_closed_form():
    """One row, no field: Z = 2 (2 cosh beta)^(n - 1), and E s_i s_j = tanh(beta)^|i - j|; here with 40 spins."""
    beta = torch.tensor(0.8, dtype=torch.float64)
    chain = IsingGrid(1, 40, beta)
    exact = torch.tensor(2.0).double().log() + 39 * (2 * beta.cosh()).log()
    assert abs(chain.log_partition() - exact) <= 200 * EPS * exact
    i = torch.arange(40)
    assert torch.allclose(chain.covariance(), beta.tanh() ** (i - i[:, None]).abs(), rtol=0, atol=1e4 * EPS)
    with pytest.raises(ValueError, match="too many"):
        chain.states()


def test_turning_the_grid_changes_nothing():
    wide, tall = (IsingGrid(*size, torch.tensor(0.3).double(), 0.1) for size in ((2, 5), (5, 2)))
    s = wide.sample(50, generator=generator())
    assert torch.allclose(wide.log_prob(s), tall.log_prob(s.mT), rtol=100 * EPS, atol=0)
    assert torch.allclose(wide.mean(), tall.mean().mT, rtol=0, atol=100 * EPS)
    assert tall.sample(7, generator=generator()).shape == (7, 5, 2)


def _p_value(model, s):
    code = ((s.flatten(1) > 0).long() * 2 ** torch.arange(s[0].numel())).sum(-1)
    every = model.states()
    order = ((every.flatten(1) > 0).long() * 2 ** torch.arange(s[0].numel())).sum(-1)
    expected = torch.empty(len(every), dtype=torch.float64)
    expected[order] = len(s) * (-naive_energy(model, every)).softmax(0)
    counts = torch.bincount(code, minlength=len(every)).double()
    common = expected >= 5
    if not common.all():  # the rare states are taken together
        counts = torch.cat([counts[common], counts[~common].sum()[None]])
        expected = torch.cat([expected[common], expected[~common].sum()[None]])
    return stats.chisquare(counts.numpy(), (expected * counts.sum() / expected.sum()).numpy()).pvalue


@pytest.mark.parametrize("preset", PRESETS)
def test_draws_are_exact_and_gibbs_keeps_them_so(preset):
    model = preset(dtype=torch.float64)
    s = model.sample(20_000, generator=generator(1))
    # The seeds are fixed; of all seeds, one in a thousand would fail at each line.
    assert _p_value(model, s) > 1e-3
    assert _p_value(model, model.gibbs(s, 2, generator=generator(2))) > 1e-3


@pytest.mark.parametrize("preset", PRESETS)
def test_gibbs_forgets_where_it_started(preset):
    model = preset(dtype=torch.float64)
    s = model.gibbs(torch.ones(5000, model.rows, model.columns).double(), 60, generator=generator(4))
    assert _p_value(model, s) > 1e-3


def test_fit_matches_the_statistics_of_the_draws():
    truth = ising.ising_in_a_field(dtype=torch.float64)
    s = truth.sample(2000, generator=generator(5))
    fitted = IsingGrid.fit(s)
    assert fitted.log_prob(s).sum() >= truth.log_prob(s).sum()
    theta = fitted.parameters().requires_grad_()
    (slope,) = torch.autograd.grad(truth.with_parameters(theta).log_prob(s).mean(), theta)
    assert slope.abs().max() <= 2e-7  # L-BFGS stops at 1e-7
    with pytest.raises(ValueError, match="infinity"):
        IsingGrid.fit(torch.ones(5, 2, 2))


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_conform(preset):
    report = check_model(preset(), effort="quick", seed=0)
    assert report.passed, report.failures


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (lambda: IsingGrid(0, 3, 0.4), "rows should be a whole number"),
        (lambda: IsingGrid(13, 13, 0.4), "shorter side"),
        (lambda: IsingGrid(2, 2, float("nan")), "finite"),
        (lambda: ising.ising_3x3().log_prob(torch.ones(2, 9)), "shape"),
        (lambda: ising.ising_3x3().with_parameters(torch.ones(3)), "shape"),
        (lambda: IsingGrid.fit(torch.zeros(2, 2, 2)), "-1 or 1"),
    ],
)
def test_mistakes_are_named(build, complaint):
    with pytest.raises(ValueError, match=complaint):
        build()
