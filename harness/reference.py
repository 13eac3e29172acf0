"""A tractable law fitted to pilot draws: it proposes events, and its density is known exactly.

Mixture of k components, each a full-covariance Gaussian over the continuous coordinates times independent categoricals
over the discrete ones, fitted by EM; the number of components is chosen on held-out pilot draws. Checks that use it
(bridge ratios) hold whatever its fit: a poor one costs power, never validity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int, Shaped
from torch import Tensor

from harness.numerics.rows import finite_rows
from harness.profile import Profile
from harness.streams import generator

COMPONENTS = (1, 2, 4, 8)
EM_STEPS = 20
SELECTION = 2**13


Codes = tuple[Int[Tensor, "n m"], Bool[Tensor, "n m"]]
"""Positions of discrete coordinates in their alphabets, and whether they are in them."""


@dataclass(frozen=True)
class Reference:
    """The fitted law, over the coordinates of a chart: k components, c continuous and m discrete coordinates."""

    profile: Profile
    log_weight: Float64[Tensor, " k"]
    mean: Float64[Tensor, "k c"]
    factor: Float64[Tensor, "k c c"]  # Cholesky
    table: Float64[Tensor, "m values k"]  # log-probabilities; -inf where an alphabet is shorter than the longest

    def sample(
        self, n: int, source: torch.Generator
    ) -> tuple[Shaped[Tensor, " n *event"], Float64[Tensor, "n d"], Float64[Tensor, " n"]]:
        """Events, their coordinates and log-densities with respect to the events' measure."""
        chart = self.profile.chart
        device = chart.location.device
        component = torch.multinomial(self.log_weight.exp(), n, replacement=True, generator=source)
        noise = torch.randn(n, self.mean.shape[1], generator=source, dtype=torch.float64, device=device)
        u = torch.rand(n, len(self.table), generator=source, dtype=torch.float64, device=device)
        cumulative = self.table.exp().cumsum(1)
        continuous, position = torch.empty_like(noise), torch.empty_like(u, dtype=torch.long)
        present = component.unique().tolist()
        for k in present:
            rows = component == k if len(present) > 1 else slice(None)
            continuous[rows] = self.mean[k] + noise[rows] @ self.factor[k].T
            edges = cumulative[:, :, k].contiguous()
            position[rows] = torch.searchsorted(edges, (u[rows] * edges[:, -1]).T.contiguous()).T
        z = torch.empty(n, chart.size, dtype=torch.float64, device=device)
        z[:, ~chart.discrete] = continuous
        if len(self.table):
            letters = self.profile.letters
            values = letters.T.gather(0, position.clamp(max=letters.shape[1] - 1))
            z[:, chart.discrete] = (values - chart.location[chart.discrete]) / chart.scale[chart.discrete]
        white = noise if len(self.mean) == 1 else None
        return chart.events(z), z, self.log_density(z, white)

    def log_density(
        self, z: Float64[Tensor, "n d"], white: Float64[Tensor, "n c"] | None = None
    ) -> Float64[Tensor, " n"]:
        """log q of events with coordinates z; -inf off the alphabets and where coordinates are not finite.

        `white` are the continuous coordinates seen from the only component, where they are at hand.
        """
        log_q = torch.logsumexp(self.log_joint(z, white=white), 1) - self.profile.chart.log_volume(z)
        return torch.where(finite_rows(z), log_q, -torch.inf).nan_to_num(-torch.inf, posinf=torch.inf)

    def log_joint(
        self, z: Float64[Tensor, "n d"], found: Codes | None = None, white: Float64[Tensor, "n c"] | None = None
    ) -> Float64[Tensor, "n k"]:
        """Log-probability of component and coordinates; `found` are the codes of z, where they are at hand."""
        joint = self.log_weight.expand(len(z), -1)
        if self.mean.shape[1]:
            joint = joint + self._log_gaussians(z, white)
        if len(self.table):
            position, known = all_codes(self.profile, z) if found is None else found
            joint = joint + looked_up(self.table, position)
            joint = torch.where(known.all(1, keepdim=True), joint, -torch.inf)
        return joint

    def _log_gaussians(self, z: Tensor, white: Tensor | None) -> Tensor:
        """(n, k): Gaussian log-densities of the continuous coordinates."""
        if white is not None:
            return _log_gaussian(white, self.factor[0])[:, None]
        continuous = z[:, ~self.profile.chart.discrete] if len(self.table) else z
        laws = zip(self.mean, self.factor, strict=True)
        return torch.stack([_log_gaussian(_whitened(continuous, *law), law[1]) for law in laws], 1)


