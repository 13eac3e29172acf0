"""The models of the leaderboards in results/, ours and those of other libraries side by side.

    harness compare suites.leaderboard:bits --data suites.data.registered:nltcs --budget 20 --json ... --html ...
    harness compare suites.leaderboard:reals --data wine ...
    harness compare suites.leaderboard:levels --data digits ...
    harness compare suites.leaderboard:pixels --data suites.data.registered:binarized_mnist --budget 1800 --memory 8 ...

A recipe takes the training rows, as `harness compare --help` says; one that names `levels` makes a discrete model.
Those of pixels take half the steps of `suites.real_data`, however long these last, so that a busy machine gives the
same models; --budget is when a fit counts as endless.
"""

import math
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Generator, Tensor, nn

from reference_impls.autoregressive_logistic import AutoregressiveLogistic
from reference_impls.bernoulli_mixture import expectation_maximisation, random_start
from reference_impls.chow_liu import chow_liu
from reference_impls.gaussian import DiagonalGaussian, Gaussian
from reference_impls.linear_gaussian import probabilistic_pca
from reference_impls.made import MADE
from reference_impls.markov_chain import MarkovChain
from reference_impls.masked_flows import maf
from reference_impls.mixture import fit_mixture
from reference_impls.nade import NADE
from reference_impls.splines import Spline
from reference_impls.tables import IndependentCategoricals
from suites.real_data.cases import ADAM
from suites.real_data.deep_cases import ON_PIXELS, vae
from suites.real_data.deep_fits import InParts, Run, importance_bound, trained
from suites.real_data.fits import autoregressive_by_adam

SMOOTHING = 1.0
PIXELS = 784

# Discrete rows


def independent(x: Tensor, levels: tuple[int, ...]) -> Any:
    """Shares of each coordinate, one added to every count."""
    return IndependentCategoricals.from_draws(x, levels, smoothing=SMOOTHING)


def chain(x: Tensor, levels: tuple[int, ...]) -> Any:
    """A Markov chain whose tables differ from step to step."""
    return MarkovChain.from_draws(x, max(levels), homogeneous=False, smoothing=SMOOTHING)


def tree(x: Tensor, levels: tuple[int, ...]) -> Any:
    """The Chow-Liu tree."""
    return chow_liu(x, levels, smoothing=SMOOTHING)


def logistic(x: Tensor, levels: tuple[int, ...]) -> Any:
    """A logistic regression of each bit on those before."""
    return AutoregressiveLogistic.fit(x.double())


def bernoullis(x: Tensor, valid: Tensor, levels: tuple[int, ...], generator: Generator) -> Any:
    """50 products of Bernoullis by EM, stopped at the multiple of ten steps that the validation rows like best."""
    fitted = random_start(x, 50, generator=generator)
    path = []
    for _ in range(6):
        fitted = expectation_maximisation(fitted, x, prior=0.5, tolerance=0, iterations=10)
        path.append(fitted)
    return max(path, key=lambda model: float(model.log_prob(valid).mean()))


def made(x: Tensor, levels: tuple[int, ...]) -> Any:
    return MADE(x.shape[1], (128,))


def nade(x: Tensor, levels: tuple[int, ...]) -> Any:
    return NADE(x.shape[1], 64)


def pgmpy_chain(x: Tensor, levels: tuple[int, ...]) -> Any:
    """pgmpy: the chain as a Bayesian network."""
    from pgmpy.models import DiscreteBayesianNetwork

    names = [f"x{i}" for i in range(x.shape[1])]
    return DiscreteBayesianNetwork(list(pairwise(names)))


def pomegranate_tree(x: Tensor, levels: tuple[int, ...]) -> Any:
    """pomegranate: its own Chow-Liu tree."""
    from pomegranate.bayesian_network import BayesianNetwork

    return BayesianNetwork(algorithm="chow-liu", pseudocount=SMOOTHING)


def hmmlearn_hmm(x: Tensor, levels: tuple[int, ...]) -> Any:
    """hmmlearn: a hidden chain of 4 states over the coordinates in order."""
    from hmmlearn.hmm import CategoricalHMM

    return CategoricalHMM(4, n_iter=2)


