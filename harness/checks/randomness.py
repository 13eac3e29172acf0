"""Laws of the sampler's randomness: a function of the generator's state alone, and independent from draw to draw."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from harness.checks.law import Check, NotApplicable, bounded, exact, statistical
from harness.checks.pairing import (
    at_lag,
    calls_after,
    duplicates,
    feature_labels,
    features,
    keys,
    products,
    repeats,
    with_mean,
)
from harness.checks.surface import broken
from harness.draws import Draws
from harness.evidence import Exact
from harness.numerics.rows import finite_rows
from harness.statistics.bernstein import BoundedMean
from harness.statistics.binomial import BinomialCount
from harness.subject import Subject

ROWS = 257
"""Draws that are compared bit by bit: an odd number, and more than one block of any vectorised generator."""

SMALL_CALLS, SMALL = 256, 16
"""Calls a chunk, and draws a call, of the law that looks at whole calls."""

LEAST_COVARIANCE = -1 / (4 * (SMALL - 1))
"""Of two of 16 exchangeable numbers in [-1/2, 1/2]: their sum has no negative variance."""


@exact("sample.repeats_under_generator", needs=("sample",))
def sample_repeats_under_generator(subject: Subject) -> Exact:
    """Equal generator states give equal draws, bit by bit, and equal states afterwards.

    Without it no failure can be reproduced. Draws from another source than the generator break it.
    """
    first, second = subject.generator("surface"), subject.generator("surface")
    x, y = subject.model.sample(ROWS, generator=first), subject.model.sample(ROWS, generator=second)
    problems = []
    if x.shape != y.shape or not _same(x, y):
        problems.append("two calls from the same generator state differ")
    if not torch.equal(first.get_state(), second.get_state()):
        problems.append("they leave the generator in different states")
    return broken(problems, ROWS)


@exact("sample.leaves_global_generator_alone", needs=("sample",), blocked_by=("sample.repeats_under_generator",))
def sample_leaves_global_generator_alone(subject: Subject) -> Exact:
    """The global generators of torch, numpy and random are neither read, nor advanced, nor reseeded.

    A model that reseeds them makes the caller's program repeat itself; one that reads them cannot be reproduced.
    """
    problems = []
    with _globals_restored():
        _seed_globals(subject.seed_for("global generators", 0))  # not a seed that anybody would choose
        before = _global_states()
        x = subject.sample(ROWS, "surface")
        after = _global_states()
        problems += [f"the global generator of {name} was advanced or reseeded" for name in _moved(before, after)]
        _seed_globals(subject.seed_for("global generators", 1))
        if not _same(x, subject.sample(ROWS, "surface")):
            problems.append("draws depend on a global generator")
    return broken(problems, ROWS)


@statistical(
    "sample.finite", needs=("sample",), start=lambda subject: BinomialCount(0.0), unit="probability", tolerance=0.01
)
def sample_is_finite(draws: Draws) -> Tensor:
    """P(x is NaN or infinite) = 0.

    A draw is an event; neither has a place among the real numbers. Seen as an overflow, a logarithm of 0 or 0 / 0.
    """
    if not draws.x.is_floating_point():
        return torch.zeros(draws.n)
    return (~finite_rows(draws.x)).float()


@statistical(
    "sample.varies_with_seed",
    needs=("sample",),
    blocked_by=("sample.finite",),
    start=bounded(-1.0, 1.0),
    labels=lambda subject: ["draws of the same position", "draws shifted by one"],
    tolerance=2.0,
    share=1 / 4,
    unit="of the draws repeated",
)
def sample_varies_with_seed(draws: Draws) -> Tensor:
    """P(x_i = y_i) = P(x_i = y_j) for draws x and y from two seeds: another seed gives other draws.

    Also at a shift by one, where streams of consecutive seeds overlap if draw i is made from seed + i. Repeats that the
    law itself makes are on both sides, so a coin and a law of one point are in order.
    """
    x, (y, _) = keys(draws.x), _calls(draws)
    return _padded([repeats(x, keys(y)), repeats(x[1:], keys(y)[:-1])], draws.n // 2)


@statistical(
    "sample.advances_generator",
    needs=("sample",),
    blocked_by=("sample.finite",),
    start=bounded(-1.0, 1.0),
    labels=lambda subject: ["draws of the same position", "draws shifted by one"],
    tolerance=2.0,
    share=1 / 4,
    unit="of the draws repeated",
)
def sample_advances_generator(draws: Draws) -> Tensor:
    """P(y_i = w_i) = P(y_i = w_j) for draws y and w of two calls one after the other from one generator.

    A sampler that copies the generator, reseeds itself from the generator's initial seed or returns draws that it kept
    repeats its last call; one that advances the generator too little repeats it shifted.
    """
    y, w = (keys(part) for part in _calls(draws))
    return _padded([repeats(y, w), repeats(y[1:], w[:-1])], draws.n // 2)


LAGS = (1, 2, 8)

SELDOM = 0.01
"""Share of the pilot draws that repeat another one, below which a law hardly repeats by itself."""

STRICTNESS = 8.0
"""How much smaller a share of repeats is excluded for such laws: 0.6 % at standard effort. The numbers are nearly
always 0 there, so that the interval is as narrow after the same draws."""


class _Repeats(BoundedMean):
    """The mean of numbers in [-1, 1], with a tolerance for the repeats that the law makes by itself."""

    def __init__(self, subject: Subject):
        super().__init__(-1.0, 1.0)
        distinct = len(keys(subject.pilot).unique())
        self.strictness = STRICTNESS if distinct > (1 - SELDOM) * len(subject.pilot) else 1.0


def _lags(n: int) -> tuple[int, ...]:
    return (*LAGS, n // 4, n // 2)


def _lag_labels() -> list[str]:
    return [f"draws at distance {lag}" for lag in (*LAGS, "n / 4", "n / 2")]


@statistical(
    "sample.not_repeated",
    needs=("sample",),
    blocked_by=("sample.finite", "sample.varies_with_seed", "sample.advances_generator"),
    start=lambda subject: _Repeats(subject),
    labels=lambda subject: [*_lag_labels(), "draws anywhere in a call"],
    tolerance=3.0,
    share=1 / 4,
    unit="of the draws repeated",
)
def sample_is_not_repeated(draws: Draws) -> Tensor:
    """P(x_i = x_j) is the same for all i and j: no call returns a draw twice.

    Repeats at distances 1, 2, 8, n/4 and n/2 are compared with those between unrelated draws, and repeats anywhere in a
    call with those between calls. The atoms of the law, and of float32, make as many of either kind. Where the pilot
    draws hardly repeat, a share of repeats that is 8 times as small is excluded.
    """
    x, (y, _) = keys(draws.x), _calls(draws)
    columns = [repeats(*at_lag(x, lag)) for lag in _lags(draws.n)]
    columns.append(duplicates(x, keys(y), draws.subject.generator("pairs of equals", draws.index)))
    return _padded(columns, draws.n // 4)


@statistical(
    "sample.uncorrelated_along_batch",
    needs=("sample",),
    blocked_by=("sample.finite", "sample.not_repeated"),
    start=bounded(-1.0, 1.0),
    labels=lambda subject: [f"{name}, {lag}" for lag in _lag_labels() for name in _product_labels(subject)],
    unit="twice the covariance of squashed coordinates",
)
def sample_is_uncorrelated_along_batch(draws: Draws) -> Tensor:
    """E[(f(a) - f(c)) (f(b) - f(d))] = 0 for draws a, b, c, d of a call, where b follows a, and d follows c, at a lag.

    f squashes a standardised coordinate, or the size of the whole event, into [-1/2, 1/2]. Markov chains that were not
    thinned make it positive, antithetic draws negative. Lags are 1, 2, 8, n/4 and n/2.
    """
    f = features(draws.subject, draws.z)
    parts = [with_mean(products(*at_lag(f, lag))) for lag in _lags(draws.n)]
    rows = draws.n // 4
    return torch.cat([torch.nn.functional.pad(part, (0, 0, 0, rows - len(part))) for part in parts], 1)


CALLS = ("consecutive seeds", "consecutive seeds, shifted by one", "consecutive calls", "consecutive calls, shifted")


@statistical(
    "sample.independent_across_calls",
    needs=("sample",),
    blocked_by=("sample.finite", "sample.varies_with_seed", "sample.advances_generator"),
    start=bounded(-1.0, 1.0),
    labels=lambda subject: [f"{name}, {calls}" for calls in CALLS for name in _product_labels(subject)],
    tolerance=2.0,
    share=1 / 8,
    unit="twice the covariance of squashed coordinates",
)
def sample_is_independent_across_calls(draws: Draws) -> Tensor:
    """E[(f(a) - f(c)) (f(b) - f(d))] = 0 for draws a, c of one call and b, d at the same positions of another.

    The calls have consecutive seeds, or follow each other from one generator; positions also differ by one.
    """
    subject = draws.subject
    x, (y, w) = features(subject, draws.z), (_features(subject, part) for part in _calls(draws))
    pairs = ((x, y), (x[1:], y[:-1]), (y, w), (y[1:], w[:-1]))
    parts = [with_mean(products(*pair)) for pair in pairs]
    rows = draws.n // 2
    return torch.cat([torch.nn.functional.pad(part, (0, 0, 0, rows - len(part))) for part in parts], 1)


@statistical(
    "sample.independent_within_call",
    needs=("sample",),
    blocked_by=("sample.finite", "sample.uncorrelated_along_batch"),
    start=bounded(LEAST_COVARIANCE, 0.5),
    labels=lambda subject: [
        *feature_labels(subject),
        *(f"{name}, means of calls too much alike" for name in feature_labels(subject)),
    ],
    tolerance=1.5,
    share=1 / 2,
    unit="covariance of squashed coordinates within a call",
)
def sample_is_independent_within_call(draws: Draws) -> Tensor:
    """E[(m - m')^2 - (s^2 + s'^2) / k] / 2 = 0 for the means m and variances s^2 of a feature in two calls of k draws.

    That difference is the covariance of two draws of one call. Whatever is drawn once a call and shared by its draws (a
    dropout mask, a scale, a mode), and draws that are returned twice in shuffled order, make it positive.
    Stratified, antithetic and quasi-random draws make it slightly negative: the means of two calls are closer to each
    other than after a random exchange of draws between the two, which is as likely as not if all are independent.
    """
    subject = draws.subject
    source = subject.generator("small calls", draws.index)
    x = torch.cat([subject.model.sample(SMALL, generator=source) for _ in range(SMALL_CALLS)])
    if x.shape[1:] != subject.pilot.shape[1:]:
        raise NotApplicable(
            f"events of small calls have shape {tuple(x.shape[1:])}, others {tuple(subject.pilot.shape[1:])}"
        )
    f = _features(subject, x).double().reshape(SMALL_CALLS // 2, 2, SMALL, -1)
    mean, variance = f.mean(2), f.var(2)  # (pairs of calls, 2, features)
    apart = (mean[:, 0] - mean[:, 1]).square()
    covariance = (apart - variance.sum(1) / SMALL) / 2
    order = torch.rand(len(f), 2 * SMALL, generator=source, device=f.device).argsort(1)
    exchanged = f.flatten(1, 2)[torch.arange(len(f), device=f.device)[:, None], order].reshape(f.shape).mean(2)
    alike = torch.sign((exchanged[:, 0] - exchanged[:, 1]).square() - apart)
    return torch.cat([covariance, alike * -LEAST_COVARIANCE], 1)


def _features(subject: Subject, x: Tensor) -> Tensor:
    """Features of events from calls of a law's own."""
    return features(subject, subject.profile.chart.coordinates(x))


