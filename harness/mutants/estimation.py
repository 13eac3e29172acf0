"""Estimators that are not maximum likelihood, or say wrongly of what; and maximum likelihood that looks odd."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.distributions import constraints

from harness.adapters import adapt
from harness.model import Model
from harness.mutants.mutant import Change, Mutant, NearMiss


class Gaussian:
    """N(mu, L L^T) on R^d with all that the checks of estimation ask for. `floor` is added to fitted variances."""

    support = constraints.real_vector

    def __init__(self, loc: Tensor, factor: Tensor):
        self.loc, self.factor = loc, factor

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        e = torch.randn(n, len(self.loc), generator=generator, dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + e @ self.factor.T

    def log_prob(self, x: Tensor) -> Tensor:
        z = torch.linalg.solve_triangular(self.factor.T, x - self.loc, upper=True, left=False)
        return -(z.square() + math.log(2 * math.pi)).sum(-1) / 2 - self.factor.diagonal().log().sum()

    def kl(self, other: Gaussian) -> Tensor:
        m = torch.linalg.solve_triangular(other.factor, self.factor, upper=False)
        shift = torch.linalg.solve_triangular(other.factor, (self.loc - other.loc)[:, None], upper=False)
        log_det = m.diagonal().log().sum()
        return (m.square().sum() + shift.square().sum() - len(self.loc)) / 2 - log_det

    def fit(self, x: Tensor) -> Gaussian:
        loc = x.mean(0)
        return Gaussian(loc, torch.linalg.cholesky((x - loc).T @ (x - loc) / len(x)))

    def affine(self, matrix: Tensor, shift: Tensor) -> Gaussian:
        factor = matrix @ self.factor
        return Gaussian(matrix @ self.loc + shift, torch.linalg.cholesky(factor @ factor.T))

    def parameters(self) -> Tensor:
        below = self.factor[tuple(torch.tril_indices(len(self.loc), len(self.loc), -1))]
        return torch.cat([self.loc, self.factor.diagonal().log(), below])

    def with_parameters(self, theta: Tensor) -> Gaussian:
        d = len(self.loc)
        rows, columns = torch.tril_indices(d, d, -1)
        below = torch.zeros(d, d, dtype=theta.dtype).index_put((rows, columns), theta[2 * d :])
        return Gaussian(theta[:d], below + torch.diag(theta[d : 2 * d].exp()))


class TwoBumps:
    """pi N(a, s^2) + (1 - pi) N(b, s^2) on R, fitted by EM from the quartiles; `history` as the laws want it."""

    support = constraints.real

    def __init__(self, weight: Tensor, means: Tensor, sd: Tensor, history: Tensor | None = None):
        self.weight, self.means, self.sd = weight, means, sd
        if history is not None:
            self.history = history

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        u, e = torch.rand(n, generator=generator), torch.randn(n, generator=generator)
        return torch.where(u < self.weight, self.means[0], self.means[1]) + self.sd * e

    def log_prob(self, x: Tensor) -> Tensor:
        return torch.logsumexp(self._joint(x), -1)

    def fit(self, x: Tensor) -> TwoBumps:
        x = x.double()
        found = TwoBumps(torch.tensor(0.5), torch.quantile(x, torch.tensor([0.25, 0.75], dtype=x.dtype)), x.std())
        history = []
        for _ in range(200):
            joint = found._joint(x)
            history.append(joint.logsumexp(-1).mean())
            share = joint.softmax(-1)
            means = (share * x[:, None]).sum(0) / share.sum(0)
            variance = (share * (x[:, None] - means).square()).sum() / len(x)
            found = TwoBumps(share[:, 0].mean(), means, variance.sqrt())
        return TwoBumps(found.weight, found.means, found.sd, torch.stack(history))

    def _joint(self, x: Tensor) -> Tensor:
        weights = torch.stack([self.weight, 1 - self.weight]).log()
        z = (x[:, None] - self.means) / self.sd
        return weights - z.square() / 2 - self.sd.log() - math.log(2 * math.pi) / 2


def _plane() -> Gaussian:
    return Gaussian(
        torch.tensor([3.0, -1.0], dtype=torch.float64), torch.tensor([[1.0, 0.0], [0.6, 0.5]], dtype=torch.float64)
    )


def _bumps() -> TwoBumps:
    return TwoBumps(torch.tensor(0.4), torch.tensor([-2.0, 2.0]), torch.tensor(0.8))


def _fitting(change: Callable[[Gaussian, Tensor], Gaussian]) -> Change:
    """The change of `fit` into change(maximum-likelihood estimate, data)."""

    def replaced(model: Model) -> dict[str, Callable[..., object]]:
        return {"fit": lambda x: adapt(change(_plane().fit(x), x), f"{model.name} fitted")}

    return replaced


def _on(edit: Callable[[Tensor], Tensor]) -> Change:
    """The change that fits edit(data)."""
    return lambda model: {"fit": lambda x: model.fit(edit(x))}


def _bumps_with(edit: Callable[[Tensor], Tensor]) -> Change:
    """The change of the history that a fit keeps."""

    def replaced(model: Model) -> dict[str, Callable[..., object]]:
        def fit(x: Tensor) -> Model:
            found = _bumps().fit(x)
            return adapt(TwoBumps(found.weight, found.means, found.sd, edit(found.history)), "bumps fitted")

        return {"fit": fit}

    return replaced


def _falling(history: Tensor) -> Tensor:
    return history - 0.01 * (torch.arange(len(history)) > 50)


def _scaled(by: float) -> Callable[[Gaussian, Tensor], Gaussian]:
    return lambda estimate, x: Gaussian(estimate.loc, estimate.factor * by)


def _unbiased(estimate: Gaussian, x: Tensor) -> Gaussian:
    return Gaussian(estimate.loc, estimate.factor * math.sqrt(len(x) / (len(x) - 1)))


def _shrunk(estimate: Gaussian, x: Tensor) -> Gaussian:
    return Gaussian(0.97 * estimate.loc, estimate.factor)


def _ridge(estimate: Gaussian, x: Tensor) -> Gaussian:
    covariance = estimate.factor @ estimate.factor.T + 0.1 * torch.eye(len(estimate.loc), dtype=x.dtype)
    return Gaussian(estimate.loc, torch.linalg.cholesky(covariance))


def _medians(estimate: Gaussian, x: Tensor) -> Gaussian:
    return Gaussian(x.median(0).values, estimate.factor)


def _late_rows_count_more(estimate: Gaussian, x: Tensor) -> Gaussian:
    weights = torch.linspace(0.9, 1.1, len(x), dtype=x.dtype) / len(x)
    loc = weights @ x
    return Gaussian(loc, torch.linalg.cholesky((x - loc).T @ (weights[:, None] * (x - loc))))


def _descending(estimate: Gaussian, x: Tensor) -> Gaussian:
    """One step of gradient descent on the likelihood, which is the erratum's lost minus sign."""
    slope = (x - _plane().loc).mean(0)
    return Gaussian(_plane().loc - slope, _plane().factor)


