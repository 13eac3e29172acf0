r"""Gaussians where some values were not observed, marked NaN; which ones are missing must not depend on their values.

What was observed has a density of its own, the marginal over what was not:

    log p(x_obs) = log N(x_obs; mu_obs, Sigma_obs,obs)

Nothing is filled in, neither zeros nor means: either would be a different event. Rows are grouped by their pattern of
missing entries, and each group is scored at once.

To fit, EM: x_mis is latent. Given the present mu, Sigma, each row has E[x_mis | x_obs] and Cov[x_mis | x_obs], and

    mu' = 1/N sum_i E[x_i | x_obs],     Sigma' = 1/N sum_i E[(x_i - mu')(x_i - mu')^T | x_obs],

where the covariance of what is missing counts in Sigma'; without it, the variances would come out too small.

Sources: Dempster, Laird & Rubin (1977), www.jstor.org/stable/2984875;
Little & Rubin, Statistical Analysis with Missing Data (2nd ed., 2002), section 11.2.
"""

from collections.abc import Iterator

import torch
from torch import Generator, Tensor
from torch.linalg import solve_triangular

from reference_impls.gaussian import DiagonalGaussian, Gaussian
from reference_impls.gaussian_factors import as_floats, checked_draws, factor_of_covariance, lower_factor


def log_prob_observed(model, x: Tensor) -> Tensor:
    """log p(x_obs) for each row of x (n, d), with NaN for what is missing; 0 for a row of which nothing is known.

    The model is any one with `marginal(indices)` and `log_prob`: a Gaussian, a mixture, a latent-variable model.
    """
    (x,) = as_floats(checked_draws(x, model.d))
    log_prob = x.new_zeros(len(x), dtype=torch.promote_types(x.dtype, model.mean().dtype))
    for observed, _, rows in patterns(x):
        if observed:
            log_prob = log_prob.index_put((rows,), model.marginal(observed).log_prob(x[rows][:, observed]))
    return log_prob  # (n,)


def impute(model: Gaussian, x: Tensor, *, generator: Generator | None = None) -> Tensor:
    """x (n, d) with NaN replaced by E[x_mis | x_obs], or given a generator by a draw from p(x_mis | x_obs)."""
    x = as_floats(checked_draws(x, model.d), model.loc)[0].clone()
    if x.isinf().any():
        raise ValueError("x should be of numbers and NaN; drop the rows with infinities")
    for observed, missing, rows in patterns(x):
        mean, factor = _regression(model.loc.to(x), model.cholesky.to(x), x[rows], observed, missing)  # (m, b), (b, b)
        if generator is not None:
            noise = torch.randn(mean.shape, generator=generator, dtype=x.dtype, device=x.device)
            mean = mean + noise @ factor.mT
        x[rows[:, None], missing] = mean
    return x


def fit_observed(x: Tensor, *, tolerance: float = 1e-9, iterations: int = 10_000) -> Gaussian:
    """The Gaussian under which the observed entries of x (n, d) are most likely, by EM; NaN marks the missing ones.

    Stops when a step gains less than `tolerance` nats per row. The model has `history`, the log-likelihood of what was
    observed before each step and after the last. Without missing entries the first step reaches `Gaussian.fit`.
    """
    (x,) = as_floats(x)
    loc, deviation = _observed_moments(x)  # (d,), (d,)
    # Steps are taken in float64 on columns of mean 0 and variance 1, so that units play no part.
    z = (x.double() - loc) / deviation  # (n, d)
    log_units = ((~z.isnan()).double() @ deviation.log()).sum()  # log |dx/dz| over all that is observed
    groups = list(patterns(z))
    _seen_together(~x.isnan())
    model = Gaussian(torch.zeros_like(loc), cholesky=torch.eye(len(loc)).to(z))
    history = [log_prob_observed(model, z).sum() - log_units]
    for _ in range(iterations):
        model = _step(model, z, groups)
        history.append(log_prob_observed(model, z).sum() - log_units)
        if history[-1] - history[-2] <= tolerance * len(z):
            break
    factor = deviation[:, None] * model.cholesky
    fitted = Gaussian((loc + deviation * model.loc).to(x.dtype), cholesky=factor.to(x.dtype))
    fitted.history = torch.stack(history)
    return fitted


