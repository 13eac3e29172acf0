r"""Gradients of an expectation of which the law itself has the parameter: d/d theta E_{q_theta}[f_theta(z)].

"The gradient of the mean is the mean of the gradient" holds where the sampling law has no theta. For z ~ q_theta,

    grad E f = E[grad f] + E[f grad log q]                      score function, or REINFORCE
    grad E f = E[d/d theta f_theta(m_theta + s_theta e)],       reparameterisation, z = m + s e with e ~ N(0, 1)

and E[grad f] alone, with z held fixed, is neither. The first needs no gradient of f with respect to z, and pays for it:
for f(z) = z^2 and z ~ N(mu, 1) both have mean 2 mu; reparameterisation has variance 4, the score function
mu^4 + 14 mu^2 + 15.

Sources: Williams (1992), doi.org/10.1007/BF00992696; Kingma & Welling (2014), arxiv.org/abs/1312.6114;
Mohamed et al. (2020), jmlr.org/papers/v21/19-346.html.
"""

import math

import torch
from torch import Generator, Tensor

LOG_2PI = math.log(2 * math.pi)


def reparameterised(mean: Tensor, log_std: Tensor, *, generator: Generator) -> Tensor:
    """z = m + exp(log s) e with standard normal e: a draw that can be differentiated with respect to m and s."""
    noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
    return mean + log_std.exp() * noise  # the shape of mean


def score_function(f: Tensor, log_q: Tensor) -> Tensor:
    """The numbers f, of which the gradient is grad f + f grad log q. Both are of one draw z that has no graph."""
    return f + f.detach() * (log_q - log_q.detach())


def log_normal(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """log N(x; m, diag(s^2)), summed over the last dimension."""
    return (-((x - mean) * (-log_std).exp()).square() / 2 - log_std - LOG_2PI / 2).sum(-1)


def kl_to_standard_normal(mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(N(m, diag(s^2)) || N(0, I)) = sum (m^2 + s^2 - 1) / 2 - log s, in nats (Kingma & Welling 2014, appendix B)."""
    return ((mean.square() + torch.expm1(2 * log_std)) / 2 - log_std).sum(-1)
