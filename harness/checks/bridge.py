"""Laws that tie the sampler to the density through a reference law q: bridge identities.

When the sampler draws from p, and p integrates to 1, then for every bounded g

    E_p[g 2q / (p + q)] = E_q[g 2p / (p + q)],

since both sides are the integral of 2 g p q / (p + q) (Meng & Wong 1996). Every number is bounded whatever the model,
so the evidence is exact at finite n; how well q fits decides the power alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Float64, Int, Shaped
from torch import Tensor

from harness import features
from harness.checks.coarseness import require_resolution
from harness.checks.law import Check, NotApplicable, statistical
from harness.checks.oracle import mass_of
from harness.draws import Draws, Proposals, log_density
from harness.statistics.accumulator import Accumulator
from harness.statistics.bernstein import BoundedMean, Sums
from harness.subject import Subject

SOUND = (
    "density.integrates_to_one",
    "density.sums_to_one",
    "sample.finite",
    "support.draws_are_possible",
)
"""Checks that must not have failed: a density of the wrong mass, or draws that are none, break every identity here."""

LEAST_OVERLAP = 0.1


def bridge_weights(draws: Draws) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]:
    """2q/(p+q) at the model's draws and 2p/(p+q) at the proposals, over their overlap; in [0, 2/overlap]."""
    scale = 2 / overlap(draws.subject)
    proposals = draws.proposals
    at_draws = torch.where(draws.within, _share(draws.log_q - draws.log_p), 0.0)
    return scale * at_draws, scale * _share(proposals.log_p - proposals.log_q)


def overlap(subject: Subject) -> float:
    """The integral of 2pq / (p + q), once p is normalised: 1 when q is p, 0 when they have no event in common.

    Where q does not reach, a bridge sees nothing: its numbers are divided by the overlap, so that a defect counts about
    as much as it weighs, and with too little of it the law does not apply. Estimated on draws of its own; the constant
    by which p may be off is estimated too (Bennett's acceptance ratio), so that it does not pass for a lack of overlap.
    """

    def work() -> float:
        x = subject.sample(2**11, "overlap")
        y = Proposals(subject, -2, len(x))
        z, log_p = subject.profile.chart.coordinates(x), log_density(subject, x)
        at_draws, at_proposals = subject.reference.log_density(z) - log_p, y.log_p - y.log_q
        low, high = -1e4, 1e4  # of log(normalising constant of p)
        for _ in range(60):
            middle = (low + high) / 2
            excess = float(_share(at_draws + middle).mean() - _share(at_proposals - middle).mean())
            low, high = (low, middle) if excess > 0 else (middle, high)
        return float(2 * _share(at_draws + middle).mean())

    require_resolution(subject)
    found = subject.once("overlap", work)
    if not found >= LEAST_OVERLAP:
        raise NotApplicable(f"the reference law covers too little of the model to tell (overlap {found:.2g})")
    return found


def _bridged(reach: float) -> Callable[[Subject], Accumulator]:
    """The statistic of numbers that are bounded by reach / overlap."""

    def start(subject: Subject) -> Accumulator:
        bound = reach / overlap(subject) * (1 + 1e-9)
        return BoundedMean(-bound, bound)

    return start


def _mass_start(subject: Subject) -> Accumulator:
    """Where the mass was worked out, a difference here would be the sampler's, and `sampler.bridge` sees it."""
    try:
        known = mass_of(subject)
    except NotApplicable:
        return _bridged(2.0)(subject)
    if known.total_error < 1e-3 and abs(known.total - 1) < 1e-3:
        raise NotApplicable("the mass was worked out exactly; see density.integrates_to_one and density.sums_to_one")
    return _bridged(2.0)(subject)


def _share(log_ratio: Tensor) -> Tensor:
    return torch.sigmoid(log_ratio)