def _seen_together(seen: Tensor) -> None:
    """Raises ValueError where no row has both of two columns: then nothing says what their covariance is."""
    apart = seen.double().mT @ seen.double() == 0  # (d, d)
    if apart.any():
        i, j = apart.nonzero()[0].tolist()
        raise ValueError(f"columns {i} and {j} of x were never observed together; fit them apart, or drop one")


def fit_diagonal_observed(x: Tensor) -> DiagonalGaussian:
    """With independent coordinates there is a closed form: mean and variance of what was observed of each."""
    (x,) = as_floats(x)
    loc, deviation = _observed_moments(x)
    return DiagonalGaussian(loc.to(x.dtype), deviation.square().to(x.dtype))


def patterns(x: Tensor) -> Iterator[tuple[list[int], list[int], Tensor]]:
    """For each pattern of missing entries: coordinates observed, coordinates missing, and the rows that have it."""
    kinds, kind_of_row = x.isnan().unique(dim=0, return_inverse=True)  # (m, d), (n,)
    for k, kind in enumerate(kinds):
        observed, missing = (~kind).nonzero()[:, 0].tolist(), kind.nonzero()[:, 0].tolist()
        yield observed, missing, (kind_of_row == k).nonzero()[:, 0]


def _step(model: Gaussian, z: Tensor, groups: list) -> Gaussian:
    """E and M: fill in the expectations, and add the covariance of what was filled in."""
    filled, uncertain = z.clone(), torch.zeros_like(model.cholesky)  # (n, d), (d, d)
    for observed, missing, rows in groups:
        mean, factor = _regression(model.loc, model.cholesky, z[rows], observed, missing)
        filled[rows[:, None], missing] = mean
        block = torch.tensor(missing, dtype=torch.long, device=z.device)
        uncertain[block[:, None], block] += len(rows) * factor @ factor.mT
    loc = filled.mean(0)  # (d,)
    scatter = (filled - loc).mT @ (filled - loc) + uncertain  # (d, d)
    try:
        return Gaussian(loc, cholesky=factor_of_covariance(scatter / len(z)))
    except ValueError as error:
        raise ValueError(
            "the observed entries of x leave the covariance singular: x needs more complete rows, or fewer columns"
        ) from error


def _regression(loc: Tensor, cholesky: Tensor, x: Tensor, a: list[int], b: list[int]) -> tuple[Tensor, Tensor]:
    """E[x_b | x_a] for each row of x, and the factor of Cov[x_b | x_a], which is the same for all; a may be empty."""
    factor, k = lower_factor(cholesky[a + b]), len(a)
    z_a = solve_triangular(factor[:k, :k].mT, x[:, a] - loc[a], upper=True, left=False)  # (n, k)
    return loc[b] + z_a @ factor[k:, :k].mT, factor[k:, k:]  # (n, b), (b, b)


def _observed_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column over what was observed of it."""
    if x.dim() != 2 or len(x) == 0 or x.isinf().any():
        raise ValueError(f"x should be (n, d) with n > 0, of numbers and NaN; it has {tuple(x.shape)}, or infinities")
    seen = ~x.isnan()  # (n, d)
    if not seen.any(0).all():
        raise ValueError(f"column {int((~seen.any(0)).nonzero()[0])} of x was never observed; drop it")
    counts = seen.sum(0)  # (d,)
    loc = torch.where(seen, x.double(), 0).sum(0) / counts
    deviation = (torch.where(seen, x.double() - loc, 0).square().sum(0) / counts).sqrt()
    rounding = counts * torch.finfo(torch.float64).eps * loc.abs()  # by which the mean of equal numbers may be off
    if not (deviation > rounding).all():
        raise ValueError(f"column {int((~(deviation > rounding)).nonzero()[0])} of x is constant; drop it")
    return loc, deviation
