"""The two steps of EM for mixtures of Gaussians, on draws that are columns: what `mixture` climbs the likelihood with.

E: r_ik = p(y_i = k | z_i).     M: maximise sum_ik r_ik [log pi_k + log N(z_i; mu_k, Sigma_k)], Sigma_k >= floor I.

Sources: Dempster, Laird & Rubin (1977), www.jstor.org/stable/2984875;
Hathaway (1985), doi.org/10.1214/aos/1176349557, on the floor.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from reference_impls.gaussian import LOG_2PI
from reference_impls.gaussian_factors import chunk_rows, inverse_factor, lower_factor


@dataclass(frozen=True)
class Modes:
    """pi_k, mu_k and the scales: Cholesky factors of full or tied covariances, deviations of diagonal ones."""

    kind: str
    weights: Tensor  # (k,)
    means: Tensor  # (k, d)
    scales: Tensor  # (k, d, d) or (k, d)


@dataclass(frozen=True)
class Sums:
    """Over draws, weighted by r_ik: of 1, of the whitened offsets u = L_k^-1 (z_i - mu_k), and of u u^T, or of u^2.

    About the means of the E step and in the units of its scales, so that little cancels: the next ones lie near them.
    """

    counts: Tensor  # (k,)
    offsets: Tensor  # (k, d)
    squares: Tensor  # (k, d, d) or (k, d)


@torch.no_grad()
def e_step(modes: Modes, z: Tensor) -> tuple[Tensor, Sums]:
    """sum_i log p(z_i) of the draws z (d + 1, n), above a row of ones, and what the M step needs of p(y | z).

    In one pass over some columns at a time, and in two buffers: to ask the system for new memory at each operation
    would take longer than the operations do. The row of ones lets one product of matrices subtract L_k^-1 mu_k, and
    another one sum the offsets beside their squares. That second product is of whole blocks with z itself, which loses
    no digits that its own rounding has not: the draws are whitened.
    """
    (K, d), n = modes.means.shape, z.shape[1]
    full = modes.scales.dim() == 3
    to_white, log_scale = _to_white(modes)
    log_likelihood, counts = z.new_zeros(()), z.new_zeros(K)
    products = z.new_zeros(d + 1, K * d) if full else z.new_zeros(2, K, d)
    step = min(chunk_rows(z, K * d), n)
    buffers = z.new_empty(2, K * d * step)
    for some in z.split(step, dim=1):
        u, squares = (buffer[: K * d * some.shape[1]].view(K * d, -1) for buffer in buffers)
        torch.square(torch.mm(to_white, some, out=u), out=squares)
        u, squares = u.view(K, d, -1), squares.view(K, d, -1)
        joint = squares.sum(1).mul_(-0.5).add_(log_scale)  # (k, columns)
        top = joint.amax(0)
        r = joint.sub_(top).exp_()
        total = r.sum(0)
        log_likelihood += (top + total.log()).sum()
        r /= total  # p(y | z)
        counts += r.sum(1)
        if full:
            products += some @ u.mul_(r[:, None]).view(K * d, -1).mT
        else:
            products += torch.stack([(u @ r[:, :, None]), (squares @ r[:, :, None])])[..., 0]
    if not full:
        return log_likelihood, Sums(counts, *products)
    offsets = products[d].view(K, d)
    with_z = products[:d].view(d, K, d).permute(1, 0, 2)  # (k, d, d): sum_i r_ik z_i u_ik^T
    about_mean = with_z - modes.means[:, :, None] * offsets[:, None, :]
    return log_likelihood, Sums(counts, offsets, to_white.view(K, d, d + 1)[..., :d] @ about_mean)


def _to_white(modes: Modes) -> tuple[Tensor, Tensor]:
    """The matrices [L_k^-1, -L_k^-1 mu_k], one above the other (k d, d + 1), and log pi_k - log det L_k + constant."""
    K, d = modes.means.shape
    if modes.scales.dim() == 3:
        matrix, diagonal = inverse_factor(modes.scales), modes.scales.diagonal(dim1=-2, dim2=-1)
    else:
        matrix, diagonal = modes.scales.reciprocal().diag_embed(), modes.scales
    shift = matrix @ modes.means[:, :, None]  # (k, d, 1)
    log_scale = modes.weights.log() - diagonal.log().sum(-1) - d / 2 * LOG_2PI
    return torch.cat([matrix, -shift], -1).view(K * d, d + 1), log_scale[:, None]


def m_step(modes: Modes, seen: Sums, floor: float) -> Modes:
    """Weighted maximum likelihood under Sigma_k >= floor I.

    For one Gaussian that is -1/2 [log det Sigma + tr(Sigma^-1 S)] with S the weighted covariance; the maximiser keeps
    the eigenvectors of S and lifts its eigenvalues to the floor. A tied Sigma sees the average of the S_k, a diagonal
    one the diagonal of S_k, and a spherical one the mean of that diagonal; each is lifted to the floor likewise.
    """
    counts = seen.counts.clamp_min(torch.finfo(seen.counts.dtype).tiny)
    weights, step = seen.counts / seen.counts.sum(), seen.offsets / counts[:, None]  # by which u moves, (k, d)
    if modes.scales.dim() == 2:
        variance = (seen.squares / counts[:, None] - step.square()) * modes.scales.square()  # (k, d)
        if modes.kind == "spherical":
            variance = variance.mean(1, keepdim=True).expand_as(variance)
        return Modes(modes.kind, weights, modes.means + modes.scales * step, variance.clamp_min(floor).sqrt())
    means = modes.means + (modes.scales @ step[:, :, None])[..., 0]
    scatter = seen.squares / counts[:, None, None] - step[:, :, None] * step[:, None, :]
    scatter = modes.scales @ scatter @ modes.scales.mT  # (k, d, d)
    scatter = (scatter + scatter.mT) / 2
    if modes.kind == "tied":
        factor = _lifted(torch.tensordot(weights, scatter, 1), floor)
        return Modes(modes.kind, weights, means, factor.expand_as(scatter))
    return Modes(modes.kind, weights, means, _lifted(scatter, floor))


def _lifted(scatter: Tensor, floor: float) -> Tensor:
    """The Cholesky factors of matrices S (..., d, d) with their eigenvalues lifted to the floor.

    If each S - floor I has such a factor too, all eigenvalues are above the floor, and there is nothing to lift.
    """
    least = floor * torch.eye(scatter.shape[-1]).to(scatter)
    if not torch.linalg.cholesky_ex(scatter - least).info.any():
        return torch.linalg.cholesky(scatter)
    eigenvalues, axes = torch.linalg.eigh(scatter)  # (..., d), (..., d, d)
    return lower_factor(axes * eigenvalues.clamp_min(floor).sqrt()[..., None, :])  # (..., d, d)