@statistical(
    "density.bridge_mass",
    needs=("sample", "log_prob"),
    blocked_by=SOUND,
    start=_mass_start,
    unit="of the mass",
    source="Bennett 1976; Meng & Wong 1996, https://www3.stat.sinica.edu.tw/statistica/j6n4/j6n43/j6n43.htm",
)
def bridge_mass(draws: Draws) -> Float64[Tensor, " n"]:
    r"""E_p[2q / (p + q)] = E_q[2p / (p + q)]: density and sampler carry the same mass.

    Both sides are the integral of 2pq / (p + q) when the sampler draws from p and p integrates to 1. A density that is
    off by a constant c moves the difference by about c; so does a sampler that leaves out a part of mass c, or that
    draws from another law than p. Above a few dimensions nothing tells these apart for certain.
    """
    at_draws, at_proposals = bridge_weights(draws)
    return at_draws - at_proposals


@statistical(
    "sampler.bridge",
    needs=("sample", "log_prob"),
    blocked_by=("density.bridge_mass", *SOUND),
    start=_bridged(5.0),
    labels=features.labels,
    unit="probability",
    source="Meng & Wong 1996, https://www3.stat.sinica.edu.tw/statistica/j6n4/j6n43/j6n43.htm",
)
def bridge(draws: Draws) -> Sums:
    r"""E_p[g 2q / (p + q)] = E_q[g 2p / (p + q)] for every bounded g: the sampler draws from the density.

    Both sides are the integral of 2gpq / (p + q). g runs over location, scale, tails and values of each coordinate,
    radius and log-density. With q fitted to pilot draws the weights are near 1, and the sides differ by E g under
    the sampler minus E g under the density.

    Each draw, and each proposal, counts as an observation of its own, twice its number so that their mean is the
    difference; squares are about the pilot mean c of g. With U, V the centred observations of a pair, E U = a and
    E V = -b, (1 + l a)(1 - l b) <= (1 + l (a - b) / 2)^2, so `statistics.bernstein` holds as for 2n observations of
    mean (a - b) / 2.
    """
    subject, proposals = draws.subject, draws.proposals
    at_draws, at_proposals = bridge_weights(draws)
    sum_x, square_x = features.weighted_sums(subject, draws.z, draws.log_p, at_draws)
    sum_y, square_y = features.weighted_sums(subject, proposals.z, proposals.log_p, at_proposals)
    centre = subject.once("centres of columns", lambda: _pilot_means(subject))
    squares = square_x + square_y - 2 * centre * (sum_x + sum_y) + 2 * draws.n * centre.square()
    return Sums(2 * draws.n, 2 * (sum_x - sum_y), 4 * squares.clamp(min=0))


def _pilot_means(subject: Subject) -> Tensor:
    """(k,): pilot means of the dictionary's columns."""
    x = subject.pilot[: 2**12]
    z, log_p = subject.profile.chart.coordinates(x), log_density(subject, x)
    return features.weighted_sums(subject, z, log_p, torch.ones_like(log_p))[0] / len(x)


@statistical(
    "sampler.bridge_pairs",
    needs=("sample", "log_prob"),
    blocked_by=("density.bridge_mass", *SOUND),
    start=_bridged(2.0),
    labels=lambda subject: [f"coordinates {j} and {k}" for j, k in pair_indices(subject).T.tolist()],
    unit="probability",
    source="Meng & Wong 1996, https://www3.stat.sinica.edu.tw/statistica/j6n4/j6n43/j6n43.htm",
)
def bridge_pairs(draws: Draws) -> Sums:
    r"""E_p[g 2q / (p + q)] = E_q[g 2p / (p + q)] for g = u_j u_k / 2, u = tanh z - E tanh z: dependence agrees.

    The bridge identity for products of two coordinates. All pairs are summed as matrix products, never a row at a time.
    """
    at_draws, at_proposals = (weight.float() for weight in bridge_weights(draws))
    chosen, centre = _pair_coordinates(draws.subject)
    u = _squashed(draws.z, chosen) - centre
    v = _squashed(draws.proposals.z, chosen) - centre
    total = _gram(u, u, at_draws) - _gram(v, v, at_proposals)
    squares = _gram(u.square(), u.square(), at_draws.square()) + _gram(v.square(), v.square(), at_proposals.square())
    cross = u * v
    squares = squares - 2 * _gram(cross, cross, at_draws * at_proposals)
    j, k = torch.triu_indices(len(chosen), len(chosen), 1, device=u.device)
    return Sums(draws.n, total[j, k].cpu() / 2, squares[j, k].clamp(min=0).cpu() / 4)


