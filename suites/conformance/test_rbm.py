"""The restricted Boltzmann machine: everything that can be summed is summed, over both sides and over one."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness import check_model
from reference_impls import rbm
from reference_impls.rbm import RestrictedBoltzmannMachine, anneal

EPS = torch.finfo(torch.float64).eps
examples = settings(derandomize=True, deadline=None, max_examples=15)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def states(d):
    return torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * d).reshape(-1, d)


def random_machine(visible, hidden, seed, size=1.0):
    draws = size * torch.randn(visible + 1, hidden + 1, generator=generator(seed), dtype=torch.float64)
    return RestrictedBoltzmannMachine(draws[1:, 1:], draws[1:, 0], draws[0, 1:])


machines = st.builds(
    random_machine,
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(0, 10**6),
    st.sampled_from([0.0, 1e-8, 1.0, 30.0]),
)


def naive_joint(model):
    """-E(v, h) of all pairs of states, by the formula, (2^visible, 2^hidden)."""
    v, h = states(model.d), states(model.hidden_size)
    return (v @ model.visible_bias)[:, None] + h @ model.hidden_bias + v @ model.weight @ h.mT


def size_of(model):
    return 1 + model.parameters().abs().sum()


@examples
@given(machines)
def test_summing_one_side_is_summing_both(model):
    joint = naive_joint(model)
    bound = 100 * EPS * size_of(model)
    assert abs(model.log_partition() - joint.logsumexp((0, 1))) <= bound
    v = states(model.d)
    assert ((-model.energy(v) - joint.logsumexp(1)).abs() <= bound).all()
    assert ((model.log_prob(v) - (joint.logsumexp(1) - joint.logsumexp((0, 1)))).abs() <= bound).all()
    h = states(model.hidden_size)
    pairs = torch.cartesian_prod(torch.arange(len(v)), torch.arange(len(h)))
    energies = model.joint_energy(v[pairs[:, 0]], h[pairs[:, 1]]).reshape(len(v), len(h))
    assert ((energies + joint).abs() <= bound).all()
    share = joint.softmax(1)  # p(h | v)
    assert ((model.hidden_given(v) - share @ h).abs() <= bound).all()
    assert ((model.visible_given(h) - joint.softmax(0).mT @ v).abs() <= bound).all()


@examples
@given(machines)
def test_moments_are_sums_over_states(model):
    v = states(model.d)
    p = naive_joint(model).logsumexp(1).softmax(0)
    offset = v - p @ v
    bound = 100 * EPS * size_of(model)
    assert ((model.mean() - p @ v).abs() <= bound).all()
    assert ((model.covariance() - (p[:, None] * offset).mT @ offset).abs() <= bound).all()
    assert torch.equal(model.variance(), model.covariance().diagonal())


@examples
@given(machines, st.data())
def test_conditionals_are_machines(model, data):
    if model.d == 1:
        return
    a = data.draw(st.permutations(range(model.d)))[: data.draw(st.integers(1, model.d - 1))]
    b = [i for i in range(model.d) if i not in a]
    v = states(model.d)
    log_p = naive_joint(model).logsumexp(1)
    for values in states(len(a)):
        seen = (v[:, a] == values).all(-1)
        exact = log_p[seen].log_softmax(0)
        assert (
            (model.conditional(a, values).log_prob(v[seen][:, b]) - exact).abs() <= 200 * EPS * size_of(model)
        ).all()


def _p_value(model, v):
    every = states(model.d)
    place = 2.0 ** torch.arange(model.d, dtype=torch.float64)
    expected = torch.empty(len(every), dtype=torch.float64)
    expected[(every @ place).long()] = len(v) * naive_joint(model).logsumexp(1).softmax(0)
    counts = torch.bincount((v.double() @ place).long(), minlength=len(every)).double()
    common = expected >= 5
    if not common.all():  # the rare states are taken together
        counts = torch.cat([counts[common], counts[~common].sum()[None]])
        expected = torch.cat([expected[common], expected[~common].sum()[None]])
    return stats.chisquare(counts.numpy(), (expected * counts.sum() / expected.sum()).numpy()).pvalue


@pytest.mark.parametrize(("visible", "hidden"), [(6, 3), (3, 6)])
def test_draws_are_exact_and_gibbs_keeps_them_so(visible, hidden):
    model = random_machine(visible, hidden, seed=2)
    v = model.sample(20_000, generator=generator(1))
    # The seeds are fixed; of all seeds, one in a thousand would fail at each line.
    assert _p_value(model, v) > 1e-3
    assert _p_value(model, model.gibbs(v, 2, generator=generator(2))) > 1e-3
    assert _p_value(model, model.gibbs(torch.zeros_like(v), 100, generator=generator(3))) > 1e-3


# Gradients and training


def test_the_exact_gradient_is_that_of_the_likelihood():
    model = rbm.small_machine(dtype=torch.float64)
    v = model.sample(30, generator=generator())
    theta = model.parameters().requires_grad_()
    (slope,) = torch.autograd.grad(model.with_parameters(theta).log_prob(v).mean(), theta)
    assert torch.allclose(slope, model.exact_gradient(v), rtol=0, atol=1e3 * EPS)
    # With draws of the model the estimate is unbiased: each entry is a mean of 20,000 numbers in [-1, 1].
    noisy = model.gradient(v, model.sample(20_000, generator=generator(4)))
    assert (noisy - slope).abs().max() <= 4.5 * 0.5 / math.sqrt(20_000)


def test_contrastive_divergence_is_biased_and_long_chains_are_not():
    """The mean of the gradient after k steps from data, by multiplying the transition matrix of Gibbs sampling."""
    model = random_machine(4, 3, seed=3, size=1.5)
    v, h = states(4), states(3)
    up, down = model.hidden_given(v), model.visible_given(h)
    to_h = torch.where(h[None] == 1, up[:, None], 1 - up[:, None]).prod(-1)  # (16, 8)
    to_v = torch.where(v[None] == 1, down[:, None], 1 - down[:, None]).prod(-1)  # (8, 16)
    step = to_h @ to_v
    p = model.log_prob(v).exp()
    assert torch.allclose(p @ step, p, rtol=0, atol=100 * EPS)  # Gibbs leaves p as it is
    assert torch.allclose(p[:, None] * step, (p[:, None] * step).mT, rtol=0, atol=100 * EPS)  # and is reversible
    data = torch.zeros(16, dtype=torch.float64)
    data[3] = 1.0
    exact = model.exact_gradient(v[3:4])
    bias = []
    for k in (1, 1000):
        share = data @ torch.linalg.matrix_power(step, k)
        bias.append((model._expectations(v[3:4]) - model._expectations(v, share) - exact).abs().max())
    assert bias[0] > 1e-2
    assert bias[1] <= 1e-6


@pytest.mark.parametrize("method", ["cd", "pcd"])
def test_training_raises_the_likelihood(method):
    truth = random_machine(6, 3, seed=5, size=1.5)
    v = truth.sample(1000, generator=generator(6))
    start = random_machine(6, 3, seed=7, size=0.01)
    fitted = start.train(v, generator=generator(8), method=method, rate=0.1, epochs=15)
    assert fitted.history.shape == (15,)
    assert fitted.history[-1] == fitted.log_prob(v).sum()
    gap = (truth.log_prob(v) - fitted.log_prob(v)).mean()
    before = (truth.log_prob(v) - start.log_prob(v)).mean()
    assert gap <= before / 4


# Annealing


def test_annealing_bounds_log_z_from_both_sides():
    model = rbm.small_machine(dtype=torch.float64)
    exact = float(model.log_partition())
    forward = anneal(model, generator=generator(1), chains=200, temperatures=200)
    backward = anneal(model, generator=generator(2), temperatures=200, start=model.sample(200, generator=generator(3)))
    assert not forward.reverse
    assert backward.reverse
    # By Jensen's inequality the mean of log w is below; each bound is wrong in one run of 10,000.
    assert forward.bound(1e-4) <= exact <= backward.bound(1e-4)
    assert backward.bound(1e-4) - forward.bound(1e-4) <= 2  # and they say something
    for run in (forward, backward):
        deviation = run.log_weights.exp().std() / run.log_weights.exp().mean() / math.sqrt(200)
        assert abs(run.estimate() - exact) <= 4.5 * deviation


def test_annealing_needs_no_steps_where_there_are_no_weights():
    model = RestrictedBoltzmannMachine(torch.zeros(3, 2).double(), torch.tensor([0.5, -1, 2]), torch.zeros(2))
    for start in (None, model.sample(5, generator=generator())):
        run = anneal(model, generator=generator(), chains=5, temperatures=1, start=start)
        assert run.estimate() == pytest.approx(float(model.log_partition()), rel=20 * EPS)


def test_large_machines_are_not_summed():
    big = RestrictedBoltzmannMachine(torch.zeros(20, 17), torch.zeros(20), torch.zeros(17))
    with pytest.raises(ValueError, match="anneal"):
        big.log_partition()
    assert big.gibbs(torch.zeros(2, 20), 1, generator=generator()).shape == (2, 20)
    assert big.energy(torch.zeros(2, 20)).shape == (2,)


def test_preset_conforms():
    report = check_model(rbm.small_machine(), effort="quick", seed=0)
    assert report.passed, report.failures


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (lambda: RestrictedBoltzmannMachine(torch.zeros(2, 3), torch.zeros(3), torch.zeros(2)), "biases"),
        (lambda: RestrictedBoltzmannMachine(torch.zeros(2, 3) / 0, torch.zeros(2), torch.zeros(3)), "finite"),
        (lambda: rbm.small_machine().log_prob(torch.zeros(8)), "shape"),
        (lambda: rbm.small_machine().train(torch.full((3, 8), 0.5), generator=generator()), "0 or 1"),
        (lambda: rbm.small_machine().train(torch.zeros(3, 8), generator=generator(), method="ml"), "cd or pcd"),
        (lambda: rbm.small_machine().conditional([0], torch.tensor([0.5])), "0 or 1"),
        (lambda: anneal(rbm.small_machine(), generator=generator(), temperatures=0), "temperatures"),
        (lambda: anneal(rbm.small_machine(), generator=generator(), temperatures=1).bound(0.0), "error"),
    ],
)
def test_mistakes_are_named(build, complaint):
    with pytest.raises(ValueError, match=complaint):
        build()
