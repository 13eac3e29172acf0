r"""A number of mean zero that knows how log p falls off: the answer of the density to a stretch of the event.

Let T be any invertible map and q the density of :math:`T^{-1} x` when x is drawn from p, so that
:math:`q(x) = p(Tx) |T'(x)|`. Then :math:`\int p \, q / (p + q)` can be read as a mean under p and as one under q,

.. math:: E_p\Big[\frac{q}{p + q}(x)\Big] = E_q\Big[\frac{p}{p + q}(y)\Big]
                                          = E_p\Big[\frac{p}{p + q}(T^{-1} x)\Big],

and the difference of the two numbers has mean zero whatever p is: no derivative, no moment, no normalisation and no
smooth edge is asked for (Meng & Wong 1996, Statistica Sinica 6:831, is the identity). For a stretch by a factor near 1
about a centre c it tends to :math:`(x - c)^T \nabla \log p + d`, the control variate of Stein's identity (Assaraf &
Caffarel 1999, https://doi.org/10.1103/PhysRevLett.83.4682; Oates et al. 2017, https://doi.org/10.1111/rssb.12185),
which for a Gaussian is :math:`d - (x - c)^T \Lambda (x - \mu)`: all that varies in log p.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from harness.draws import log_density, within
from harness.errors import out_of_memory
from harness.subject import Subject

STEP = 0.25
"""The stretch is so small that log q - log p of a Gaussian has this standard deviation: then it is nearly linear."""


def stretchable(subject: Subject) -> bool:
    """Are events free numbers, which may be multiplied, and does the model answer when they are?"""
    chart = subject.profile.chart
    if chart.transform is not None or bool(chart.discrete.any()):
        return False
    pilot = subject.pilot
    try:
        answer = stretch(subject, pilot, log_density(subject, pilot))
    except Exception as refusal:  # of events, by a model that is not asked for them here, nor by the bridge laws
        if out_of_memory(refusal):
            raise
        return False
    inside = within(subject, torch.cat([_moved(subject, pilot, sign) for sign in (1, -1)]))
    return bool(answer.isfinite().all()) and bool(inside.all())


def stretch(subject: Subject, x: Tensor, log_p: Tensor) -> Tensor:
    """(n, 1): 2/h (q/(p + q)(x) - p/(p + q)(T^-1 x)), for the stretch T by e^h about the centre of the chart."""
    step = _step(subject)
    volume = step * x[0].numel()
    wider = log_density(subject, _moved(subject, x, 1)) - log_p + volume  # log q/p at x
    narrower = log_density(subject, _moved(subject, x, -1)) - log_p - volume  # log p/q at T^-1 x
    return (2 / step * (torch.sigmoid(wider) - torch.sigmoid(narrower)))[:, None]


def _step(subject: Subject) -> float:
    return STEP / math.sqrt(2 * subject.profile.size)


def _moved(subject: Subject, x: Tensor, sign: int) -> Tensor:
    """The events after the stretch (sign 1) or its inverse (-1)."""
    centre = subject.profile.chart.location.reshape(x.shape[1:])
    factor = math.exp(sign * _step(subject))
    return (centre + factor * (x.to(torch.float64) - centre)).to(x.dtype)