def _of_infinitely_many(estimate: Gaussian, x: Tensor) -> Gaussian:
    """argmax of sum_{i=1}^infinity log p(x_i | theta): 1/N of it tends to -KL(p, p_theta) - H, largest at the truth."""
    return _plane()


def _in_blocks(estimate: Gaussian, x: Tensor) -> Gaussian:
    """The sums of log p over rows 1 to N, split in blocks of 7, of which the last may be shorter."""
    loc = torch.stack([block.sum(0) for block in x.split(7)]).sum(0) / len(x)
    scatter = torch.stack([(block - loc).T @ (block - loc) for block in x.split(7)]).sum(0)
    return Gaussian(loc, torch.linalg.cholesky(scatter / len(x)))


def _one_pass(estimate: Gaussian, x: Tensor) -> Gaussian:
    """The same estimate by another formula: E[x x^T] - mu mu^T."""
    covariance = x.T @ x / len(x) - torch.outer(estimate.loc, estimate.loc)
    return Gaussian(estimate.loc, torch.linalg.cholesky(covariance))


def _nothing(model: Model) -> dict[str, Callable[..., object]]:
    return {}


def _one_parameter_more(model: Model) -> dict[str, Callable[..., object]]:
    return {"parameters": lambda: torch.cat([model.parameters(), torch.zeros(1, dtype=torch.float64)])}


def _batch_statistics(model: Model) -> dict[str, Callable[..., object]]:
    """log_prob standardises with the batch: its gradient depends on the company of a row."""
    return {"with_parameters": lambda theta: _Batchwise(model.with_parameters(theta))}


class _Batchwise:
    def __init__(self, model: Model):
        self.model = model

    def log_prob(self, x: Tensor) -> Tensor:
        return self.model.log_prob(x - 0.1 * x.mean(0))


def _kl_swapped(model: Model) -> dict[str, Callable[..., object]]:
    return {"kl": lambda other: other.target.kl(model.target)}


def _in_other_units(model: Model) -> dict[str, Callable[..., object]]:
    return {
        "parameters": lambda: 3.0 * model.parameters().flip(0),
        "with_parameters": lambda theta: model.with_parameters(theta.flip(0) / 3.0),
    }


