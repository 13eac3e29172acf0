"""How far a correctly computed log-density may lie from the exact one."""

import pytest
import torch


def gaussian_rounding(model, x, dtype):
    r"""A first-order bound on the rounding error of log N(x; mu, L L^T) computed in `dtype`, for each row of x.

    With z = L^-1 (x - mu): the rounding of L, that of x - mu, and forward substitution move z by at most
    (d + 2) eps |L^-1| |L| |z|, componentwise (Higham 2002, theorem 8.5), hence ||z||^2 / 2 by |z|^T times that, and
    squaring and summing by another (d + 1) eps ||z||^2 / 2. Each log L_ii is off by eps (1 + |log L_ii|), and their sum
    and the constants by as much again for each of d + 2 additions. If L came from Sigma by a Cholesky factorisation in
    float64, Sigma was in effect moved by d eps64 relative to its diagonal, which the condition number of the
    correlation matrix amplifies, in the quadratic form and in the determinant.
    """
    eps, eps64 = torch.finfo(dtype).eps, torch.finfo(torch.float64).eps
    d, L = model.d, model.cholesky.double()
    z = torch.linalg.solve_triangular(L, (x.double() - model.loc.double()).mT, upper=False).mT.abs()  # (n, d)
    amplified = z @ (torch.linalg.inv(L).abs() @ L.abs()).mT  # (n, d)
    square = z.square().sum(-1)
    log_det = (1 + L.diagonal().log().abs()).sum()
    correlation = L / torch.linalg.vector_norm(L, dim=1, keepdim=True)
    condition = torch.linalg.cond(correlation) ** 2
    arithmetic = (d + 2) * (z * amplified).sum(-1) + (d + 1) * square / 2 + (d + 3) * (log_det + 2 * d)
    return eps * arithmetic + d * eps64 * condition * (square + d)


@pytest.fixture(scope="session")
def rounding_of_log_prob():
    return gaussian_rounding