MAX_PAIRED = 128
"""Coordinates of which all pairs are watched; of longer events, as many chosen at random."""


def pair_indices(subject: Subject) -> Int[Tensor, "2 pairs"]:
    """The coordinates of each pair."""
    chosen, _ = _pair_coordinates(subject)
    return chosen[torch.triu_indices(len(chosen), len(chosen), 1, device=chosen.device)]


def _pair_coordinates(subject: Subject) -> tuple[Tensor, Tensor]:
    """Which coordinates are paired, and the pilot mean of tanh z of each."""

    def work() -> tuple[Tensor, Tensor]:
        size = subject.profile.size
        if size < 2:
            raise NotApplicable("an event has one coordinate only: there is no pair")
        order = torch.randperm(size, generator=subject.generator("pairs"), device=subject.model.device)
        chosen = order[:MAX_PAIRED].sort().values
        z = subject.profile.chart.coordinates(subject.pilot)
        return chosen, _squashed(z, chosen).double().mean(0).float()

    return subject.once("paired coordinates", work)


def _squashed(z: Float64[Tensor, "n d"], chosen: Int[Tensor, " m"]) -> Float[Tensor, "n m"]:
    """tanh of the chosen coordinates."""
    some = z if len(chosen) == z.shape[1] else z[:, chosen]
    return torch.tanh(_tame(some).float())


def _tame(z: Tensor) -> Tensor:
    return z.nan_to_num(0.0, 1e3, -1e3)