def pyro_bernoullis(x: Tensor, levels: tuple[int, ...]) -> Any:
    """Pyro: independent bits, their logits learnt by gradients."""
    import pyro.distributions as dist

    return dist.Bernoulli(logits=torch.nn.Parameter(torch.zeros(x.shape[1]))).to_event(1)


# Binarised MNIST


def _steps(most: int, x: Tensor) -> int:
    """Half of them for whole pictures; (d / 784)^2 of that for d pixels, which the curves against D ask for."""
    return math.ceil(most / 2 * (x.shape[1] / PIXELS) ** 2)


def _in_steps(model: nn.Module, name: str, x: Tensor, valid: Tensor) -> Any:
    """The network after half the steps that `suites.real_data` gives it, at the same rates."""
    recipe = ON_PIXELS[name]
    short = replace(recipe, steps=_steps(recipe.steps, x))
    rows = valid.float()
    bound = partial(importance_bound, x=rows, k=50, seed=1)
    score = bound if hasattr(model, "iwae") else lambda law: InParts(law).mean(rows)
    return trained(model, x.float(), score, short, name=name, run=Run(), tell=lambda line: None)


def pixel_logistic(x: Tensor, valid: Tensor, levels: tuple[int, ...]) -> Any:
    """A logistic regression of each pixel on those before."""
    settings = {**ADAM, "epochs": _steps(int(ADAM["epochs"]), x)}
    return autoregressive_by_adam(x.float(), valid.float(), **settings)


def pixel_made(x: Tensor, valid: Tensor, levels: tuple[int, ...]) -> Any:
    return _in_steps(MADE(x.shape[1], (500, 500), seed=17), "MADE", x, valid)


def pixel_nade(x: Tensor, valid: Tensor, levels: tuple[int, ...]) -> Any:
    return _in_steps(NADE(x.shape[1], 500, seed=21), "NADE", x, valid)


def pixel_vae(x: Tensor, valid: Tensor, levels: tuple[int, ...]) -> Any:
    """50 latent variables; its NLL is a bound."""
    return _in_steps(vae(x.shape[1], 500, 50), "VAE", x, valid)


def sklearn_bernoullis(x: Tensor, levels: tuple[int, ...]) -> Any:
    """scikit-learn: naive Bayes of 50 clusters, a product of Bernoullis each."""
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.naive_bayes import BernoulliNB

    clusters = MiniBatchKMeans(50, random_state=0, n_init=3).fit_predict(x.float().numpy())
    return BernoulliNB(binarize=None).fit(x.numpy(), clusters)


def sklearn_principal(x: Tensor) -> Any:
    """scikit-learn: probabilistic PCA of 50 latent variables, of dequantised pixels."""
    from sklearn.decomposition import PCA

    return PCA(min(50, x.shape[1] - 1))


def pomegranate_bernoullis(x: Tensor, levels: tuple[int, ...]) -> Any:
    """pomegranate: ten products of Bernoullis by ten steps of its EM."""
    from pomegranate.distributions import Bernoulli
    from pomegranate.gmm import GeneralMixtureModel

    return GeneralMixtureModel([Bernoulli() for _ in range(10)], max_iter=10)


# Real rows


def gaussian(x: Tensor) -> Any:
    return Gaussian.fit(x)


def diagonal_gaussian(x: Tensor) -> Any:
    return DiagonalGaussian.fit(x)