def all_codes(profile: Profile, z: Float64[Tensor, "n d"]) -> tuple[Int[Tensor, "n m"], Bool[Tensor, "n m"]]:
    """Positions of the discrete coordinates of z in their alphabets, and whether they are in them."""
    chart, letters = profile.chart, profile.letters
    values = z[:, chart.discrete] * chart.scale[chart.discrete] + chart.location[chart.discrete]
    gap = letters.diff(dim=1).amin(1).clamp(max=1.0) / 4 if letters.shape[1] > 1 else torch.ones_like(letters[:, 0]) / 4
    position = torch.searchsorted(letters, (values - gap).T.contiguous()).clamp(max=letters.shape[1] - 1)
    known = (letters.gather(1, position) - values.T).abs() < gap[:, None]
    return torch.where(known, position, 0).T, known.T


def codes(profile: Profile, column: Float64[Tensor, " n"], j: int) -> tuple[Int[Tensor, " n"], Bool[Tensor, " n"]]:
    """The same for coordinate j alone, given its standardised values."""
    alphabet = profile.alphabets[j]
    assert alphabet is not None
    value = column * profile.chart.scale[j] + profile.chart.location[j]
    gap = (alphabet.diff().amin() if len(alphabet) > 1 else torch.ones((), device=alphabet.device)) / 4
    position = torch.searchsorted(alphabet, value - gap).clamp(max=len(alphabet) - 1)
    return position, (alphabet[position] - value).abs() < gap


def looked_up(table: Tensor, position: Tensor) -> Tensor:
    """Sum over coordinates of the table's rows at the positions (n, m); (n, k)."""
    m, values, k = table.shape
    flat = table.clamp(min=-1e6).reshape(m * values, k)
    index = position + values * torch.arange(m, device=position.device)
    return torch.nn.functional.embedding_bag(index, flat, mode="sum")


def fit_reference(profile: Profile, seed: int) -> Reference:
    """The mixture whose held-out pilot likelihood is highest."""
    z = profile.chart.coordinates(profile.pilot)
    z = z[finite_rows(z)]
    part = z[:SELECTION]
    half = len(part) // 2
    source = generator(seed, "reference", device=z.device)
    scores: list[tuple[float, int]] = []
    for k in COMPONENTS:
        if k > 1 and half < 20 * k:
            break
        fitted = _fit(profile, part[:half], k, source)
        held_out = torch.logsumexp(fitted.log_joint(part[half:]), 1)
        score = float(held_out[held_out.isfinite()].mean()) if bool(held_out.isfinite().any()) else -math.inf
        if scores and score < scores[-1][0] + 1e-3:
            break
        scores.append((score, k))
    best = max(scores)[1] if scores else 1
    return _fit(profile, z, best, source)


def _fit(profile: Profile, z: Float64[Tensor, "n d"], k: int, source: torch.Generator) -> Reference:
    share = torch.nn.functional.one_hot(_nearest_seed(z, k, source), k).to(z.dtype)
    found = all_codes(profile, z) if bool(profile.chart.discrete.any()) else None
    current = _maximise(profile, z, share, found)
    for _ in range(EM_STEPS if k > 1 else 0):
        share = torch.softmax(current.log_joint(z, found), 1).nan_to_num(1 / k)
        current = _maximise(profile, z, share, found)
    return current


def _nearest_seed(z: Tensor, k: int, source: torch.Generator) -> Tensor:
    """(n,): the nearest of k centres spread by k-means++ and settled by a few Lloyd steps."""
    points = z.clamp(-8, 8)
    centres = points[:1]
    for _ in range(k - 1):
        distance = torch.cdist(points, centres).amin(1).square() + 1e-12
        centres = torch.cat([centres, points[torch.multinomial(distance, 1, generator=source)]])
    nearest = torch.cdist(points, centres).argmin(1)
    for _ in range(5 if k > 1 else 0):
        total = torch.zeros_like(centres).index_add_(0, nearest, points)
        count = torch.bincount(nearest, minlength=k).to(points)[:, None]
        centres = torch.where(count > 0, total / count.clamp(min=1), centres)
        nearest = torch.cdist(points, centres).argmin(1)
    return nearest


