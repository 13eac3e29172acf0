r"""Laws given something, p(x | y): each is a law of its own, for which every law of densities and samplers holds.

The slice at one y is a model: sample(n) = sample(n, given=y), log_prob(x) = log_prob(x, given=y). It is asked at a few
labels, or at a few standard normal y of the `given_shape`, and goes through the checks that other models go through.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from harness import features
from harness.checks import bridge, density, kernel, masses
from harness.checks.each import draws_of, for_each
from harness.checks.law import Check, ExactCheck, NotApplicable, StatisticalCheck, exact, statistical
from harness.checks.rounding import compared, difference, rounding_bound
from harness.checks.surface import broken
from harness.draws import Draws
from harness.evidence import Exact
from harness.model import Model
from harness.statistics.accumulator import Accumulator
from harness.statistics.bernstein import BoundedMean
from harness.subject import Subject

KOLMOGOROV = "Kolmogorov 1933, Grundbegriffe der Wahrscheinlichkeitsrechnung, chapter I, section 4"

WATCHED = 3
"""Values of y at which laws are looked at; of more labels, as many chosen at random."""

ROWS = 64
BOTH = ("sample_given", "log_prob_given")
WELL = "given.well_formed"


def watched(subject: Subject) -> list[tuple[str, Tensor]]:
    """Names and values (1, *given) of what is given."""

    def work() -> list[tuple[str, Tensor]]:
        model, source = subject.model, subject.generator("given")
        if model.can("class_prior"):
            prior = model.class_prior().detach().double()
            possible = (prior > 0).nonzero().flatten()
            order = torch.randperm(len(possible), generator=source, device=source.device)[:WATCHED]
            labels = possible[order.sort().values.to(possible.device)]
            return [(f"y = {y}", torch.tensor([y], device=model.device)) for y in labels.tolist()]
        if model.given_shape is None:
            raise NotApplicable(
                "what may be given is not known: state class_prior(), or a given_shape of normal numbers"
            )
        y = torch.randn(WATCHED, *model.given_shape, generator=source, device=model.device)
        return [(f"y number {i}", row[None]) for i, row in enumerate(y)]

    return subject.once("what is given", work)


def slices(subject: Subject) -> list[tuple[str, Subject]]:
    """Names and slices, each with random streams of its own."""

    def work() -> list[tuple[str, Subject]]:
        return [
            (name, Subject(_slice(subject.model, name, y), subject.effort, subject.seed_for("slice", name)))
            for name, y in watched(subject)
        ]

    return subject.once("slices", work)


def _slice(model: Model, name: str, y: Tensor) -> Model:
    """The law of x given y (1, *given)."""
    methods: dict[str, Callable[..., Tensor | Model]] = {}
    if model.can("sample_given"):
        methods["sample"] = lambda n, *, generator: _drawn(model, y.expand(n, *y.shape[1:]), generator)
    if model.can("log_prob_given"):
        methods["log_prob"] = lambda x: model.log_prob_given(x, given=y.expand(len(x), *y.shape[1:]))
    if model.can("data"):
        methods["data"] = lambda: _data_given(model, name, y)

    def cast(dtype: torch.dtype) -> Model:
        assert model.cast is not None
        return _slice(model.cast(dtype), name, y.to(dtype) if y.is_floating_point() else y)

    of_labels = model.given_shape is not None and model.can("posterior")  # events are labels, what is declared is not
    return Model(
        name=f"{model.name} given {name}",
        methods=methods,
        support=None if of_labels else model.support,
        event_shape=None if of_labels else model.event_shape,
        device=model.device,
        cast=cast if model.cast is not None else None,
    )


def _data_given(model: Model, name: str, y: Tensor) -> Model:
    """What draws given y are to imitate. Raises NotApplicable where the data have no law given something."""
    law = model.data()
    if not isinstance(law, Model) or not law.can("sample_given"):
        raise NotApplicable("data() is no law of which draws given y could be had")
    return _slice(law, name, y)


def _drawn(model: Model, given: Tensor, source: torch.Generator) -> Tensor:
    """One draw a row of what is given. Raises ValueError for another number of rows."""
    with torch.no_grad():
        x = model.sample_given(len(given), given=given, generator=source)
    if not isinstance(x, Tensor) or x.shape[:1] != given.shape[:1]:
        seen = f"of shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
        raise ValueError(f"sample({len(given)}, given=...) is {seen}; a draw a row of what is given was asked for")
    return x.detach()


@exact(WELL, needs=BOTH, source=KOLMOGOROV)
def well_formed(subject: Subject) -> Exact:
    """log_prob(x, given=y) is a floating tensor [n], a number below +inf at every draw of x given y, and never NaN.

    At 64 draws for each y that is watched.
    """
    problems, count = [], 0
    for name, of_y in slices(subject):
        x = of_y.sample(ROWS, "form")
        value = of_y.model.log_prob(x)
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.shape != x.shape[:1]:
            seen = f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"log_prob(x, given=...) of {len(x)} events is {seen}, not a floating tensor ({len(x)},)")
        wrong = ~value.detach().isfinite()
        problems += [f"{name}: no finite number at {int(wrong.sum())} draws"] if bool(wrong.any()) else []
        count += len(x)
    return broken(problems, count)


@exact("given.normalised", needs=BOTH, blocked_by=(WELL,), unit="of the mass", source=KOLMOGOROV)
def normalised(subject: Subject) -> Exact:
    """int p(x | y) dx = 1 for each y, the sum over all values where events are discrete.

    A joint p(x, y) in place of p(x | y) sums to p(y), and a normaliser that is right on average need not be for each y.
    """
    return _worst(subject, lambda of_y: _mass_law(of_y).measure(of_y))


def _mass_law(subject: Subject) -> ExactCheck:
    return density.sums_to_one if subject.profile.kind == "discrete" else density.integrates_to_one


def _worst(subject: Subject, measure: Callable[[Subject], Exact]) -> Exact:
    """The evidence of the y at which the law is broken most, among those where it applies."""
    found, refusal = [], None
    for name, of_y in slices(subject):
        try:
            seen = measure(of_y)
        except NotApplicable as reason:
            refusal = reason
            continue
        found.append(replace(seen, where=f"{name}: {seen.where}"))
    if not found:
        raise refusal or NotApplicable("nothing is given")
    return max(
        found, key=lambda each: (each.error > each.allowed + each.uncertainty, each.error / max(each.allowed, 1e-300))
    )


@exact("given.row_by_row", needs=BOTH, blocked_by=(WELL,), unit="nat", source=KOLMOGOROV)
def row_by_row(subject: Subject) -> Exact:
    """log_prob(x, given=y) of a batch with a y of its own for each row is that of each row alone.

    Row i is a function of x_i and y_i: not of the y of another row, or of the mean of all.
    """
    parts = [
        (y, of_y, of_y.sample(ROWS, "rows"))
        for (_, y), (_, of_y) in zip(watched(subject), slices(subject), strict=True)
    ]
    if len(parts) < 2:
        raise NotApplicable("only one value may be given")
    x = torch.stack([events for _, _, events in parts], 1).flatten(0, 1)  # y by turns
    given = torch.cat([y for y, _, _ in parts]).repeat(ROWS, *(1,) * (parts[0][0].ndim - 1))
    errors, bounds = [], []
    with torch.no_grad():
        together = subject.model.log_prob_given(x, given=given)
        for i, (_, of_y, events) in enumerate(parts):
            alone = of_y.model.log_prob(events)
            errors.append(difference(together[i :: len(parts)], alone))
            bounds.append(rounding_bound(of_y, events, alone))
    return compared(torch.cat(errors), torch.cat(bounds), subject.effort.tolerance)


@exact(
    "given.observed_unchanged",
    needs=("sample_given", "observed"),
    source="Saharia et al. 2022, https://arxiv.org/abs/2111.05826",
)
def observed_unchanged(subject: Subject) -> Exact:
    """x given y has the values that y observed, wherever it observed any.

    Completing an image changes nothing of what was seen: the conditional law has all its mass there. To the last bit.
    """
    problems, count = [], 0
    for name, y in watched(subject):
        given = y.expand(ROWS, *y.shape[1:])
        x = _drawn(subject.model, given, subject.generator("observed", name))
        mask, values = subject.model.observed(given)
        if mask.shape != x.shape or values.shape != x.shape or mask.dtype != torch.bool:
            raise ValueError(
                f"observed(given) is {tuple(mask.shape)} {mask.dtype} and {tuple(values.shape)}; a mask and values of "
                f"shape {tuple(x.shape)} were asked for"
            )
        wrong = mask & (x != values.to(x))
        problems += [f"{name}: {int(wrong.sum())} of {int(mask.sum())} observed numbers"] if bool(wrong.any()) else []
        count += int(mask.sum())
    if not count:
        raise NotApplicable("nothing is observed")
    return broken(problems, count)


# The laws of samplers and densities, for each y


def _given(id: str, law: StatisticalCheck) -> StatisticalCheck:
    """The check of that law for each y."""
    return for_each(
        law,
        slices,
        id=id,
        says=f"For each y: {law.law}",
        why="The law of x given y is a law.",
        needs=BOTH,
        blocked_by=(WELL, "given.normalised", "given.row_by_row"),
    )


region_masses = _given("given.region_masses", masses.region_masses)
stein = _given("given.stein", kernel.stein)
exchangeable = _given("given.exchangeable", kernel.exchangeable)
bridge_mass = _given("given.bridge_mass", bridge.bridge_mass)
bridged = _given("given.bridge", bridge.bridge)
adversary = _given("given.adversary", bridge.adversary)


def _start_rows(subject: Subject) -> Accumulator:
    if len(slices(subject)) < 2:
        raise NotApplicable("only one value may be given")
    return BoundedMean(-1.5, 1.5)  # differences of columns in [-1/2, 1]


def _row_labels(subject: Subject) -> list[str]:
    return [f"{name} {label}" for name, of_y in slices(subject) for label in features.coordinate_labels(of_y)]


@statistical(
    "given.sampled_row_by_row",
    needs=("sample_given",),
    start=_start_rows,
    labels=_row_labels,
    unit="probability",
    source=KOLMOGOROV,
)
def sampled_row_by_row(draws: Draws) -> Tensor:
    """E f(x_i) over the rows with y_i = y of a batch with many y is that over a batch where all are y.

    A sampler that takes one y for the whole batch, or that lets rows trade places, draws each of them from other laws.
    """
    subject = draws.subject
    given = torch.cat([y for _, y in watched(subject)])
    k = len(given)
    rows = given.repeat(draws.n, *(1,) * (given.ndim - 1))
    mixed = _drawn(subject.model, rows, subject.generator("mixed", draws.index))
    columns = []
    for i, (name, of_y) in enumerate(slices(subject)):
        chart = of_y.profile.chart
        alone = features.coordinate_columns(of_y, draws_of(draws, name, of_y).z)
        columns.append(features.coordinate_columns(of_y, chart.coordinates(mixed[i::k])) - alone)
    return torch.cat(columns, 1)


CHECKS: tuple[Check, ...] = (
    well_formed,
    normalised,
    row_by_row,
    observed_unchanged,
    region_masses,
    stein,
    exchangeable,
    bridge_mass,
    bridged,
    adversary,
    sampled_row_by_row,
)