def principal(x: Tensor) -> Any:
    """Probabilistic PCA with as many latent variables as half the coordinates, at most 16."""
    return probabilistic_pca(x, max(1, min(16, x.shape[1] // 2)))


def gaussians(x: Tensor, generator: Generator) -> Any:
    """Three Gaussians of one covariance."""
    return fit_mixture(x, 3, kind="tied", generator=generator)


def own_maf(x: Tensor) -> Any:
    return maf(x.shape[1], 3, hidden=(64,))


def own_spline_maf(x: Tensor) -> Any:
    return maf(x.shape[1], 2, Spline(8, 6.0), hidden=(64,))


def sklearn_gaussians(x: Tensor) -> Any:
    """scikit-learn: three Gaussians of one covariance."""
    from sklearn.mixture import GaussianMixture

    return GaussianMixture(3, covariance_type="tied", n_init=4)


def sklearn_kernels(x: Tensor) -> Any:
    """scikit-learn: a kernel density, its width by Scott's rule."""
    from sklearn.neighbors import KernelDensity

    return KernelDensity(bandwidth="scott")


def zuko_nsf(x: Tensor) -> Any:
    from zuko.flows import NSF

    return NSF(x.shape[1], transforms=2, hidden_features=(64,), activation=torch.nn.Tanh)


def nflows_maf(x: Tensor) -> Any:
    from nflows.flows import MaskedAutoregressiveFlow

    return MaskedAutoregressiveFlow(
        x.shape[1], hidden_features=64, num_layers=3, num_blocks_per_layer=1, activation=torch.tanh
    )


def normflows_maf(x: Tensor) -> Any:
    from normflows import NormalizingFlow
    from normflows.distributions import DiagGaussian
    from normflows.flows import LULinearPermute, MaskedAffineAutoregressive

    d = x.shape[1]
    layers = [layer for _ in range(3) for layer in (MaskedAffineAutoregressive(d, 64), LULinearPermute(d))]
    return NormalizingFlow(DiagGaussian(d), layers)


def pyro_iaf(x: Tensor) -> Any:
    """Pyro: an inverse autoregressive flow turned round, so that its density is fast."""
    import pyro.distributions as dist
    from pyro.distributions.transforms import affine_autoregressive

    d = x.shape[1]
    layers = [affine_autoregressive(d, hidden_dims=[64]).inv for _ in range(2)]
    return dist.TransformedDistribution(dist.Normal(torch.zeros(d), torch.ones(d)).to_event(1), layers)


def pomegranate_gaussians(x: Tensor) -> Any:
    """pomegranate: three Gaussians of diagonal covariances."""
    from pomegranate.distributions import Normal
    from pomegranate.gmm import GeneralMixtureModel

    return GeneralMixtureModel([Normal(covariance_type="diag") for _ in range(3)])


bits = {
    **{"independent": independent, "chain": chain, "Chow-Liu tree": tree, "logistic": logistic},
    **{"50 Bernoullis": bernoullis, "MADE": made, "NADE": nade},
    **{"pgmpy chain": pgmpy_chain, "pomegranate tree": pomegranate_tree},
    **{"hmmlearn HMM": hmmlearn_hmm, "Pyro Bernoullis": pyro_bernoullis},
}
reals = {
    **{"Gaussian": gaussian, "diagonal Gaussian": diagonal_gaussian, "probabilistic PCA": principal},
    **{"3 Gaussians": gaussians, "MAF": own_maf, "spline MAF": own_spline_maf},
    **{"scikit-learn GMM": sklearn_gaussians, "scikit-learn KDE": sklearn_kernels},
    **{"zuko NSF": zuko_nsf, "nflows MAF": nflows_maf, "normflows MAF": normflows_maf},
    **{"Pyro IAF": pyro_iaf, "pomegranate GMM": pomegranate_gaussians},
}
levels = {
    **{"independent": independent, "chain": chain, "Chow-Liu tree": tree, "pgmpy chain": pgmpy_chain},
    **{"hmmlearn HMM": hmmlearn_hmm, "Gaussian": gaussian, "probabilistic PCA": principal, "3 Gaussians": gaussians},
    **{"MAF": own_maf, "zuko NSF": zuko_nsf},
}
pixels = {
    **{"independent": independent, "Chow-Liu tree": tree, "logistic": pixel_logistic, "50 Bernoullis": bernoullis},
    **{"MADE": pixel_made, "NADE": pixel_nade, "VAE": pixel_vae},
    **{"scikit-learn naive Bayes": sklearn_bernoullis, "scikit-learn PCA": sklearn_principal},
    **{"Pyro Bernoullis": pyro_bernoullis, "pomegranate Bernoullis": pomegranate_bernoullis},
}
