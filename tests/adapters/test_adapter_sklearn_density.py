"""scikit-learn: fitted estimators are densities of their inputs, and stay as they were."""

import math
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import tensor

from harness.adapters import NotAModel, adapt
from harness.model import Model

pytest.importorskip("sklearn")

from scipy.stats import multivariate_normal
from sklearn.base import BaseEstimator
from sklearn.datasets import load_digits, load_iris
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import LinearRegression
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import BernoulliNB, CategoricalNB, GaussianNB, MultinomialNB
from sklearn.neighbors import KernelDensity
from sklearn.neural_network import BernoulliRBM
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

X, Y = load_iris(return_X_y=True)
DIGITS, DIGIT = load_digits(return_X_y=True)

SCORED = {
    "mixture": lambda: GaussianMixture(3, random_state=0).fit(X),
    "Bayesian mixture": lambda: BayesianGaussianMixture(n_components=2, random_state=0).fit(X),
    "kernels": lambda: KernelDensity(bandwidth=0.3).fit(X),
    "boxes": lambda: KernelDensity(bandwidth=0.5, kernel="tophat").fit(X),
    "PCA": lambda: PCA(2).fit(X),
    "factor analysis": lambda: FactorAnalysis(2).fit(X),
}
CLASSIFIERS = {
    "Bernoulli": lambda: BernoulliNB(binarize=8.0).fit(DIGITS, DIGIT),
    "Gaussian": lambda: GaussianNB().fit(X, Y),
    "categorical": lambda: CategoricalNB().fit(X.astype(int), Y),
    "linear": lambda: LinearDiscriminantAnalysis(store_covariance=True).fit(X, Y),
    "quadratic": lambda: QuadraticDiscriminantAnalysis().fit(X, Y),
}
EVERY = {**SCORED, **CLASSIFIERS}


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def state_of(estimator):
    """Parameters and what was fitted; the search tree of a kernel density counts its own queries."""
    return pickle.dumps({key: value for key, value in vars(estimator).items() if key != "tree_"})


@pytest.mark.parametrize("name", EVERY)
def test_draws_depend_on_the_generator_alone_and_disturb_nothing(name):
    estimator = EVERY[name]()
    model = adapt(estimator)
    kept = state_of(estimator)
    state, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()
    x = model.sample(30, generator=stream())
    assert torch.equal(x, model.sample(30, generator=stream()))
    assert not torch.equal(x, model.sample(30, generator=stream(1)))
    model.log_prob(x)
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(legacy, np.random.get_state()[1])
    assert state_of(estimator) == kept
    assert x.shape == (30, *model.event_shape) == (30, estimator.n_features_in_)
    for n in (0, 1):
        assert model.sample(n, generator=stream()).shape == (n, *model.event_shape)


@pytest.mark.parametrize("name", EVERY)
def test_every_draw_lies_in_the_support_and_has_a_density(name):
    model = adapt(EVERY[name]())
    x = model.sample(30, generator=stream())
    values = model.log_prob(x)
    assert values.dtype == torch.float64
    assert values.shape == (30,)
    assert values.isfinite().all()
    assert model.log_prob(x[:0]).shape == (0,)
    assert model.support.check(x).tolist() == [True] * 30
    assert x.dtype == (torch.int64 if name in ("Bernoulli", "categorical") else torch.float64)


@pytest.mark.parametrize("name", SCORED)
def test_scores_are_the_estimators_own(name):
    estimator = SCORED[name]()
    assert np.array_equal(adapt(estimator).log_prob(tensor(X)).numpy(), estimator.score_samples(X))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classes_follow_bayes_rule_from_the_density(name):
    """p(x) = p(x, y) / p(y | x), with both sides stated by scikit-learn, or the right one by scipy."""
    classifier = CLASSIFIERS[name]()
    model = adapt(classifier)
    x = model.sample(20, generator=stream())
    rows = x.numpy() * (16.0 if name == "Bernoulli" else 1.0)  # the pixels that become these bits
    posterior = classifier.predict_log_proba(rows)
    if hasattr(classifier, "predict_joint_log_proba"):
        joint = classifier.predict_joint_log_proba(rows)
    else:
        covariances = classifier.covariance_ if name == "linear" else covariance_of_classes(classifier)
        laws = [
            multivariate_normal(m, covariances if name == "linear" else covariances[k])
            for k, m in enumerate(classifier.means_)
        ]
        joint = np.stack([law.logpdf(rows) for law in laws], 1) + np.log(classifier.priors_)
    likeliest = posterior.argmax(1)
    row = np.arange(len(rows))
    expected = joint[row, likeliest] - posterior[row, likeliest]
    # The linear classifier's own posterior comes from a decomposition of data whose condition number is about 100.
    assert np.abs(model.log_prob(x).numpy() - expected).max() <= 1e6 * np.finfo(float).eps * np.abs(expected).max()


def covariance_of_classes(classifier):
    return [(r * s) @ r.T for r, s in zip(classifier.rotations_, classifier.scalings_, strict=True)]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_draws_of_a_classifier_have_its_mean(name):
    classifier, n = CLASSIFIERS[name](), 4000
    x = adapt(classifier).sample(n, generator=stream()).double()
    match name:
        case "Bernoulli":
            means = np.exp(classifier.feature_log_prob_)
        case "categorical":
            means = np.stack([np.exp(t) @ np.arange(t.shape[1]) for t in classifier.feature_log_prob_], 1)
        case _:
            means = getattr(classifier, "theta_", getattr(classifier, "means_", None))
    prior = getattr(classifier, "class_prior_", getattr(classifier, "priors_", None))
    expected = tensor((np.exp(classifier.class_log_prior_) if prior is None else prior) @ means)
    # 64 features: 5.5 standard errors leave 2e-6 for all together; a constant feature has a deviation of about 1 / n.
    assert ((x.mean(0) - expected).abs() <= 5.5 * (x.std(0) + 1 / math.sqrt(n)) / math.sqrt(n)).all()