def _maximise(profile: Profile, z: Tensor, share: Tensor, found: Codes | None) -> Reference:
    """Weighted maximum likelihood, smoothed so that every direction and every value of an alphabet keeps some mass."""
    chart = profile.chart
    weight = share.sum(0) + 1e-3  # (k,)
    continuous = z[:, ~chart.discrete]
    mean = share.T @ continuous / weight[:, None]
    factors = [_factor(continuous - mean[k], share[:, k], float(weight[k])) for k in range(share.shape[1])]
    factor = torch.stack(factors) if factors else torch.empty(0)
    return Reference(profile, torch.log(weight / weight.sum()), mean, factor, _tables(profile, share, found))


def _tables(profile: Profile, share: Tensor, found: Codes | None) -> Tensor:
    """(m, values, k): log-frequencies of the values of each discrete coordinate in each component."""
    if found is None:
        return torch.empty(0, 1, share.shape[1], dtype=share.dtype, device=share.device)
    letters = profile.letters
    m, values = letters.shape
    position, known = found
    index = (position + values * torch.arange(m, device=share.device)).flatten()
    counts = torch.stack(
        [torch.bincount(index, (share[:, k, None] * known).flatten(), m * values) for k in range(share.shape[1])], 1
    )
    possible = (letters < 1e12).reshape(m, values, 1)
    return _smoothed(counts.reshape(m, values, -1), possible).log()


def _factor(centred: Tensor, share: Tensor, weight: float) -> Tensor:
    """Cholesky factor of a component's covariance, drawn to its diagonal as draws per coordinate get few."""
    c = centred.shape[1]
    covariance = (centred * share[:, None]).T @ centred / weight
    shrink = min(1.0, (c / max(weight, 1.0)) ** 2 + 1e-9)
    diagonal = covariance.diagonal().clamp(min=1e-12)
    covariance = (1 - shrink) * covariance + torch.diag(shrink * diagonal + 1e-9 * diagonal)
    factor, trouble = torch.linalg.cholesky_ex(covariance)
    return factor if not bool(trouble) else torch.diag(diagonal.sqrt())


def _smoothed(counts: Tensor, possible: Tensor) -> Tensor:
    """Counts (m, values, k) to probabilities: half a draw more for each value seen, and a little for the others.

    All discrete coordinates together propose a value that was never seen in one event out of ten.
    """
    m, values, k = counts.shape
    seen = counts.sum(2, keepdim=True) > 0
    if values > 64:
        width = max(1, int(values / (2 * max(float(counts[0].sum()), 1.0) ** (1 / 3))))
        kernel = torch.ones(1, 1, 2 * width + 1, dtype=counts.dtype, device=counts.device) / (2 * width + 1)
        flat = counts.permute(0, 2, 1).reshape(m * k, 1, values)
        counts = torch.nn.functional.conv1d(flat, kernel, padding=width).reshape(m, k, values).permute(0, 2, 1)
    shares = (counts + 0.5 * seen) * possible
    shares = shares / shares.sum(1, keepdim=True).clamp(min=1e-300)
    others = (~seen & possible).double()
    count = others.sum(1, keepdim=True)
    unseen = torch.where(count > 0, min(0.02, 0.1 / m), 0.0)
    return (1 - unseen) * shares + unseen * others / count.clamp(min=1)


def _whitened(z: Tensor, mean: Tensor, factor: Tensor) -> Tensor:
    """Rows of z (n, c) as standard normal numbers of the Gaussian."""
    return torch.linalg.solve_triangular(factor, (z - mean).T, upper=False).T


def _log_gaussian(white: Tensor, factor: Tensor) -> Tensor:
    """(n,): the Gaussian log-density of rows that were whitened (n, c)."""
    log_volume = factor.diagonal().log().sum() + 0.5 * white.shape[1] * math.log(2 * math.pi)
    return -0.5 * white.square().sum(1) - log_volume