def _mirrored(model: Model) -> dict[str, Callable[..., object]]:
    """The estimate of the rows in reverse, sorted: another order of sums, and the same estimate."""
    return {"fit": lambda x: model.fit(x[x[:, 0].argsort(descending=True)])}


LIKELY, ORDER = "estimation.as_likely_as_the_truth", "estimation.rows_in_any_order"
DOUBLED, AFFINE = "estimation.doubled_data_change_nothing", "estimation.affine_equivariant"
MAXIMAL, STEPS = "estimation.nothing_is_more_likely", "estimation.steps_never_descend"
BATCHES, WILKS = "estimation.minibatch_gradient_is_unbiased", "estimation.twice_the_gain_is_chi_squared"
SLOPE = "estimation.gradient_is_that_of_the_divergence"
RATE = "estimation.divergence_falls_as_one_over_n"

MUTANTS: tuple[Mutant, ...] = (
    Mutant("fit.descends", "a gradient step with the sign lost", LIKELY, _plane, _fitting(_descending), erratum="E05"),
    Mutant("fit.too_wide", "the standard deviations 20 % too wide", LIKELY, _plane, _fitting(_scaled(1.2))),
    Mutant("fit.forgets", "the last row left out", ORDER, _plane, _on(lambda x: x[:-1])),
    Mutant("fit.late_rows", "late rows weigh up to 1.1", ORDER, _plane, _fitting(_late_rows_count_more)),
    Mutant("fit.n_minus_1", "covariance divided by n - 1", DOUBLED, _plane, _fitting(_unbiased), erratum="E03"),
    Mutant("fit.n_minus_1", "covariance divided by n - 1", MAXIMAL, _plane, _fitting(_unbiased), erratum="E03"),
    Mutant("fit.ridge", "0.1 added to the variances", AFFINE, _plane, _fitting(_ridge)),
    Mutant("fit.median", "medians for means", MAXIMAL, _plane, _fitting(_medians)),
    Mutant(
        "fit.of_infinitely_many",
        "argmax of a sum to infinity, not to N",
        MAXIMAL,
        _plane,
        _fitting(_of_infinitely_many),
        erratum="E04",
    ),
    Mutant(
        "fit.history_falls",
        "a log-likelihood that falls by 0.01",
        STEPS,
        _bumps,
        _bumps_with(_falling),
    ),
    Mutant(
        "fit.history_signed",
        "losses where likelihoods are due",
        STEPS,
        _bumps,
        _bumps_with(lambda h: -h),
        erratum="E19",
    ),
    Mutant("gradient.batch", "a density that centres its batch", BATCHES, _plane, _batch_statistics),
    Mutant("kl.swapped", "KL(q, p) for KL(p, q)", SLOPE, _plane, _kl_swapped),
    Mutant("parameters.one_more", "one free parameter too many", WILKS, _plane, _one_parameter_more, erratum="E01"),
    Mutant("fit.shrunk", "the mean shrunk by 3 %", RATE, _plane, _fitting(_shrunk)),
)

NEAR_MISSES: tuple[NearMiss, ...] = (
    NearMiss("fit.one_pass", "E[xx^T] - mu mu^T", LIKELY, _plane, _fitting(_one_pass)),
    NearMiss("fit.by_em", "an estimate found step by step", LIKELY, _bumps, _nothing),
    NearMiss("fit.sorts", "the rows are sorted first", ORDER, _plane, _mirrored),
    NearMiss("fit.one_pass", "E[xx^T] - mu mu^T", DOUBLED, _plane, _fitting(_one_pass)),
    NearMiss("fit.one_pass", "E[xx^T] - mu mu^T", AFFINE, _plane, _fitting(_one_pass)),
    NearMiss("fit.other_units", "parameters in other units and order", MAXIMAL, _plane, _in_other_units),
    NearMiss("fit.in_blocks", "sums over blocks of rows", MAXIMAL, _plane, _fitting(_in_blocks), "E04"),
    NearMiss("fit.at_rest", "a history that stands still at its end", STEPS, _bumps, _nothing),
    NearMiss("fit.other_units", "parameters in other units and order", BATCHES, _plane, _in_other_units),
    NearMiss("fit.other_units", "parameters in other units and order", SLOPE, _plane, _in_other_units),
    NearMiss("fit.other_units", "parameters in other units and order", WILKS, _plane, _in_other_units),
    NearMiss("fit.n_minus_1", "covariance divided by n - 1: biased by 1/n only", RATE, _plane, _fitting(_unbiased)),
)
