"""Generative classifiers against scikit-learn, the softmax regression that LDA is, and the chi-square law."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness import check_model
from reference_impls import generative_classifier as gc
from reference_impls import logistic
from reference_impls.discrete import Bernoulli
from reference_impls.gaussian import Gaussian
from reference_impls.generative_classifier import GenerativeClassifier

PRESETS = (gc.lda, gc.qda, gc.naive_bayes_of_pixels)
EPS = torch.finfo(torch.float64).eps
examples = settings(derandomize=True, deadline=None, max_examples=15)
seeds = st.integers(0, 10**6)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def peer(family):
    discriminant = pytest.importorskip("sklearn.discriminant_analysis", reason="scikit-learn is not installed")
    bayes = pytest.importorskip("sklearn.naive_bayes", reason="scikit-learn is not installed")
    return {
        "lda": discriminant.LinearDiscriminantAnalysis(solver="lsqr", store_covariance=True),
        "gaussian_naive_bayes": bayes.GaussianNB(var_smoothing=0),
        "bernoulli_naive_bayes": bayes.BernoulliNB(alpha=1.0),
    }[family]


@pytest.mark.parametrize("family", ["lda", "gaussian_naive_bayes", "bernoulli_naive_bayes"])
def test_posterior_is_scikit_learns(family):
    truth = gc.naive_bayes_of_pixels() if family.startswith("bernoulli") else gc.qda()
    x, y = truth.to(torch.float64).sample_joint(300, generator=generator(1))
    smoothing = 1.0 if family.startswith("bernoulli") else 0.0
    ours = GenerativeClassifier.fit(x, y, family=family, smoothing=smoothing)
    theirs = peer(family).fit(x.numpy(), y.numpy())
    gap = ours.posterior(x) - torch.from_numpy(theirs.predict_proba(x.numpy()))
    # Logits are sums over draws and features, each rounded: 300 x 6 eps of their size, at most 100; the slope is 1/4.
    assert gap.abs().max() <= 300 * 6 * EPS * 100


def test_qda_is_a_gaussian_for_each_class():
    """scikit-learn divides by n - 1 here; maximum likelihood divides by n."""
    x, y = gc.qda(dtype=torch.float64).sample_joint(200, generator=generator(2))
    ours = GenerativeClassifier.fit(x, y, family="qda")
    joint = []
    for k in range(3):
        rows = x[y == k].numpy()
        law = stats.multivariate_normal(rows.mean(0), np.cov(rows.T, bias=True))
        joint.append(math.log(len(rows) / 200) + law.logpdf(x.numpy()))
    bound = 200 * 9 * EPS * np.abs(joint).max() * 100  # the condition of these covariances is below 100
    assert np.abs(ours.log_joint(x).numpy() - np.stack(joint, -1)).max() <= bound


def test_bayes_rule_and_the_product_rule():
    for preset in PRESETS:
        model = preset(dtype=torch.float64)
        x, y = model.sample_joint(50, generator=generator(3))
        size = 100 * EPS * (1 + model.log_joint(x).abs().max())
        joint = model.log_prob(x, y)
        assert ((model.log_prob(x, given=y) + model.prior.log()[y] - joint).abs() <= size).all()
        chosen = model.log_posterior(x).gather(1, y[:, None])[:, 0]
        assert ((chosen + model.log_prob(x) - joint).abs() <= size).all()
        assert ((model.posterior(x).sum(-1) - 1).abs() <= 8 * EPS * model.classes).all()


def test_lda_is_a_softmax_regression():
    model = gc.lda(dtype=torch.float64)
    x = model.sample(100, generator=generator(4))
    logits = gc.as_softmax_regression(model)
    bound = 100 * EPS * (1 + model.log_joint(x).abs().max())
    assert ((logits.log_posterior(x) - model.log_posterior(x)).abs() <= bound).all()
    preset = logistic.bayes_of_two_gaussians(dtype=torch.float64)
    assert ((preset.log_posterior(x) - model.log_posterior(x)).abs() <= bound).all()
    x, y = gc.qda(dtype=torch.float64).sample_joint(300, generator=generator(4))  # three classes, not symmetric
    model = GenerativeClassifier.fit(x, y, family="lda")
    bound = 100 * EPS * (1 + model.log_joint(x).abs().max())
    gap = gc.as_softmax_regression(model).log_posterior(x) - model.log_posterior(x)
    assert (gap.abs() <= bound).all()
    with pytest.raises(ValueError, match="differ in covariance"):
        gc.as_softmax_regression(gc.qda())


def test_logistic_regression_on_its_draws_finds_the_same_posterior():
    """The discriminative fit of the same law: both estimate w = Sigma^-1 (mu_1 - mu_0) = (2, 0)."""
    x, y = gc.lda(dtype=torch.float64).sample_joint(20_000, generator=generator(5))
    fits = gc.as_softmax_regression(GenerativeClassifier.fit(x, y, family="lda")), logistic.SoftmaxRegression.fit(x, y)
    for fit in fits:
        slope = fit.weight[1] - fit.weight[0]
        # The deviation of an estimated slope is about sqrt(1 / (n p (1 - p) Var)) with p (1 - p) near 0.1: 0.03.
        assert (slope - torch.tensor([2.0, 0.0]).double()).abs().max() <= 4.5 * 0.03


def test_accuracy_is_one_minus_the_bayes_error():
    model = gc.lda(dtype=torch.float64)
    x, y = model.sample_joint(40_000, generator=generator(6))
    shift = (model.models[1].mean() - model.models[0].mean())[None] + model.models[0].mean()
    distance = float(model.models[0].mahalanobis(shift))
    assert distance == pytest.approx(2.0, rel=10 * EPS)  # (2, 1) Sigma^-1 (2, 1) = 4
    error = gc.bayes_error_of_two(distance)
    assert error == pytest.approx(stats.norm.cdf(-1), rel=10 * EPS)
    wrong = (model.classify(x) != y).double().mean()
    assert abs(wrong - error) <= 4.5 * math.sqrt(error * (1 - error) / 40_000)


# Missing features


@examples
@given(st.sampled_from(PRESETS), seeds)
def test_what_is_missing_is_summed_out(preset, seed):
    model = preset(dtype=torch.float64)
    x = model.sample(20, generator=generator(seed))
    hidden = torch.rand(x.shape, generator=generator(seed)) < 0.4
    some = torch.where(hidden, math.nan, x)
    for row in range(20):
        seen = (~hidden[row]).nonzero()[:, 0].tolist()
        alone = model.marginal(seen).log_joint(x[row : row + 1, seen])[0] if seen else model.prior.log()
        assert torch.allclose(model.log_joint(some)[row], alone, rtol=200 * EPS, atol=200 * EPS)
    assert torch.allclose(model.posterior(x[:1] * math.nan)[0], model.prior, rtol=10 * EPS, atol=0)


def test_marginals_of_pixels_are_sums_over_states():
    model = gc.naive_bayes_of_pixels(dtype=torch.float64)
    x = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 6)
    assert abs(model.log_prob(x).exp().sum() - 1) <= 64 * 6 * EPS
    some = torch.tensor([[1.0, math.nan, 0.0, math.nan, math.nan, 1.0]], dtype=torch.float64)
    agrees = (x[:, 0] == 1) & (x[:, 2] == 0) & (x[:, 5] == 1)
    total = model.log_joint(x[agrees]).exp().sum(0)
    assert torch.allclose(model.log_joint(some)[0].exp(), total, rtol=100 * EPS, atol=0)


@pytest.mark.parametrize("preset", PRESETS)
def test_conditionals_follow_the_product_rule(preset):
    model = preset(dtype=torch.float64)
    x = model.sample(1, generator=generator(7))
    a, b = [model.d - 1, 0], list(range(1, model.d - 1))
    if b:
        parts = model.marginal(a).log_prob(x[:, a]) + model.conditional(a, x[0, a]).log_prob(x[:, b])
        assert torch.allclose(parts, model.log_prob(x), rtol=500 * EPS, atol=500 * EPS)


# Anomalies


def test_false_alarms_have_the_chi_square_rate():
    for d in (1, 3, 100):
        for rate in (1e-9, 0.01, 0.5, 0.99):
            threshold = gc.alarm_threshold(rate, d)
            assert threshold == pytest.approx(stats.chi2.isf(rate, d), rel=1e-10)
            assert gc.false_alarm_rate(threshold, d) == pytest.approx(rate, rel=1e-10)  # as good as gammaincc is


def test_draws_raise_as_many_alarms_as_stated():
    model, rate = gc.qda(dtype=torch.float64), 0.05
    x, y = model.sample_joint(20_000, generator=generator(8))
    alarms = (model.anomaly_score(x, given=y) > gc.alarm_threshold(rate, 3)).double().mean()
    assert abs(alarms - rate) <= 4.5 * math.sqrt(rate * (1 - rate) / 20_000)
    assert stats.kstest(model.anomaly_score(x, given=y).numpy(), stats.chi2(3).cdf).pvalue > 1e-3  # of fixed seed


# Estimation and form


def test_fit_is_the_maximum():
    truth = gc.qda(dtype=torch.float64)
    x, y = truth.sample_joint(500, generator=generator(9))
    best = GenerativeClassifier.fit(x, y, family="qda")
    assert best.log_prob(x, y).sum() >= truth.log_prob(x, y).sum()
    for family in ("lda", "gaussian_naive_bayes"):  # smaller families: never more likely
        assert GenerativeClassifier.fit(x, y, family=family).log_prob(x, y).sum() <= best.log_prob(x, y).sum()
    for scale in (1e-8, 1e8):
        other = GenerativeClassifier.fit(scale * x, y, family="qda")
        assert torch.allclose(other.posterior(scale * x), best.posterior(x), rtol=0, atol=1e6 * EPS)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_conform(preset):
    report = check_model(preset(), effort="quick", seed=0)
    assert report.passed, report.failures


X, Y = torch.randn(6, 2, generator=generator()), torch.tensor([0, 0, 0, 1, 1, 1])


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (lambda: GenerativeClassifier(torch.ones(1), gc.lda().models), "1 prior probabilities for 2"),
        (lambda: GenerativeClassifier(torch.ones(2) / 2, [gc.lda().models[0], Bernoulli(torch.ones(3))]), "differ"),
        (lambda: GenerativeClassifier(torch.tensor([0.5, 0.6]), gc.lda().models), "sum to 1"),
        (lambda: GenerativeClassifier.fit(X, Y, family="svm"), "family"),
        (lambda: GenerativeClassifier.fit(X, Y, classes=3), "every label"),
        (lambda: GenerativeClassifier.fit(X, Y - 1), "every label"),
        (lambda: GenerativeClassifier.fit(X * math.nan, Y), "finite"),
        (lambda: GenerativeClassifier.fit(X, Y, family="bernoulli_naive_bayes"), "0 and 1"),
        (lambda: GenerativeClassifier.fit(X[:4], Y[:4]), "class 1 has 1 draws"),
        (lambda: gc.lda().log_prob(X, Y, given=Y), "two meanings"),
        (lambda: gc.lda().log_prob(X, given=2), "0 to 1"),
        (lambda: gc.lda().log_prob(X[:, :1]), "shape"),
        (lambda: gc.naive_bayes_of_pixels().anomaly_score(torch.zeros(1, 6), given=0), "Gaussian"),
        (lambda: gc.alarm_threshold(0.0, 2), "rate"),
        (lambda: gc.false_alarm_rate(math.nan, 2), "threshold"),
    ],
)
def test_mistakes_are_named(build, complaint):
    with pytest.raises(ValueError, match=complaint):
        build()


def test_one_class_is_its_gaussian():
    one = Gaussian(torch.zeros(2).double(), torch.eye(2).double())
    model = GenerativeClassifier(torch.ones(1).double(), [one])
    x = one.sample(5, generator=generator())
    assert torch.equal(model.log_prob(x), one.log_prob(x))
    assert torch.equal(model.posterior(x), torch.ones(5, 1).double())