def _gram(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Sum over rows of weight * a_j * b_k, accumulated in float64 over blocks; (d, d)."""
    blocks = zip(a.split(4096), b.split(4096), weight.split(4096), strict=True)
    return torch.stack([((x * w[:, None]).T @ y).double() for x, y, w in blocks]).sum(0)


@statistical(
    "sampler.adversary",
    needs=("sample", "log_prob"),
    blocked_by=("density.bridge_mass", *SOUND),
    start=lambda subject: AdversaryMean(subject),
    tolerance=0.5,
    unit="probability",
    source="Lopez-Paz & Oquab 2017, https://arxiv.org/abs/1610.06545; Shekhar & Ramdas 2023, "
    "https://arxiv.org/abs/2112.09162",
)
def adversary(draws: Draws) -> Float64[Tensor, "n 2 w"]:
    r"""E_p[g 2q / (p + q)] = E_q[g 2p / (p + q)] for the g that earlier draws make most suspicious.

    g = tanh(w . features) / 2, where w separates the weighted draws and proposals of all earlier chunks best (Fisher's
    discriminant on location, scale and random cosine features). It is fixed before the draws that it is judged on, so
    the identity and its evidence hold however it was found.
    """
    at_draws, at_proposals = bridge_weights(draws)
    y = draws.proposals
    sides = (draws.z, draws.log_p - draws.log_q, at_draws), (y.z, y.log_p - y.log_q, at_proposals)
    return torch.stack([_side(*side) for side in sides], 1)


def _side(z: Float64[Tensor, "n d"], log_ratio: Float64[Tensor, " n"], weight: Tensor) -> Float64[Tensor, "n w"]:
    """What a witness sees of events, in w = d + 2 columns: coordinates, log p/q, and their weight in the bridge."""
    return torch.cat([z, log_ratio[:, None], weight[:, None]], 1)


class AdversaryMean(BoundedMean):
    """The mean of a witness's numbers. It learns here, and not where several readers of one subject would share it."""

    def __init__(self, subject: Subject):
        bound = 2 / overlap(subject) * (1 + 1e-9)
        super().__init__(-bound, bound)
        self.adversary = Adversary(subject)

    def update(self, values: Shaped[Tensor, "n 2 w"] | Sums) -> None:
        """Judge a chunk by the witness as it is, then let it learn from the chunk."""
        assert isinstance(values, Tensor)
        super().update(self.adversary.judged(values))


BLOCK_NUMBERS = 2**18
"""Features that are made at a time."""

RIDGE = 0.1
"""Ridge of the witness, in units of the mean variance of its features: keeps it off directions that are all noise."""


class Adversary:
    """A linear witness over bounded features, refitted after every chunk; memory does not grow."""

    COSINES = 128
    MARGINAL = 128

    def __init__(self, subject: Subject):
        source = subject.generator("adversary")
        d = subject.profile.size
        device = subject.model.device
        cosines = min(self.COSINES, 32 * d)
        width = torch.rand(cosines, generator=source, device=device) * 2.0
        self.frequencies = torch.randn(d, cosines, generator=source, device=device) * width / d**0.5
        self.phases = torch.rand(cosines, generator=source, device=device) * 2 * torch.pi
        self.watched = torch.randperm(d, generator=source, device=device)[: self.MARGINAL].sort().values
        self.learned = 0
        m = 2 * len(self.watched) + cosines + 1
        self.difference, self.centre, self.weights = torch.zeros(3, m, dtype=torch.float64, device=device)
        self.outer = torch.zeros(m, m, dtype=torch.float64, device=device)
        self.offset, self.scale = 0.0, 1.0
        # Not the pilot: the reference was fitted to it, so there it looks better than it is.
        x = subject.sample(len(subject.pilot), "adversary")
        y = Proposals(subject, -1, len(x))
        z, log_p = subject.profile.chart.coordinates(x), log_density(subject, x)
        log_q = subject.reference.log_density(z)
        scale = 2 / overlap(subject)
        sides = (
            _side(z, log_p - log_q, scale * _share(log_q - log_p)),
            _side(y.z, y.log_p - y.log_q, scale * _share(y.log_p - y.log_q)),
        )
        self.judged(torch.stack(sides, 1))

    def judged(self, seen: Float64[Tensor, "n 2 w"]) -> Float64[Tensor, " n"]:
        """The witness at draws, less the witness at proposals, each with its weight in the bridge. Then it learns."""
        rows = max(1, BLOCK_NUMBERS // (2 * len(self.weights)))  # as many as stay in the cache
        numbers = torch.cat([self._block(block) for block in seen.split(rows)])
        self._refit()
        return numbers

    def _block(self, seen: Float64[Tensor, "b 2 w"]) -> Float64[Tensor, " b"]:
        """The numbers of a few rows, which join the sums that the next witness is fitted on."""
        flat = seen.flatten(0, 1)
        f = self._features(flat[:, :-2], flat[:, -2])  # (2 b, m)
        weight = seen[:, :, -1] * seen.new_tensor([1.0, -1.0])
        self.learned += len(f)
        self.difference += weight.flatten().float() @ f
        self.outer += f.T @ f
        self.centre += f.sum(0)
        witness = torch.tanh(((f @ self.weights.float()).double() - self.offset) / self.scale) / 2
        return (witness.reshape(-1, 2) * weight).sum(1)

    def _features(self, z: Float64[Tensor, "n d"], log_ratio: Float64[Tensor, " n"]) -> Float[Tensor, "n m"]:
        """Bounded features of coordinates and of log p/q."""
        z = z.float().nan_to_num(0.0).clamp(-1e3, 1e3)
        some = z if len(self.watched) == z.shape[1] else z[:, self.watched]
        square = some.square()
        cosines = torch.addmm(self.phases, z.clamp(-30, 30), self.frequencies).cos_()
        ratio = torch.tanh(log_ratio.nan_to_num(0.0, 1e3, -1e3).float() / 2)[:, None]
        return torch.cat([torch.tanh(some), square / (1 + square), cosines, ratio], 1)

    def _refit(self) -> None:
        """Fisher's discriminant, from running sums."""
        mean = self.centre / self.learned
        covariance = self.outer / self.learned - mean[:, None] * mean
        ridge = torch.eye(len(mean), dtype=mean.dtype, device=mean.device) * (
            covariance.diagonal().mean() * RIDGE + 1e-9
        )
        self.weights = torch.linalg.solve(covariance + ridge, self.difference / self.learned)
        self.offset = float(mean @ self.weights)
        self.scale = float((self.weights @ covariance @ self.weights).clamp(min=1e-30).sqrt())


CHECKS: tuple[Check, ...] = (bridge_mass, bridge, bridge_pairs, adversary)