def _calls(draws: Draws) -> tuple[Tensor, Tensor]:
    return draws.once("two more calls", lambda: calls_after(draws))


def _product_labels(subject: Subject) -> list[str]:
    return [*feature_labels(subject), "the mean over coordinates"]


def _padded(columns: list[Tensor], rows: int) -> Tensor:
    """(rows, k): columns cut, or filled up with zeros, which have mean zero as well."""
    cut = [column[:rows].double() for column in columns]
    return torch.stack([torch.nn.functional.pad(column, (0, rows - len(column))) for column in cut], 1)


def _same(x: Tensor, y: Tensor) -> bool:
    return bool(((x == y) | ((x != x) & (y != y))).all())


def _global_states() -> dict[str, tuple[object, Callable[[], None]]]:
    """Name to (state that compares by ==, how to restore it)."""
    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    states: dict[str, tuple[object, Callable[[], None]]] = {
        "torch": (torch_state.numpy().tobytes(), lambda: torch.set_rng_state(torch_state)),
        "numpy": (
            tuple(part.tobytes() if isinstance(part, np.ndarray) else part for part in numpy_state),
            lambda: np.random.set_state(numpy_state),
        ),
        "random": (python_state, lambda: random.setstate(python_state)),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        cuda_state = torch.cuda.get_rng_state_all()
        states["torch.cuda"] = (
            tuple(state.numpy().tobytes() for state in cuda_state),
            lambda: torch.cuda.set_rng_state_all(cuda_state),
        )
    return states


def _moved(
    before: dict[str, tuple[object, Callable[[], None]]], after: dict[str, tuple[object, Callable[[], None]]]
) -> list[str]:
    return [name for name in before if after[name][0] != before[name][0]]


def _seed_globals(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@contextmanager
def _globals_restored() -> Iterator[None]:
    """The law can only be tested by moving the global generators; the caller gets them back as they were."""
    states = _global_states()
    try:
        yield
    finally:
        for _, restore in states.values():
            restore()


CHECKS: tuple[Check, ...] = (
    sample_repeats_under_generator,
    sample_leaves_global_generator_alone,
    sample_is_finite,
    sample_varies_with_seed,
    sample_advances_generator,
    sample_is_not_repeated,
    sample_is_uncorrelated_along_batch,
    sample_is_independent_across_calls,
    sample_is_independent_within_call,
)
