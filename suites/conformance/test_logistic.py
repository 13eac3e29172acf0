"""Logistic regression, of labels and autoregressive, against scikit-learn, enumeration, and its two solvers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import check_model
from reference_impls import autoregressive_logistic, logistic
from reference_impls.autoregressive_logistic import (
    AutoregressiveLogistic,
    AutoregressiveSoftmax,
    logistic_parameters,
    softmax_parameters,
)
from reference_impls.logistic import SoftmaxRegression

EPS = torch.finfo(torch.float64).eps
examples = settings(derandomize=True, deadline=None, max_examples=15)
seeds = st.integers(0, 10**6)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def states(d, levels=2):
    return torch.cartesian_prod(*[torch.arange(levels, dtype=torch.float64)] * d).reshape(-1, d)


def labelled(n, seed=0):
    """Inputs, and labels drawn from the model of three classes."""
    x = torch.randn(n, 2, generator=generator(seed), dtype=torch.float64)
    return x, logistic.three_classes(dtype=torch.float64).sample(n, given=x, generator=generator(seed + 1))


def objective(model, x, y, l2):
    penalty = l2 / 2 * (model.weight.square().sum() + model.bias.square().sum())
    return float(penalty - model.log_prob(y, given=x).mean())


# Softmax regression


def test_posterior_is_the_definition():
    model = logistic.three_classes(dtype=torch.float64)
    x = torch.randn(20, 2, generator=generator(), dtype=torch.float64)
    power = (x @ model.weight.mT + model.bias).exp()
    assert torch.allclose(model.posterior(x), power / power.sum(-1, keepdim=True), rtol=50 * EPS, atol=0)
    for k in range(3):
        y = torch.full((20,), k)
        assert torch.equal(model.log_prob(y, given=x), model.log_posterior(x)[:, k])
    assert (model.log_prob(torch.tensor([-1.0, 0.5, 3.0]), given=x[0]) == -math.inf).all()


def test_posterior_survives_large_inputs():
    model = logistic.three_classes(dtype=torch.float32)
    log_posterior = model.log_posterior(torch.tensor([[1e8, 0.0], [-1e8, 1e-8]]))
    assert log_posterior.isfinite().all()
    assert torch.equal(log_posterior.exp().sum(-1), torch.ones(2))


def test_labels_follow_the_posterior():
    model = logistic.three_classes(dtype=torch.float64)
    at = torch.tensor([0.5, -0.2], dtype=torch.float64)
    counts = torch.bincount(model.sample(30_000, given=at, generator=generator(2)), minlength=3)
    p = model.posterior(at[None])[0]
    assert ((counts - 30_000 * p).abs() <= 4.5 * (30_000 * p * (1 - p)).sqrt()).all()  # 1 seed in 50,000 is outside
    assert torch.allclose(model.at(at).probs, p)


@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_lbfgs_ends_at_the_optimum_of_scikit_learn(l2):
    linear = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    x, y = labelled(500)
    ours = SoftmaxRegression.fit(x, y, l2=l2)
    ones = torch.cat([torch.ones(500, 1).double(), x], dim=1)  # the penalty is on the bias too
    strength = 1 / (500 * l2) if l2 else np.inf
    theirs = linear.LogisticRegression(C=strength, fit_intercept=False, tol=1e-10, max_iter=10_000)
    theirs.fit(ones.numpy(), y.numpy())
    # Slopes up to 1e-7 remain, of a loss whose curvature is above 0.01 here: 1e-7 / 0.01 in the parameters.
    gap = ours.posterior(x) - torch.from_numpy(theirs.predict_proba(ones.numpy()))
    assert gap.abs().max() <= 1e-4
    slope = (ours.posterior(x) - torch.nn.functional.one_hot(y)).mT @ ones / 500
    slope = slope + l2 * torch.cat([ours.bias[:, None], ours.weight], dim=1)
    assert slope.abs().max() <= 2e-7  # at the optimum the inputs do not see what the model missed


def test_stochastic_descent_approaches_the_same_optimum():
    x, y = labelled(400)
    best = SoftmaxRegression.fit(x, y, l2=0.05)
    for solver, rate in (("sgd", 0.5), ("adam", 0.05)):
        near = SoftmaxRegression.fit(x, y, l2=0.05, solver=solver, rate=rate, epochs=40, generator=generator(3))
        excess = objective(near, x, y, 0.05) - objective(best, x, y, 0.05)
        # k / 2n is what 400 rows leave unknown of k = 6 parameters, in nats; the solver adds little to that.
        assert -1e-12 <= excess <= 6 / (2 * 400) / 10, solver
        # A loss that is l2-strongly convex: its excess is at least l2 / 2 times the squared distance.
        distance = (near.weight - best.weight).square().sum() + (near.bias - best.bias).square().sum()
        assert 0.05 / 2 * distance <= excess + 1e-12


def test_a_batch_has_the_right_gradient_on_average():
    x, y = labelled(60)

    def slope(rows):
        theta = torch.zeros(9, dtype=torch.float64, requires_grad=True)
        logits = x[rows] @ theta[3:].reshape(3, 2).mT + theta[:3]
        return torch.autograd.grad(torch.nn.functional.cross_entropy(logits, y[rows]), theta)[0]

    parts = torch.stack([slope(rows) for rows in torch.randperm(60, generator=generator()).split(12)])
    assert torch.allclose(parts.mean(0), slope(torch.arange(60)), rtol=0, atol=100 * EPS)


def test_parameters_leave_out_the_redundant_row():
    model = logistic.three_classes(dtype=torch.float64)
    x, y = labelled(5)
    theta = model.parameters()
    assert theta.shape == (2 * 3,)
    assert torch.allclose(model.with_parameters(theta).log_posterior(x), model.log_posterior(x), rtol=0, atol=50 * EPS)
    assert torch.autograd.gradcheck(lambda t: model.with_parameters(t).log_prob(y, given=x), theta.requires_grad_())


# Autoregressive


@examples
@given(st.integers(1, 5), seeds)
def test_the_law_of_bits_sums_to_one_and_is_causal(d, seed):
    g = generator(seed)
    model = AutoregressiveLogistic(
        torch.randn(d, d, generator=g).double().tril(-1) * 3, torch.randn(d, generator=g).double()
    )
    x = states(d)
    parts = model.conditional_laws(x)  # (n, d, 2)
    assert abs(model.log_prob(x).exp().sum() - 1) <= 8 * len(x) * d * EPS * 20
    assert parts.logsumexp(-1).abs().max() <= 8 * EPS
    chosen = parts.gather(2, x.long()[..., None])[..., 0].sum(-1)
    assert torch.allclose(chosen, model.log_prob(x), rtol=8 * d * EPS, atol=0)
    for i in range(d):
        changed = x.clone()
        changed[:, i] = 1 - changed[:, i]
        assert torch.equal(model.logits(changed)[:, : i + 1], model.logits(x)[:, : i + 1])  # in every bit


@examples
@given(st.integers(1, 3), st.integers(2, 4), seeds)
def test_the_law_of_levels_sums_to_one_and_is_causal(d, K, seed):
    g = generator(seed)
    weights = [torch.randn(K, i, generator=g).double() for i in range(d)]
    model = AutoregressiveSoftmax(weights, torch.randn(d, K, generator=g).double())
    x = states(d, K)
    parts = model.conditional_laws(x)  # (n, d, K)
    assert abs(model.log_prob(x).exp().sum() - 1) <= 8 * len(x) * d * EPS * 20
    chosen = parts.gather(2, x.long()[..., None])[..., 0].sum(-1)
    assert torch.allclose(chosen, model.log_prob(x), rtol=8 * d * EPS, atol=0)
    for i in range(d):
        changed = x.clone()
        changed[:, i] = (changed[:, i] + 1) % K
        assert torch.equal(model.conditional_laws(changed)[:, : i + 1], parts[:, : i + 1])
    theta = model.parameters()
    assert theta.shape == ((K - 1) * d * (d + 1) // 2,)
    assert torch.allclose(model.with_parameters(theta).log_prob(x), model.log_prob(x), rtol=0, atol=100 * EPS * 20)


def test_prefixes_are_marginals_and_conditionals():
    model = autoregressive_logistic.six_bits(dtype=torch.float64)
    x = states(6)
    joint = model.log_prob(x).exp()
    for values in states(3):
        seen = (x[:, :3] == values).all(-1)
        total = joint[seen].sum()
        assert abs(model.prefix(3).log_prob(values[None]).exp()[0] - total) <= 200 * EPS
        rest = model.given_prefix(values).log_prob(x[seen][:, 3:]).exp()
        assert torch.allclose(rest, joint[seen] / total, rtol=500 * EPS, atol=0)


def test_parameter_counts():
    assert softmax_parameters(784) == 78_776_320
    for d, K in ((1, 2), (3, 5), (6, 256)):
        model = AutoregressiveSoftmax.uniform(d, K)
        assert softmax_parameters(d, K) == sum(w.numel() for w in model.weights) + model.bias.numel()
    with torch.device("meta"):  # the arrays of 28 x 28 pixels, without their memory
        sizes = [torch.empty(256, i).numel() for i in range(784)]
    assert sum(sizes) + 784 * 256 == softmax_parameters(784)
    model = autoregressive_logistic.six_bits()
    assert len(model.parameters()) == logistic_parameters(6) == 21


@pytest.mark.parametrize("l2", [0.0, 0.01])
def test_each_bit_is_a_logistic_regression_of_its_own(l2):
    linear = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    x = autoregressive_logistic.six_bits(dtype=torch.float64).sample(800, generator=generator(1))
    model = AutoregressiveLogistic.fit(x, l2=l2)
    logits = model.logits(x)
    for i in range(1, 6):
        ones = torch.cat([torch.ones(800, 1).double(), x[:, :i]], dim=1).numpy()
        strength = 1 / (800 * l2) if l2 else np.inf
        theirs = linear.LogisticRegression(C=strength, fit_intercept=False, tol=1e-10, max_iter=10_000)
        theirs.fit(ones, x[:, i].numpy())
        # Slopes up to 1e-7 remain, of a loss whose curvature is above 0.001 here.
        gap = np.abs(theirs.decision_function(ones) - logits[:, i].numpy()).max()
        assert gap <= 1e-4 * (1 + float(logits.abs().max()))


def test_the_solvers_agree_on_bits():
    x = autoregressive_logistic.six_bits(dtype=torch.float64).sample(600, generator=generator(1))
    best = AutoregressiveLogistic.fit(x, l2=0.01)
    near = AutoregressiveLogistic.fit(x, l2=0.01, solver="adam", rate=0.05, epochs=40, generator=generator())
    excess = (best.history[-1] - near.history[-1]) / 600
    assert -1e-9 <= excess <= 21 / (2 * 600) / 10  # of k / 2n, see above
    assert 0.01 / 2 * (best.parameters() - near.parameters()).square().sum() <= excess + 1e-9


def test_the_solvers_agree_on_levels():
    x = autoregressive_logistic.grey_row(dtype=torch.float64).sample(400, generator=generator(1))
    start = AutoregressiveSoftmax.uniform(3, 4).to(torch.float64)
    best = start.fit(x, l2=0.01)
    near = start.fit(x, l2=0.01, solver="adam", rate=0.05, epochs=100, generator=generator())
    assert -1e-9 <= (best.history[-1] - near.history[-1]) / 400 <= 18 / (2 * 400) / 10


def test_of_order_one_data_the_fit_is_the_chain():
    """x_i given x_{i-1} alone: two frequencies, which a logistic regression on one bit can be exactly."""
    x = (torch.rand(500, 2, generator=generator(5)) < 0.4).double()
    x[:, 1] = torch.where(torch.rand(500, generator=generator(6)) < 0.8, x[:, 0], 1 - x[:, 0])
    model = AutoregressiveLogistic.fit(x)
    for before in (0.0, 1.0):
        rows = x[:, 0] == before
        given = model.given_prefix(torch.tensor([before])).log_prob(torch.ones(1, 1).double()).exp()
        assert abs(given.item() - x[rows, 1].mean().item()) <= 1e-5  # slopes up to 1e-7, curvature above 0.02


@pytest.mark.parametrize(
    "preset", [logistic.label_at_a_point, autoregressive_logistic.six_bits, autoregressive_logistic.grey_row]
)
def test_presets_conform(preset):
    report = check_model(preset(), effort="quick", seed=0)
    assert report.passed, report.failures


X = torch.tensor([[0.0], [1.0], [2.0], [3.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (lambda: SoftmaxRegression(torch.zeros(2, 3), torch.zeros(3)), "shapes"),
        (lambda: SoftmaxRegression(torch.full((2, 3), math.nan), torch.zeros(2)), "finite"),
        (lambda: SoftmaxRegression.fit(X, torch.tensor([0, 0, 1, 1])), "separate"),
        (lambda: SoftmaxRegression.fit(X, torch.tensor([0, 0, 1, 1]), classes=3), "2 of 3 labels"),
        (lambda: SoftmaxRegression.fit(X, torch.tensor([0, 0, 1, -1])), "labels 0 to"),
        (lambda: SoftmaxRegression.fit(X * math.nan, torch.tensor([0, 0, 1, 1])), "finite"),
        (lambda: SoftmaxRegression.fit(X, torch.tensor([0, 1, 0, 1]), l2=-1.0), "l2"),
        (lambda: SoftmaxRegression.fit(X, torch.tensor([0, 1, 0, 1]), solver="newton"), "solver"),
        (lambda: SoftmaxRegression.fit(X, torch.tensor([0, 1, 0, 1]), iterations=1), "slope"),
        (lambda: AutoregressiveLogistic(torch.ones(2, 2), torch.zeros(2)), "before it"),
        (lambda: AutoregressiveLogistic.fit(torch.ones(4, 2)), "constant"),
        (lambda: AutoregressiveLogistic.fit(torch.tensor([[0.0, 0], [1, 1]])), "separate"),
        (lambda: AutoregressiveLogistic.fit(torch.tensor([[0.5]])), "levels 0 to 1"),
        (lambda: AutoregressiveSoftmax([torch.zeros(3, 1)], torch.zeros(1, 3)), r"weights\[0\]"),
        (lambda: AutoregressiveSoftmax.uniform(2, 3).fit(torch.tensor([[3, 0]])), "levels 0 to 2"),
        (lambda: autoregressive_logistic.grey_row().log_prob(torch.zeros(3)), "shape"),
    ],
)
def test_mistakes_are_named(build, complaint):
    with pytest.raises(ValueError, match=complaint):
        build()
