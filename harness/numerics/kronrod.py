"""The Gauss-Kronrod pair of 10 and 21 points on [-1, 1], both ends added with weight 0, and a second opinion of it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def _kronrod() -> tuple[Tensor, Tensor, Tensor]:
    """Nodes on [-1, 1] with both ends added, weights of Kronrod's 21 and of Gauss's 10 points (0 elsewhere).

    Source: QUADPACK dqk21 (https://netlib.org/quadpack/dqk21.f).
    """
    x = [
        0.995657163025808080735527280689003, 0.973906528517171720077964012084452, 0.930157491355708226001207180059508,
        0.865063366688984510732096688423493, 0.780817726586416897063717578345042, 0.679409568299024406234327365114874,
        0.562757134668604683339000099272694, 0.433395394129247190799265943165784, 0.294392862701460198131126603103866,
        0.148874338981631210884826001129720, 0.0,
    ]  # fmt: skip
    kronrod = [
        0.011694638867371874278064396062192, 0.032558162307964727478818972459390, 0.054755896574351996031381300244580,
        0.075039674810919952767043140916190, 0.093125454583697605535065465083366, 0.109387158802297641899210590325805,
        0.123491976262065851077958109585166, 0.134709217311473325928054001771707, 0.142775938577060080797094273138717,
        0.147739104901338491374841515972068, 0.149445554002916905664936468389821,
    ]  # fmt: skip
    gauss = [
        0.066671344308688137593568809893332, 0.149451349150580593145863397657697, 0.219086362515982043995534934228163,
        0.269266719309996355091226921569469, 0.295524224714752870173815619188769,
    ]  # fmt: skip
    half = [0.0] * 11
    half[1::2] = gauss

    def mirror(values: list[float], sign: float, end: float) -> list[float]:
        return [sign * end, *(sign * v for v in values), *values[-2::-1], end]

    columns = mirror(x, -1.0, 1.0), mirror(kronrod, 1.0, 0.0), mirror(half, 1.0, 0.0)
    nodes, wk, wg = (torch.tensor(c, dtype=torch.float64) for c in columns)
    return nodes, wk, wg


NODES, KRONROD, GAUSS = _kronrod()
LOG_KRONROD = KRONROD.log()


def _others() -> Tensor:
    """Weights of the interpolatory rule on the 11 Kronrod points that are not Gauss points (0 elsewhere)."""
    chosen = ((KRONROD > 0) & (GAUSS == 0)).nonzero()[:, 0]
    degrees = np.polynomial.legendre.legvander(NODES[chosen].numpy(), len(chosen) - 1).T
    weights = np.linalg.solve(degrees, 2.0 * (np.arange(len(chosen)) == 0))
    return torch.zeros_like(NODES).index_put((chosen,), torch.from_numpy(weights))


OTHER_SHARE = torch.where(KRONROD > 0, _others() / KRONROD.clamp(min=1e-300), 0.0)
GAUSS_SHARE = torch.where(KRONROD > 0, GAUSS / KRONROD.clamp(min=1e-300), 0.0)
"""Weights of the other rules relative to Kronrod's: multiply its terms by these."""