def test_draws_of_a_mixture_are_not_in_the_order_of_its_components():
    estimator = SCORED["mixture"]()
    component = estimator.predict(adapt(estimator).sample(300, generator=stream()).numpy())
    changes = (np.diff(component) != 0).sum()
    assert changes > 100  # sorted draws change twice; of 300 in random order about 200 do


def test_what_a_gaussian_states_is_what_it_draws():
    model, n = adapt(SCORED["factor analysis"]()), 20_000
    x = model.sample(n, generator=stream())
    variance = model.covariance().diagonal()
    assert ((x.mean(0) - model.mean()).abs() <= 5 * (variance / n).sqrt()).all()
    spread = (2 * variance.outer(variance) / n).sqrt()  # of an estimated covariance, at most
    assert ((torch.cov(x.T) - model.covariance()).abs() <= 5 * spread).all()


def test_the_density_is_zero_where_a_feature_is_impossible():
    bits = adapt(CLASSIFIERS["Bernoulli"]())
    x = bits.sample(3, generator=stream())
    x[0, 0], x[1, 5] = 2, -1
    assert bits.log_prob(x).isinf().tolist() == [True, True, False]
    codes = adapt(CLASSIFIERS["categorical"]())
    assert (codes.log_prob(tensor([[99.0, 0.0, 0.0, 0.0], [0.5, 0.0, 0.0, 0.0]])) == -math.inf).all()
    gaussian = adapt(CLASSIFIERS["Gaussian"]())
    assert (gaussian.log_prob(tensor([[math.inf, 0.0, 0.0, 0.0], [math.nan, 0.0, 0.0, 0.0]])) == -math.inf).all()


def test_two_bits_have_all_the_mass():
    model = adapt(BernoulliNB().fit(X[:, :2] > [5.8, 3.0], Y))
    grid = tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    assert abs(model.log_prob(grid).exp().sum() - 1) <= 16 * torch.finfo(torch.float64).eps


def test_an_estimator_that_was_fitted_on_named_columns_scores_rows_without_a_warning():
    frame = load_iris(as_frame=True).data
    estimator = GaussianMixture(2, random_state=0).fit(frame)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = adapt(estimator)
        model.log_prob(model.sample(3, generator=stream()))
    assert list(estimator.feature_names_in_) == list(frame)


def test_a_kernel_without_a_sampler_is_a_density_only():
    model = adapt(KernelDensity(kernel="cosine").fit(X))
    assert set(model.methods) == {"log_prob"}


@pytest.mark.parametrize("name", ["mixture", "factor analysis"])
def test_fit_gives_a_new_model_and_leaves_the_estimator_alone(name):
    estimator = SCORED[name]()
    kept = state_of(estimator)
    fitted = adapt(estimator).fit(tensor(X[:60] + 100))
    assert isinstance(fitted, Model)
    assert fitted.log_prob(tensor(X[:60] + 100)).mean() > adapt(estimator).log_prob(tensor(X[:60] + 100)).mean()
    assert state_of(estimator) == kept


@pytest.mark.parametrize(
    ("estimator", "fix"),
    [
        (GaussianMixture(2), r"not fitted: call its fit\(X\) first"),
        (GaussianNB(), r"not fitted"),
        (IsolationForest(random_state=0).fit(X), "outlier detector"),
        (BernoulliRBM(2, random_state=0).fit(X > 3), "pseudo-likelihood"),
        (MultinomialNB().fit(X, Y), "multinomial coefficient"),
        (make_pipeline(StandardScaler(), GaussianMixture(2)).fit(X), "give the last step"),
        (GridSearchCV(KernelDensity(), {"bandwidth": [0.1, 1.0]}).fit(X), "best_estimator_"),
        (LinearDiscriminantAnalysis().fit(X, Y), "store_covariance=True"),
        (LinearDiscriminantAnalysis(store_covariance=True).fit(np.repeat(X, 2, 1), Y), "singular"),
        (LinearRegression().fit(X, Y), "is no model"),
    ],
)
def test_what_is_no_density_is_refused_with_a_line_that_names_the_fix(estimator, fix):
    with pytest.raises(NotAModel, match=fix) as refusal:
        adapt(estimator)
    assert "\n" not in str(refusal.value)


def test_a_subclass_has_the_capabilities_that_it_adds():
    class Known(GaussianMixture):
        def mean(self):
            return torch.as_tensor(self.weights_ @ self.means_)

        def entropy(self, n): ...

    model = adapt(Known(2, random_state=0).fit(X))
    assert model.mean().shape == (4,)
    assert "entropy(n) cannot be called" in model.unfit["entropy"]


def test_an_estimator_that_speaks_the_contract_needs_nothing_of_scikit_learns():
    class Own(BaseEstimator):
        def sample(self, n, *, generator):
            return torch.randn(n, generator=generator)

    assert set(adapt(Own()).methods) == {"sample"}


def test_scikit_learn_is_not_imported_for_others():
    code = (
        "import sys, torch; from harness.adapters import adapt; adapt(torch.distributions.Normal(0., 1.));"
        "sys.exit(any(name.split('.')[0] == 'sklearn' for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", sorted(SCORED))
def test_fit_is_there_where_maximum_likelihood_is_promised(name):
    promises = name in ("mixture", "factor analysis")
    assert adapt(SCORED[name]()).can("fit") == promises
